//! Who waits for whom, between processes.

use testkit::Held;

use crate::{Host, ITS, addresses};

/// The file whose locks are of attachments.
const LOCKS: &str = ".attachments";

pub(crate) fn waits_for_its_add() {
    nobody_else_waits();
    for end in [End::Delivered, End::Refused, End::Killed] {
        a_second_add_waits(end);
        a_release_waits(end);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Delivered,
    Refused,
    Killed,
}

impl End {
    fn of(self, held: Held) {
        match self {
            Self::Delivered => drop(addresses(&held.deliver())),
            Self::Refused => assert_eq!(held.refuse().status, Some(1)),
            Self::Killed => held.kill(),
        }
    }
}

fn nobody_else_waits() {
    let host = Host::new();
    let held = Held::start(&host.ours("ADD", ITS));
    let reserved = host.reservations();
    assert_eq!(reserved.len(), 2);
    for call in [host.ours("ADD", "c2"), host.ours("DEL", "c2"), host.go("ADD", "c3"), host.go("DEL", "c3")] {
        call.run().succeeded();
    }
    host.ours("ADD", ITS).env("CNI_IFNAME", "net1").run().succeeded();
    // An ADD that has begun since is not in the list of a collection, which goes by.
    host.gc(&[]).run().succeeded();
    assert_eq!(host.reservations(), reserved);
    assert_eq!(addresses(&held.deliver()), reserved.into_keys().collect::<Vec<_>>());
    host.gc(&[]).run().succeeded();
    assert!(host.reservations().is_empty());
}

fn a_second_add_waits(end: End) {
    let host = Host::new();
    let held = Held::start(&host.ours("ADD", ITS));
    let first: Vec<_> = host.reservations().into_keys().collect();
    let mut second = host.ours("ADD", ITS).start();
    assert!(second.waits_for(LOCKS), "{end:?}");
    end.of(held);
    let reply = second.reply();
    match end {
        End::Delivered => assert!(reply.error().1.contains("duplicate allocation is not allowed"), "{reply:?}"),
        End::Refused => assert_eq!(addresses(&reply).len(), 2),
        End::Killed => assert_eq!(addresses(&reply), first),
    }
    assert_eq!(host.held_by(ITS).len(), 2);
}

fn a_release_waits(end: End) {
    let host = Host::new();
    let held = Held::start(&host.ours("ADD", ITS));
    let mut release = host.ours("DEL", ITS).start();
    assert!(release.waits_for(LOCKS), "{end:?}");
    assert_eq!(host.held_by(ITS).len(), 2);
    end.of(held);
    release.reply().succeeded();
    assert!(host.reservations().is_empty(), "{end:?}");
}
