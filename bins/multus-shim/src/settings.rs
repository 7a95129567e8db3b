//! The keys of the configuration that the shim reads itself; the daemon gets all of them.

use std::{
    os::unix::net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use multus_cni::{FieldError, NetworkConfig, Object, must_be_guarded};

/// Upstream's, and what a daemon that is being replaced mostly needs.
const WAIT_SECONDS: u32 = 60;

pub(crate) struct Settings {
    /// `daemonSocketDir`, with the socket's name.
    pub(crate) socket: PathBuf,
    /// `daemonWaitSeconds`: how long a daemon that is away is waited for.
    pub(crate) wait: Duration,
    /// `daemonSpoolDir`, or `spool` in the `cniDir`.
    pub(crate) spool: PathBuf,
    /// `logFile`; may be empty.
    pub(crate) log_file: PathBuf,
    /// `logToStderr`.
    pub(crate) log_to_stderr: bool,
    /// `logLevel`, as it is written.
    pub(crate) log_level: String,
}

impl Settings {
    pub(crate) fn parse(config: &NetworkConfig) -> Result<Self, FieldError> {
        let view = config.view();
        let cni_directory = text(&view, "cniDir")?.unwrap_or("/var/lib/cni/multus");
        let spool = text(&view, "daemonSpoolDir")?;
        Ok(Self {
            socket: socket(&view)?,
            wait: Duration::from_secs(wait_seconds(&view)?.into()),
            spool: spool.map_or_else(|| Path::new(cni_directory).join("spool"), PathBuf::from),
            log_file: text(&view, "logFile")?.unwrap_or_default().into(),
            log_to_stderr: view.boolean("logToStderr")?.unwrap_or(false),
            log_level: text(&view, "logLevel")?.unwrap_or_default().to_owned(),
        })
    }

    /// Whoever listens on the socket gets configurations with their secrets, and says what the pod's addresses are.
    pub(crate) fn must_be_guarded(&self) -> Result<(), FieldError> {
        let directory = self.socket.parent().unwrap_or(&self.socket);
        let unguarded = |error| FieldError::new("daemonSocketDir", format_args!("is not safe: {error}"));
        must_be_guarded(directory).map_err(unguarded)
    }
}

fn socket(view: &Object<'_>) -> Result<PathBuf, FieldError> {
    let key = "daemonSocketDir";
    let socket = Path::new(text(view, key)?.unwrap_or("/run/multus")).join("multus.sock");
    match SocketAddr::from_pathname(&socket) {
        Ok(_) => Ok(socket),
        Err(problem) => Err(FieldError::new(view.path_of(key), format_args!("gives no usable socket: {problem}"))),
    }
}

fn wait_seconds(view: &Object<'_>) -> Result<u32, FieldError> {
    let key = "daemonWaitSeconds";
    match view.integer(key)?.unwrap_or(WAIT_SECONDS) {
        0 => Err(FieldError::new(view.path_of(key), "must be at least 1")),
        seconds => Ok(seconds),
    }
}

/// An empty string is as good as none, as in Go.
fn text<'a>(view: &Object<'a>, key: &str) -> Result<Option<&'a str>, FieldError> {
    Ok(view.string(key)?.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(&NetworkConfig::parse(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_upstreams() {
        for text in [r#"{"name":"n"}"#, r#"{"name":"n","daemonSocketDir":"","cniDir":"","logFile":"","logLevel":""}"#] {
            let settings = parse(text).unwrap();
            assert_eq!(settings.socket, Path::new("/run/multus/multus.sock"));
            assert_eq!(settings.wait, Duration::from_secs(60));
            assert_eq!(settings.spool, Path::new("/var/lib/cni/multus/spool"));
            assert_eq!((settings.log_file, settings.log_to_stderr), (PathBuf::new(), false));
        }
    }

    #[test]
    fn the_spool_is_in_the_cni_directory_unless_it_has_its_own() {
        let spool = |text| parse(text).unwrap().spool;
        assert_eq!(spool(r#"{"name":"n","cniDir":"/a"}"#), Path::new("/a/spool"));
        assert_eq!(spool(r#"{"name":"n","cniDir":"/a","daemonSpoolDir":"/b"}"#), Path::new("/b"));
    }

    #[test]
    fn a_socket_in_a_directory_of_everybody_is_not_talked_to() {
        let directory = tempfile::tempdir().unwrap();
        let settings = parse(&format!(r#"{{"name":"n","daemonSocketDir":{:?}}}"#, directory.path())).unwrap();
        assert!(settings.must_be_guarded().is_ok());
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        let error = settings.must_be_guarded().unwrap_err().to_string();
        let start = r#""daemonSocketDir" is not safe: every user may write to it (mode 1777)"#;
        assert!(error.starts_with(start) && error.contains("run: chmod o-w "), "{error}");
    }

    #[test]
    fn wrong_values_are_named_with_their_key() {
        let refused = |text| parse(text).err().unwrap();
        assert_eq!(refused(r#"{"name":"n","daemonSocketDir":5}"#), r#""daemonSocketDir" must be a string, not 5"#);
        let long = format!(r#"{{"name":"n","daemonSocketDir":"/{}"}}"#, "x".repeat(120));
        assert!(refused(&long).starts_with(r#""daemonSocketDir" gives no usable socket: path"#), "{}", refused(&long));
        assert_eq!(refused(r#"{"name":"n","daemonWaitSeconds":0}"#), r#""daemonWaitSeconds" must be at least 1"#);
        assert!(refused(r#"{"name":"n","daemonWaitSeconds":-1}"#).starts_with(r#""daemonWaitSeconds" must be"#));
    }
}
