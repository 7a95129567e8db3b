//! Commands on one attachment come one after the other, and those on others at once, within a process.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use host_local_ipam::{DiskStore, HostLocal, MemoryStore, Store};
use multus_cni::{Attachment, Error, Invocation, NetworkConfig, Pending, Plugin};
use nix::libc::{SYS_fcntl, SYS_futex, c_long};

#[test]
fn a_release_waits_until_the_add_is_kept() {
    on_both_stores(|host| {
        let pending = host.add("c1").unwrap();
        let release = host.meanwhile(|host| host.del("c1"));
        assert!(release.waits());
        assert_eq!(host.reserved(), ["10.0.0.2"]);
        pending.keep();
        release.outcome().unwrap();
        assert_eq!(host.reserved(), [""; 0]);
    });
}

#[test]
fn a_release_waits_until_the_add_is_undone() {
    on_both_stores(|host| {
        let pending = host.add("c1").unwrap();
        let release = host.meanwhile(|host| host.del("c1"));
        assert!(release.waits());
        pending.undo().unwrap();
        release.outcome().unwrap();
        assert_eq!(host.reserved(), [""; 0]);
    });
}

#[test]
fn a_second_add_is_a_duplicate_once_the_first_is_kept() {
    on_both_stores(|host| {
        let pending = host.add("c1").unwrap();
        let second = host.meanwhile(|host| host.add("c1"));
        assert!(second.waits());
        pending.keep();
        let refused = second.outcome().unwrap_err().to_string();
        assert!(
            refused.contains("10.0.0.2 has been allocated to c1, duplicate allocation is not allowed"),
            "{refused}"
        );
        assert_eq!(host.reserved(), ["10.0.0.2"]);
    });
}

#[test]
fn a_second_add_is_served_once_the_first_is_undone() {
    on_both_stores(|host| {
        let pending = host.add("c1").unwrap();
        let second = host.meanwhile(|host| host.add("c1"));
        assert!(second.waits());
        // As an early return or a panic would.
        drop(pending);
        second.outcome().unwrap().keep();
        assert_eq!(host.reserved(), ["10.0.0.3"]);
    });
}

#[test]
fn a_collection_goes_by_what_is_under_way() {
    on_both_stores(|host| {
        host.add("c2").unwrap().keep();
        let pending = host.add("c1").unwrap();
        host.gc().unwrap();
        assert_eq!(host.reserved(), ["10.0.0.3"]);
        pending.keep();
        host.gc().unwrap();
        assert_eq!(host.reserved(), [""; 0]);
    });
}

#[test]
fn nobody_else_waits() {
    on_both_stores(|host| {
        let pending = host.add("c1").unwrap();
        let others = host.meanwhile(|host| {
            for _ in 0..2 {
                host.add("c2")?.keep();
                host.del("c2")?;
            }
            host.add("c3")?.undo()
        });
        others.outcome().unwrap();
        assert_eq!(host.reserved(), ["10.0.0.2"]);
        drop(pending);
    });
}

fn on_both_stores(test: impl Fn(&Host)) {
    test(&Host { store: Arc::new(MemoryStore::new()) });
    let directory = tempfile::tempdir().unwrap();
    test(&Host { store: Arc::new(DiskStore::new(directory.path())) });
}

#[derive(Clone)]
struct Host {
    store: Arc<dyn Store>,
}

impl Host {
    fn plugin(&self) -> HostLocal {
        HostLocal::with_store(Arc::clone(&self.store))
    }

    fn add(&self, container: &str) -> Result<Pending, Error> {
        self.plugin().add(&attachment(container), &invocation())
    }

    fn del(&self, container: &str) -> Result<(), Error> {
        self.plugin().del(&attachment(container), &invocation())
    }

    /// A GC for which nothing is valid.
    fn gc(&self) -> Result<(), Error> {
        self.plugin().gc(&invocation())
    }

    fn reserved(&self) -> Vec<String> {
        let all = self.store.lock(&"storage".parse().unwrap()).unwrap().all().unwrap();
        all.into_iter().map(|reservation| reservation.address.to_string()).collect()
    }

    fn meanwhile<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Meanwhile<T> {
        let (sender, receiver) = mpsc::channel();
        let host = self.clone();
        let thread = thread::spawn(move || {
            sender.send(fs::canonicalize("/proc/thread-self").unwrap()).unwrap();
            work(&host)
        });
        Meanwhile { thread, task: receiver.recv().unwrap() }
    }
}

/// What another thread does, which proc(5) tells of at `task`.
struct Meanwhile<T> {
    thread: JoinHandle<T>,
    task: PathBuf,
}

impl<T> Meanwhile<T> {
    /// Returns when it sleeps for a lock; whether it does before it ends.
    fn waits(&self) -> bool {
        while !self.thread.is_finished() {
            let text = fs::read_to_string(self.task.join("syscall")).unwrap_or_default();
            let number: Option<c_long> = text.split(' ').next().and_then(|word| word.parse().ok());
            if number.is_some_and(|number| [SYS_fcntl, SYS_futex].contains(&number)) {
                return true;
            }
            thread::yield_now();
        }
        false
    }

    fn outcome(self) -> T {
        self.thread.join().unwrap()
    }
}

fn attachment(container: &str) -> Attachment {
    Attachment { container_id: container.parse().unwrap(), ifname: "eth0".parse().unwrap(), netns: None }
}

fn invocation() -> Invocation {
    let config = r#"{"cniVersion": "1.1.0", "name": "storage", "cni.dev/valid-attachments": [],
        "ipam": {"type": "host-local", "subnet": "10.0.0.0/29"}}"#;
    Invocation::new(NetworkConfig::parse(config.as_bytes().to_vec()).unwrap())
}
