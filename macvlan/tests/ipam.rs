//! An IPAM plugin of this process that fails, or panics, in each of its calls: no link stays behind without its owner's
//! knowledge, and the next DEL leaves nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and so does its plugin"
)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use macvlan::Macvlan;
use multus_cni::{
    Attachment, Error, Invocation, IpConfig, NetworkConfig, Pending, Plugin, Provisional, Registry, Success, Version,
};
use serde_json::{Value, json};
use testkit::{Lab, Netns, run};

fn main() -> ExitCode {
    run(&[
        ("an_add_that_fails_leaves_nothing", an_add_that_fails_leaves_nothing),
        ("an_undo_that_fails_is_told_and_the_link_is_gone", an_undo_that_fails_is_told_and_the_link_is_gone),
        ("a_keep_that_panics_leaves_what_del_takes", a_keep_that_panics_leaves_what_del_takes),
        ("a_del_that_fails_is_told_and_the_next_finishes_it", a_del_that_fails_is_told_and_the_next_finishes_it),
        ("a_check_that_fails_is_told_and_changes_nothing", a_check_that_fails_is_told_and_changes_nothing),
    ])
}

fn an_add_that_fails_leaves_nothing(lab: &Lab) {
    each(lab, Step::Add, |test| {
        test.assert_fails(
            test.call(|plugin| plugin.add(&test.attachment(), &test.invocation(None)).map(Pending::keep)),
        );
        test.assert_nothing_is_left();
    });
}

fn an_undo_that_fails_is_told_and_the_link_is_gone(lab: &Lab) {
    each(lab, Step::Undo, |test| {
        let refused = test.call(|plugin| plugin.add(&test.attachment(), &test.invocation(None)).map(Pending::keep));
        if test.ipam.how == How::Error {
            let text = refused.unwrap().unwrap_err().to_string();
            assert!(
                text.starts_with("failed to add IP addr 10.1.2.3/24") && text.ends_with("; and undo: no"),
                "{text}"
            );
        } else {
            assert!(refused.is_none(), "the panic is the caller's");
        }
        assert_eq!(test.sandbox.links(), ["lo"]);
        test.assert_del_leaves_nothing();
    });
}

fn a_keep_that_panics_leaves_what_del_takes(lab: &Lab) {
    each(lab, Step::Keep, |test| {
        // There is no way to tell: the attachment is delivered.
        let kept = test.call(|plugin| plugin.add(&test.attachment(), &test.invocation(None)).map(Pending::keep));
        assert_eq!(kept.is_none(), test.ipam.how == How::Panic);
        assert_eq!(test.sandbox.links(), ["lo", "net1"]);
        test.assert_del_leaves_nothing();
    });
}

fn a_del_that_fails_is_told_and_the_next_finishes_it(lab: &Lab) {
    each(lab, Step::Del, |test| {
        test.attach();
        test.assert_fails(test.call(|plugin| plugin.del(&test.attachment(), &test.invocation(None))));
        if test.ipam.how == How::Error {
            assert_eq!(test.sandbox.links(), ["lo"], "the link goes all the same");
        }
        test.assert_del_leaves_nothing();
    });
}

fn a_check_that_fails_is_told_and_changes_nothing(lab: &Lab) {
    each(lab, Step::Check, |test| {
        let previous = test.attach();
        let check = || test.call(|plugin| plugin.check(&test.attachment(), &test.invocation(Some(&previous))));
        test.assert_fails(check());
        check().unwrap().unwrap();
        test.assert_del_leaves_nothing();
    });
}

fn each(lab: &Lab, step: Step, case: impl Fn(&Test<'_>)) {
    let mut count = 0;
    for how in [How::Error, How::Panic] {
        for serializes in [false, true] {
            count += 1;
            let ipam = Ipam { fails: Arc::new(Mutex::new(Some(step))), how, serializes, held: Arc::default() };
            let sandbox = lab.container(&format!("c{count}"));
            case(&Test { lab, sandbox, ipam });
        }
    }
    eprintln!("{step:?}: {count} failures");
}

/// Where it fails, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Add,
    Keep,
    Undo,
    Del,
    Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Error,
    Panic,
}

/// Gives one address, and knows whether it is given.
#[derive(Clone)]
struct Ipam {
    fails: Arc<Mutex<Option<Step>>>,
    how: How,
    serializes: bool,
    held: Arc<AtomicUsize>,
}

impl Ipam {
    fn reach(&self, step: Step) -> Result<(), Error> {
        let is_here = {
            let mut fails = self.fails.lock().unwrap();
            fails.take_if(|fails| *fails == step).is_some()
        };
        match self.how {
            How::Panic if is_here => panic!("{}: no", format!("{step:?}").to_lowercase()),
            How::Error if is_here => Err(Error::Execution(format!("{}: no", format!("{step:?}").to_lowercase()))),
            How::Panic | How::Error => Ok(()),
        }
    }
}

impl Plugin for Ipam {
    fn add(&self, _: &Attachment, _: &Invocation) -> Result<Pending, Error> {
        self.reach(Step::Add)?;
        self.held.store(1, Ordering::SeqCst);
        let ip = IpConfig { address: "10.1.2.3/24".parse().unwrap(), gateway: None, interface: None };
        // The kernel takes an address once.
        let count = if *self.fails.lock().unwrap() == Some(Step::Undo) { 2 } else { 1 };
        let success = Success { ips: vec![ip; count], ..Success::default() };
        Ok(Pending::new(success, Reserved(self.clone())))
    }

    fn del(&self, _: &Attachment, _: &Invocation) -> Result<(), Error> {
        self.reach(Step::Del)?;
        self.held.store(0, Ordering::SeqCst);
        Ok(())
    }

    fn check(&self, _: &Attachment, _: &Invocation) -> Result<(), Error> {
        self.reach(Step::Check)
    }

    fn status(&self, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn serializes_attachments(&self) -> bool {
        self.serializes
    }
}

struct Reserved(Ipam);

impl Provisional for Reserved {
    fn keep(self: Box<Self>) {
        let _no_way_to_tell = self.0.reach(Step::Keep);
    }

    fn undo(self: Box<Self>) -> Result<(), Error> {
        self.0.reach(Step::Undo)?;
        self.0.held.store(0, Ordering::SeqCst);
        Ok(())
    }
}

struct Test<'a> {
    lab: &'a Lab,
    sandbox: Netns,
    ipam: Ipam,
}

impl Test<'_> {
    /// Has the plugin do that in the host; nothing when it panics.
    fn call<T: Send>(&self, command: impl FnOnce(&dyn Plugin) -> Result<T, Error> + Send) -> Option<Result<T, Error>> {
        let plugin = Macvlan::new(Registry::new().with("given", self.ipam.clone()));
        self.lab.host.within(|| catch_unwind(AssertUnwindSafe(|| command(&plugin))).ok())
    }

    fn attach(&self) -> Success {
        self.call(|plugin| plugin.add(&self.attachment(), &self.invocation(None)).map(Pending::keep)).unwrap().unwrap()
    }

    fn attachment(&self) -> Attachment {
        let netns = Some(self.sandbox.path().to_owned());
        Attachment { container_id: "c1".parse().unwrap(), ifname: "net1".parse().unwrap(), netns }
    }

    fn invocation(&self, previous: Option<&Success>) -> Invocation {
        let mut config = self.config();
        if let Some(previous) = previous {
            config["prevResult"] = serde_json::from_slice(&previous.print(Version::LATEST).unwrap()).unwrap();
        }
        Invocation::new(NetworkConfig::parse(config.to_string()).unwrap())
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "ens32", "ipam": {"type": "given"},
        })
    }

    fn assert_fails<T: std::fmt::Debug>(&self, outcome: Option<Result<T, Error>>) {
        match (self.ipam.how, outcome) {
            (How::Error, Some(Err(error))) => assert!(error.to_string().ends_with(": no"), "{error}"),
            (How::Panic, None) => {}
            (how, outcome) => panic!("{how:?}: {outcome:?}"),
        }
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(self.sandbox.links(), ["lo"]);
        assert_eq!(self.lab.host.links(), ["ens32", "lo", "wire"]);
        assert_eq!(self.ipam.held.load(Ordering::SeqCst), 0);
    }

    fn assert_del_leaves_nothing(&self) {
        self.call(|plugin| plugin.del(&self.attachment(), &self.invocation(None))).unwrap().unwrap();
        self.assert_nothing_is_left();
    }
}
