//! Capabilities of every program but the daemon, of which see `capabilities`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use testkit::{Call, Lab};
use testkit_kubernetes::ApiServer;

use crate::{
    files::text,
    node::{Node, PROGRAM, wait},
};

/// A program, the capabilities that it needs, each with what it says without, and what it does with them.
struct Row {
    program: &'static str,
    needs: &'static [(&'static str, &'static str)],
    works: fn(&Bench<'_>, &[String]) -> Result<(), String>,
}

const NAMESPACE: (&str, &str) = ("SYS_ADMIN", "entering a network namespace takes the capability SYS_ADMIN");
const LINK: (&str, &str) = ("NET_ADMIN", "making a link takes the capability NET_ADMIN");

const ROWS: [Row; 8] = [
    Row { program: "macvlan", needs: &[NAMESPACE, LINK], works: |bench, by| bench.attach("macvlan", by) },
    Row { program: "multus", needs: &[NAMESPACE, LINK], works: |bench, by| bench.attach("multus", by) },
    Row { program: "host-local", needs: &[], works: |bench, by| bench.attach("host-local", by) },
    Row { program: "passthru", needs: &[], works: |bench, by| bench.attach("passthru", by) },
    Row { program: "multus-shim", needs: &[], works: |bench, by| bench.shim(by) },
    Row { program: "thin_entrypoint", needs: &[], works: |bench, by| bench.thin_entrypoint(by) },
    Row { program: "kubeconfig_generator", needs: &[], works: |bench, by| bench.kubeconfig_generator(by) },
    Row { program: "cert-approver", needs: &[], works: |bench, by| bench.cert_approver(by) },
];

/// With nothing more than those, no way to gain any, and a root file system that cannot be written; and not with one less.
pub(crate) fn each_program_needs_its_capabilities_and_no_others(lab: &Lab) {
    let bench = Bench { lab };
    let table = text("SECURITY.md");
    for Row { program, needs, works } in ROWS {
        let names: Vec<&str> = needs.iter().map(|(name, _)| *name).collect();
        works(&bench, &bench.restricted(&names)).unwrap_or_else(|error| panic!("{program} with {names:?}: {error}"));
        for (missing, said) in needs {
            let others: Vec<&str> = names.iter().copied().filter(|name| name != missing).collect();
            let error = works(&bench, &bench.restricted(&others)).expect_err(program);
            assert!(error.contains(said), "{program} without {missing}: {error}");
        }
        let documented = if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) };
        let row = format!("| `{program}` | {documented} |");
        assert!(table.lines().any(|line| line.starts_with(&row)), "SECURITY.md has no row {row}");
    }
}

/// The programs that a runtime calls, with what it could call things.
pub(crate) fn names_that_are_none_are_refused_by_every_program(lab: &Lab) {
    let sandbox = lab.container("c1");
    let config = |name: &str| {
        json!({
            "cniVersion": "1.1.0", "name": name, "type": "x", "cniDir": lab.path("multus"), "master": "ens32",
            "daemonSocketDir": lab.path("run"), "delegates": [{"name": "n", "type": "passthru"}],
            "ipam": {"type": "host-local", "dataDir": lab.data_dir(), "subnet": "10.1.2.0/24"},
        })
    };
    for program in ["macvlan", "host-local", "multus", "multus-shim", "passthru"] {
        for command in ["ADD", "DEL"] {
            let call = || Call::new(sibling(program), command, sandbox.path()).config(&config("net"));
            let refused = |call: Call, code: u64| {
                let (found, message, details) = call.run_in(&lab.host).error();
                assert_eq!(found, code, "{program} {command}: {message}");
                format!("{message} {details}")
            };
            for id in ["../x", "a/b", "..", ".x", "-x", "a\nb"] {
                assert!(refused(call().container(id), 4).contains(id), "{program} {command} {id:?}");
            }
            for ifname in ["../x", "a/b", "..", ".", "a\nb", "0123456789abcdef"] {
                let said = refused(call().env("CNI_IFNAME", ifname), 4);
                assert!(said.contains("interface name"), "{program} {command} {ifname:?}: {said}");
            }
            for name in ["../x", "a/b", "..", ".x", "-x", "a\nb", "a\0b"] {
                let said = refused(call().config(&config(name)), 7);
                assert!(said.contains("network name"), "{program} {command} {name:?}: {said}");
            }
        }
    }
    let left = |name: &str| lab.path(name).exists();
    assert!(!left("multus") && !left("networks") && !left("run") && !left("x"), "nothing was begun");
    assert_eq!(sandbox.links(), ["lo"]);
}

struct Bench<'a> {
    lab: &'a Lab,
}

impl Bench<'_> {
    /// What a program is run through to have no other capabilities than these. Only the laboratory's directory can be
    /// written.
    fn restricted(&self, capabilities: &[&str]) -> Vec<String> {
        const READ_ONLY: &str = "mount --rbind \"$0\" \"$0\" && mount -o remount,bind,ro / && exec \"$@\"";
        let kept: String = capabilities.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
        let directory = self.lab.path("");
        let (directory, bounds) = (directory.to_str().unwrap(), format!("--bounding-set=-all{kept}"));
        let words = ["unshare", "--mount", "sh", "-c", READ_ONLY, directory, "setpriv", "--no-new-privs"];
        words.into_iter().chain([&*bounds, "--inh-caps=-all", "--"]).map(str::to_owned).collect()
    }

    /// An ADD of a fresh sandbox and its DEL.
    fn attach(&self, program: &str, by: &[String]) -> Result<(), String> {
        let name = format!("{program}-{}", by.concat().len());
        let sandbox = self.lab.container(&name);
        let macvlan = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "ens32",
            "ipam": {"type": "host-local", "dataDir": self.lab.data_dir(), "ranges": [[{"subnet": "10.1.2.0/24"}]]},
        });
        let config = match program {
            "multus" => json!({
                "cniVersion": "1.1.0", "name": "multus", "type": "multus", "cniDir": self.lab.path("multus"),
                "delegates": [macvlan],
            }),
            _ => macvlan,
        };
        let done = ["ADD", "DEL"].map(|command| {
            let call = Call::new(sibling(program), command, sandbox.path()).container(&name);
            let path = std::env::var("PATH").unwrap();
            let words: Vec<&str> = by.iter().map(String::as_str).collect();
            call.env("PATH", &path).config(&config).through(&words).run_in(&self.lab.host)
        });
        let failed = done.iter().find(|reply| reply.status != Some(0));
        if let Some(reply) = failed {
            return Err(format!("{}{}", reply.stdout, reply.stderr));
        }
        assert_eq!((sandbox.links(), self.lab.reserved("net")), (vec!["lo".to_owned()], Vec::new()));
        Ok(())
    }

    fn shim(&self, by: &[String]) -> Result<(), String> {
        let node = Node::new(self.lab);
        let sandbox = node.pod("web-0", "");
        let request = node.request("ADD", &sandbox);
        let done = ["ADD", "DEL"].map(|command| {
            let call = Call::new(sibling("multus-shim"), command, sandbox.path()).container("web-0");
            let words: Vec<&str> = by.iter().map(String::as_str).collect();
            let call = call.env("CNI_ARGS", request["env"]["CNI_ARGS"].as_str().unwrap());
            let path = std::env::var("PATH").unwrap();
            call.env("PATH", &path).config(&node.config()).through(&words).run_in(&self.lab.host)
        });
        match done.iter().find(|reply| reply.status != Some(0)) {
            Some(reply) => Err(format!("{}{}", reply.stdout, reply.stderr)),
            None => Ok(()),
        }
    }

    fn thin_entrypoint(&self, by: &[String]) -> Result<(), String> {
        let directory = self.lab.path("thin");
        let path = |name: &str| directory.join(name);
        for name in ["bin", "net.d", "account"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("multus"), "the program").unwrap();
        fs::write(path("net.d/10-cbr0.conf"), r#"{"cniVersion":"0.3.1","name":"cbr0","type":"bridge"}"#).unwrap();
        fs::write(path("account/token"), "secret").unwrap();
        fs::write(path("account/ca.crt"), "certificate").unwrap();
        let mut command = through(by, "thin_entrypoint");
        for (flag, name) in [
            ("--cni-bin-dir", "bin"),
            ("--cni-conf-dir", "net.d"),
            ("--multus-autoconfig-dir", "net.d"),
            ("--multus-bin-file", "multus"),
            ("--multus-cni-conf-dir", "networks"),
            ("--service-account-dir", "account"),
        ] {
            command.arg(flag).arg(path(name));
        }
        command.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").env("KUBERNETES_SERVICE_PORT", "443");
        let _running = Running::of(&mut command);
        wait("thin_entrypoint to write", || path("net.d/00-multus.conf").exists() && path("bin/multus").exists());
        Ok(())
    }

    fn kubeconfig_generator(&self, by: &[String]) -> Result<(), String> {
        self.lab.host.within(|| {
            let server = ApiServer::start();
            server.sign_certificates(Duration::from_secs(600));
            fs::write(self.lab.path("bootstrap"), server.kubeconfig()).unwrap();
            let kubeconfig = self.lab.path("node.kubeconfig");
            let mut command = through(by, "kubeconfig_generator");
            command.env("MULTUS_NODE_NAME", "node-1").arg("--certdir").arg(self.lab.path("certs"));
            command.arg("--bootstrap-config").arg(self.lab.path("bootstrap")).arg("--kubeconfig").arg(&kubeconfig);
            let running = Running::of(&mut command);
            wait("kubeconfig_generator to write", || kubeconfig.exists());
            drop(running);
            server.stop();
        });
        Ok(())
    }

    fn cert_approver(&self, by: &[String]) -> Result<(), String> {
        self.lab.host.within(|| {
            let server = ApiServer::start();
            let account = self.lab.path("approver");
            fs::create_dir(&account).unwrap();
            server.write_service_account(&account);
            let mut command = through(by, "cert-approver");
            command.env("KUBERNETES_SERVICE_HOST", server.address().ip().to_string());
            command.env("KUBERNETES_SERVICE_PORT", server.address().port().to_string());
            let running = Running::of(command.arg("--service-account-dir").arg(account));
            server.wait_for(1, "watch", "certificatesigningrequests");
            drop(running);
            server.stop();
        });
        Ok(())
    }
}

fn sibling(program: &str) -> PathBuf {
    let path = Path::new(PROGRAM).with_file_name(program);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins`", path.display());
    path
}

fn through(by: &[String], program: &str) -> Command {
    let mut command = Command::new(&by[0]);
    command.args(&by[1..]).arg(sibling(program)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

struct Running(Child);

impl Running {
    fn of(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
