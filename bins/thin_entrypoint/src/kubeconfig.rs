//! Access to the API for programs on the host.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use crate::{Error, file};

/// A kubeconfig file with the credentials of a pod's service account, which are replaced from time to time.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    path: PathBuf,
    server: String,
    service_account: PathBuf,
    skip_tls_verify: bool,
}

impl Kubeconfig {
    /// Where it is, below the directory of the configurations.
    pub const FILE: &str = "multus.d/multus.kubeconfig";

    /// For the directory of configurations `conf_dir`. The others are the values of `KUBERNETES_SERVICE_PROTOCOL`, which may
    /// be empty, `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, and the directory with the files `token` and
    /// `ca.crt`.
    #[must_use]
    pub fn new(conf_dir: &Path, protocol: &str, host: &str, port: &str, service_account: &Path) -> Self {
        let protocol = if protocol.is_empty() { "https" } else { protocol };
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        Self {
            path: conf_dir.join(Self::FILE),
            server: format!("{protocol}://{host}:{port}"),
            service_account: service_account.to_owned(),
            skip_tls_verify: false,
        }
    }

    /// Without verification of the server.
    #[must_use]
    pub fn skip_tls_verify(self, skip_tls_verify: bool) -> Self {
        Self { skip_tls_verify, ..self }
    }

    /// The directory whose files it is made from.
    pub(crate) fn service_account(&self) -> &Path {
        &self.service_account
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file, mode 0600, unless it is as it should be; whether it was written.
    ///
    /// # Errors
    /// When a file cannot be read or written; then what was there stays.
    pub fn refresh(&self) -> Result<bool, Error> {
        let content = self.content()?;
        if file::read(&self.path)?.is_some_and(|found| found == content) {
            return Ok(false);
        }
        if let Some(directory) = self.path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.map_err(Error::file("make directory", directory))?;
        }
        file::replace(&self.path, &content, 0o600).map(|()| true)
    }

    /// JSON, and so YAML.
    fn content(&self) -> Result<Vec<u8>, Error> {
        let read = |name| {
            let path = self.service_account.join(name);
            fs::read_to_string(&path).map_err(Error::file("read", &path))
        };
        let cluster = match self.skip_tls_verify {
            true => json!({ "server": self.server, "insecure-skip-tls-verify": true }),
            false => json!({
                "server": self.server, "certificate-authority-data": BASE64_STANDARD.encode(read("ca.crt")?),
            }),
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "local", "cluster": cluster }],
            "users": [{ "name": "multus", "user": { "token": read("token")?.trim() } }],
            "contexts": [{ "name": "multus-context", "context": { "cluster": "local", "user": "multus" } }],
            "current-context": "multus-context",
        });
        Ok(format!("{config:#}\n").into_bytes())
    }
}
