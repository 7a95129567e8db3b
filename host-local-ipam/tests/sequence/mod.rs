//! Random events in the life of a network with two sets of ranges, and a model of plain sets that tells what may become of
//! its reservations.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use host_local_ipam::Boot;
use multus_cni::AttachmentId;
use proptest::{collection::vec, option, prelude::*};
use rustix::{fs::lgetxattr, io::Errno};

/// What carries out the events.
pub(crate) trait Host {
    /// An ADD that ends so, and what it answered if anybody heard: the addresses of its result, or its error.
    fn add(&mut self, program: Program, owner: &AttachmentId, wanted: Option<IpAddr>, end: End) -> Option<Answer>;

    /// A DEL; what it said if it failed.
    fn del(&mut self, program: Program, owner: &AttachmentId) -> Result<(), String>;

    /// A CHECK without a previous result; what it said if it failed.
    fn check(&mut self, program: Program, owner: &AttachmentId) -> Result<(), String>;

    /// A GC of ours; what it said if it failed.
    fn gc(&mut self, valid: &[AttachmentId]) -> Result<(), String>;

    /// From now on, everything happens in this boot.
    fn enter(&mut self, boot: Boot);

    /// What is reserved.
    fn reservations(&self) -> Reservations;

    /// Where the store lies; none in memory.
    fn data_dir(&self) -> Option<&Path>;
}

pub(crate) type Answer = Result<Vec<IpAddr>, String>;
pub(crate) type Reservations = BTreeMap<IpAddr, Reservation>;

/// What is seen of an address that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// As the file has it.
    pub(crate) content: String,
    pub(crate) record: Option<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) boot: Boot,
    pub(crate) finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Ours,
    Go,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Delivered,
    /// Nobody takes the result.
    Undone,
    /// Killed before its result is delivered.
    Died,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Add {
        program: Program,
        owner: u8,
        wanted: Option<u8>,
        end: End,
    },
    Del {
        program: Program,
        owner: u8,
    },
    Check {
        program: Program,
        owner: u8,
    },
    Gc {
        valid: Vec<u8>,
    },
    /// The machine starts anew.
    Reboot,
    /// From now on, on the other one of two machines that share the directory.
    OtherMachine,
    LoseIndex,
    DamageIndex {
        place: usize,
        bit: u8,
    },
    /// An empty file, as a killed Go plugin leaves it.
    Torn {
        address: u8,
    },
}

/// Sequences of events; in memory only those that can happen there.
pub(crate) fn events(in_memory: bool, length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Event>> {
    let program = move || prop_oneof![3 => Just(Program::Ours), u32::from(!in_memory) => Just(Program::Go)];
    let end = prop_oneof![3 => Just(End::Delivered), 1 => Just(End::Undone), 2 => Just(End::Died)];
    let add = (program(), 0..8_u8, option::weighted(0.2, 0..12_u8), end).prop_map(|(program, owner, wanted, end)| {
        // Of the Go plugin's nothing is known but that they were made.
        let end = if program == Program::Go { End::Delivered } else { end };
        Event::Add { program, owner, wanted, end }
    });
    let calls = prop_oneof![
        10 => add,
        4 => (program(), 0..8_u8).prop_map(|(program, owner)| Event::Del { program, owner }),
        1 => (program(), 0..8_u8).prop_map(|(program, owner)| Event::Check { program, owner }),
        1 => vec(0..8_u8, 0..8).prop_map(|valid| Event::Gc { valid }),
    ];
    let incidents = prop_oneof![
        4 => Just(Event::Reboot),
        2 => Just(Event::OtherMachine),
        1 => Just(Event::LoseIndex),
        2 => (any::<usize>(), 0..8_u8).prop_map(|(place, bit)| Event::DamageIndex { place, bit }),
        1 => (0..12_u8).prop_map(|address| Event::Torn { address }),
    ];
    vec(prop_oneof![4 => calls, u32::from(!in_memory) => incidents], length)
}

/// Has everything happen, and finds after each event what the model finds possible.
pub(crate) fn follow(host: &mut dyn Host, events: &[Event]) -> Result<(), TestCaseError> {
    let mut boots = [Boot { machine: Some(1), id: 1 }, Boot { machine: Some(2), id: 2 }];
    let mut started = 2;
    let mut machine = 0;
    let mut model = Model::default();
    for event in events {
        model.now = Some(boots[machine]);
        host.enter(boots[machine]);
        match event {
            Event::Add { program, owner, wanted, end } => {
                let (owner, wanted) = (attachment(*owner), wanted.map(place));
                let possible = model.adds(*program, &owner, wanted, *end);
                let found = (host.add(*program, &owner, wanted, *end), host.reservations());
                let met =
                    possible.iter().any(|(answer, after)| is_told(found.0.as_ref(), answer) && found.1 == after.held);
                prop_assert!(met, "{:?}: {:?}\nis none of {:#?}", event, found, possible);
                model.held = found.1;
                continue;
            }
            Event::Del { program, owner } => {
                let owner = attachment(*owner);
                prop_assert_eq!(host.del(*program, &owner), Ok(()));
                model.release_all(&owner);
            }
            Event::Check { program, owner } => {
                let owner = attachment(*owner);
                let holds = model.held.values().any(|one| one.content == content(&owner));
                prop_assert_eq!(host.check(*program, &owner).is_ok(), holds, "{:?}", event);
            }
            Event::Gc { valid } => {
                let valid: Vec<AttachmentId> = valid.iter().map(|owner| attachment(*owner)).collect();
                prop_assert_eq!(host.gc(&valid), Ok(()));
                let valid: Vec<String> = valid.iter().map(content).collect();
                model.held.retain(|_, one| one.content.is_empty() || valid.contains(&one.content));
            }
            Event::Reboot => {
                started += 1;
                boots[machine].id = started;
            }
            Event::OtherMachine => machine = 1 - machine,
            Event::LoseIndex => change_index(host.data_dir(), |index| fs::remove_file(index).unwrap()),
            Event::DamageIndex { place, bit } => change_index(host.data_dir(), |index| {
                let mut bytes = fs::read(index).unwrap();
                let place = place % bytes.len();
                bytes[place] ^= 1 << bit;
                fs::write(index, bytes).unwrap();
            }),
            Event::Torn { address } => {
                let directory = host.data_dir().map(|data_dir| data_dir.join(NETWORK));
                let file =
                    directory.filter(|directory| directory.exists()).map(|one| one.join(place(*address).to_string()));
                if file.is_some_and(|file| fs::File::create_new(file).is_ok()) {
                    model.held.insert(place(*address), Reservation { content: String::new(), record: None });
                }
            }
        }
        prop_assert_eq!(&host.reservations(), &model.held, "{:?}", event);
    }
    Ok(())
}

fn change_index(data_dir: Option<&Path>, change: impl FnOnce(&Path)) {
    let index = data_dir.map(|data_dir| data_dir.join(format!(".host-local/{NETWORK}.index")));
    if let Some(index) = index.filter(|index| index.exists()) {
        change(&index);
    }
}

fn is_told(answer: Option<&Answer>, expected: &Answer) -> bool {
    match (answer, expected) {
        (Some(Ok(given)), Ok(expected)) => given == expected,
        (Some(Err(text)), Err(part)) => text.contains(part.as_str()),
        (Some(_), _) => false,
        (None, _) => true,
    }
}

/// What may be.
#[derive(Clone, Debug, Default)]
struct Model {
    now: Option<Boot>,
    held: Reservations,
}

impl Model {
    /// Everything that an ADD may answer, and what is reserved then.
    fn adds(&self, program: Program, owner: &AttachmentId, wanted: Option<IpAddr>, end: End) -> Vec<(Answer, Self)> {
        let mut under_way = vec![(Vec::new(), self.clone())];
        let mut ended = Vec::new();
        for set in sets() {
            let wanted = wanted.filter(|wanted| set.contains(wanted));
            for (given, mut state) in std::mem::take(&mut under_way) {
                let next = match wanted {
                    Some(wanted) => state.take(program, owner, &set, wanted).map(|taken| vec![(wanted, taken)]),
                    None => state.take_any(program, owner, &set),
                };
                match next {
                    Ok(next) => under_way.extend(
                        next.into_iter().map(|(address, state)| ([given.clone(), vec![address]].concat(), state)),
                    ),
                    Err(reason) => {
                        match program {
                            Program::Ours => state.release(&given),
                            // It takes back by owner, once for each set that gave.
                            Program::Go if !given.is_empty() => state.release_all(owner),
                            Program::Go => {}
                        }
                        ended.push((Err(reason.to_owned()), state));
                    }
                }
            }
        }
        for (given, mut state) in under_way {
            match end {
                End::Delivered => {
                    for address in &given {
                        if let Some(record) = &mut state.held.get_mut(address).unwrap().record {
                            record.finished = true;
                        }
                    }
                    ended.push((Ok(given), state));
                }
                End::Undone => {
                    state.release(&given);
                    ended.push((Ok(given), state));
                }
                End::Died => ended.push((Ok(given), state)),
            }
        }
        ended
    }

    /// A set gives the address that is wanted.
    fn take(
        &self,
        program: Program,
        owner: &AttachmentId,
        set: &[IpAddr],
        wanted: IpAddr,
    ) -> Result<Self, &'static str> {
        const TAKEN: &str = "is not available in range set";
        if wanted == set[0] {
            return Err("is subnet's gateway");
        }
        if let Some(holder) = self.held.get(&wanted) {
            let may_go = program == Program::Ours
                && (holder.content.is_empty()
                    || self.is_of_earlier_boot(holder)
                    || holder.content == content(owner) && self.is_superseded(holder));
            if !may_go {
                return Err(TAKEN);
            }
        }
        let mut after = self.clone();
        if program == Program::Ours {
            after.held.retain(|address, one| {
                !(set.contains(address) && one.content == content(owner) && self.is_superseded(one))
            });
        }
        let record = (program == Program::Ours).then(|| Record { boot: self.now.unwrap(), finished: false });
        after.held.insert(wanted, Reservation { content: content(owner), record });
        Ok(after)
    }

    /// A set gives any address, which may be each of these.
    fn take_any(
        &self,
        program: Program,
        owner: &AttachmentId,
        set: &[IpAddr],
    ) -> Result<Vec<(IpAddr, Self)>, &'static str> {
        let which = |is: &dyn Fn(Option<&Reservation>) -> bool| -> Vec<IpAddr> {
            set.iter().copied().filter(|address| is(self.held.get(address))).collect()
        };
        let own = which(&|holder| holder.is_some_and(|holder| holder.content == content(owner)));
        if own.iter().any(|address| program == Program::Go || !self.is_superseded(&self.held[address])) {
            return Err("duplicate allocation is not allowed");
        }
        let free = which(&|holder| holder.is_none_or(|holder| program == Program::Ours && holder.content.is_empty()));
        let earlier =
            which(&|holder| program == Program::Ours && holder.is_some_and(|holder| self.is_of_earlier_boot(holder)));
        let any = [own, free, earlier].map(|addresses| addresses.into_iter().filter(|address| *address != set[0]));
        for candidates in any {
            let taken: Vec<_> =
                candidates.map(|address| (address, self.take(program, owner, set, address).unwrap())).collect();
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
        Err("no IP addresses available in range set")
    }

    fn is_of_earlier_boot(&self, reservation: &Reservation) -> bool {
        let now = self.now.unwrap();
        reservation.record.is_some_and(|record| record.boot.machine == now.machine && record.boot.id != now.id)
    }

    fn is_superseded(&self, reservation: &Reservation) -> bool {
        let is_unfinished = |record: Record| Some(record.boot) == self.now && !record.finished;
        self.is_of_earlier_boot(reservation) || reservation.record.is_some_and(is_unfinished)
    }

    fn release(&mut self, addresses: &[IpAddr]) {
        self.held.retain(|address, _| !addresses.contains(address));
    }

    fn release_all(&mut self, owner: &AttachmentId) {
        self.held.retain(|_, one| one.content != content(owner));
    }
}

/// The network's name.
pub(crate) const NETWORK: &str = "storage";

/// Small ones, so that they are often full.
const SETS: [&str; 2] = ["10.0.0.0/29", "2001:db8::/125"];

/// The `ranges` of the network.
pub(crate) fn ranges() -> String {
    format!(r#"[[{{"subnet": "{}"}}], [{{"subnet": "{}"}}]]"#, SETS[0], SETS[1])
}

/// The addresses of each set, the gateway first.
pub(crate) fn sets() -> [Vec<IpAddr>; 2] {
    let addresses = |network, last| (1..=last).map(|host| format!("{network}{host}").parse().unwrap()).collect();
    [addresses("10.0.0.", 6), addresses("2001:db8::", 7)]
}

fn place(number: u8) -> IpAddr {
    sets().concat()[usize::from(number)]
}

fn attachment(owner: u8) -> AttachmentId {
    let ifname = ["eth0", "net1"][usize::from(owner % 2)];
    AttachmentId { container_id: format!("c{}", owner / 2), ifname: ifname.to_owned() }
}

/// What a reservation's file says.
pub(crate) fn content(owner: &AttachmentId) -> String {
    format!("{}\r\n{}", owner.container_id, owner.ifname)
}

/// What the files of the network say.
pub(crate) fn files(data_dir: &Path) -> Reservations {
    let entries = fs::read_dir(data_dir.join(NETWORK)).into_iter().flatten().map(Result::unwrap);
    let named = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    named.map(|(address, path): (IpAddr, _)| (address, reservation(&path))).collect()
}

/// What a reservation's file says. Whatever else than a record its attribute has is no record of anybody's.
pub(crate) fn reservation(path: &Path) -> Reservation {
    let mut bytes = [0; 64];
    let record = match lgetxattr(path, "user.host-local", &mut bytes) {
        Ok(length) => Some(record(std::str::from_utf8(&bytes[..length]).unwrap())),
        Err(Errno::NODATA) => None,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    Reservation { content: fs::read_to_string(path).unwrap(), record }
}

fn record(text: &str) -> Record {
    let words: Vec<&str> = text.split(' ').collect();
    let number = |word: &str| u64::from_str_radix(word, 16).unwrap();
    let machine = Some(words[0]).filter(|word| *word != "-").map(number);
    let finished = match words[2..] {
        [] => true,
        ["unfinished"] => false,
        _ => panic!("{text:?}"),
    };
    Record { boot: Boot { machine, id: number(words[1]) }, finished }
}

/// How often something is tried: this often in an ordinary run, and ten times that in a long one.
pub(crate) fn tries(ordinary: u32) -> u32 {
    if is_long() { ordinary * 10 } else { ordinary }
}

/// Whether this is a long run (`SOAK=1`).
pub(crate) fn is_long() -> bool {
    std::env::var("SOAK").is_ok_and(|value| value == "1")
}
