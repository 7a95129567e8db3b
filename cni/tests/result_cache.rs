//! The files in which attachments are kept: what libcni writes and reads, and whatever else may lie there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::PathBuf,
    process::Command,
};

use multus_cni::{
    Attachment, AttachmentRequest, CachedAttachment, ContainerId, Error, IpConfig, NetworkConfigList, NetworkName,
    RawObject, ResultCache, Success, Version,
};
use tempfile::TempDir;

const LIST: &str = r#"{ "name":"net", "cniVersion":"1.0.0", "plugins":[{"type":"a","big":12345678901234567890123}] }"#;

/// Of libcni 1.3, for the list above.
const WRITTEN: &str = r#"{"kind":"cniCacheV1","containerId":"c1","config":"eyAibmFtZSI6Im5ldCIsICJjbmlWZXJzaW9uIjoiMS4wLjAiLCAicGx1Z2lucyI6W3sidHlwZSI6ImEiLCJiaWciOjEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzfV0gfQ==","ifName":"net1","networkName":"net","netns":"/run/netns/c1","cniArgs":[["A","1"],["A",""]],"capabilityArgs":{"mac":"02:00:00:00:00:01"},"result":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/8"}]}}"#;

#[test]
fn files_are_those_of_libcni_to_the_byte() {
    let node = Node::new();
    node.cache.write(&cached()).unwrap();
    assert_eq!(node.content("net-c1-net1"), WRITTEN);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(node.path("")), mode(node.path("net-c1-net1"))), (0o700, 0o600));
    // Nothing but it: no second file that was renamed.
    assert_eq!(fs::read_dir(node.path("")).unwrap().count(), 1);
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let node = Node::new();
    node.put("net-c1-net1", WRITTEN);
    let mut held = File::open(node.path("net-c1-net1")).unwrap();
    let result = Success::default();
    node.cache.write(&cached().with_result(&result, Version::V1_0_0).unwrap()).unwrap();
    // Whoever was reading reads on in what was there before.
    assert_eq!(io::read_to_string(&mut held).unwrap(), WRITTEN);
    assert_eq!(node.read().unwrap().unwrap().result().unwrap(), Some(result));
}

#[test]
fn what_is_empty_is_left_out() {
    let node = Node::new();
    let attachment = Attachment { netns: None, ..attachment("c1") };
    let list = NetworkConfigList::parse_either(br#"{"name":"net","type":"a"}"#).unwrap();
    node.cache.write(&CachedAttachment::new(&list, &AttachmentRequest::new(attachment))).unwrap();
    assert_eq!(
        node.content("net-c1-net1"),
        r#"{"kind":"cniCacheV1","containerId":"c1","config":"eyJuYW1lIjoibmV0IiwidHlwZSI6ImEifQ==","ifName":"net1","networkName":"net"}"#
    );
    let read = node.read().unwrap().unwrap();
    assert_eq!((read.list().unwrap().bytes(), read.result().unwrap()), (list.bytes(), None));
    assert_eq!(read.request.attachment.netns, None);
}

#[test]
fn files_of_libcni_are_read_however_their_keys_are_sorted() {
    let value: serde_json::Value = serde_json::from_str(WRITTEN).unwrap();
    for text in [WRITTEN.to_owned(), value.to_string(), WRITTEN.replace(',', ",\n\t")] {
        let node = Node::new();
        node.put("net-c1-net1", &text);
        let read = node.read().unwrap().unwrap();
        assert_eq!((read.network.as_str(), read.config.as_slice()), ("net", LIST.as_bytes()));
        assert_eq!(read.request.attachment, attachment("c1"));
        assert_eq!(read.request.args, cached().request.args);
        assert_eq!(read.request.capability_args.print(), br#"{"mac":"02:00:00:00:00:01"}"#);
        assert_eq!(read.result().unwrap(), Some(success()));
        let stored = read.with_result(&success(), Version::V1_0_0).unwrap();
        node.cache.write(&stored).unwrap();
        assert_eq!(node.content("net-c1-net1"), WRITTEN);
    }
}

#[test]
fn a_result_alone_is_one_of_an_old_runtime() {
    let node = Node::new();
    node.put("net-c1-net1", r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.1/8"}],"dns":{}}"#);
    let read = node.read().unwrap().unwrap();
    assert_eq!(read.result().unwrap(), Some(success()));
    assert_eq!(read.request.attachment, attachment("c1"));
    assert!(read.config.is_empty() && read.list().is_err());
    assert!(node.cache.attachments(None).unwrap().is_empty());
    node.remove().unwrap();
    assert!(node.read().unwrap().is_none());
}

#[test]
fn a_file_torn_anywhere_is_an_error_that_names_it() {
    let node = Node::new();
    for length in 0..WRITTEN.len() {
        node.put("net-c1-net1", &WRITTEN[..length]);
        let named = format!("cached result {}: ", node.path("net-c1-net1").display());
        assert!(node.read().unwrap_err().to_string().starts_with(&named));
        let [listed] = node.cache.attachments(None).unwrap().try_into().unwrap();
        assert!(listed.unwrap_err().to_string().starts_with(&named));
    }
    // It is replaced by the next ADD, and removed by the next DEL.
    node.cache.write(&cached()).unwrap();
    assert_eq!(node.content("net-c1-net1"), WRITTEN);
    node.put("net-c1-net1", &WRITTEN[..9]);
    node.remove().unwrap();
    assert!(!node.path("net-c1-net1").exists());
}

#[test]
fn content_that_is_not_ours_is_refused() {
    for (from, to, problem) in [
        ("cniCacheV1", "cniCacheV2", "its kind is \"cniCacheV2\", and must be \"cniCacheV1\""),
        ("\"c1\"", "\"../c1\"", "invalid characters in containerID"),
        ("\"net1\"", "\"../../x\"", "interface name contains / or : or whitespace characters"),
        ("\"net\"", "\"../net\"", "invalid characters found in network name"),
        ("\"net\"", "\"\"", "missing network name"),
        ("\"net\"", "5", "invalid type: integer `5`, expected a string"),
        ("eyAi", "@@@@", "Invalid symbol 64, offset 0"),
        ("[\"A\",\"1\"]", "[\"A\"]", "invalid length 1"),
        ("\"c1\"", "\"c2\"", "it tells of network net, container c2, interface net1"),
    ] {
        let node = Node::new();
        node.put("net-c1-net1", &WRITTEN.replacen(from, to, 1));
        let error = node.read().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn two_attachments_with_one_file_name_do_not_take_it_from_each_other() {
    let node = Node::new();
    let (network, attachment) = ("net-c1".parse::<NetworkName>().unwrap(), attachment("x"));
    let theirs = attachment_of("net", "c1-x");
    node.cache.write(&theirs).unwrap();
    let before = node.content("net-c1-x-net1");

    let list = NetworkConfigList::parse_either(br#"{"name":"net-c1","type":"a"}"#).unwrap();
    let ours = CachedAttachment::new(&list, &AttachmentRequest::new(attachment.clone()));
    assert!(matches!(node.cache.write(&ours), Err(Error::MalformedCache { .. })));
    assert!(matches!(node.cache.read(&network, &attachment), Err(Error::MalformedCache { .. })));
    node.cache.remove(&network, &attachment).unwrap();
    assert_eq!(node.content("net-c1-x-net1"), before);
}

#[test]
fn the_attachments_of_a_container_are_found_among_those_of_others() {
    let node = Node::new();
    assert!(node.cache.attachments(None).unwrap().is_empty());
    for (network, container) in [("a", "c1"), ("b-c1", "x"), ("b", "c1"), ("c", "c1-c2"), ("d", "c2")] {
        node.cache.write(&attachment_of(network, container)).unwrap();
    }
    node.put(".e-c1-net1", WRITTEN);
    node.put("f-c1-net1", "{");
    fs::create_dir(node.path("g-c1-net1")).unwrap();
    let found = |container: Option<&str>| {
        let container: Option<ContainerId> = container.map(|id| id.parse().unwrap());
        let all = node.cache.attachments(container.as_ref()).unwrap();
        let text = |one: Result<CachedAttachment, Error>| match one {
            Ok(cached) => format!("{} {}", cached.network, cached.request.attachment.container_id),
            Err(error) => error.to_string().split(": ").next().unwrap().replace(node.path("").to_str().unwrap(), ""),
        };
        all.into_iter().map(text).collect::<Vec<_>>()
    };
    let unreadable = ["cached result f-c1-net1", "cannot read g-c1-net1"];
    assert_eq!(found(Some("c1")), [&["a c1", "b c1"], &unreadable[..]].concat());
    assert_eq!(found(Some("c2")), ["d c2"]);
    assert_eq!(found(None), [&["a c1", "b c1", "b-c1 x", "c c1-c2", "d c2"], &unreadable[..]].concat());
}

#[test]
fn pipes_and_directories_are_no_attachments_and_nobody_waits_for_them() {
    let node = Node::new();
    fs::create_dir_all(node.path("")).unwrap();
    assert!(Command::new("mkfifo").arg(node.path("net-c1-net1")).status().unwrap().success());
    assert!(node.read().unwrap_err().to_string().ends_with("it is not a regular file"));
    assert_eq!(node.cache.attachments(None).unwrap().len(), 1);
    node.remove().unwrap();
    fs::create_dir(node.path("net-c1-net1")).unwrap();
    for error in [node.read().map(drop), node.cache.write(&cached()), node.remove()] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(node.path("net-c1-net1").to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_name_too_long_for_a_file_cannot_be_stored_and_is_never_there() {
    let node = Node::new();
    let network: NetworkName = "n".repeat(250).parse().unwrap();
    let long = attachment_of(network.as_str(), "c1");
    assert!(matches!(node.cache.write(&long), Err(Error::File { .. })));
    assert!(node.cache.read(&network, &long.request.attachment).unwrap().is_none());
    node.cache.remove(&network, &long.request.attachment).unwrap();
}

#[test]
fn what_a_killed_process_left_beside_a_file_goes_with_it() {
    let node = Node::new();
    node.put(".net-c1-net1.new", "torn");
    node.put("net-c1-net1", WRITTEN);
    node.remove().unwrap();
    assert_eq!(fs::read_dir(node.path("")).unwrap().count(), 0);
}

#[test]
fn a_name_that_is_not_text_is_passed_over() {
    let node = Node::new();
    node.put("net-c1-net1", WRITTEN);
    fs::write(node.path("").join(std::ffi::OsStr::from_bytes(b"net-c1-\xff")), WRITTEN).unwrap();
    assert_eq!(node.cache.attachments(None).unwrap().len(), 1);
}

#[test]
fn a_network_without_addresses_is_stored_in_every_version() {
    for version in Version::ALL {
        let node = Node::new();
        node.cache.write(&cached().with_result(&Success::default(), version).unwrap()).unwrap();
        assert_eq!(node.read().unwrap().unwrap().result().unwrap(), Some(Success::default()), "{version}");
    }
}

struct Node {
    directory: TempDir,
    cache: ResultCache,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = ResultCache::new(&directory.path().join("multus"));
        Self { directory, cache }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("multus/results").join(name)
    }

    fn put(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path("")).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn read(&self) -> Result<Option<CachedAttachment>, Error> {
        self.cache.read(&"net".parse().unwrap(), &attachment("c1"))
    }

    fn remove(&self) -> Result<(), Error> {
        self.cache.remove(&"net".parse().unwrap(), &attachment("c1"))
    }
}

fn attachment(container_id: &str) -> Attachment {
    Attachment {
        container_id: container_id.parse().unwrap(),
        ifname: "net1".parse().unwrap(),
        netns: Some("/run/netns/c1".into()),
    }
}

fn attachment_of(network: &str, container_id: &str) -> CachedAttachment {
    let list = NetworkConfigList::parse_either(format!(r#"{{"name":"{network}","type":"a"}}"#).as_bytes()).unwrap();
    CachedAttachment::new(&list, &AttachmentRequest::new(attachment(container_id)))
}

fn cached() -> CachedAttachment {
    let mut request = AttachmentRequest::new(attachment("c1"));
    request.args = vec![("A".to_owned(), "1".to_owned()), ("A".to_owned(), String::new())];
    request.capability_args = RawObject::parse(br#"{"mac":"02:00:00:00:00:01"}"#).unwrap();
    let list = NetworkConfigList::parse(LIST.as_bytes()).unwrap();
    CachedAttachment::new(&list, &request).with_result(&success(), Version::V1_0_0).unwrap()
}

fn success() -> Success {
    let ip = IpConfig { address: "10.0.0.1/8".parse().unwrap(), gateway: None, interface: None };
    Success { ips: vec![ip], ..Success::default() }
}
