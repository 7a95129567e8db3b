//! What must be on the node when nothing is under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use testkit::program;

use crate::{
    node::{Node, wait},
    runtime::{LAN, Operation, Runtime},
    worker::{Worker, containers},
    world::{World, content},
};

impl World<'_> {
    /// Frees what was lost; now it is known exactly who is there.
    pub(crate) fn collect_all(&self, workers: &[Worker<'_>]) {
        let of_multus = containers(workers, |runtime| runtime == Runtime::Multus);
        let of_lan = containers(workers, |runtime| runtime != Runtime::Multus);
        for (runtime, valid) in [(Runtime::Multus, of_multus), (Runtime::Macvlan, of_lan)] {
            let reply = self.garbage_collection(runtime, &valid).run_in(&self.lab.host);
            self.count(runtime, Operation::Gc, Some(&reply));
            reply.succeeded();
        }
    }

    /// Links, addresses, reservations and files are those of the sandboxes that live: none is missing, none is left, and no
    /// address is there twice.
    pub(crate) fn is_what_lives(&self, node: &Node<'_>, workers: &[Worker<'_>]) {
        wait("the spool to be worked off", || node.spool().entries().unwrap().is_empty());
        let mut expected: BTreeMap<&str, BTreeMap<String, String>> =
            ["cbr0", "macvlan-conf", LAN].map(|network| (network, BTreeMap::new())).into();
        let mut cached = BTreeSet::new();
        for worker in workers {
            for sandbox in worker.sandboxes() {
                for ((network, ifname), address) in worker.runtime.networks().iter().zip(&sandbox.addresses) {
                    if let Some(netns) = &sandbox.netns {
                        let has = netns.addresses(ifname);
                        assert_eq!(has, [format!("{address}/24")], "{} {ifname}", sandbox.id);
                    }
                    let other =
                        expected.get_mut(network).unwrap().insert(address.clone(), content(&sandbox.id, ifname));
                    assert_eq!(other, None, "{address} of {} is also of", sandbox.id);
                    if worker.runtime == Runtime::Multus {
                        cached.insert(format!("{network}-{}-{ifname}", sandbox.id));
                    }
                }
            }
        }
        for (network, reservations) in expected {
            assert_eq!(self.stored(network), reservations, "{network}");
        }
        assert_eq!(self.files("multus/results"), cached);
        let scratch = containers(workers, |runtime| runtime == Runtime::Multus);
        let own = [".sandboxes", "results", "spool"].map(str::to_owned);
        assert_eq!(self.files("multus"), scratch.into_iter().chain(own).collect());
        assert_eq!(self.lab.host.links(), ["ens32", "lo", "wire"]);
    }

    /// When everything has been detached.
    pub(crate) fn is_empty(&self, node: &Node<'_>, workers: &[Worker<'_>]) {
        assert_eq!(containers(workers, |_| true), BTreeSet::new());
        self.is_what_lives(node, workers);
        // Indexes, and all that people would see.
        let output =
            Command::new(program("host-local")).arg("check").arg("--data-dir").arg(self.lab.data_dir()).output();
        let output = output.unwrap();
        let problems = String::from_utf8(output.stdout).unwrap();
        let of_go = |line: &str| line.contains("is empty: a plugin was killed");
        let ours: Vec<&str> = problems.lines().filter(|line| !of_go(line)).collect();
        assert_eq!(ours, ["host-local: nothing wrong"; 0], "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn files(&self, directory: &str) -> BTreeSet<String> {
        let files = fs::read_dir(self.lab.path(directory)).into_iter().flatten();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}
