//! What an API server may answer.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Mutex, OnceLock},
    thread,
    time::SystemTime,
};

use multus_core::{
    Cluster, PodReference,
    kubernetes::{Access, ApiCluster, Limits, Reporter},
};

use crate::{message, parts};

static CLUSTER: OnceLock<Mutex<ApiCluster>> = OnceLock::new();
/// By what their paths hold.
static ANSWERS: Mutex<[(&str, Vec<u8>); 4]> = Mutex::new([
    ("/pods/", Vec::new()),
    ("/network-attachment-definitions/", Vec::new()),
    ("/resourceclaims/", Vec::new()),
    ("/resourceslices", Vec::new()),
]);

/// Whatever it answers is read or refused. The parts of the input are a pod, a network attachment definition, a claim and
/// a list of slices.
pub fn api_answers(data: &[u8]) {
    let cluster = CLUSTER.get_or_init(|| Mutex::new(cluster())).lock().unwrap();
    let mut given = parts(data);
    for (_, answer) in ANSWERS.lock().unwrap().iter_mut() {
        given.next().unwrap_or_default().clone_into(answer);
    }
    let pod = PodReference { namespace: "web".to_owned(), name: "pod".to_owned(), uid: String::new() };
    let failures = [cluster.pod(&pod).err(), cluster.network("web", "net").err(), cluster.claimed_devices(&pod).err()];
    failures.iter().flatten().for_each(|error| message::check(data, error));
}

fn cluster() -> ApiCluster {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    });
    let directory = crate::files::directory();
    let path = directory.path().join("kubeconfig");
    fs::write(&path, kubeconfig.to_string()).unwrap();
    let access = Access::from_kubeconfig(&path).unwrap();
    let reporter = Reporter { component: "multus".to_owned(), node: "node".to_owned(), now: SystemTime::now };
    ApiCluster::new(&access, Limits::default(), reporter).unwrap()
}

/// Answers one request after the other.
fn serve(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let _headers = lines.by_ref().take_while(|line| !line.is_empty()).count();
        let answers = ANSWERS.lock().unwrap().clone();
        let answer = answers.into_iter().find(|(path, _)| request.contains(path)).map(|(_, answer)| answer);
        let body = answer.unwrap_or_default();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}
