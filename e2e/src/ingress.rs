//! Stands in for an ingress controller: translates an Ingress and the EndpointSlices of its Services into a
//! configuration for Debian's nginx, which then serves it on the loopback address of this machine.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use crate::cluster::KubeCluster;
use crate::kubectl::Kubectl;
use crate::process::{Daemon, Daemons};
use crate::wait::until;

/// nginx, serving one Ingress.
pub struct IngressProxy {
    daemons: Daemons,
    nginx: Daemon,
    port: u16,
}

/// What an Ingress refers to.
struct Backend {
    /// Name of the upstream: service and port.
    upstream: String,
    /// Ready endpoints, `address:port`.
    endpoints: Vec<String>,
}

impl IngressProxy {
    /// Translates the Ingress `name` of `namespace` and serves it; endpoints are those of this moment.
    ///
    /// # Errors
    /// When the Ingress refers to something that is not there or cannot be translated, or nginx does not start.
    pub async fn start(cluster: &KubeCluster, namespace: &str, name: &str) -> Result<Self> {
        let ingress: Ingress = read(cluster.kubectl(), &["--namespace", namespace, "ingress", name]).await?;
        let backends = backends(cluster.kubectl(), namespace, &ingress).await?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = cluster.settings().state().join("ingress");
        fs::create_dir_all(&folder)?;
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration(&ingress, &backends, port, &folder)?)?;
        let daemons = Daemons::new(&cluster.settings().state(), cluster.settings().daemon_path());
        let program = cluster.settings().find_program("nginx").context("nginx is not installed")?;
        let nginx = daemons.spawn("ingress", &program, &flags(&folder, &file))?;
        let proxy = Self { daemons, nginx, port };
        proxy.serves().await?;
        Ok(proxy)
    }

    /// Where the Ingress is served.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends nginx.
    ///
    /// # Errors
    /// When it survives a kill.
    pub async fn stop(self) -> Result<()> {
        self.nginx.signal(Signal::SIGQUIT)?;
        self.daemons.stop(Duration::from_secs(5), |name| name == "ingress").await
    }

    async fn serves(&self) -> Result<()> {
        until("nginx listens", Duration::from_secs(10), async || {
            self.daemons.check(&self.nginx)?;
            tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.context("refused").map(drop)
        })
        .await
    }
}

fn flags(folder: &Path, file: &Path) -> Vec<String> {
    [
        "-p",
        &folder.display().to_string(),
        "-c",
        &file.display().to_string(),
        "-e",
        "stderr",
        "-g",
        "daemon off;",
    ]
    .map(str::to_string)
    .to_vec()
}

async fn read<T: DeserializeOwned>(kubectl: &Kubectl, arguments: &[&str]) -> Result<T> {
    Ok(serde_json::from_value(kubectl.get(arguments).await?)?)
}

/// Reads Services and EndpointSlices of all backends that the Ingress names.
async fn backends(kubectl: &Kubectl, namespace: &str, ingress: &Ingress) -> Result<Vec<Backend>> {
    let mut found = Vec::new();
    for path in paths(ingress)?.iter().map(|(_, path)| path) {
        let (service, _) = service_of(&path.backend)?;
        let object: Service = read(kubectl, &["--namespace", namespace, "service", &service]).await?;
        let selector = format!("--selector=kubernetes.io/service-name={service}");
        let list = kubectl.get(&["--namespace", namespace, "endpointslices", &selector]).await?;
        let slices: Vec<EndpointSlice> = serde_json::from_value(list["items"].clone())?;
        found.push(backend(&path.backend, &object, &slices)?);
    }
    Ok(found)
}

/// Host and path of every rule.
fn paths(ingress: &Ingress) -> Result<Vec<(String, HTTPIngressPath)>> {
    let spec = ingress.spec.as_ref().context("the Ingress has no spec")?;
    ensure!(spec.tls.is_none(), "an Ingress with TLS is not translated");
    let mut found = Vec::new();
    for rule in spec.rules.iter().flatten() {
        let host = rule.host.clone().unwrap_or_else(|| "_".into());
        let paths = rule.http.iter().flat_map(|http| http.paths.clone());
        found.extend(paths.map(|path| (host.clone(), path)));
    }
    ensure!(!found.is_empty(), "the Ingress has no path");
    Ok(found)
}

/// Service and port, by name or number, of a backend.
fn service_of(backend: &IngressBackend) -> Result<(String, String)> {
    let service = backend.service.as_ref().context("only Services are translated as backends")?;
    let port = service.port.as_ref().context("the backend names no port")?;
    let port = port.name.clone().or_else(|| port.number.map(|number| number.to_string()));
    Ok((service.name.clone(), port.context("the backend names no port")?))
}

/// Ready endpoints behind the port that the backend names. Slices know ports by the name that the Service gives them.
fn backend(backend: &IngressBackend, service: &Service, slices: &[EndpointSlice]) -> Result<Backend> {
    let (name, wanted) = service_of(backend)?;
    let ports =
        service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).context("the Service has no port")?;
    let is_wanted = |port: &&k8s_openapi::api::core::v1::ServicePort| {
        port.name.as_ref() == Some(&wanted) || port.port.to_string() == wanted
    };
    let Some(port) = ports.iter().find(is_wanted) else { bail!("Service {name} has no port {wanted}") };
    let mut endpoints = Vec::new();
    for slice in slices {
        let mut of_slice = slice.ports.iter().flatten();
        let target = of_slice
            .find(|target| target.name.as_deref().unwrap_or("") == port.name.as_deref().unwrap_or(""));
        let Some(number) = target.and_then(|target| target.port) else { continue };
        let ready = slice.endpoints.iter().filter(|endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        });
        endpoints.extend(
            ready.flat_map(|endpoint| &endpoint.addresses).map(|address| format!("{address}:{number}")),
        );
    }
    endpoints.sort();
    Ok(Backend { upstream: format!("{name}-{wanted}"), endpoints })
}

/// The whole configuration. A backend without ready endpoints answers 503, as controllers do.
fn configuration(ingress: &Ingress, backends: &[Backend], port: u16, folder: &Path) -> Result<String> {
    let mut upstreams = String::new();
    for (index, backend) in backends.iter().enumerate() {
        let is_new = backends[..index].iter().all(|earlier| earlier.upstream != backend.upstream);
        if is_new && !backend.endpoints.is_empty() {
            let servers: String =
                backend.endpoints.iter().map(|endpoint| format!("    server {endpoint};\n")).collect();
            upstreams += &format!("  upstream {} {{\n{servers}  }}\n", backend.upstream);
        }
    }
    let mut servers: Vec<(String, String)> = Vec::new();
    for ((host, path), backend) in paths(ingress)?.into_iter().zip(backends) {
        let location = location(&path, backend)?;
        match servers.iter_mut().find(|(known, _)| *known == host) {
            Some((_, locations)) => *locations += &location,
            None => servers.push((host, location)),
        }
    }
    let blocks: String = servers
        .iter()
        .map(|(host, locations)| {
            format!("  server {{\n    listen 127.0.0.1:{port};\n    server_name {host};\n{locations}  }}\n")
        })
        .collect();
    Ok(format!(
        "user root;\nworker_processes 1;\npid {folder}/nginx.pid;\nevents {{}}\nhttp {{\n  access_log off;\n  \
         client_max_body_size 64m;\n  client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n\
         {upstreams}  server {{ listen 127.0.0.1:{port} default_server; return 404; }}\n{blocks}}}\n",
        folder = folder.display(),
    ))
}

fn location(path: &HTTPIngressPath, backend: &Backend) -> Result<String> {
    let prefix = path.path.as_deref().unwrap_or("/");
    let matcher = match path.path_type.as_str() {
        "Exact" => format!("= {prefix}"),
        "Prefix" | "ImplementationSpecific" => prefix.to_string(),
        other => bail!("path type {other} is not translated"),
    };
    let action = if backend.endpoints.is_empty() {
        "return 503;".to_string()
    } else {
        format!("proxy_pass http://{}; proxy_set_header Host $host;", backend.upstream)
    };
    Ok(format!("    location {matcher} {{ {action} }}\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ingress(port: &serde_json::Value) -> Ingress {
        serde_json::from_value(json!({"spec": {"rules": [{"host": "search.example.org", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": port}}}]}}]}}))
        .unwrap()
    }

    fn service() -> Service {
        serde_json::from_value(json!({"spec": {"ports": [
            {"name": "grpc", "port": 9090}, {"name": "http", "port": 80, "targetPort": 8080}]}}))
        .unwrap()
    }

    fn slices() -> Vec<EndpointSlice> {
        serde_json::from_value(json!([{"addressType": "IPv4",
            "ports": [{"name": "grpc", "port": 9090}, {"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.244.2.5"], "conditions": {"ready": true}},
                {"addresses": ["10.244.1.9"], "conditions": {"ready": true}},
                {"addresses": ["10.244.3.7"], "conditions": {"ready": false}}]}]))
        .unwrap()
    }

    fn translated(ingress: &Ingress, slices: &[EndpointSlice]) -> Result<String> {
        let (_, path) = paths(ingress)?.remove(0);
        let backend = backend(&path.backend, &service(), slices)?;
        configuration(ingress, &[backend], 8123, Path::new("/x"))
    }

    #[test]
    fn ports_by_name_and_by_number_lead_to_the_ready_pods() {
        for port in [json!({"name": "http"}), json!({"number": 80})] {
            let text = translated(&ingress(&port), &slices()).unwrap();
            assert!(text.contains("server 10.244.1.9:8080;\n    server 10.244.2.5:8080;"), "{text}");
            assert!(!text.contains("10.244.3.7"), "a pod that is not ready is left out: {text}");
            assert!(
                text.contains("server_name search.example.org;") && text.contains("listen 127.0.0.1:8123;")
            );
        }
    }

    #[test]
    fn no_ready_pod_is_told_by_503() {
        let text = translated(&ingress(&json!({"name": "http"})), &[]).unwrap();
        assert!(text.contains("return 503;") && !text.contains("upstream"), "{text}");
    }

    #[test]
    fn what_cannot_be_translated_is_said() {
        let error = translated(&ingress(&json!({"name": "admin"})), &slices()).unwrap_err().to_string();
        assert_eq!(error, "Service web has no port admin");
        let mut secure = ingress(&json!({"name": "http"}));
        secure.spec.as_mut().unwrap().tls = Some(Vec::new());
        assert!(translated(&secure, &slices()).unwrap_err().to_string().contains("TLS"));
    }
}
