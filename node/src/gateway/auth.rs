//! Who calls: tokens signed with the configured secret (HS256).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::limits::TOKEN_BYTES_MAX;
use crate::config::AuthConfig;
use crate::error_code::{Error, ErrorCode};

/// Difference of clocks that is forgiven, in seconds.
const LEEWAY_SECONDS: u64 = 5;
const SUBJECT_BYTES_MAX: usize = 256;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Authentication is off.
    Anonymous,
    /// The subject of a valid token.
    Subject(Arc<str>),
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    iat: u64,
    exp: u64,
}

/// Checks tokens.
pub struct Authenticator {
    key: Option<DecodingKey>,
    validation: Validation,
}

impl Authenticator {
    /// By the configuration at start.
    pub fn new(config: &AuthConfig) -> Authenticator {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "iat", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let secret = config.jwt_secret.expose_secret().as_bytes();
        let key = config.enabled.then(|| DecodingKey::from_secret(secret));
        Authenticator { key, validation }
    }

    /// The caller behind an `Authorization` header, which is `None` when the request has none.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`] with the same words for everything that is wrong with a token, so that nobody
    /// learns from them.
    pub fn authenticate(&self, header: Option<&str>, longest: Duration) -> Result<Caller, Error> {
        let Some(key) = &self.key else { return Ok(Caller::Anonymous) };
        let refused = |message: &str| Error::new(ErrorCode::Unauthenticated, message);
        let header = header.ok_or_else(|| refused("the header Authorization: Bearer <token> is missing"))?;
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(refused("the header Authorization must be Bearer <token>")),
        };
        let invalid = || refused("the token is not valid: ask for a new one");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid());
        }
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|_| invalid())?.claims;
        let life = claims.exp.checked_sub(claims.iat).ok_or_else(invalid)?;
        let from_the_future = claims.iat > now() + LEEWAY_SECONDS;
        if life > longest.as_secs()
            || from_the_future
            || claims.sub.is_empty()
            || claims.sub.len() > SUBJECT_BYTES_MAX
        {
            return Err(invalid());
        }
        Ok(Caller::Subject(claims.sub.into()))
    }
}

/// Makes a token for `subject` that is good for `ttl`.
///
/// # Errors
/// When the secret is shorter than 32 bytes, or the subject empty or too long.
pub fn mint_token(secret: &SecretString, subject: &str, ttl: Duration) -> Result<String, Error> {
    let secret = secret.expose_secret().trim().as_bytes();
    if secret.len() < 32 {
        let message = format!("the secret has {} bytes, must have 32 or more", secret.len());
        return Err(Error::invalid("", message));
    }
    if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
        return Err(Error::invalid("", format!("the subject must have 1 to {SUBJECT_BYTES_MAX} bytes")));
    }
    let now = now();
    let claims = Claims { sub: subject.to_owned(), iat: now, exp: now.saturating_add(ttl.as_secs()) };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret))
        .map_err(|error| Error::new(ErrorCode::Internal, format!("cannot sign: {error}")))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const HOUR: Duration = Duration::from_secs(3600);

    fn authenticator() -> Authenticator {
        let jwt_secret = SECRET.to_owned().into();
        Authenticator::new(&AuthConfig { enabled: true, jwt_secret, token_expiry: HOUR })
    }

    fn bearer(secret: &str, claims: &Claims) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("signed");
        format!("Bearer {token}")
    }

    fn claims(iat: u64, life: u64) -> Claims {
        Claims { sub: "ann".to_owned(), iat, exp: iat + life }
    }

    #[test]
    fn a_minted_token_is_taken() {
        let token = mint_token(&SECRET.to_owned().into(), "ann", HOUR).expect("minted");
        let caller = authenticator().authenticate(Some(&format!("bearer {token}")), HOUR);
        assert_eq!(caller, Ok(Caller::Subject("ann".into())));
    }

    #[test]
    fn every_other_token_is_refused() {
        let unsigned =
            "Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhbm4iLCJpYXQiOjEsImV4cCI6OTk5OTk5OTk5OX0.";
        let wrong = [
            None,
            Some(String::new()),
            Some("Bearer".to_owned()),
            Some("Basic YTpi".to_owned()),
            Some(unsigned.to_owned()),
            Some(bearer("another secret of at least 32 bytes!", &claims(now(), 60))),
            Some(bearer(SECRET, &claims(now() - 100, 60))),
            Some(bearer(SECRET, &claims(now(), 3601))),
            Some(bearer(SECRET, &claims(now() + 100, 60))),
            Some(format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX + 1))),
        ];
        for header in wrong {
            let error = authenticator().authenticate(header.as_deref(), HOUR).expect_err("refused");
            assert_eq!(error.code, ErrorCode::Unauthenticated, "{header:?}");
        }
    }

    #[test]
    fn without_authentication_everybody_is_anonymous() {
        let config = AuthConfig { enabled: false, jwt_secret: SecretString::default(), token_expiry: HOUR };
        assert_eq!(Authenticator::new(&config).authenticate(None, HOUR), Ok(Caller::Anonymous));
    }

    #[test]
    fn a_short_secret_signs_nothing() {
        assert!(mint_token(&"short".to_owned().into(), "ann", HOUR).is_err());
        assert!(mint_token(&SECRET.to_owned().into(), "", HOUR).is_err());
    }
}
