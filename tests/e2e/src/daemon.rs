//! The daemon on the node.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use testkit::{Lab, program};

use crate::{forward::forward, kubeconfig::Access, wait};

/// A `multus-daemon`, or none.
pub(crate) struct Daemon {
    process: Option<Child>,
}

impl Daemon {
    /// Configures it; it does not run yet. Away, it is waited for so long.
    pub(crate) fn configure(lab: &Lab, access: &Access, patience: Duration) -> Self {
        // The server listens in another network.
        let access = access.clone().by(forward(&lab.host, access.address()));
        fs::write(lab.path("kubeconfig"), access.kubeconfig().to_string()).unwrap();
        let [run, multus, bin, net, kubeconfig] =
            ["multus-run", "multus", "bin", "net.d", "kubeconfig"].map(|name| lab.path(name));
        let config = json!({
            "cniVersion": "0.3.1", "logLevel": "verbose", "logToStderr": true, "kubeconfig": kubeconfig,
            "socketDir": run, "daemonSocketDir": run, "daemonWaitSeconds": patience.as_secs(),
            "cniDir": multus, "binDir": bin, "cniConfigDir": net, "multusAutoconfigDir": net,
        });
        fs::write(lab.path("daemon-config.json"), config.to_string()).unwrap();
        Self { process: None }
    }

    /// Starts it, and returns when it is ready.
    pub(crate) fn start(&mut self, lab: &Lab, node: &str) {
        let log = File::options().create(true).append(true).open(lab.path("daemon.log")).unwrap();
        let mut command = Command::new(program("multus-daemon"));
        command.arg("-config").arg(lab.path("daemon-config.json")).env_clear();
        command
            .env("MULTUS_NODE_NAME", node)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdout(Stdio::null())
            .stderr(log);
        let process = lab.host.within(|| command.spawn().unwrap());
        assert!(self.process.replace(process).is_none(), "a daemon is there");
        wait("the daemon to be ready", || {
            let mut health = Command::new(program("multus-daemon"));
            health.args(["healthcheck", "-ready", "-config"]).arg(lab.path("daemon-config.json"));
            health.output().unwrap().status.success()
        });
    }

    /// Kills it, if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
