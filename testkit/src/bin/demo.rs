//! Attaches two sandboxes to a macvlan network with the real program, and shows what comes of it.
//!
//!     demo DIRECTORY-OF-THE-PLUGINS
//!
//! Everything happens in namespaces of its own, and is gone with it: the host sees nothing of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a demonstration that fails shows that")]
#![allow(clippy::print_stdout, reason = "showing is what this is for")]

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::mount::{MsFlags, mount};
use serde_json::Value;
use testkit::{Call, Lab, Netns, Reply, enter_private_namespaces, ping};

const ATTACHMENT: &str = r#"{"cniVersion":"0.3.0","name":"macvlan-conf","type":"macvlan","master":"ens32","mode":"bridge",
 "ipam":{"type":"host-local","subnet":"192.168.1.0/24","rangeStart":"192.168.1.200","rangeEnd":"192.168.1.216",
         "routes":[{"dst":"0.0.0.0/0"}],"gateway":"192.168.1.1"}}"#;

fn main() {
    let plugins = PathBuf::from(env::args().nth(1).expect("the directory of the plugins"));
    enter_private_namespaces().unwrap_or_else(|reason| panic!("no namespaces to show it in: {reason}"));
    let lab = Lab::new();
    // The attachment keeps its reservations where every host does. This host is not to see them.
    mount(Some("tmpfs"), "/var/lib", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let demo = Demo { lab: &lab, macvlan: plugins.join("macvlan") };
    demo.run();
}

struct Demo<'a> {
    lab: &'a Lab,
    macvlan: PathBuf,
}

impl Demo<'_> {
    fn run(&self) {
        let (first, second) = (self.lab.container("pod-a"), self.lab.container("pod-b"));
        println!("A host with the link ens32, and the sandboxes pod-a and pod-b. The attachment:\n\n{ATTACHMENT}\n");

        let added = self.call("ADD", &first, ATTACHMENT);
        println!("{}\n", added.stdout);
        heading("The link in the sandbox");
        let mode = &first.link("net1").unwrap()["linkinfo"]["info_data"]["mode"];
        println!("net1 is a macvlan in mode {}:", mode.as_str().unwrap());
        print!("{}{}", first.ip("-br address show dev net1"), first.ip("route show"));
        heading("The reservation on disk");
        let reservations = Path::new("/var/lib/cni/networks/macvlan-conf");
        show_files(reservations);

        println!();
        let other: Value = serde_json::from_str(&self.call("ADD", &second, ATTACHMENT).stdout).unwrap();
        println!("address {}, and now:", other["ips"][0]["address"]);
        for (sandbox, name, target) in [(&first, "pod-a", [192, 168, 1, 201]), (&second, "pod-b", [192, 168, 1, 200])] {
            let target = Ipv4Addr::from(target);
            let time = ping(sandbox, target).unwrap_or_else(|error| panic!("{name}: {error}"));
            println!("ping from {name} to {target}: {:.2} ms", time.as_secs_f64() * 1e3);
        }

        println!();
        let mut newer: Value = serde_json::from_str(ATTACHMENT).unwrap();
        newer["cniVersion"] = "0.4.0".into();
        newer["prevResult"] = serde_json::from_str(&added.stdout).unwrap();
        newer["prevResult"]["cniVersion"] = "0.4.0".into();
        self.call("CHECK", &first, &newer.to_string());
        self.call("DEL", &first, ATTACHMENT);
        self.call("DEL", &second, ATTACHMENT);
        heading("What is left");
        println!("links in pod-a: {}, in pod-b: {}", first.links().join(" "), second.links().join(" "));
        show_files(reservations);
    }

    fn call(&self, command: &str, sandbox: &Netns, config: &str) -> Reply {
        let name = sandbox.path().file_name().unwrap().to_str().unwrap();
        let call =
            Call::new(&self.macvlan, command, sandbox.path()).container(name).env("CNI_IFNAME", "net1").stdin(config);
        let (reply, time) = self.lab.host.within(|| {
            let start = Instant::now();
            (call.run(), start.elapsed())
        });
        heading(&format!(
            "{command} {name} net1: exit status {}, {:.1} ms",
            reply.status.unwrap(),
            time.as_secs_f64() * 1e3
        ));
        reply.succeeded();
        reply
    }
}

fn heading(text: &str) {
    println!("== {text}");
}

fn show_files(directory: &Path) {
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        println!("{}: {:?}", file.display(), fs::read_to_string(&file).unwrap());
    }
}
