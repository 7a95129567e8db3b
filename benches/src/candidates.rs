//! What attaches a container to a macvlan network in a process: the kernel's floor, our plugins, and others where they are
//! installed.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use testkit::{Lab, Netns, go_plugins};

/// One way to attach and detach.
pub(crate) struct Candidate {
    /// What it is called.
    pub(crate) name: String,
    /// Whether it is what this project is about.
    pub(crate) is_ours: bool,
    /// It takes its turn in one of so many rounds.
    pub(crate) one_round_in: usize,
    program: PathBuf,
    add: Call,
    del: Call,
}

/// What is passed to a program.
#[derive(Default)]
pub(crate) struct Call {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Vec<u8>,
}

/// Which addresses are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    Ipv4,
    DualStack,
}

/// The parent of the links, the container and the place for reservations.
pub(crate) struct Place<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) container: &'a Netns,
    pub(crate) master: &'a str,
    pub(crate) data_dir: &'a Path,
}

impl Candidate {
    /// The plugin `macvlan` of `directory`, with `host-local`. Each has a network of its own: what it costs to mix them is
    /// another question.
    pub(crate) fn plugin(name: &str, place: &Place<'_>, directory: &Path, network: &str, families: Families) -> Self {
        let mut ranges = vec![json!([{"subnet": "192.168.1.0/24"}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if families == Families::DualStack {
            ranges.push(json!([{"subnet": "2001:db8:1::/64"}]));
            routes.push(json!({"dst": "::/0"}));
        }
        let config = json!({
            "cniVersion": "1.0.0", "name": network, "type": "macvlan", "master": place.master,
            "ipam": {"type": "host-local", "dataDir": place.data_dir, "ranges": ranges, "routes": routes},
        });
        let call = |command: &str| {
            let netns = place.container.path().to_str().unwrap();
            let variables = [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", netns),
                ("CNI_PATH", directory.to_str().unwrap()),
            ];
            Call {
                environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                stdin: config.to_string().into_bytes(),
                ..Call::default()
            }
        };
        Self {
            name: name.to_owned(),
            is_ours: false,
            one_round_in: 1,
            program: directory.join("macvlan"),
            add: call("ADD"),
            del: call("DEL"),
        }
    }

    /// The floor, built with the C compiler.
    pub(crate) fn floor(place: &Place<'_>) -> Result<Self, String> {
        let program = compiled("floor", place.lab)?;
        let store = place.data_dir.join("floor");
        fs::create_dir_all(&store).unwrap();
        let (netns, store) = (place.container.path().to_str().unwrap(), store.to_str().unwrap());
        let call = |arguments: &[&str]| Call {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            stdin: b"{}".to_vec(),
            ..Call::default()
        };
        Ok(Self {
            name: "the kernel's floor, IPv4".to_owned(),
            is_ours: false,
            one_round_in: 1,
            program,
            add: call(&["add", netns, place.master, store, "192.168.1.2"]),
            del: call(&["del", netns, store, "192.168.1.2"]),
        })
    }

    /// Podman's netavark: it is given its address and keeps no reservation.
    fn netavark(place: &Place<'_>) -> Result<Self, String> {
        let program = PathBuf::from("/usr/lib/podman/netavark");
        if !program.is_file() {
            return Err("no netavark in /usr/lib/podman: install the package netavark to compare with it".to_owned());
        }
        let id = "a".repeat(64);
        let network = json!({
            "name": "net", "id": id, "driver": "macvlan", "network_interface": place.master,
            "subnets": [{"subnet": "192.168.1.0/24", "gateway": "192.168.1.1"}],
            "ipv6_enabled": false, "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"},
        });
        let options = json!({
            "container_id": id, "container_name": "c1",
            "networks": {"net": {"static_ips": ["192.168.1.9"], "interface_name": "eth0"}},
            "network_info": {"net": network},
        });
        let call = |command: &str| Call {
            arguments: vec![command.to_owned(), place.container.path().to_str().unwrap().to_owned()],
            // It wants a firewall, which a macvlan network has no use for.
            environment: [("NETAVARK_FW", "iptables"), ("PATH", "/usr/sbin:/usr/bin")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            stdin: options.to_string().into_bytes(),
        };
        let (add, del) = (call("setup"), call("teardown"));
        let version = Command::new(&program).arg("--version").output().map_err(|error| error.to_string())?;
        let name = format!("{} (Debian), IPv4, no IPAM", String::from_utf8_lossy(&version.stdout).trim());
        let candidate = Self { name, is_ours: false, one_round_in: 1, program, add, del };
        let works = [true, false].iter().all(|add| candidate.try_to(*add, place, &[]).is_ok());
        if works { Ok(candidate) } else { Err("netavark is installed, and does not work here (iptables?)".to_owned()) }
    }

    /// Attaches or detaches, and returns how long that took, seen from outside: before the start of the process to its end.
    pub(crate) fn run(&self, add: bool, place: &Place<'_>) -> Duration {
        self.try_to(add, place, &[]).unwrap_or_else(|problem| panic!("{}: {problem}", self.name)).0
    }

    /// As [`run`](Self::run), with the program started by `wrapper`; returns what that says on standard error.
    pub(crate) fn run_through(&self, wrapper: &[&str], add: bool, place: &Place<'_>) -> String {
        self.try_to(add, place, wrapper).unwrap_or_else(|problem| panic!("{}: {problem}", self.name)).1
    }

    fn try_to(&self, add: bool, place: &Place<'_>, wrapper: &[&str]) -> Result<(Duration, String), String> {
        let call = if add { &self.add } else { &self.del };
        let mut words: Vec<&Path> = wrapper.iter().map(Path::new).collect();
        words.push(&self.program);
        let mut command = Command::new(words.remove(0));
        command.args(words).args(&call.arguments).env_clear();
        command.envs(call.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        place.lab.host.within(|| {
            let start = Instant::now();
            let mut child = command.spawn().map_err(|error| error.to_string())?;
            child.stdin.take().unwrap().write_all(&call.stdin).map_err(|error| error.to_string())?;
            let output = child.wait_with_output().map_err(|error| error.to_string())?;
            let time = start.elapsed();
            match output.status.success() {
                true => Ok((time, String::from_utf8_lossy(&output.stderr).into_owned())),
                false => Err(format!("{command:?}: {output:?}")),
            }
        })
    }
}

/// Everything that can be had here, the floor first; and why the rest cannot.
pub(crate) fn all(place: &Place<'_>, plugins: &Path) -> (Vec<Candidate>, Vec<String>) {
    let (mut candidates, mut missing) = (vec![Candidate::floor(place).unwrap()], Vec::new());
    let families = [("IPv4", Families::Ipv4), ("dual stack", Families::DualStack)];
    for (words, families) in families {
        let (name, network) = (format!("macvlan + host-local, {words}"), format!("ours {words}").replace(' ', "-"));
        let candidate = Candidate::plugin(&name, place, plugins, &network, families);
        candidates.push(Candidate { is_ours: true, ..candidate });
    }
    match go_plugins() {
        Ok(go) => {
            for (words, families) in families {
                let name = format!("Go macvlan + host-local (Debian), {words}");
                let candidate =
                    Candidate::plugin(&name, place, &go, &format!("go {words}").replace(' ', "-"), families);
                // It waits for seconds until IPv6 addresses are usable.
                let one_round_in = if families == Families::Ipv4 { 1 } else { 25 };
                candidates.push(Candidate { one_round_in, ..candidate });
            }
        }
        Err(reason) => missing.push(reason),
    }
    match Candidate::netavark(place) {
        Ok(candidate) => candidates.push(candidate),
        Err(reason) => missing.push(reason),
    }
    (candidates, missing)
}

/// Builds a program of `floor/` with the C compiler.
pub(crate) fn compiled(name: &str, lab: &Lab) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("floor/{name}.c"));
    let program = lab.path(&format!("{name}-program"));
    let built = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&source).status();
    match built.is_ok_and(|status| status.success()) {
        true => Ok(program),
        false => Err(format!("{} was not built: it needs a C compiler called cc, and a static libc", source.display())),
    }
}
