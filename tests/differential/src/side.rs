//! One of the two implementations, and the world it acts on.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Call, Lab, Netns, go_plugins};

use crate::{Outcome, Step, allowed};

/// Whose plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugins {
    /// The programs of this workspace, built before.
    Ours,
    /// Debian's.
    Go,
}

impl Plugins {
    fn directory(self) -> PathBuf {
        match self {
            Self::Go => go_plugins().unwrap(),
            Self::Ours => {
                let directory = env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
                let built = |plugin: &&str| directory.join(plugin).is_file();
                assert!(
                    ["macvlan", "host-local"].iter().all(built),
                    "build macvlan-plugin and host-local-plugin first"
                );
                directory
            }
        }
    }
}

/// An implementation with files, and maybe a host, of its own.
#[derive(Debug)]
pub struct Side {
    plugins: PathBuf,
    world: World,
    /// By container and interface.
    results: HashMap<(String, &'static str), String>,
}

#[derive(Debug)]
enum World {
    Files(TempDir),
    Host { lab: Box<Lab>, sandboxes: Vec<Netns> },
}

const SANDBOXES: [&str; 4] = ["c0", "c1", "c2", "c3"];

impl Side {
    /// With files alone, for host-local.
    #[must_use]
    pub fn with_files(plugins: Plugins) -> Self {
        // In memory: what is compared are decisions.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        Self { plugins: plugins.directory(), world: World::Files(directory), results: HashMap::new() }
    }

    /// With a host that has the links `ens32` and `ens33`, of which the first has the default route, and sandboxes.
    #[must_use]
    pub fn with_host(plugins: Plugins) -> Self {
        let lab = Lab::new();
        lab.add_parent("ens33", "wire33");
        lab.host.ip("address add 192.0.2.1/24 dev ens32");
        lab.host.ip("route add default via 192.0.2.254");
        let sandboxes: Vec<Netns> = SANDBOXES.iter().map(|name| lab.container(name)).collect();
        for sandbox in &sandboxes {
            // Nobody waits, so that there is one state to compare.
            sandbox.within(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap());
            sandbox.within(|| fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0").unwrap());
        }
        Self {
            plugins: plugins.directory(),
            world: World::Host { lab: Box::new(lab), sandboxes },
            results: HashMap::new(),
        }
    }

    /// What there is before the first command.
    #[must_use]
    pub fn state(&self) -> Outcome {
        let nothing = testkit::Reply { status: Some(0), stdout: String::new(), stderr: String::new() };
        self.outcome(&nothing)
    }

    /// The configuration of `step` for this side.
    #[must_use]
    pub fn config(&self, step: &Step) -> String {
        let previous = self.results.get(&(step.container.clone(), step.ifname));
        let previous = previous.map_or("null", String::as_str);
        let config = step.config.replace("\"@PREVIOUS\"", previous);
        config.replace("@DATA", self.directory().join("networks").to_str().unwrap())
    }

    /// Runs `step`.
    pub fn run(&mut self, step: &Step) -> Outcome {
        let program = if matches!(self.world, World::Host { .. }) { "macvlan" } else { "host-local" };
        let mut call = Call::new(self.plugins.join(program), step.command, &self.directory().join(&step.container))
            .container(&step.container)
            .env("CNI_IFNAME", step.ifname)
            .stdin(self.config(step));
        if let Some(args) = &step.args {
            call = call.env("CNI_ARGS", args);
        }
        match step.variable {
            Some((name, Some(value))) => call = call.env(name, value),
            Some((name, None)) => call = call.without(name),
            None => {}
        }
        let reply = match &self.world {
            World::Files(_) => call.run(),
            World::Host { lab, .. } => call.run_in(&lab.host),
        };
        if step.command == "ADD" && reply.status == Some(0) {
            self.results.insert((step.container.clone(), step.ifname), reply.stdout.clone());
        }
        self.outcome(&reply)
    }

    fn directory(&self) -> PathBuf {
        match &self.world {
            World::Files(directory) => directory.path().to_owned(),
            World::Host { lab, .. } => lab.path(""),
        }
    }

    fn outcome(&self, reply: &testkit::Reply) -> Outcome {
        let mut files = files(&self.directory().join("networks"));
        if self.plugins != Plugins::Ours.directory() {
            allowed::modes_of_today(&mut files);
        }
        let mut macs = Vec::new();
        let kernel = match &self.world {
            World::Files(_) => Value::Null,
            World::Host { lab, sandboxes } => {
                let inside = sandboxes.iter().map(|sandbox| inside(sandbox, &mut macs)).collect();
                json!({"host": lab.host.links(), "sandboxes": Value::Array(inside)})
            }
        };
        let root = self.directory();
        let root = root.to_str().unwrap().trim_end_matches('/').to_owned();
        Outcome::new(reply, files, kernel, |text| {
            macs.iter().fold(text.replace(&root, "@"), |text, mac| text.replace(mac, "random"))
        })
    }
}

/// Everything below `directory` but what the Go plugin does not know of, by its path.
fn files(directory: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(parent) = directories.pop() {
        let entries = fs::read_dir(&parent).into_iter().flatten().map(|entry| entry.unwrap().path());
        for path in entries.filter(|path| !path.ends_with(".host-local")) {
            let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            files.insert(name, (mode, if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() }));
            if path.is_dir() {
                directories.push(path);
            }
        }
    }
    files
}

/// What ip(8) says, without what is counted through or chosen at random. Adds random hardware addresses to `macs`.
fn inside(sandbox: &Netns, macs: &mut Vec<String>) -> Value {
    let mut links = sandbox.ip_json("address show");
    // The kernel takes a moment to find that nobody need be asked.
    for _ in 0..200 {
        let text = links.to_string();
        if !(text.contains("\"tentative\"") || text.contains("\"optimistic\"")) {
            break;
        }
        thread::sleep(Duration::from_millis(5));
        links = sandbox.ip_json("address show");
    }
    let mut described = Vec::new();
    for link in links.as_array_mut().unwrap().iter_mut().filter(|link| link["ifname"] != "lo") {
        let name = link["ifname"].as_str().unwrap().to_owned();
        let address = link["address"].as_str().unwrap().to_owned();
        // Those that are asked for all begin so.
        if !address.starts_with("02:00:00:00:00:") {
            macs.push(address);
        }
        let entries = link.as_object_mut().unwrap();
        for key in ["ifindex", "link_index", "link_netnsid", "txqlen", "operstate"] {
            entries.remove(key);
        }
        for address in entries["addr_info"].as_array_mut().unwrap() {
            if address["local"].as_str().unwrap().starts_with("fe80:") {
                address["local"] = json!("fe80::random");
            }
        }
        let has_addresses = entries["addr_info"].as_array().unwrap().iter().any(|address| address["scope"] == "global");
        let settings = allowed::SETTINGS.iter().filter(|_| has_addresses).map(|key| {
            let path = format!("/proc/sys/net/{}", key.replace("NAME", &name));
            // Links with a small MTU have no IPv6.
            (*key, sandbox.within(|| fs::read_to_string(path).ok()))
        });
        let settings: BTreeMap<_, _> = settings.collect();
        described.push(json!({"link": link, "settings": settings}));
    }
    let routes = ["-4", "-6"].map(|family| {
        let text = sandbox.ip(&format!("{family} route show table all"));
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.iter_mut().filter(|line| line.contains("local fe80::") || line.contains("anycast fe80::")).for_each(
            |line| {
                *line = line
                    .split_whitespace()
                    .map(|word| if word.starts_with("fe80::") { "fe80::random" } else { word })
                    .collect::<Vec<_>>()
                    .join(" ");
            },
        );
        lines.sort();
        lines
    });
    let text = json!({"links": described, "routes": routes}).to_string();
    let text = macs.iter().fold(text, |text, mac| text.replace(mac.as_str(), "random"));
    serde_json::from_str(&text).unwrap()
}
