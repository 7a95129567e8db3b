//! What must hold of a program's commands, whatever happens to one of them.

use serde_json::Value;

use crate::{Fault, Reply, SystemCall};

/// Of each network of a sandbox whether its link is there, and the addresses that are reserved.
pub type Networks = Vec<(bool, Vec<String>)>;

/// A program, and a sandbox that its commands are for.
pub trait Subject {
    /// So that every command does the same each time.
    fn start_anew(&self);

    /// Runs a command; `previous` is what the ADD before it has answered, where the configuration is to have that.
    fn run(&self, command: &str, previous: Option<&Value>) -> Reply;

    /// The same with that happening to it.
    fn run_with(&self, fault: &Fault, command: &str, previous: Option<&Value>) -> Reply;

    /// The same, with the system calls that it makes, also without a fault.
    fn follow(&self, fault: Option<&Fault>, command: &str, previous: Option<&Value>) -> (Reply, Vec<SystemCall>);

    /// What there is.
    fn networks(&self) -> Networks;

    /// What there is besides what an attachment has that has `result`, and what lacks of it.
    fn differences(&self, result: &Value) -> Vec<String>;

    /// What is left of an ADD that has failed.
    fn left(&self) -> Vec<String>;

    /// What is left of an attachment that was deleted.
    fn left_by_del(&self) -> Vec<String> {
        self.left()
    }

    /// Takes something away that CHECK looks at.
    fn damage(&self);
}

/// What a whole command does, once what it is for is there.
pub fn system_calls_of<S: Subject>(subject: &S, command: &str) -> Vec<SystemCall> {
    let (reply, calls) = prepared(subject, command, None);
    reply.succeeded();
    is_gone_after_del(subject, "nothing");
    calls
}

/// What an ADD does that fails by `fault`; nothing of one that does not fail.
pub fn system_calls_after<S: Subject>(subject: &S, fault: &Fault) -> Vec<SystemCall> {
    let (reply, calls) = prepared(subject, "ADD", Some(fault));
    is_gone_after_del(subject, &fault.to_string());
    if fault.is_survived(&reply) { Vec::new() } else { calls }
}

fn prepared<S: Subject>(subject: &S, command: &str, fault: Option<&Fault>) -> (Reply, Vec<SystemCall>) {
    subject.start_anew();
    let previous = (command != "ADD").then(|| subject.run("ADD", None).result());
    subject.follow(fault, command, previous.as_ref().filter(|_| command == "CHECK"))
}

/// Has that happen to the command, and sees to it that all is well.
pub fn survives<S: Subject>(subject: &S, command: &str, fault: &Fault) {
    subject.start_anew();
    match command {
        "ADD" => add_survives(subject, fault),
        "DEL" => del_survives(subject, fault),
        _ => check_survives(subject, fault),
    }
    is_gone_after_del(subject, &format!("{command}: {fault}"));
}

fn add_survives<S: Subject>(subject: &S, fault: &Fault) {
    let reply = subject.run_with(fault, "ADD", None);
    if fault.is_survived(&reply) {
        is_attached(subject, &reply.result(), fault);
        return;
    }
    let left = subject.left();
    fault.may_leave(&left, &reply);
    if left.is_empty() {
        // It was that one time.
        is_attached(subject, &subject.run("ADD", None).result(), fault);
    }
}

fn del_survives<S: Subject>(subject: &S, fault: &Fault) {
    let result = subject.run("ADD", None).result();
    let whole = subject.networks();
    let reply = subject.run_with(fault, "DEL", None);
    if fault.is_survived(&reply) {
        assert_eq!(subject.left_by_del(), [""; 0], "{fault}: {reply:?}");
    }
    let check = subject.run("CHECK", Some(&result));
    assert_eq!(check.status == Some(0), subject.networks() == whole, "{fault}: {reply:?}, then {check:?}");
}

fn check_survives<S: Subject>(subject: &S, fault: &Fault) {
    let result = subject.run("ADD", None).result();
    let reply = subject.run_with(fault, "CHECK", Some(&result));
    let _whole = fault.is_survived(&reply);
    is_attached(subject, &result, fault);
    subject.damage();
    let reply = subject.run_with(fault, "CHECK", Some(&result));
    assert!(reply.status == Some(1) || fault.is_ended(&reply), "{fault}: something is not there: {reply:?}");
}

/// Has the process die there, and sees to it that the next commands make that good.
pub fn outlives<S: Subject>(subject: &S, command: &str, fault: &Fault) {
    subject.start_anew();
    if command == "DEL" {
        subject.run("ADD", None).succeeded();
    }
    let _died = subject.run_with(fault, command, None);
    is_gone_after_del(subject, &format!("{command}: {fault}"));
    subject.run("ADD", None).succeeded();
    is_gone_after_del(subject, &format!("{command}: {fault}, and ADD"));
}

fn is_attached<S: Subject>(subject: &S, result: &Value, fault: &Fault) {
    assert_eq!(subject.differences(result), [""; 0], "{fault}");
    let check = subject.run("CHECK", Some(result));
    assert_eq!(check.status, Some(0), "{fault}: {check:?}");
}

/// Deletes what there is, and sees to it that nothing is left.
pub fn is_gone_after_del<S: Subject>(subject: &S, after: &str) {
    let reply = subject.run("DEL", None);
    assert_eq!(reply.status, Some(0), "{after}: {reply:?}");
    assert_eq!(subject.left_by_del(), [""; 0], "{after}");
}
