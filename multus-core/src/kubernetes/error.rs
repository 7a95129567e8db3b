//! What can go wrong in talking to an API server.

use std::{error::Error as StdError, io, path::PathBuf, time::Duration};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use multus_cni::os_error_text;
use serde::Deserialize;

/// A failure in talking to an API server. Texts name the server, and never hold credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no address or no credentials.
    #[error("{origin}: {problem}")]
    Access {
        /// Where they were to come from, such as `kubeconfig "/etc/cni/net.d/multus.d/multus.kubeconfig"`.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A namespace, a pod, a network or a node with a name that Kubernetes does not have.
    #[error("{kind} {name:?} is no name that Kubernetes allows: lower case letters, digits, \"-\" and \".\"")]
    Name {
        /// What has that name.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// No connection, or one that broke.
    #[error("API server {host} cannot be reached: {problem}")]
    Unreachable {
        /// Its address.
        host: String,
        /// Why.
        problem: String,
        /// Whether it may be otherwise in a moment.
        is_transient: bool,
    },
    /// No answer in time.
    #[error("API server {host} did not answer within {limit:?}")]
    Silent {
        /// Its address.
        host: String,
        /// How long was waited for the last answer.
        limit: Duration,
    },
    /// An answer that is no success.
    #[error("API server {host} answered {status}: {message}")]
    Refused {
        /// Its address.
        host: String,
        /// The HTTP status.
        status: StatusCode,
        /// The reason for programs, such as `NotFound`; empty where it is not Kubernetes that answers.
        reason: String,
        /// The reason for people.
        message: String,
        /// When to ask again, if the server says so.
        retry_after: Option<Duration>,
    },
    /// An answer that is not what was asked for.
    #[error("API server {host} answered something else than {expected}: {problem}")]
    Malformed {
        /// Its address.
        host: String,
        /// What was expected.
        expected: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An answer that is too long to be one.
    #[error("API server {host} answered with more than {limit} bytes")]
    TooLong {
        /// Its address.
        host: String,
        /// How long an answer may be.
        limit: usize,
    },
    /// The pod of that name is another one by now.
    #[error("expected pod UID {expected:?} but got {found:?} from Kube API; that pod was replaced")]
    Replaced {
        /// The UID of the pod that was meant.
        expected: String,
        /// That of the present one.
        found: String,
    },
    /// There is no certificate to be had.
    #[error("client certificate of node {node:?} {problem}")]
    Certificate {
        /// The node.
        node: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("error {attempt} {path:?}: {}", os_error_text(.source))]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The runtime that asks cannot be made.
    #[error("no runtime for requests: {0}")]
    Runtime(#[source] io::Error),
}

impl Error {
    pub(super) fn access(origin: &str, problem: impl Into<String>) -> Self {
        Self::Access { origin: origin.to_owned(), problem: problem.into() }
    }

    pub(super) fn transport(host: &str, error: &(dyn StdError + 'static)) -> Self {
        let (is_transient, problem) = (is_transient(error), chain(error));
        Self::Unreachable { host: host.to_owned(), problem, is_transient }
    }

    /// Without the text around the mistake, which may be a secret.
    pub(super) fn malformed(host: &str, expected: &'static str, error: &serde_json::Error) -> Self {
        let problem = format!("mistake at line {} column {}", error.line(), error.column());
        Self::Malformed { host: host.to_owned(), expected, problem }
    }

    pub(super) fn refused(host: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Refusal {
            reason: String,
            message: String,
        }
        let refusal = serde_json::from_slice(body).unwrap_or_else(|_| Refusal {
            reason: String::new(),
            message: String::from_utf8_lossy(body).trim().to_owned(),
        });
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self::Refused {
            host: host.to_owned(),
            status,
            reason: refusal.reason,
            message: refusal.message.chars().take(300).collect(),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    /// How long to wait before asking again, where that makes sense.
    pub(super) fn retry_after(&self, pause: Duration) -> Option<Duration> {
        match self {
            Self::Unreachable { is_transient, .. } => is_transient.then_some(pause),
            Self::Silent { .. } => Some(pause),
            Self::Refused { status, retry_after, .. } => {
                let is_transient = matches!(
                    *status,
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::INTERNAL_SERVER_ERROR
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                );
                is_transient.then(|| retry_after.unwrap_or_default().max(pause))
            }
            Self::Access { .. }
            | Self::Name { .. }
            | Self::Malformed { .. }
            | Self::Replaced { .. }
            | Self::Certificate { .. }
            | Self::TooLong { .. }
            | Self::File { .. }
            | Self::Runtime(_) => None,
        }
    }

    /// Whether the server refused with `wanted`.
    pub(super) fn is(&self, wanted: StatusCode) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == wanted)
    }

    /// Whether Kubernetes says that there is no such object. Without the reason it is the resource that does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, reason, .. } if reason == "NotFound")
    }
}

/// An error and what it comes from, in one line.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = source.source();
    }
    text
}

fn is_transient(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other);
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return true;
        }
        next = error.source();
    }
    false
}
