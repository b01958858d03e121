//! Secrets for an etcd that exists already: from what the API server keeps to what a connection needs, or to what is
//! wrong with them. Pure; [`crate::fetch`] reads them. Their content stays here and in the connection: conditions,
//! events and logs name Secrets and keys only.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use vectorsphere_crds::ExternalEtcdSpec;

use crate::metadata_client::TlsMaterial;
use crate::validate::Problem;

/// Root certificates.
pub const CA: &str = "ca.crt";
/// Client certificate.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of the client certificate.
pub const KEY: &str = "tls.key";
/// User name.
pub const USERNAME: &str = "username";
/// Password.
pub const PASSWORD: &str = "password";

const TLS_FIELD: &str = "spec.etcd.external.tlsSecretRef";
const AUTH_FIELD: &str = "spec.etcd.external.authSecretRef";

/// Data of a Secret, or why it could not be read.
pub type Data = Result<BTreeMap<String, ByteString>, String>;

/// What the Secrets of a cluster say.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EtcdSecrets {
    /// Certificates, when there is a Secret for them.
    pub tls: Option<TlsMaterial>,
    /// User name and password, when there is a Secret for them.
    pub user: Option<(String, String)>,
}

/// Which files the TLS Secret gives to nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// [`CA`].
    pub has_ca: bool,
    /// [`CERTIFICATE`] and [`KEY`].
    pub has_client_certificate: bool,
}

impl EtcdSecrets {
    /// Understands the Secrets that `spec` refers to, each read by `read`.
    ///
    /// # Errors
    /// Every Secret that is missing or lacks something.
    pub fn of(spec: &ExternalEtcdSpec, read: impl Fn(&str) -> Data) -> Result<EtcdSecrets, Vec<Problem>> {
        let tls = spec.tls_secret_ref.as_ref().map(|it| within(TLS_FIELD, &it.name, read(&it.name), tls));
        let user = spec.auth_secret_ref.as_ref().map(|it| within(AUTH_FIELD, &it.name, read(&it.name), user));
        match (tls.transpose(), user.transpose()) {
            (Ok(tls), Ok(user)) => Ok(EtcdSecrets { tls, user }),
            (tls, user) => Err(tls.err().into_iter().chain(user.err()).collect()),
        }
    }

    /// Which files nodes find.
    pub fn tls_files(&self) -> TlsFiles {
        self.tls.as_ref().map_or_else(TlsFiles::default, |tls| TlsFiles {
            has_ca: true,
            has_client_certificate: tls.identity.is_some(),
        })
    }
}

fn within<T>(
    field: &str,
    name: &str,
    data: Data,
    understand: impl FnOnce(BTreeMap<String, ByteString>) -> Result<T, String>,
) -> Result<T, Problem> {
    let problem = |why| Problem { field: field.to_owned(), message: format!("Secret `{name}` {why}") };
    data.and_then(understand).map_err(problem)
}

fn tls(mut data: BTreeMap<String, ByteString>) -> Result<TlsMaterial, String> {
    let mut take = |key| data.remove(key).map(|pem| pem.0);
    // Nodes verify etcd by these roots and no others.
    let ca = take(CA).ok_or_else(|| format!("must have `{CA}`"))?;
    let (certificate, key) = (take(CERTIFICATE), take(KEY));
    if certificate.is_some() != key.is_some() {
        return Err(format!("must have both of `{CERTIFICATE}` and `{KEY}`, or none"));
    }
    Ok(TlsMaterial { ca, identity: certificate.zip(key) })
}

fn user(mut data: BTreeMap<String, ByteString>) -> Result<(String, String), String> {
    let mut text = |key| {
        let value = data.remove(key).and_then(|value| String::from_utf8(value.0).ok());
        // Nodes take the password from a file, where an end of line is no part of it.
        let value = value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("must have a text `{key}` that is not empty"))
    };
    Ok((text(USERNAME)?, text(PASSWORD)?))
}

#[cfg(test)]
mod tests {
    use vectorsphere_crds::SecretRef;

    use super::*;

    fn spec() -> ExternalEtcdSpec {
        let secret = |name: &str| Some(SecretRef { name: name.to_owned() });
        ExternalEtcdSpec { endpoints: vec![], tls_secret_ref: secret("tls"), auth_secret_ref: secret("user") }
    }

    fn data(keys: &[&str]) -> Data {
        Ok(keys.iter().map(|key| ((*key).to_owned(), ByteString(format!("{key}!\n").into_bytes()))).collect())
    }

    fn understood(tls: &Data, user: &Data) -> Result<EtcdSecrets, Vec<String>> {
        let read = |name: &str| if name == "tls" { tls.clone() } else { user.clone() };
        EtcdSecrets::of(&spec(), read)
            .map_err(|all| all.into_iter().map(|it| format!("{}: {}", it.field, it.message)).collect())
    }

    #[test]
    fn nothing_is_needed_when_nothing_is_referred_to() {
        let none = ExternalEtcdSpec::default();
        let secrets = EtcdSecrets::of(&none, |_| panic!("nothing to read"));
        assert!(secrets.is_ok_and(|secrets| secrets == EtcdSecrets::default()));
    }

    #[test]
    fn roots_are_fine_with_and_without_client_certificates() {
        let user = data(&[USERNAME, PASSWORD]);
        for (keys, has_client_certificate) in [(&[CA][..], false), (&[CA, CERTIFICATE, KEY], true)] {
            let secrets = understood(&data(keys), &user).unwrap_or_else(|why| panic!("{keys:?}: {why:?}"));
            assert_eq!(secrets.tls_files(), TlsFiles { has_ca: true, has_client_certificate });
            assert_eq!(secrets.user, Some(("username!".into(), "password!".into())));
        }
    }

    #[test]
    fn every_secret_that_lacks_something_is_named() {
        let fine = data(&[USERNAME, PASSWORD]);
        let missing: Data = Err("does not exist".into());
        for (tls, user, expected) in [
            (
                &missing,
                &missing,
                &["tlsSecretRef: Secret `tls` does", "authSecretRef: Secret `user` does"][..],
            ),
            (&data(&[CA, KEY]), &fine, &["both of `tls.crt` and `tls.key`"]),
            (&data(&[CERTIFICATE, KEY]), &fine, &["must have `ca.crt`"]),
            (&data(&[CA]), &data(&[USERNAME]), &["must have a text `password`"]),
        ] {
            let problems = understood(tls, user).err().expect("something is missing");
            assert_eq!(problems.len(), expected.len(), "{problems:?}");
            for (problem, part) in problems.iter().zip(expected) {
                assert!(problem.contains(part), "{problem}");
            }
        }
    }
}
