//! The program's flags.

use std::{ffi::OsString, path::PathBuf};

use lexopt::{Arg, Parser, ValueExt};
use thin_entrypoint::Thin;

pub(crate) const HELP: &str = "\
thin_entrypoint: puts multus on a node, with a kubeconfig and a configuration, and keeps them there

  thin_entrypoint [FLAGS]              runs until SIGTERM or SIGINT
  thin_entrypoint uninstall [FLAGS]    takes away what is there, and ends

  --cni-bin-dir DIR                     where the program goes (/host/opt/cni/bin)
  --cni-conf-dir DIR                    where the runtime reads configurations (/host/etc/cni/net.d)
  --cni-version VERSION                 what the master's cniVersion must be
  --multus-conf-file auto|FILE          make a configuration from the master, or copy this one (auto)
  --multus-bin-file FILE                the program (/usr/src/multus-cni/bin/multus)
  --multus-cni-conf-dir DIR             on-disk networks (/host/etc/cni/multus/net.d)
  --multus-kubeconfig-file-host FILE    the kubeconfig as the host sees it (/etc/cni/net.d/multus.d/multus.kubeconfig)
  --multus-master-cni-file-name NAME    the master (the first configuration by name)
  --multus-autoconfig-dir DIR           where the master is (/host/etc/cni/net.d)
  --namespace-isolation                 pods may use their own namespace's networks only
  --global-namespaces LIST              and those of these
  --multus-log-to-stderr=false          no log on standard error
  --multus-log-level LEVEL              panic, error, verbose, debug
  --multus-log-file FILE
  --override-network-name               call the network as the master's
  --rename-conf-file                    rename the master to NAME.old
  --readiness-indicator-file FILE       pods wait for this file, as the host sees it
  --additional-bin-dir DIR              where plugins are, too
  --skip-multus-binary-copy             leave the program alone
  --cleanup-config-on-exit              take the configuration away in the end
  --skip-config-watch                   write everything once
  --service-account-dir DIR             token and ca.crt (/var/run/secrets/kubernetes.io/serviceaccount)
  -h, --help
  --version
";

/// What the program is asked to do.
pub(crate) enum Request {
    Help,
    Version,
    Run(Arguments),
    Uninstall(Arguments),
}

pub(crate) struct Arguments {
    pub(crate) bin_dir: PathBuf,
    pub(crate) conf_dir: PathBuf,
    /// Absent for one that is made from the master.
    pub(crate) conf_file: Option<PathBuf>,
    pub(crate) program: PathBuf,
    pub(crate) networks_dir: PathBuf,
    pub(crate) master: Option<String>,
    pub(crate) autoconfig_dir: PathBuf,
    pub(crate) service_account: PathBuf,
    pub(crate) rename_master: bool,
    pub(crate) skip_copy: bool,
    pub(crate) cleanup: bool,
    pub(crate) skip_watch: bool,
    pub(crate) skip_tls_verify: bool,
    pub(crate) thin: Thin,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            bin_dir: "/host/opt/cni/bin".into(),
            conf_dir: "/host/etc/cni/net.d".into(),
            conf_file: None,
            program: "/usr/src/multus-cni/bin/multus".into(),
            networks_dir: "/host/etc/cni/multus/net.d".into(),
            master: None,
            autoconfig_dir: "/host/etc/cni/net.d".into(),
            service_account: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
            rename_master: false,
            skip_copy: false,
            cleanup: false,
            skip_watch: false,
            skip_tls_verify: false,
            thin: Thin { kubeconfig: "/etc/cni/net.d/multus.d/multus.kubeconfig".to_owned(), ..Thin::default() },
        }
    }
}

impl Request {
    /// Reads the arguments, the first of which is the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut parser = Parser::from_iter(arguments);
        let mut into = Arguments::default();
        let mut is_uninstall = false;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Long("version") => return Ok(Self::Version),
                Arg::Value(word) if word == "uninstall" && !is_uninstall => is_uninstall = true,
                Arg::Long(flag) => {
                    let flag = flag.to_owned();
                    if !into.read_switch(&flag, &mut parser)? && !into.read_value(&flag, &mut parser)? {
                        return Err(format!("there is no flag --{flag}; --help lists them").into());
                    }
                }
                Arg::Short(_) | Arg::Value(_) => return Err(argument.unexpected()),
            }
        }
        into.thin.cni_conf = into.networks_dir.to_string_lossy().into_owned();
        Ok(if is_uninstall { Self::Uninstall(into) } else { Self::Run(into) })
    }
}

impl Arguments {
    /// Sets the switch `flag`, if there is one of that name.
    fn read_switch(&mut self, flag: &str, parser: &mut Parser) -> Result<bool, lexopt::Error> {
        let mut log_to_stderr = !self.thin.quiet;
        let switch = match flag {
            "namespace-isolation" => &mut self.thin.namespace_isolation,
            "multus-log-to-stderr" => &mut log_to_stderr,
            "override-network-name" => &mut self.thin.override_network_name,
            "rename-conf-file" => &mut self.rename_master,
            "skip-multus-binary-copy" => &mut self.skip_copy,
            "cleanup-config-on-exit" => &mut self.cleanup,
            "skip-config-watch" => &mut self.skip_watch,
            "force-cni-version" => &mut self.thin.force_version,
            "skip-tls-verify" => &mut self.skip_tls_verify,
            _ => return Ok(false),
        };
        *switch = match parser.optional_value() {
            None => true,
            Some(value) => match value.to_str() {
                Some("true" | "1" | "t" | "T" | "TRUE" | "True") => true,
                Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
                _ => return Err(format!("--{flag}={} must be true or false", value.to_string_lossy()).into()),
            },
        };
        self.thin.quiet = !log_to_stderr;
        Ok(true)
    }

    /// Sets what `flag` names, if there is something of that name.
    fn read_value(&mut self, flag: &str, parser: &mut Parser) -> Result<bool, lexopt::Error> {
        let path = match flag {
            "cni-bin-dir" => Some(&mut self.bin_dir),
            "cni-conf-dir" => Some(&mut self.conf_dir),
            "multus-bin-file" => Some(&mut self.program),
            "multus-cni-conf-dir" => Some(&mut self.networks_dir),
            "multus-autoconfig-dir" => Some(&mut self.autoconfig_dir),
            "service-account-dir" => Some(&mut self.service_account),
            _ => None,
        };
        if let Some(path) = path {
            *path = parser.value()?.into();
            return Ok(true);
        }
        let thin = &mut self.thin;
        let text = match flag {
            "cni-version" => &mut thin.version,
            "multus-kubeconfig-file-host" => &mut thin.kubeconfig,
            "global-namespaces" => &mut thin.global_namespaces,
            "multus-log-level" => &mut thin.log_level,
            "multus-log-file" => &mut thin.log_file,
            "readiness-indicator-file" => &mut thin.readiness_indicator_file,
            "additional-bin-dir" => &mut thin.bin_dir,
            "multus-conf-file" => {
                self.conf_file = Some(parser.value()?).filter(|value| value != "auto").map(PathBuf::from);
                return Ok(true);
            }
            "multus-master-cni-file-name" => {
                self.master = Some(parser.value()?.string()?).filter(|name| !name.is_empty());
                return Ok(true);
            }
            _ => return Ok(false),
        };
        *text = parser.value()?.string()?;
        Ok(true)
    }
}
