//! Entering a namespace in a process of one thread, as plugins are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command, process::ExitCode, time::Duration};

use multus_net::{Connection, Error, Namespace, sysctl};
use testkit::{Lab, run_on_one_thread};

const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    run_on_one_thread(&[
        ("the_only_thread_goes_in_itself_and_comes_back", the_only_thread_goes_in_itself_and_comes_back),
        ("it_comes_back_from_a_failure_and_from_a_panic", it_comes_back_from_a_failure_and_from_a_panic),
        ("what_is_to_be_done_meanwhile_is_done_at_home", what_is_to_be_done_meanwhile_is_done_at_home),
        ("with_company_a_thread_goes", with_company_a_thread_goes),
    ])
}

fn the_only_thread_goes_in_itself_and_comes_back(lab: &Lab) {
    let sandbox = Namespace::open(lab.container("c1").path()).unwrap();
    let (home, thread) = (here(), fs::read_link("/proc/thread-self").unwrap());
    let inside = sandbox.enter(|| {
        sysctl::write("net/ipv4/conf/all/arp_notify", "1")?;
        Ok::<_, Error>((here(), fs::read_link("/proc/thread-self").unwrap()))
    });
    let (there, same_thread) = inside.unwrap();
    assert_eq!(same_thread, thread);
    assert_ne!(there, home);
    assert_eq!(here(), home);
    // A child is born at home.
    let born = Command::new("readlink").arg("/proc/self/ns/net").output().unwrap();
    assert_eq!(String::from_utf8(born.stdout).unwrap().trim(), home);
    assert_eq!(sandbox.connect(TIMEOUT).unwrap().links().unwrap().len(), 1);
    assert_eq!(here(), home);
}

fn it_comes_back_from_a_failure_and_from_a_panic(lab: &Lab) {
    let sandbox = Namespace::open(lab.container("c1").path()).unwrap();
    let home = here();
    let failing = || Connection::open(TIMEOUT)?.delete_link(4711);
    assert!(sandbox.enter(failing).unwrap_err().is_not_found());
    assert_eq!(here(), home);
    let panicking = || -> Result<(), Error> { std::panic::resume_unwind(Box::new("out of luck")) };
    let error = sandbox.enter(panicking).unwrap_err();
    assert_eq!(error.to_string(), "internal error inside the namespace: out of luck");
    assert_eq!(here(), home);
}

fn what_is_to_be_done_meanwhile_is_done_at_home(lab: &Lab) {
    let sandbox = Namespace::open(lab.container("c1").path()).unwrap();
    let home = here();
    let (there, outside) = sandbox.enter_while(|| Ok::<_, Error>(here()), here);
    assert_eq!(outside, home);
    assert_ne!(there.unwrap(), home);
    let nowhere = Namespace::open(Path::new("/proc/self/ns/uts")).unwrap();
    let (there, outside) = nowhere.enter_while(|| Ok::<_, Error>(here()), here);
    assert_eq!(outside, home);
    there.unwrap_err();
}

fn with_company_a_thread_goes(lab: &Lab) {
    let sandbox = Namespace::open(lab.container("c1").path()).unwrap();
    let (thread, home) = (fs::read_link("/proc/thread-self").unwrap(), here());
    let (leave, stay) = std::sync::mpsc::channel::<()>();
    let company = std::thread::spawn(move || stay.recv());
    let other = sandbox.enter(|| Ok::<_, Error>(fs::read_link("/proc/thread-self").unwrap()));
    assert_ne!(other.unwrap(), thread);
    // Neither waits for the other.
    let (tell, told) = std::sync::mpsc::channel();
    let (answer, answered) = std::sync::mpsc::channel();
    let there = move || {
        tell.send(here()).unwrap();
        Ok::<_, Error>(answered.recv_timeout(TIMEOUT).unwrap())
    };
    let (there, outside) = sandbox.enter_while(there, || {
        let there = told.recv_timeout(TIMEOUT).unwrap();
        answer.send(here()).unwrap();
        there
    });
    assert_eq!(there.unwrap(), home);
    assert_ne!(outside, home);
    drop(leave);
    company.join().unwrap().unwrap_err();
}

fn here() -> String {
    fs::read_link("/proc/thread-self/ns/net").unwrap().to_str().unwrap().to_owned()
}
