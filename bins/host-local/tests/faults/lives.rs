//! Random sequences of calls of both programs, with deaths and reboots.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use host_local_ipam::Boot;
use multus_cni::AttachmentId;
use proptest::{prelude::*, test_runner::TestRunner};
use testkit::{Call, Held, Reply};

use crate::{
    Host, addresses,
    sequence::{self, Answer, End, Program, Reservations, events, follow, tries},
};

pub(crate) fn are_those_of_the_model() {
    let config = ProptestConfig { cases: tries(60), failure_persistence: None, ..ProptestConfig::default() };
    let cases = config.cases;
    let followed = TestRunner::new(config).run(&events(false, 8..24), |events| {
        let host = Host::new();
        follow(&mut Programs { data_dir: host.data_dir(), host }, &events)
    });
    followed.unwrap_or_else(|error| panic!("{error}"));
    println!("{cases} sequences");
}

struct Programs {
    host: Host,
    data_dir: PathBuf,
}

impl Programs {
    fn call(&self, program: Program, command: &str, owner: &AttachmentId) -> Call {
        let call = match program {
            Program::Ours => self.host.ours(command, &owner.container_id),
            Program::Go => self.host.go(command, &owner.container_id),
        };
        call.env("CNI_IFNAME", &owner.ifname)
    }
}

impl sequence::Host for Programs {
    fn add(&mut self, program: Program, owner: &AttachmentId, wanted: Option<IpAddr>, end: End) -> Option<Answer> {
        let mut call = self.call(program, "ADD", owner);
        if let Some(wanted) = wanted {
            call = call.env("CNI_ARGS", &format!("IP={wanted}"));
        }
        match end {
            End::Delivered => {
                let reply = call.run();
                let answer = failure(&reply).map_or_else(|| Ok(addresses(&reply)), Err);
                Some(answer)
            }
            End::Undone => {
                let reply = Held::start(&call).refuse();
                assert_eq!(reply.status, Some(1), "{reply:?}");
                None
            }
            End::Died => {
                Held::start(&call).kill();
                None
            }
        }
    }

    fn del(&mut self, program: Program, owner: &AttachmentId) -> Result<(), String> {
        failure(&self.call(program, "DEL", owner).run()).map_or(Ok(()), Err)
    }

    fn check(&mut self, program: Program, owner: &AttachmentId) -> Result<(), String> {
        failure(&self.call(program, "CHECK", owner).run()).map_or(Ok(()), Err)
    }

    fn gc(&mut self, valid: &[AttachmentId]) -> Result<(), String> {
        failure(&self.host.gc_of(valid).run()).map_or(Ok(()), Err)
    }

    fn enter(&mut self, boot: Boot) {
        self.host.machine.enter(boot.machine.unwrap(), boot.id);
    }

    fn reservations(&self) -> Reservations {
        self.host.reservations()
    }

    fn data_dir(&self) -> Option<&Path> {
        Some(&self.data_dir)
    }
}

fn failure(reply: &Reply) -> Option<String> {
    (reply.status != Some(0)).then(|| reply.error().1)
}
