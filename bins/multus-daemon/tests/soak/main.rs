//! Everything at once for a long time: sandboxes that are attached, checked, detached, lost and collected, by Multus, by our
//! programs and by the Go plugins, on one data directory, while plugins and the daemon are killed.
//!
//! It goes on in rounds. In each, every worker does so many operations; whatever can be said at any time is asserted there.
//! Then, while nothing is under way, what is on the node must be what the sandboxes that live have, and nothing else. In
//! the first rounds the daemon, or a plugin that it executes, is killed again and again; in the last ones it lives, and must
//! not grow.
//!
//! It lasts a minute, with `SOAK=1` twenty, or `SOAK_SECONDS`; choices are those of `SOAK_SEED`, which is printed.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says where"
)]

mod memory;
#[path = "../daemon/node.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
mod node;
mod round_end;
mod runtime;
mod worker;
mod world;

use std::{
    env, fs,
    os::unix::fs::symlink,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use node::Node;
use serde_json::json;
use testkit::{Choices, Lab, are_current, go_plugins, program, run_when};

use crate::{memory::Memory, runtime::Runtime, worker::Worker, world::World};

const USUAL: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(20 * 60);
/// How many operations each worker does in a round.
const OPERATIONS: usize = 25;
/// How long the daemon is left alone at most, in milliseconds.
const PAUSE: usize = 600;
/// How often it is looked for a plugin that may be killed.
const LOOKS: usize = 300;
/// At least, however slow the machine is.
const ROUNDS_WITH_DEATHS: usize = 2;
const ROUNDS_OF_ONE_LIFE: usize = 4;

fn main() -> ExitCode {
    let needed = go_plugins().map(drop).and_then(|()| are_current(&["macvlan", "host-local", "multus-shim"]));
    run_when(
        &[("whatever_is_killed_nothing_leaks_and_no_address_is_given_twice", whatever_is_killed_nothing_leaks)],
        needed,
    )
}

fn whatever_is_killed_nothing_leaks(lab: &Lab) {
    let time = time();
    let seed = number("SOAK_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    eprintln!("{} s, SOAK_SEED={seed}", time.as_secs());
    let mut node = Node::without_daemon(lab, json!({}));
    symlink(program("macvlan"), lab.path("bin/macvlan")).unwrap();
    let world = World::new(lab, node.config());
    let mut workers: Vec<Worker<'_>> = workers(&world, seed);
    workers.iter().for_each(|worker| worker.announce(&node));
    node.start();

    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS_WITH_DEATHS || begin.elapsed() < time.mul_f32(0.6) {
        let choices = Choices::new(seed ^ u64::try_from(rounds).unwrap());
        work_while_the_daemon_dies(&mut node, &world, &mut workers, choices);
        world.collect_all(&workers);
        world.is_what_lives(&node, &workers);
        rounds += 1;
    }
    let mut memory = Memory::default();
    while memory.rounds() < ROUNDS_OF_ONE_LIFE || begin.elapsed() < time {
        thread::scope(|scope| workers.iter_mut().for_each(|worker| drop(scope.spawn(|| worker.work(OPERATIONS)))));
        world.collect_all(&workers);
        world.is_what_lives(&node, &workers);
        memory.look_at(&node);
    }
    workers.iter_mut().for_each(Worker::end);
    world.collect_all(&workers);
    world.is_empty(&node, &workers);
    eprintln!("{rounds} rounds with deaths of the daemon, {} of one life", memory.rounds());
    eprint!("{}{memory}", world.counts());
    memory.is_flat();
    world.has_done_everything(time < USUAL);
}

/// Four for Multus, five for macvlan, three for host-local.
fn workers<'a>(world: &'a World<'a>, seed: u64) -> Vec<Worker<'a>> {
    let runtimes = [(Runtime::Multus, 4), (Runtime::Macvlan, 5), (Runtime::HostLocal, 3)];
    let each = runtimes.into_iter().flat_map(|(runtime, count)| std::iter::repeat_n(runtime, count));
    each.zip(0..).map(|(runtime, number)| Worker::new(world, runtime, number, seed)).collect()
}

/// Disturbs the daemon until all workers are done, and starts it once more then: what the shims have left for it in their
/// spool is done when it is ready.
fn work_while_the_daemon_dies(
    node: &mut Node<'_>,
    world: &World<'_>,
    workers: &mut [Worker<'_>],
    mut choices: Choices,
) {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let is_done = &is_done;
        let working = scope.spawn(move || {
            let _done = Done(is_done);
            thread::scope(|scope| workers.iter_mut().for_each(|worker| drop(scope.spawn(|| worker.work(OPERATIONS)))));
        });
        while !is_done.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(u64::try_from(choices.below(PAUSE)).unwrap()));
            if choices.chance(50) {
                world.without_a_plugin(|| kill_plugin(node));
            } else {
                start_again(node, world, choices.chance(50));
            }
        }
        working.join().unwrap();
    });
    start_again(node, world, true);
}

/// The next one has macvlan built in, or executes it.
fn start_again(node: &mut Node<'_>, world: &World<'_>, is_built_in: bool) {
    let builtin = if is_built_in { "macvlan,host-local" } else { "host-local" };
    node.environment.insert("CNI_BUILTIN", builtin.to_owned());
    world.without_a_daemon(|| {
        node.kill();
        node.start();
    });
}

/// Kills a program that the daemon executes, if it is seen to do so; whether it was.
fn kill_plugin(node: &Node<'_>) -> bool {
    let is_killed = |child: i32| kill(Pid::from_raw(child), Signal::SIGKILL).is_ok();
    (0..LOOKS).any(|_| children(node.id()).into_iter().next().is_some_and(is_killed))
}

fn children(process: u32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().map(|child| child.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Also when a worker has failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn time() -> Duration {
    let is_long = env::var("SOAK").is_ok_and(|value| value == "1");
    number("SOAK_SECONDS").map_or(if is_long { LONG } else { USUAL }, Duration::from_secs)
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}
