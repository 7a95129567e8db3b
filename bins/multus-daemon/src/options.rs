//! The daemon's configuration file, `daemon-config.json`: options of the daemon itself, and what it puts in place of the
//! same keys of every request's configuration.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use multus_cni::{Document, FieldError, Object, RawObject, os_error_text};
use multus_core::{LogConfig, kubernetes::NodeCertificate};
use serde_json::value::RawValue;
use thin_entrypoint::Keeper;

use crate::error::Error;

/// Enough to keep two cores busy, and to hold up nobody while a few plugins wait for something.
const OPERATIONS: usize = 16;
/// What manifests give a pod to end is 30 s.
const DRAIN_SECONDS: u32 = 25;

/// What the file says.
pub(crate) struct Options {
    /// `socketDir`
    pub(crate) socket_dir: PathBuf,
    /// `daemonSpoolDir`, or `spool` in the `cniDir`: where shims leave what came while no daemon was there.
    pub(crate) spool_dir: PathBuf,
    /// `cniConfigDir`: where the runtime reads configurations.
    pub(crate) conf_dir: PathBuf,
    /// `chrootDir`: where the host's files are.
    pub(crate) root: PathBuf,
    /// `connectionLimit`: how many operations are under way at once.
    pub(crate) operations: usize,
    /// `drainSeconds`: how long a daemon that is to end waits for what is under way.
    pub(crate) drain: Duration,
    /// `kubeconfig`
    pub(crate) kubeconfig: Option<PathBuf>,
    /// `perNodeCertificate`, unless it is not `enabled`.
    pub(crate) node_certificate: Option<NodeCertificateOptions>,
    /// `metricsPort`
    pub(crate) metrics_port: Option<u16>,
    /// `logFile`, `logLevel`, `logToStderr`, `logOptions`
    pub(crate) log: LogConfig,
    /// `enablePprof`
    pub(crate) asks_for_profiles: bool,
    overrides: Overrides,
    /// The whole file.
    pub(crate) content: Vec<u8>,
}

/// How a node comes to its own certificate.
pub(crate) struct NodeCertificateOptions {
    /// `bootstrapKubeconfig`
    pub(crate) bootstrap: PathBuf,
    /// `certDir`
    pub(crate) directory: PathBuf,
    /// `certDuration`, such as `10m`
    pub(crate) duration: Duration,
}

/// What takes the place of the same keys of a request's configuration.
#[derive(Clone, Default)]
pub(crate) struct Overrides {
    keys: BTreeMap<String, Box<RawValue>>,
    /// The daemon itself looks after the readiness indicator file.
    is_automatic: bool,
}

impl Options {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let malformed = |problem: String| Error::Options { path: path.to_owned(), problem };
        let bytes = fs::read(path).map_err(|error| malformed(os_error_text(&error)))?;
        Self::parse(&bytes).map_err(malformed)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document = Document::parse(bytes)?;
        let view = document.root("").object().map_err(|_| "it must be a JSON object".to_owned())?;
        let keys = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let options = Self::view(&view, keys).map_err(|error| error.to_string())?;
        Ok(Self { content: bytes.to_owned(), ..options })
    }

    fn view(view: &Object<'_>, keys: BTreeMap<String, Box<RawValue>>) -> Result<Self, FieldError> {
        let text = |key| Ok::<_, FieldError>(view.string(key)?.filter(|text| !text.is_empty()));
        let path = |key, default: &str| Ok::<_, FieldError>(PathBuf::from(text(key)?.unwrap_or(default)));
        let spool = text("daemonSpoolDir")?.map(PathBuf::from);
        let cni_dir = path("cniDir", "/var/lib/cni/multus")?;
        Ok(Self {
            socket_dir: path("socketDir", "/run/multus/")?,
            spool_dir: spool.unwrap_or_else(|| cni_dir.join("spool")),
            conf_dir: path("cniConfigDir", "/etc/cni/net.d")?,
            root: path("chrootDir", "/")?,
            operations: match view.integer("connectionLimit")?.unwrap_or(OPERATIONS) {
                0 => return Err(FieldError::new("connectionLimit", "must be at least 1")),
                limit => limit,
            },
            drain: Duration::from_secs(view.integer("drainSeconds")?.unwrap_or(DRAIN_SECONDS).into()),
            kubeconfig: text("kubeconfig")?.map(PathBuf::from),
            node_certificate: match view.object("perNodeCertificate")? {
                Some(object) if object.boolean("enabled")? == Some(true) => Some(node_certificate(&object)?),
                _ => None,
            },
            metrics_port: view.integer("metricsPort")?,
            log: LogConfig::read(view)?,
            asks_for_profiles: view.boolean("enablePprof")?.unwrap_or(false),
            overrides: Overrides { keys, is_automatic: text("multusConfigFile")?.unwrap_or("auto") == "auto" },
            content: Vec::new(),
        })
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket_dir.join("multus.sock")
    }

    pub(crate) fn overrides(&self) -> Overrides {
        self.overrides.clone()
    }

    /// What writes the runtime's configuration.
    pub(crate) fn keeper(&self) -> Result<Keeper, Error> {
        Ok(Keeper::from_daemon_config(&self.content)?)
    }
}

impl Overrides {
    /// The configuration of a request, with the daemon's keys in place of its own. Values stay as they are written.
    pub(crate) fn apply(&self, config: &[u8]) -> Result<Vec<u8>, multus_cni::Error> {
        let mut merged = RawObject::parse(config)?;
        for (key, value) in &self.keys {
            merged.set(key, value)?;
        }
        if self.is_automatic {
            merged.set("readinessindicatorfile", &())?;
        }
        Ok(merged.print())
    }
}

fn node_certificate(object: &Object<'_>) -> Result<NodeCertificateOptions, FieldError> {
    let path = |key| match object.string(key)?.filter(|path| !path.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => Err(FieldError::new(object.path_of(key), "must be given when certificates are enabled")),
    };
    let text = object.string("certDuration")?.filter(|text| !text.is_empty()).unwrap_or("10m");
    let malformed = || {
        let problem = format!("must be a duration such as 10m, 24h or 1h30m, not {text:?}");
        FieldError::new(object.path_of("certDuration"), problem)
    };
    Ok(NodeCertificateOptions {
        bootstrap: path("bootstrapKubeconfig")?,
        directory: path("certDir")?,
        duration: NodeCertificate::parse_duration(text).ok_or_else(malformed)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(file: &str, config: &str) -> String {
        let overrides = Options::parse(file.as_bytes()).unwrap().overrides();
        String::from_utf8(overrides.apply(config.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn defaults_are_upstreams() {
        let options = Options::parse(b"{}").unwrap();
        assert_eq!(options.socket(), Path::new("/run/multus/multus.sock"));
        assert_eq!(options.spool_dir, Path::new("/var/lib/cni/multus/spool"));
        assert_eq!((options.root.as_path(), options.metrics_port), (Path::new("/"), None));
        assert_eq!(Options::parse(br#"{"cniDir":"/a"}"#).unwrap().spool_dir, Path::new("/a/spool"));
        assert_eq!(Options::parse(br#"{"cniDir":"/a","daemonSpoolDir":"/b"}"#).unwrap().spool_dir, Path::new("/b"));
    }

    #[test]
    fn its_keys_win_in_any_letter_case_and_values_stay_as_written() {
        let merged = merged(r#"{"binDir":"/a","x":1e2}"#, r#"{"BinDir":"/b","name":"n","y":1.50}"#);
        assert_eq!(merged, r#"{"binDir":"/a","name":"n","readinessindicatorfile":null,"x":1e2,"y":1.50}"#);
    }

    #[test]
    fn the_readiness_file_is_the_daemons_affair_only_where_it_writes_the_configuration() {
        let config = r#"{"readinessindicatorfile":"/client"}"#;
        assert_eq!(merged(r#"{"readinessindicatorfile":"/daemon"}"#, config), r#"{"readinessindicatorfile":null}"#);
        assert_eq!(
            merged(r#"{"readinessindicatorfile":"/daemon","multusConfigFile":"/x"}"#, config),
            r#"{"multusConfigFile":"/x","readinessindicatorfile":"/daemon"}"#
        );
    }

    #[test]
    fn certificates_are_asked_for_when_enabled() {
        let read = |text: &str| {
            let file = format!(r#"{{"perNodeCertificate":{text}}}"#);
            Options::parse(file.as_bytes()).map(|options| options.node_certificate)
        };
        assert!(read(r#"{"enabled":false,"certDuration":"x"}"#).unwrap().is_none());
        let given = |duration| {
            format!(r#"{{"enabled":true,"bootstrapKubeconfig":"/b","certDir":"/c","certDuration":"{duration}"}}"#)
        };
        for (text, seconds) in [("", 600), ("10m", 600), ("1h30m", 5400), ("90s", 90)] {
            assert_eq!(read(&given(text)).unwrap().unwrap().duration, Duration::from_secs(seconds));
        }
        for text in ["10", "m", "1d", "-1h", "99999999999999999999h"] {
            let error = read(&given(text)).err().unwrap();
            assert!(error.starts_with(r#""perNodeCertificate.certDuration" must be a duration"#), "{error}");
        }
        let error = read(r#"{"enabled":true,"certDir":"/c"}"#).err().unwrap();
        assert!(error.starts_with(r#""perNodeCertificate.bootstrapKubeconfig" must be given"#), "{error}");
    }

    #[test]
    fn wrong_values_are_named_with_their_key() {
        let refused = |file: &str| Options::parse(file.as_bytes()).err().unwrap();
        assert_eq!(refused(r#"{"connectionLimit":0}"#), r#""connectionLimit" must be at least 1"#);
        assert!(refused(r#"{"connectionLimit":-1}"#).starts_with(r#""connectionLimit" must be"#));
        assert!(refused(r#"{"metricsPort":70000}"#).starts_with(r#""metricsPort" must be"#));
        assert_eq!(refused("[]"), "it must be a JSON object");
    }
}
