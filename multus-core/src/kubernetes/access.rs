//! Where the API server is, and who we are there.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use kube::{
    Config,
    config::{AuthInfo, Kubeconfig},
};
use serde_json::{Map, json};

use super::{Error, error::chain};

/// An API server's address, its certificate authority, and credentials.
#[derive(Clone)]
pub struct Access {
    config: Config,
    origin: String,
}

impl Access {
    /// What the current context of a kubeconfig file says. Proxies are not used, neither the file's nor the environment's.
    ///
    /// # Errors
    /// [`Error::Access`] when the file, or one that it names, cannot be read or is malformed.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, Error> {
        let origin = format!("kubeconfig {path:?}");
        let malformed = |error: kube::config::KubeconfigError| {
            // A syntax error goes on with the lines around it, which may be secrets.
            let problem = chain(&error);
            Error::access(&origin, problem.lines().next().unwrap_or_default())
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(malformed)?;
        let proxied = |cluster: &kube::config::NamedCluster| {
            cluster.cluster.as_ref().is_some_and(|cluster| cluster.proxy_url.is_some())
        };
        if kubeconfig.clusters.iter().any(proxied) {
            return Err(Error::access(&origin, "\"proxy-url\" is not supported; name the API server itself"));
        }
        let mut config = Config::try_from(kubeconfig).map_err(malformed)?;
        // It has read the environment.
        config.proxy_url = None;
        Self::new(config, origin)
    }

    /// What a pod is given: the values of `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, and the directory of its
    /// service account, which has the files `token` and `ca.crt`. Both are read again when they are replaced.
    ///
    /// # Errors
    /// [`Error::Access`] when a file is missing, or host and port are no address.
    pub fn in_cluster(host: &str, port: &str, service_account: &Path) -> Result<Self, Error> {
        let origin = format!("service account {service_account:?}");
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        let address = format!("https://{host}:{port}");
        let malformed = |problem: String| Error::access(&origin, format!("address {address:?}: {problem}"));
        let _port: u16 = port.parse().map_err(|_| malformed("the port must be a number up to 65535".to_owned()))?;
        let url = address.parse().map_err(|error: http::uri::InvalidUri| malformed(error.to_string()))?;
        let file = |name: &str| -> Result<PathBuf, Error> {
            let path = service_account.join(name);
            match path.is_file() {
                true => Ok(path),
                false => Err(Error::access(&origin, format!("file {path:?} is missing"))),
            }
        };
        let mut config = Config::new(url);
        config.root_cert_file = Some(file("ca.crt")?);
        let token_file = file("token")?.to_string_lossy().into_owned();
        config.auth_info = AuthInfo { token_file: Some(token_file), ..AuthInfo::default() };
        Self::new(config, origin)
    }

    fn new(mut config: Config, origin: String) -> Result<Self, Error> {
        // Retries have deadlines here, and those that it makes would not count.
        config.default_retry = false;
        let access = Self { config, origin };
        let is_web = matches!(access.config.cluster_url.scheme_str(), Some("http" | "https"));
        match is_web && access.config.cluster_url.host().is_some() {
            true => Ok(access),
            false => Err(Error::access(&access.origin, format!("server {:?} must begin with https://", access.host()))),
        }
    }

    /// The API server's address, such as `https://10.96.0.1:443`.
    #[must_use]
    pub fn host(&self) -> String {
        self.config.cluster_url.to_string().trim_end_matches('/').to_owned()
    }

    /// The same server, by the certificate and the key in `pem`, which is the content of `path`.
    pub(super) fn with_certificate(&self, path: &Path, pem: &str) -> Result<Self, Error> {
        let origin = format!("certificate {path:?}");
        let Some((certificate, _)) = pem.split_once("-----BEGIN PRIVATE KEY-----") else {
            return Err(Error::access(&origin, "it has no private key"));
        };
        let (_, key) = pem.split_at(certificate.len());
        let mut config = self.config.clone();
        config.auth_info = AuthInfo {
            client_certificate_data: Some(BASE64_STANDARD.encode(certificate)),
            client_key_data: Some(BASE64_STANDARD.encode(key).into()),
            ..AuthInfo::default()
        };
        Self::new(config, origin)
    }

    /// A kubeconfig for the same server, by certificate and key in the file at `certificate`. It is JSON, and so YAML.
    pub(super) fn kubeconfig(&self, certificate: &Path) -> String {
        let authorities = self.config.root_cert.iter().flatten().map(|der| {
            let base64 = BASE64_STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
        });
        let authorities: String = authorities.collect();
        let mut cluster = Map::new();
        cluster.insert("server".to_owned(), self.host().into());
        if !authorities.is_empty() {
            cluster.insert("certificate-authority-data".to_owned(), BASE64_STANDARD.encode(authorities).into());
        }
        if let Some(name) = &self.config.tls_server_name {
            cluster.insert("tls-server-name".to_owned(), name.as_str().into());
        }
        if self.config.accept_invalid_certs {
            cluster.insert("insecure-skip-tls-verify".to_owned(), true.into());
        }
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "default-cluster", "cluster": cluster }],
            "users": [{
                "name": "default-auth", "user": { "client-certificate": certificate, "client-key": certificate },
            }],
            "contexts": [{
                "name": "default-context", "context": { "cluster": "default-cluster", "user": "default-auth" },
            }],
            "current-context": "default-context",
        });
        config.to_string()
    }

    /// Must be called within a runtime.
    pub(super) fn connect(&self) -> Result<kube::Client, Error> {
        kube::Client::try_from(self.config.clone()).map_err(|error| Error::access(&self.origin, chain(&error)))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Access").field("host", &self.host()).field("origin", &self.origin).finish()
    }
}
