//! A client certificate for each node.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::jiff::Timestamp;
use kube::api::{GetParams, PostParams, Request};
use multus_cni::WholeFile;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    runtime,
    time::{Instant, sleep},
};
use tracing::{error, info, warn};
use x509_parser::pem::parse_x509_pem;

use super::{
    Access, Error, Limits,
    client::{Client, Pauses},
    error::chain,
    objects,
};

/// Between tries that fail, and while a clock is being set.
const PAUSE: Duration = Duration::from_secs(10);
/// The shortest certificate that the API gives is valid for twice as long.
const LONG_PAUSE: Duration = Duration::from_secs(300);

/// A node's client certificate and its key: `multus-client-current.pem` in a directory, which refers to the newest
/// `multus-client-<time>.pem`. The key is made here and never leaves the directory.
#[derive(Clone, Debug)]
pub struct NodeCertificate {
    bootstrap: PathBuf,
    directory: PathBuf,
    node: String,
    duration: Duration,
}

impl NodeCertificate {
    /// The certificate of `node` in `directory`. The kubeconfig `bootstrap` says where the server is, and by whose right a
    /// first certificate is asked for; `duration` is how long each is to be valid.
    ///
    /// # Errors
    /// [`Error::Name`] when `node` is no name.
    pub fn new(bootstrap: &Path, directory: &Path, node: &str, duration: Duration) -> Result<Self, Error> {
        objects::check("node", node)?;
        let (bootstrap, directory) = (bootstrap.to_owned(), directory.to_owned());
        Ok(Self { bootstrap, directory, node: node.to_owned(), duration })
    }

    /// A duration as Go writes it, in whole hours, minutes and seconds, such as `10m` or `1h30m`.
    #[must_use]
    pub fn parse_duration(text: &str) -> Option<Duration> {
        text.split_inclusive(['h', 'm', 's']).try_fold(Duration::ZERO, |sum, part| {
            let (number, unit) = part.split_at_checked(part.len().checked_sub(1)?)?;
            let seconds = match unit {
                "h" => 3600,
                "m" => 60,
                "s" => 1,
                _ => return None,
            };
            let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
            sum.checked_add(Duration::from_secs(seconds))
        })
    }

    /// When the certificate should be renewed: after four fifths of its time. `None` when there is none that is valid at `now`.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read. A file that is no certificate is none.
    pub fn renewal(&self, now: SystemTime) -> Result<Option<SystemTime>, Error> {
        Ok(self.validity(now)?.map(|(begin, end)| {
            let lifetime = end.duration_since(begin).unwrap_or_default();
            begin + lifetime * 4 / 5
        }))
    }

    /// Access by a certificate that is valid, which is [asked for](Self::renew) where there is none.
    ///
    /// # Errors
    /// As of [`renew`](Self::renew) and [`access`](Self::access).
    pub fn obtain(&self, limits: Limits, patience: Duration) -> Result<Access, Error> {
        let now = SystemTime::now();
        if self.renewal(now)?.is_none() {
            self.renew(now, limits, patience)?;
        }
        self.access()
    }

    /// Renews the certificate in time, for ever, and has `apply` put each new one to use. What fails is logged and tried
    /// again. Not to be called within a runtime.
    pub fn keep(&self, limits: Limits, patience: Duration, mut apply: impl FnMut() -> Result<(), Error>) -> ! {
        loop {
            let now = SystemTime::now();
            let due = self.renewal(now).ok().flatten().unwrap_or(now);
            let rest = due.duration_since(now).unwrap_or_default();
            if !rest.is_zero() {
                // Step by step, since clocks are set.
                thread::sleep(rest.min(PAUSE));
                continue;
            }
            match self.renew(now, limits, patience).and_then(|()| apply()) {
                Ok(()) => {
                    info!("the node's certificate is renewed");
                    thread::sleep(self.least_use());
                }
                Err(error) => {
                    error!(%error, "the node's certificate is not renewed");
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// How long a new certificate is used at least, so that one that is due at once makes no flood of requests: half of what
    /// is left of it.
    fn least_use(&self) -> Duration {
        let now = SystemTime::now();
        let Ok(Some((_, end))) = self.validity(now) else {
            warn!("the new certificate is not valid at this time; is this node's clock right?");
            return LONG_PAUSE;
        };
        (end.duration_since(now).unwrap_or_default() / 2).clamp(PAUSE, LONG_PAUSE)
    }

    /// When the certificate begins and ends; `None` when there is none that is valid at `now`.
    fn validity(&self, now: SystemTime) -> Result<Option<(SystemTime, SystemTime)>, Error> {
        let content = WholeFile::new(&self.current()).read().map_err(Error::file("reading", self.current()))?;
        let validity = content.and_then(|content| validity(&content));
        Ok(validity.filter(|(begin, end)| *begin <= now && now < *end))
    }

    /// Asks for a certificate, waits no longer than `patience` until somebody has approved it, and puts it in place. The
    /// present one is shown for it while it is valid and the server takes it, else what the bootstrap has.
    ///
    /// # Errors
    /// When the server cannot be asked, or refuses, or nobody approves in time; or when a file cannot be written. What was
    /// there stays then.
    pub fn renew(&self, now: SystemTime, limits: Limits, patience: Duration) -> Result<(), Error> {
        let key = KeyPair::generate().map_err(|error| self.problem("cannot make a key", &chain(&error)))?;
        let request = self.request(&key).map_err(|error| self.problem("cannot be asked for", &chain(&error)))?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        let sign = |access: &Access| runtime.block_on(self.sign(access, limits, &request, patience));
        let present = match self.renewal(now)? {
            Some(_) => sign(&self.access()?),
            None => Err(self.problem("is missing or has ended", "")),
        };
        let certificate = match present {
            Err(Error::Certificate { .. } | Error::Refused { .. } | Error::Unreachable { is_transient: false, .. }) => {
                sign(&Access::from_kubeconfig(&self.bootstrap)?)?
            }
            other => other?,
        };
        if validity(certificate.as_bytes()).is_none() {
            return Err(self.problem("was signed, and is no certificate", ""));
        }
        self.store(now, &format!("{}\n{}", certificate.trim_end(), key.serialize_pem()))
    }

    /// Access to the bootstrap's server by the certificate, and by nothing else.
    ///
    /// # Errors
    /// [`Error::Access`] when the bootstrap is unusable, [`Error::File`] when there is no certificate.
    pub fn access(&self) -> Result<Access, Error> {
        let content = fs::read_to_string(self.current()).map_err(Error::file("reading", self.current()))?;
        Access::from_kubeconfig(&self.bootstrap)?.with_certificate(&self.current(), &content)
    }

    /// Writes a kubeconfig with mode 0600 that refers to the bootstrap's server and to the certificate's file.
    ///
    /// # Errors
    /// [`Error::Access`] when the bootstrap is unusable, [`Error::File`] when the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<(), Error> {
        let content = Access::from_kubeconfig(&self.bootstrap)?.kubeconfig(&self.current());
        WholeFile::new(path)
            .in_directory(0o700)
            .durable()
            .replace(content.as_bytes())
            .map_err(Error::file("writing", path))
    }

    fn current(&self) -> PathBuf {
        self.directory.join("multus-client-current.pem")
    }

    fn request(&self, key: &KeyPair) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:multus");
        params.distinguished_name.push(DnType::CommonName, format!("system:multus:{}", self.node));
        params.serialize_request(key)?.pem()
    }

    async fn sign(&self, access: &Access, limits: Limits, request: &str, patience: Duration) -> Result<String, Error> {
        let client = Client::new(access, limits)?;
        let end = Instant::now() + patience;
        let body = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "generateName": "csr-" },
            "spec": {
                "request": BASE64_STANDARD.encode(request),
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["digital signature", "client auth"],
                // The shortest that the API takes is ten minutes.
                "expirationSeconds": self.duration.as_secs().max(600),
            },
        });
        let requests = Request::new("/apis/certificates.k8s.io/v1/certificatesigningrequests");
        let built = |request: Result<http::Request<Vec<u8>>, kube::core::request::Error>| {
            request.map_err(|error| self.problem("cannot be asked for", &chain(&error)))
        };
        let create = built(requests.create(&PostParams::default(), body.to_string().into_bytes()))?;
        let mut signing: SigningRequest = client.ask("a certificate request", create, client.deadline()).await?;
        let mut pauses = Pauses::new();
        loop {
            let (name, status) = (signing.metadata.name, signing.status.unwrap_or_default());
            if let Some(condition) = status.conditions.iter().find(|condition| condition.kind != "Approved") {
                let Condition { kind, message } = condition;
                return Err(self.problem(&format!("request {name:?} is {kind}"), message));
            }
            if let Some(certificate) = status.certificate {
                let certificate = BASE64_STANDARD.decode(certificate).ok().and_then(|pem| String::from_utf8(pem).ok());
                return certificate.ok_or_else(|| self.problem("was signed, and is no certificate", ""));
            }
            let pause = pauses.next();
            if Instant::now() + pause > end {
                let remedy = format!("kubectl certificate approve {name}");
                return Err(self.problem(&format!("was not approved and signed within {patience:?}"), &remedy));
            }
            sleep(pause).await;
            let find = built(requests.get(&name, &GetParams::default()))?;
            signing = client.ask("a certificate request", find, client.deadline()).await?;
        }
    }

    fn store(&self, now: SystemTime, content: &str) -> Result<(), Error> {
        let time = Timestamp::try_from(now).unwrap_or_default().strftime("%Y-%m-%d-%H-%M-%S");
        let (name, current) = (format!("multus-client-{time}.pem"), self.current());
        let path = self.directory.join(&name);
        let former = fs::read_link(&current).ok();
        WholeFile::new(&path)
            .in_directory(0o700)
            .durable()
            .replace(content.as_bytes())
            .map_err(Error::file("writing", &path))?;
        let temporary = self.directory.join(".multus-client-current.pem.new");
        let link = || {
            WholeFile::new(&temporary).remove()?;
            symlink(&name, &temporary)?;
            fs::rename(&temporary, &current)
        };
        link().map_err(Error::file("replacing link", &current))?;
        // Else a certificate of ten minutes leaves a file every eight. One that stays is only litter.
        let is_ours = |former: &PathBuf| former.components().count() == 1 && former.as_os_str() != name.as_str();
        if let Some(former) = former.filter(is_ours) {
            let _stays = fs::remove_file(self.directory.join(former));
        }
        Ok(())
    }

    fn problem(&self, problem: &str, detail: &str) -> Error {
        let detail: String = detail.chars().take(300).collect();
        let separator = if detail.is_empty() { "" } else { ": " };
        Error::Certificate { node: self.node.clone(), problem: format!("{problem}{separator}{detail}") }
    }
}

#[derive(Deserialize)]
struct SigningRequest {
    metadata: objects::Metadata,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    certificate: Option<String>,
    conditions: Vec<Condition>,
}

/// `Approved`, `Denied` or `Failed`.
#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

/// When the first certificate in `pem` begins and ends.
fn validity(pem: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (_, pem) = parse_x509_pem(pem).ok().filter(|(_, pem)| pem.label == "CERTIFICATE")?;
    let validity = pem.parse_x509().ok()?.validity().clone();
    let time = |time: i64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time).ok()?));
    Some((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

impl Error {
    fn file(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { attempt, path, source }
    }
}
