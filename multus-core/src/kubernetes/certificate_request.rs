//! Requests for certificates, and which of them are those of a node for its own.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::objects::{self, Metadata, Object, Weight};
use crate::error::quoted;

/// A request for a certificate, as the API has it.
#[derive(Clone, Debug, Deserialize)]
pub struct CertificateRequest {
    pub(super) metadata: Metadata,
    spec: Spec,
    status: Option<Status>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A node asks for its own certificate.
    Approve,
    /// It does not, for this reason: a clause that names the field and the value.
    Deny(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    request: String,
    signer_name: String,
    expiration_seconds: Option<i64>,
    usages: Vec<String>,
    username: String,
    groups: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<serde::de::IgnoredAny>,
    certificate: Option<serde::de::IgnoredAny>,
}

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// The organization of node certificates, and with a colon and the node's name their common name.
const MULTUS: &str = "system:multus";
const USAGES: [&str; 2] = ["digital signature", "client auth"];
/// A year.
const LONGEST: i64 = 365 * 24 * 3600;

impl CertificateRequest {
    /// Reads the JSON of an object of `certificates.k8s.io/v1`.
    ///
    /// # Errors
    /// What is malformed, without its value.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| format!("at line {} column {}", error.line(), error.column()))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Whether it asks for a certificate such as nodes have, and nobody has decided yet. Others are not judged at all.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let is_undecided = |status: &Status| status.conditions.is_empty() && status.certificate.is_none();
        self.status.as_ref().is_none_or(is_undecided)
            && self.spec.signer_name == SIGNER
            && objects::check("certificate request", &self.metadata.name).is_ok()
            && Subject::read(&self.spec.request)
                .is_some_and(|subject| subject.common_names.iter().any(|name| name.starts_with(MULTUS)))
    }

    /// Whether it may be signed: only if the node `N`, known as `system:node:N` or by its present certificate, asks for
    /// a client certificate of `system:multus:N` and for nothing else.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.judge().map_or_else(Verdict::Deny, |()| Verdict::Approve)
    }

    fn judge(&self) -> Result<(), String> {
        let Spec { request, signer_name, expiration_seconds, usages, username, groups } = &self.spec;
        equal("spec.signerName", signer_name, SIGNER)?;
        let subject = Subject::read(request).ok_or("spec.request is no PEM of one certificate request")?;
        let node = subject.node()?;
        let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
        if usages != BTreeSet::from(USAGES) {
            return Err(format!("spec.usages must be {USAGES:?}, not {}", quoted(&format!("{usages:?}"))));
        }
        match expiration_seconds {
            Some(1..=LONGEST) => {}
            Some(seconds) => return Err(format!("spec.expirationSeconds must be 1 to {LONGEST}, not {seconds}")),
            None => return Err(format!("spec.expirationSeconds is missing; it must be 1 to {LONGEST}")),
        }
        // Who has a node's credentials has only that node's.
        let identities = [("system:node", "system:nodes"), (MULTUS, MULTUS)];
        let is_known = |(prefix, _): &&(&str, &str)| *username == format!("{prefix}:{node}");
        let Some((_, group)) = identities.iter().find(is_known) else {
            let username = quoted(username);
            return Err(format!("spec.username must be \"system:node:{node}\" or \"{MULTUS}:{node}\", not {username}"));
        };
        let allowed = ["system:nodes", MULTUS, "system:authenticated"];
        if let Some(other) = groups.iter().find(|name| !allowed.contains(&name.as_str())) {
            return Err(format!("spec.groups must be among {allowed:?}, not {}", quoted(other)));
        }
        match groups.iter().any(|name| name == group) {
            true => Ok(()),
            false => Err(format!("spec.groups must have {group:?}, since spec.username is {}", quoted(username))),
        }
    }
}

/// What is not kept is not decided.
impl Weight for CertificateRequest {}

impl Object for CertificateRequest {
    type Kept = Self;
    const KIND: &str = "a certificate request";
    const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    const METADATA_ONLY: bool = false;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn keep(self) -> Self {
        self
    }
}

/// Whom a certificate is to be for.
struct Subject {
    common_names: Vec<String>,
    organizations: Vec<String>,
    /// How many parts it has.
    parts: usize,
    /// Whether anything besides the subject is asked for, such as other names.
    has_attributes: bool,
}

impl Subject {
    /// From the base64 of PEM, as the API has it.
    fn read(request: &str) -> Option<Self> {
        let pem = String::from_utf8(BASE64_STANDARD.decode(request).ok()?).ok()?;
        let der = der(&pem)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let info = request.certification_request_info;
        let text = |part: &x509_parser::x509::AttributeTypeAndValue<'_>| part.as_str().ok().map(str::to_owned);
        Some(Self {
            common_names: info.subject.iter_common_name().map(text).collect::<Option<_>>()?,
            organizations: info.subject.iter_organization().map(text).collect::<Option<_>>()?,
            parts: info.subject.iter_attributes().count(),
            has_attributes: info.iter_attributes().next().is_some(),
        })
    }

    /// The node, if it is the subject of a node's certificate. Of two common names, programs differ in which one counts.
    fn node(&self) -> Result<&str, String> {
        let ([name], [organization]) = (self.common_names.as_slice(), self.organizations.as_slice()) else {
            return Err("the subject in spec.request must have one common name and one organization".to_owned());
        };
        if self.parts != 2 || self.has_attributes {
            return Err("spec.request must have a common name and an organization, and nothing else".to_owned());
        }
        equal("the organization in spec.request", organization, MULTUS)?;
        let node = name.strip_prefix(MULTUS).and_then(|rest| rest.strip_prefix(':')).filter(|node| is_subdomain(node));
        let wanted = || format!("the common name in spec.request must be \"{MULTUS}:NODE\", not {}", quoted(name));
        node.ok_or_else(wanted)
    }
}

fn equal(field: &str, found: &str, wanted: &str) -> Result<(), String> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{field} must be {wanted:?}, not {}", quoted(found))),
    }
}

/// As RFC 1123 has it, in lower case.
fn is_subdomain(name: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().last()];
        ends.into_iter().all(|end| end.is_some_and(is_alphanumeric))
            && label.bytes().all(|byte| is_alphanumeric(byte) || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// The content of the one block in `pem`. Nothing else may be there, since readers differ in what they skip.
fn der(pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix("-----BEGIN CERTIFICATE REQUEST-----")?;
    let body = body.strip_suffix("-----END CERTIFICATE REQUEST-----")?;
    let base64: String = body.chars().filter(|character| !matches!(character, '\n' | '\r')).collect();
    BASE64_STANDARD.decode(base64).ok()
}
