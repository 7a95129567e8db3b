//! Kubeconfig files, without the files that they name.

use std::{fs, net::SocketAddr, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Uri;
use kube::config::Kubeconfig;
use serde_json::{Value, json};

/// What a kubeconfig file says of one cluster and one user.
#[derive(Clone)]
pub(crate) struct Access {
    cluster: Value,
    user: Value,
}

impl Access {
    /// What the current context says. The files that it names are read now: they may not be seen later.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        Self::parse(path).map_err(|problem| format!("kubeconfig {}: {problem}", path.display()))
    }

    fn parse(path: &Path) -> Result<Self, String> {
        let config = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
        let config = serde_json::to_value(config).map_err(|error| error.to_string())?;
        let named = |list: &str, name: &Value, key: &str| {
            let mut items = config[list].as_array().into_iter().flatten();
            let found = items.find(|item| item["name"] == *name).map(|item| item[key].clone());
            found.ok_or_else(|| format!("{list:?} has no {name}"))
        };
        let context = named("contexts", &config["current-context"], "context")?;
        let mut cluster = named("clusters", &context["cluster"], "cluster")?;
        let mut user = named("users", &context["user"], "user")?;
        let encoded = |content: Vec<u8>| BASE64_STANDARD.encode(content);
        embed(&mut cluster, "certificate-authority", "certificate-authority-data", encoded)?;
        embed(&mut user, "client-certificate", "client-certificate-data", encoded)?;
        embed(&mut user, "client-key", "client-key-data", encoded)?;
        embed(&mut user, "tokenFile", "token", |content| String::from_utf8_lossy(&content).trim().to_owned())?;
        Ok(Self { cluster, user })
    }

    /// The same server, by a forwarder at `address`.
    pub(crate) fn by(mut self, address: SocketAddr) -> Self {
        if self.cluster["tls-server-name"].is_null() {
            let server = self.server();
            self.cluster["tls-server-name"] = server.host().unwrap().trim_matches(['[', ']']).into();
        }
        self.cluster["server"] = format!("https://{address}").into();
        self
    }

    /// Host and port of the server.
    pub(crate) fn address(&self) -> String {
        let server = self.server();
        format!("{}:{}", server.host().unwrap(), server.port_u16().unwrap_or(443))
    }

    /// As a file is.
    pub(crate) fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
            "clusters": [{"name": "e2e", "cluster": self.cluster}], "users": [{"name": "e2e", "user": self.user}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        })
    }

    fn server(&self) -> Uri {
        self.cluster["server"].as_str().unwrap().parse().unwrap()
    }
}

/// Puts the content of the file that `object` names under `file` under `data`, unless there is something already.
fn embed(object: &mut Value, file: &str, data: &str, form: impl Fn(Vec<u8>) -> String) -> Result<(), String> {
    let Some(path) = object.as_object_mut().and_then(|object| object.remove(file)) else {
        return Ok(());
    };
    if object[data].is_null() {
        let path = path.as_str().unwrap_or_default();
        object[data] = form(fs::read(path).map_err(|error| format!("{path}: {error}"))?).into();
    }
    Ok(())
}
