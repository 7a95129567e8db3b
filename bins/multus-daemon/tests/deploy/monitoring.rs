//! Alerts and dashboards.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::{Value, json};
use testkit::Lab;

use crate::{
    documents::{anchors, words},
    files::{below, path, text, yaml},
    node::Node,
};

const ALERTS: &str = "deploy/alerts.yaml";

pub(crate) fn alerts_and_dashboards_use_metrics_that_there_are(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"metricsPort": 9127}));
    node.start();
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    node.del(&sandbox).unwrap();
    let text = lab.host.within(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", 9127)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let there: BTreeSet<&str> = text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let used = used();
    assert!(used.len() > 10, "{used:?}");
    let missing: Vec<&String> = used.iter().filter(|metric| !there.contains(metric.as_str())).collect();
    assert_eq!(missing, [""; 0], "not told by the daemon: {text}");
}

/// The metrics of all expressions. `up` is Prometheus' own.
fn used() -> BTreeSet<String> {
    let mut expressions: Vec<String> =
        alerts().iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()).collect();
    for file in below("deploy/dashboards", &[".json"]) {
        let dashboard: Value = serde_json::from_str(&text(&file)).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{file}");
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
        expressions.extend(targets.map(|target| target["expr"].as_str().unwrap().to_owned()));
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            expressions.push(variable["query"].as_str().unwrap().to_owned());
        }
    }
    let names = expressions.iter().flat_map(|expression| words(expression));
    names.filter(|name| name.starts_with("multus_") || name.starts_with("process_")).map(str::to_owned).collect()
}

pub(crate) fn every_alert_says_what_to_do() {
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(["critical", "warning", "info"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        for key in ["summary", "description"] {
            assert!(alert["annotations"][key].as_str().is_some_and(|text| text.len() > 20), "{name}: {key}");
        }
        let (file, anchor) = alert["annotations"]["runbook"].as_str().unwrap().split_once('#').unwrap();
        assert!(path(file).is_file() && anchors(&fs::read_to_string(path(file)).unwrap()).contains(anchor), "{name}");
    }
    assert!(names.len() > 10, "{names:?}");
}

fn alerts() -> Vec<Value> {
    let groups = yaml(ALERTS).remove(0);
    groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}
