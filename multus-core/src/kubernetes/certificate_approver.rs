//! Deciding requests for certificates of nodes.

use std::{fmt, sync::Arc, time::SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::api::{GetParams, PostParams, Request};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use tokio::{
    runtime::{self, Runtime},
    time::sleep,
};
use tracing::{info, warn};

use super::{
    Access, CertificateRequest, Error, Limits, Reporter, Verdict,
    client::{Client, Pauses},
    copies::{self, Copies},
    error::chain,
    objects::{self, Object},
};

/// Approves the requests of nodes for their own [certificates](super::NodeCertificate), and denies others for such.
pub struct CertificateApprover {
    client: Client,
    reporter: Reporter,
    requests: Arc<Copies<CertificateRequest>>,
    runtime: Runtime,
}

impl CertificateApprover {
    /// By these credentials, which must allow `list` and `watch` of `certificatesigningrequests`, `update` of their
    /// `approval`, `approve` of the signer `kubernetes.io/kube-apiserver-client`, and `create` of events.
    ///
    /// # Errors
    /// [`Error::Access`] when the credentials are unusable. The server need not be there yet.
    pub fn new(access: &Access, limits: Limits, reporter: Reporter) -> Result<Self, Error> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        let client = {
            let _entered = runtime.enter();
            Client::new(access, limits)?
        };
        Ok(Self { client, reporter, requests: Arc::new(Copies::new()), runtime })
    }

    /// Decides whatever comes, for ever. What cannot be decided now is tried again.
    pub fn run(&self) {
        self.runtime.block_on(async {
            let watch = copies::keep::<CertificateRequest>(self.client.clone(), None, Arc::clone(&self.requests));
            futures::future::join(watch, self.decide_all()).await;
        });
    }

    async fn decide_all(&self) {
        let mut changes = self.requests.changes();
        let mut pauses = Pauses::in_background();
        loop {
            let pending = self.requests.all(CertificateRequest::is_pending);
            let mut has_failed = false;
            for request in pending {
                if let Err(error) = self.decide(request.name()).await {
                    warn!(request = request.name(), %error, "a certificate request is not decided yet");
                    has_failed = true;
                }
            }
            if has_failed {
                sleep(pauses.next()).await;
            } else {
                pauses = Pauses::in_background();
                changes.next().await;
            }
        }
    }

    /// Decides on the request as it is now.
    async fn decide(&self, name: &str) -> Result<(), Error> {
        let requests = Request::new(CertificateRequest::PATH);
        let find = self.built(requests.get(name, &GetParams::default()))?;
        let mut object: Value = match self.client.ask(CertificateRequest::KIND, find, self.client.deadline()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        let malformed = |error| Error::malformed(&self.client.host, CertificateRequest::KIND, &error);
        let request = CertificateRequest::deserialize(&object).map_err(malformed)?;
        if !request.is_pending() {
            return Ok(());
        }
        let (kind, reason, message) = match request.verdict() {
            Verdict::Approve => ("Approved", "AutoApproved", "the node asks for its own certificate".to_owned()),
            Verdict::Deny(why) => ("Denied", "AutoDenied", why),
        };
        let now = self.now();
        // There is nothing in it yet.
        let condition = json!({
            "type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now,
        });
        if let Some(fields) = object.as_object_mut() {
            fields.insert("status".to_owned(), json!({ "conditions": [condition] }));
        }
        let body = object.to_string().into_bytes();
        let update = self.built(requests.replace_subresource("approval", name, &PostParams::default(), body))?;
        // If somebody else has changed it, the next look will tell.
        self.client.ask::<IgnoredAny>("the decided request", update, self.client.deadline()).await?;
        info!(request = name, verdict = kind, message, "a certificate request is decided");
        if let Err(error) = self.tell(&request, kind, &message, &now).await {
            warn!(request = name, %error, "the event of a decision is not sent");
        }
        Ok(())
    }

    async fn tell(&self, request: &CertificateRequest, kind: &str, message: &str, now: &str) -> Result<(), Error> {
        let Reporter { component, node, .. } = &self.reporter;
        let name = request.name();
        let body = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "generateName": format!("{}.", name.chars().take(230).collect::<String>()), "namespace": "default" },
            "involvedObject": {
                "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "name": name,
                "uid": request.metadata.uid,
            },
            "type": if kind == "Approved" { "Normal" } else { "Warning" },
            "reason": format!("CSR{kind}"),
            "message": format!("CSR {name:?} is {}: {message}", kind.to_lowercase()),
            "source": { "component": component, "host": node },
            "reportingComponent": component,
            "reportingInstance": node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let create = objects::events("default")?.create(&PostParams::default(), body.to_string().into_bytes());
        self.client.send(self.built(create)?, self.client.deadline()).await.map(drop)
    }

    fn now(&self) -> String {
        let now: SystemTime = (self.reporter.now)();
        Timestamp::try_from(now).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn built<T>(
        &self,
        request: Result<http::Request<T>, kube::core::request::Error>,
    ) -> Result<http::Request<T>, Error> {
        request.map_err(|error| Error::access(&self.client.host, chain(&error)))
    }
}

impl fmt::Debug for CertificateApprover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CertificateApprover").field("host", &self.client.host).finish_non_exhaustive()
    }
}
