//! Nine ways in which the Go plugin's failed ADD leaves its link behind, and often the address: none of ours does. After
//! each, the next ADD succeeds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::PermissionsExt, process::ExitCode};

use serde_json::{Value, json};
use testkit::{Call, Lab, Netns, run};

const MACVLAN: &str = env!("CARGO_BIN_EXE_macvlan");

fn main() -> ExitCode {
    run(&[
        ("the_ipam_plugin_is_missing", the_ipam_plugin_is_missing),
        ("the_ipam_plugin_fails", the_ipam_plugin_fails),
        ("the_ipam_plugin_answers_nonsense", the_ipam_plugin_answers_nonsense),
        ("the_ipam_plugin_gives_no_address", the_ipam_plugin_gives_no_address),
        ("an_address_is_refused", an_address_is_refused),
        ("a_route_is_refused", a_route_is_refused),
        ("a_neighbour_has_the_address", a_neighbour_has_the_address),
        ("the_kernel_does_not_finish_asking_the_neighbours", the_kernel_does_not_finish_asking_the_neighbours),
        ("the_result_cannot_be_written", the_result_cannot_be_written),
    ])
}

fn the_ipam_plugin_is_missing(lab: &Lab) {
    let attempt = Attempt::new(lab);
    let mut config = attempt.config();
    config["ipam"]["type"] = json!("missing");
    attempt.fails(&config, 999, "failed to find plugin \"missing\" in path [");
}

fn the_ipam_plugin_fails(lab: &Lab) {
    let attempt = Attempt::new(lab);
    let answer = r#"{"code":11,"msg":"try again","details":"later"}"#;
    attempt.with_ipam(&format!("echo '{answer}'; exit 1"), 11, "try again");
    assert_eq!(attempt.ipam_calls(), ["ADD", "DEL"]);
    let mut full = attempt.config();
    full["ipam"]["ranges"] = json!([[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.1", "rangeEnd": "10.1.2.1"}]]);
    attempt.fails(
        &full,
        999,
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.1",
    );
}

fn the_ipam_plugin_answers_nonsense(lab: &Lab) {
    for (answer, text) in [
        ("nonsense", "failed to unmarshal raw result: "),
        ("", "failed to unmarshal raw result: unexpected end of JSON input"),
        (r#"{"cniVersion":"0.5.0"}"#, "unsupported CNI result version \"0.5.0\""),
        (r#"{"ips":[{"address":"10.1.2.3"}]}"#, "\"ips[0].address\" must be an address with a prefix length"),
    ] {
        let attempt = Attempt::new(lab);
        attempt.with_ipam(&format!("echo '{answer}'"), 999, text);
        assert_eq!(attempt.ipam_calls(), ["ADD", "DEL"]);
    }
}

fn the_ipam_plugin_gives_no_address(lab: &Lab) {
    let attempt = Attempt::new(lab);
    attempt.with_ipam("echo '{}'", 999, "IPAM plugin returned missing IP config");
    assert_eq!(attempt.ipam_calls(), ["ADD", "DEL"]);
}

fn an_address_is_refused(lab: &Lab) {
    let attempt = Attempt::new(lab);
    let answer = r#"{"ips":[{"address":"10.1.2.3/24"},{"address":"10.1.2.3/24"}]}"#;
    attempt.with_ipam(&format!("echo '{answer}'"), 999, "failed to add IP addr 10.1.2.3/24 to \"eth0\": file exists");
    assert_eq!(attempt.ipam_calls(), ["ADD", "DEL"]);
}

fn a_route_is_refused(lab: &Lab) {
    let attempt = Attempt::new(lab);
    let mut config = attempt.config();
    config["ipam"]["routes"] = json!([{"dst": "10.0.0.0/8", "gw": "172.31.0.1"}]);
    attempt.fails(&config, 999, "failed to add route '{10.0.0.0 ff000000} via 172.31.0.1 dev eth0 metric 0");
}

fn a_neighbour_has_the_address(lab: &Lab) {
    lab.host.ip("-6 address add 2001:db8:1::2/64 dev wire nodad");
    let attempt = Attempt::new(lab);
    let text = "failed to settle addresses for \"eth0\": link eth0 has address 2001:db8:1::2 in DADFAILED state";
    attempt.fails(&attempt.waiting_for_ipv6(), 999, text);
}

fn the_kernel_does_not_finish_asking_the_neighbours(lab: &Lab) {
    let attempt = Attempt::new(lab);
    attempt.sandbox.within(|| fs::write("/proc/sys/net/ipv6/conf/default/dad_transmits", "100").unwrap());
    let text = "failed to settle addresses for \"eth0\": link eth0 still has tentative addresses after 5 seconds";
    attempt.fails(&attempt.waiting_for_ipv6(), 999, text);
}

fn the_result_cannot_be_written(lab: &Lab) {
    let attempt = Attempt::new(lab);
    let add = Call::new(MACVLAN, "ADD", attempt.sandbox.path()).config(&attempt.config());
    let reply = add.run_with_full_stdout(&lab.host);
    assert_eq!(reply.status, Some(1));
    assert!(reply.stderr.contains("Error writing error JSON to stdout: "), "{}", reply.stderr);
    attempt.left_nothing();
}

/// An ADD that is to fail.
struct Attempt<'a> {
    lab: &'a Lab,
    sandbox: Netns,
}

impl<'a> Attempt<'a> {
    fn new(lab: &'a Lab) -> Self {
        fs::remove_dir_all(lab.path("ipam")).ok();
        let unused = (1..).map(|number| format!("c{number}")).find(|name| !lab.path(name).exists());
        Self { lab, sandbox: lab.container(&unused.unwrap()) }
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "net", "type": "macvlan", "master": "ens32",
            "ipam": {"type": "host-local", "dataDir": self.lab.data_dir(), "ranges": [[{"subnet": "10.1.2.0/24"}]]},
        })
    }

    fn waiting_for_ipv6(&self) -> Value {
        let mut config = self.config();
        config["optimisticDAD"] = json!(false);
        config["ipam"]["ranges"] = json!([[{"subnet": "2001:db8:1::/64"}]]);
        config
    }

    /// With an IPAM plugin that answers every ADD by `commands`.
    fn with_ipam(&self, commands: &str, code: u64, text: &str) {
        let directory = self.lab.path("ipam");
        fs::create_dir(&directory).unwrap();
        let file = directory.join("custom");
        let calls = directory.join("calls");
        let script = format!(
            "#!/bin/sh\necho $CNI_COMMAND >> {}\n[ $CNI_COMMAND = DEL ] && exit\n{commands}\n",
            calls.display()
        );
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = self.config();
        config["ipam"] = json!({"type": "custom"});
        self.fails(&config, code, text);
    }

    fn ipam_calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.lab.path("ipam").join("calls")).unwrap();
        calls.lines().map(str::to_owned).collect()
    }

    fn fails(&self, config: &Value, code: u64, text: &str) {
        let path = self.lab.path("ipam");
        let add = Call::new(MACVLAN, "ADD", self.sandbox.path()).env("CNI_PATH", path.to_str().unwrap()).config(config);
        let (found_code, found_text, _) = add.run_in(&self.lab.host).error();
        assert_eq!(found_code, code, "{found_text}");
        assert!(found_text.starts_with(text), "{found_text}");
        self.left_nothing();
    }

    fn left_nothing(&self) {
        assert_eq!(self.sandbox.links(), ["lo"]);
        assert_eq!(self.lab.host.links(), ["ens32", "lo", "wire"]);
        assert!(self.lab.reserved("net").is_empty());
        let call =
            |command| Call::new(MACVLAN, command, self.sandbox.path()).config(&self.config()).run_in(&self.lab.host);
        call("ADD").succeeded();
        call("DEL").succeeded();
        assert!(self.lab.reserved("net").is_empty());
    }
}
