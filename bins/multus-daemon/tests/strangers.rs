//! Users who are not root, at the daemon's socket.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use testkit::{Lab, run_when};

const PROGRAM: &str = env!("CARGO_BIN_EXE_multus-daemon");
const NOBODY: u32 = 65_534;

fn main() -> ExitCode {
    let is_root = nix::unistd::geteuid().is_root();
    let needed = if is_root { Ok(()) } else { Err("only root can be somebody else".to_owned()) };
    run_when(&[("nobody_but_root_is_answered", nobody_but_root_is_answered)], needed)
}

fn nobody_but_root_is_answered(lab: &Lab) {
    let allow = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let (config, program, run) = (lab.path("config.json"), lab.path("multus-daemon"), lab.path("run"));
    fs::write(&config, serde_json::json!({"socketDir": run, "cniDir": lab.path("multus")}).to_string()).unwrap();
    fs::copy(PROGRAM, &program).unwrap();
    let log = File::create(lab.path("log")).unwrap();
    let mut daemon = Command::new(PROGRAM);
    let mut daemon = daemon.arg("-config").arg(&config).env_clear().stderr(log).spawn().unwrap();
    let asks = |uid| {
        let mut probe = Command::new(&program);
        probe.args(["healthcheck", "-config"]).arg(&config).uid(uid).stderr(Stdio::null());
        probe.status().unwrap().success()
    };
    while !asks(0) {
        assert!(daemon.try_wait().unwrap().is_none(), "{}", fs::read_to_string(lab.path("log")).unwrap());
        thread::sleep(Duration::from_millis(2));
    }
    // As if somebody had opened what the daemon had closed.
    allow(config.parent().unwrap(), 0o755);
    allow(&run, 0o755);
    allow(&run.join("multus.sock"), 0o666);
    let is_answered = asks(NOBODY);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(!is_answered);
    let log = fs::read_to_string(lab.path("log")).unwrap();
    assert!(log.contains("a connection is refused: only root may ask uid=65534"), "{log}");
}
