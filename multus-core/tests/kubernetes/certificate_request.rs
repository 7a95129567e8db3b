//! Who gets a node's certificate.

use base64::{Engine, prelude::BASE64_STANDARD};
use multus_core::kubernetes::{CertificateRequest, Verdict};
use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, SanType, string::Ia5String};
use serde_json::{Value, json};

const NODE_A: &str = "system:multus:node-a.example.com";

#[test]
fn a_node_may_ask_for_its_own_certificate_as_itself_and_with_the_one_it_has() {
    assert_eq!(verdict(&request()), Verdict::Approve);
    let mut renewal = request();
    renewal["spec"]["username"] = NODE_A.into();
    renewal["spec"]["groups"] = json!(["system:multus", "system:authenticated"]);
    assert_eq!(verdict(&renewal), Verdict::Approve);
    for seconds in [600, 365 * 24 * 3600] {
        assert_eq!(verdict(&with("expirationSeconds", json!(seconds))), Verdict::Approve);
    }
    assert_eq!(verdict(&with("usages", json!(["client auth", "digital signature"]))), Verdict::Approve);
    let wrapped = pem(&node_a()).replace('\n', "\r\n");
    assert_eq!(verdict(&with("request", json!(BASE64_STANDARD.encode(wrapped)))), Verdict::Approve);
}

#[test]
fn nobody_else_may_ask_for_it() {
    let multus = json!(["system:multus", "system:authenticated"]);
    let nodes = json!(["system:nodes", "system:authenticated"]);
    for (username, groups) in [
        // The neighbours, with their own credentials.
        ("system:node:node-b", &nodes),
        ("system:multus:node-b", &multus),
        ("system:node:node-a", &nodes),
        ("system:node:node-a.example.com.", &nodes),
        ("system:node:node-a.example.com:x", &nodes),
        ("system:node:NODE-A.example.com", &nodes),
        ("system:node:", &nodes),
        ("system:node", &nodes),
        ("system:multus", &multus),
        ("system:multus:", &multus),
        ("system:nodes:node-a.example.com", &nodes),
        (" system:node:node-a.example.com", &nodes),
        ("system:serviceaccount:kube-system:multus", &multus),
        ("system:admin", &nodes),
        ("", &nodes),
    ] {
        let mut request = request();
        request["spec"]["username"] = username.into();
        request["spec"]["groups"] = groups.clone();
        refused(&request, "spec.username must be");
    }
}

#[test]
fn a_user_must_be_of_the_nodes_group_and_of_no_other() {
    for (groups, reason) in [
        (json!([]), "spec.groups must have \"system:nodes\""),
        (json!(["system:authenticated"]), "spec.groups must have \"system:nodes\""),
        (json!(["system:multus", "system:authenticated"]), "spec.groups must have \"system:nodes\""),
        (json!(["system:nodes", "system:masters"]), "not \"system:masters\""),
        (json!(["system:nodes", "SYSTEM:NODES"]), "not \"SYSTEM:NODES\""),
        (json!(["system:nodes", ""]), "not \"\""),
    ] {
        refused(&with("groups", groups), reason);
    }
}

#[test]
fn usages_signer_and_lifetime_are_those_of_nodes() {
    for usages in [
        json!([]),
        json!(["client auth"]),
        json!(["digital signature", "client auth", "server auth"]),
        json!(["digital signature", "key encipherment", "client auth"]),
        json!(["digital signature", "any"]),
        json!(["Digital Signature", "Client Auth"]),
    ] {
        refused(&with("usages", usages), "spec.usages must be");
    }
    for seconds in [json!(0), json!(-1), json!(365 * 24 * 3600 + 1), json!(i64::MAX), json!(null)] {
        refused(&with("expirationSeconds", seconds), "spec.expirationSeconds");
    }
    for signer in ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/legacy-unknown", ""] {
        let request = with("signerName", json!(signer));
        assert!(!CertificateRequest::parse(request.to_string().as_bytes()).unwrap().is_pending());
        assert!(matches!(verdict(&request), Verdict::Deny(reason) if reason.starts_with("spec.signerName must be")));
    }
}

#[test]
fn the_subject_is_that_of_a_node_and_nothing_else() {
    let names = [
        "system:multus",
        "system:multus:",
        "system:multus:Node-A",
        "system:multus:node-a.",
        "system:multus:.node-a",
        "system:multus:a..b",
        "system:multus:-a",
        "system:multus:a-",
        "system:multus:a_b",
        "system:multus:a b",
        "system:multus:a:b",
        "system:multus:a/b",
        "system:multus:node-a.example.com\0",
        "system:multus:node-a.example.com ",
        "system:multus:nöde",
        "system:multusx:a",
        &format!("system:multus:{}", "a".repeat(254)),
    ];
    for name in names {
        refused(&asking(&params(&[(DnType::CommonName, name), organization("system:multus")])), "the common name in");
    }
    for other in ["system:masters", "system:nodes", "system:multus ", ""] {
        refused(&asking(&params(&[(DnType::CommonName, NODE_A), organization(other)])), "the organization in spec");
    }
    let second_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
    let second_organization = DnType::CustomDnType(vec![2, 5, 4, 10]);
    let unit = DnType::OrganizationalUnitName;
    let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
    let cn = |name: &'static str| (DnType::CommonName, name);
    for parts in [
        vec![cn(NODE_A)],
        vec![cn(NODE_A), (second_name.clone(), "system:admin"), organization("system:multus")],
        vec![cn("system:admin"), (second_name, NODE_A), organization("system:multus")],
        vec![cn(NODE_A), organization("system:multus"), (second_organization.clone(), "system:masters")],
        vec![cn(NODE_A), organization("system:masters"), (second_organization, "system:multus")],
        vec![cn(NODE_A), organization("system:multus"), (unit, "system:masters")],
        vec![cn(NODE_A), organization("system:multus"), (uid, "0")],
    ] {
        refused(&asking(&params(&parts)), "spec.request must have");
    }
}

#[test]
fn other_names_and_authority_are_refused() {
    let mut names = node_a();
    names.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from("kubernetes.default").unwrap())];
    refused(&asking(&names), "and nothing else");
    let mut authority = node_a();
    authority.is_ca = IsCa::ExplicitNoCa;
    refused(&asking(&authority), "and nothing else");
}

#[test]
fn what_is_not_for_nodes_or_decided_or_unreadable_is_left_alone() {
    let pending = |object: &Value| CertificateRequest::parse(object.to_string().as_bytes()).unwrap().is_pending();
    assert!(pending(&request()));
    let mut object = request();
    object["status"] = json!({});
    assert!(pending(&object));
    for kind in ["Approved", "Denied", "Failed", "Later"] {
        object["status"] = json!({ "conditions": [{ "type": kind, "status": "True" }] });
        assert!(!pending(&object));
    }
    object["status"] = json!({ "certificate": "aGk=" });
    assert!(!pending(&object));
    assert!(!pending(&asking(&params(&[(DnType::CommonName, "jane"), organization("system:multus")]))));
    let good = pem(&node_a());
    let other = pem(&params(&[(DnType::CommonName, "system:multus:node-b"), organization("system:multus")]));
    let body = good.lines().nth(1).unwrap();
    for text in [
        String::new(),
        "\0\u{ff}".to_owned(),
        good.replace("REQUEST", "RSA"),
        good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        good[..good.len() / 2].to_owned(),
        format!("{good}{other}"),
        format!("# a comment\n{good}"),
        format!("{good}# a comment"),
        good.replacen(body, &format!("Proc-Type: 4,ENCRYPTED\n\n{body}"), 1),
        good.replacen(body, &format!("{body}AAAA"), 1),
    ] {
        let object = with("request", json!(BASE64_STANDARD.encode(&text)));
        assert!(!pending(&object), "{text}");
        assert!(matches!(verdict(&object), Verdict::Deny(_)), "{text}");
    }
    assert!(!pending(&with("request", json!("!"))));
    let mut object = request();
    object["metadata"]["name"] = "../secrets".into();
    assert!(!pending(&object));
    assert!(CertificateRequest::parse(b"[]").is_err());
    assert!(CertificateRequest::parse(br#"{"metadata":{},"spec":{"request":5}}"#).is_err());
}

proptest! {
    #[test]
    fn no_request_makes_it_panic_or_is_approved_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..500) {
        let mut der = BASE64_STANDARD.decode(pem(&node_a()).lines().filter(|line| !line.contains('-')).collect::<String>()).unwrap();
        let place = at % der.len();
        for (offset, byte) in bytes.iter().take(3).enumerate() {
            if let Some(target) = der.get_mut(place + offset) {
                *target = *byte;
            }
        }
        for content in [bytes, der] {
            let text = format!(
                "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
                BASE64_STANDARD.encode(content)
            );
            let mut object = with("request", json!(BASE64_STANDARD.encode(text)));
            object["spec"]["username"] = "system:node:node-b".into();
            prop_assert!(matches!(verdict(&object), Verdict::Deny(_)));
        }
    }
}

fn verdict(object: &Value) -> Verdict {
    CertificateRequest::parse(object.to_string().as_bytes()).unwrap().verdict()
}

/// It is one that is judged, and denied, in a short line.
#[track_caller]
fn refused(object: &Value, why: &str) {
    assert!(CertificateRequest::parse(object.to_string().as_bytes()).unwrap().is_pending());
    match verdict(object) {
        Verdict::Deny(reason) => {
            assert!(reason.contains(why), "{why}: {reason}");
            assert!(reason.len() < 300 && !reason.contains(['\n', '\0']), "{reason}");
        }
        Verdict::Approve => panic!("approved: {object}"),
    }
}

/// Of node A, by the credentials of its kubelet.
fn request() -> Value {
    asking(&node_a())
}

fn with(field: &str, value: Value) -> Value {
    let mut request = request();
    request["spec"][field] = value;
    request
}

fn asking(params: &CertificateParams) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": "csr-x7f2p", "uid": "u" },
        "spec": {
            "request": BASE64_STANDARD.encode(pem(params)),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["digital signature", "client auth"],
            "expirationSeconds": 600,
            "username": "system:node:node-a.example.com",
            "groups": ["system:nodes", "system:authenticated"],
            "uid": "1", "extra": { "a": ["b"] },
        },
    })
}

fn node_a() -> CertificateParams {
    params(&[(DnType::CommonName, NODE_A), organization("system:multus")])
}

fn organization(name: &str) -> (DnType, &str) {
    (DnType::OrganizationName, name)
}

fn params(parts: &[(DnType, &str)]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in parts {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params
}

fn pem(params: &CertificateParams) -> String {
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}
