//! The meta-plugin's own configuration: every key, its default, and what is refused.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, and says where")]

use std::path::Path;

use multus_core::{Config, Master};

#[test]
fn what_is_left_out_has_its_default() {
    let config = config("");
    assert_eq!(config.conf_dir, Path::new("/etc/cni/multus/net.d"));
    assert_eq!(config.cni_dir, Path::new("/var/lib/cni/multus"));
    assert_eq!(config.bin_dir, Path::new("/opt/cni/bin"));
    assert_eq!((config.kubeconfig, config.readiness_indicator_file, config.auxiliary_chain), (None, None, None));
    assert!(!config.namespace_isolation && !config.retry_delete_on_error);
    assert_eq!(config.global_namespaces, ["default"]);
    assert_eq!(config.system_namespaces, ["kube-system"]);
    assert_eq!(config.multus_namespace, "kube-system");
    assert!(config.runtime_config.capability_args().unwrap().is_empty());
    let log = &config.log;
    assert_eq!((log.file.as_str(), log.level.as_str(), log.to_stderr), ("", "", None));
    assert_eq!((log.max_age, log.max_size, log.max_backups, log.compress), (5, 100, 5, true));
}

#[test]
fn every_key_is_read_in_any_letter_case() {
    let config = config(
        r#""confDir":"/a","CNIDIR":"/b","binDir":"/c","kubeconfig":"/d","namespaceIsolation":true,
        "globalNamespaces":" foo,bar ,default","systemNamespaces":["x","y"],"multusNamespace":"lab",
        "readinessIndicatorFile":"/e","retryDeleteOnError":true,"auxiliaryCNIChainName":"vendor",
        "logFile":"/f","logLevel":"debug","logToStderr":false,"unknown":{},
        "logOptions":{"maxAge":1,"maxSize":2,"maxBackups":3,"compress":false},
        "runtimeConfig":{"mac":"a","ips":["b"],"infinibandGUID":"c","deviceID":"d","CNIDeviceInfoFile":"e",
        "portMappings":[{"hostPort":1,"containerPort":2}],"bandwidth":{"egressRate":1},"aliases":["lost"]},"#,
    );
    for (path, expected) in [(&config.conf_dir, "/a"), (&config.cni_dir, "/b"), (&config.bin_dir, "/c")] {
        assert_eq!(path, Path::new(expected));
    }
    assert_eq!(config.kubeconfig.as_deref(), Some(Path::new("/d")));
    assert_eq!(config.readiness_indicator_file.as_deref(), Some(Path::new("/e")));
    assert!(config.namespace_isolation && config.retry_delete_on_error);
    assert_eq!(config.global_namespaces, ["foo", "bar", "default"]);
    assert_eq!((config.system_namespaces.join(" "), config.multus_namespace), ("x y".to_owned(), "lab".to_owned()));
    assert_eq!(config.auxiliary_chain.as_deref(), Some("vendor"));
    let log = &config.log;
    assert_eq!((log.file.as_str(), log.level.as_str(), log.to_stderr), ("/f", "debug", Some(false)));
    assert_eq!((log.max_age, log.max_size, log.max_backups, log.compress), (1, 2, 3, false));
    let offered = String::from_utf8(config.runtime_config.capability_args().unwrap().print()).unwrap();
    assert_eq!(
        offered,
        concat!(
            r#"{"CNIDeviceInfoFile":"e","bandwidth":{"ingressRate":0,"ingressBurst":0,"egressRate":1,"egressBurst":0},"#,
            r#""deviceID":"d","infinibandGUID":"c","ips":["b"],"mac":"a","portMappings":[{"hostPort":1,"containerPort":2}]}"#
        )
    );
}

#[test]
fn a_cluster_network_is_used_instead_of_delegates() {
    let text = r#"{"delegates":[{"name":"a","type":"b"}],"clusterNetwork":"net1","defaultNetworks":["net2"]}"#;
    let Master::Reference { cluster_network, default_networks } = Config::parse(text.as_bytes()).unwrap().master else {
        panic!("the delegates were used");
    };
    assert_eq!((cluster_network.as_str(), default_networks), ("net1", vec!["net2".to_owned()]));
    let Master::Inline(delegates) = config(r#""clusterNetwork":"","defaultNetworks":["net2"],"#).master else {
        panic!("the delegates were not used");
    };
    assert_eq!(delegates[0].bytes(), br#"{ "name":"a","type":"b","n":1.0 }"#);
}

#[test]
fn a_previous_result_must_be_readable() {
    let with = |version: &str, result: &str| {
        let text = format!(r#"{{"cniVersion":"{version}","prevResult":{result},"clusterNetwork":"a"}}"#);
        Config::parse(text.as_bytes()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(with("", r#"{"ips":[{"address":"10.0.0.5/32"}]}"#), Ok(()));
    assert_eq!(with("1.0.0", r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5/32"}]}"#), Ok(()));
    for (version, result) in [("1.0.0", r#"{"ips":[{"address":"x"}]}"#), ("9.9.9", "{}"), ("1.0.0", "\"hunter2\"")] {
        let error = with(version, result).unwrap_err();
        assert!(error.starts_with("error loading netconf: ") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn what_is_malformed_is_named() {
    for (text, error) in [
        ("{", "unexpected end of JSON input"),
        ("[]", "it must be a JSON object"),
        ("{}", "at least one delegate/clusterNetwork must be specified"),
        (r#"{"delegates":[]}"#, "at least one delegate/clusterNetwork must be specified"),
        (r#"{"kubeconfig":"/k"}"#, "at least one delegate/clusterNetwork must be specified"),
        (r#"{"delegates":"hunter2"}"#, r#""delegates" must be a list"#),
        (r#"{"delegates":[null]}"#, r#""delegates[0]" must be an object"#),
        (
            r#"{"delegates":[{"name":"a","type":"b"},{"name":"c","typo":"d"}]}"#,
            r#""delegates[1].type" is missing: delegate must have the 'type' or 'plugin' field"#,
        ),
        (
            r#"{"delegates":[{"name":"a","plugins":[]}]}"#,
            r#""delegates[0].plugins" is empty: a plugin delegate must have the 'type' field"#,
        ),
        (
            r#"{"delegates":[{"name":"a","plugins":[{}]}]}"#,
            r#""delegates[0].plugins[0].type" is missing: a plugin delegate must have the 'type' field"#,
        ),
        (r#"{"clusterNetwork":5}"#, r#""clusterNetwork" must be a string, not 5"#),
        (r#"{"clusterNetwork":"a","defaultNetworks":[5]}"#, r#""defaultNetworks[0]" must be a string, not 5"#),
        (
            r#"{"clusterNetwork":"a","namespaceIsolation":"yes"}"#,
            r#""namespaceIsolation" must be true or false, not "yes""#,
        ),
        (r#"{"clusterNetwork":"a","runtimeConfig":"hunter2"}"#, r#""runtimeConfig" must be an object"#),
        (r#"{"clusterNetwork":"a","runtimeConfig":{"mac":5}}"#, r#""runtimeconfig.mac" must be a string, not 5"#),
        (r#"{"clusterNetwork":"a","logOptions":{"maxAge":"5"}}"#, r#""logOptions.maxAge" must be a whole number"#),
        (r#"{"clusterNetwork":"a","capabilities":{"mac":5}}"#, r#""capabilities.mac" must be true or false, not 5"#),
    ] {
        let found = Config::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(
            found.to_lowercase().starts_with(&format!("error loading netconf: {error}").to_lowercase()),
            "{text}: {found}"
        );
    }
}

fn config(keys: &str) -> Config {
    let text = format!(r#"{{"name":"m","type":"multus",{keys}"delegates":[{{ "name":"a","type":"b","n":1.0 }}]}}"#);
    Config::parse(text.as_bytes()).unwrap()
}
