//! The server as tests see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use serde_json::{Value, json};

use crate::{
    answer::{Answer, Requester, refusal},
    certificates::Authority,
    connection,
    fault::{Fault, FaultRule},
    request::{Asked, Request},
    store::{KINDS, Key, Store},
};

/// A server on a real socket. It ends when it is dropped.
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// A verb on a resource of an API group, in all namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// Such as `get`.
    pub verb: String,
    /// Such as `k8s.cni.cncf.io`; empty for the core's.
    pub group: String,
    /// Such as `pods/status`.
    pub resource: String,
}

pub(crate) struct Shared {
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) authority: Authority,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) store: Store,
    /// How many times watches were to send a bookmark.
    pub(crate) bookmarks: u64,
    /// How many each watch has sent, by a number of its own.
    pub(crate) bookmarked: BTreeMap<u64, u64>,
    pub(crate) watches: u64,
    pub(crate) sent: u64,
    /// Connections of an earlier one end.
    pub(crate) epoch: u64,
    is_stopped: bool,
    accepted: u64,
    connections: BTreeMap<u64, TcpStream>,
    /// Of certificates; `None` while nobody signs.
    lifetime: Option<Duration>,
    /// Whether somebody else approves them.
    awaits_approval: bool,
    /// Who comes with the token.
    token_user: Option<Requester>,
    denied: BTreeSet<(String, String)>,
    /// The only ones that are allowed; `None` while all are.
    granted: Option<Vec<Grant>>,
    faults: Vec<FaultRule>,
    log: Vec<Asked>,
}

impl ApiServer {
    /// The token that it knows.
    pub const TOKEN: &str = "testkit-token";

    /// Starts one on a free port of the loopback interface.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Starts one on `address`, in the caller's network namespace.
    #[must_use]
    pub fn start_on(address: SocketAddr) -> Self {
        let authority = Authority::new();
        let tls = authority.server(address.ip());
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { tls, authority, state: Mutex::default(), news: Condvar::new() });
        let listener = Mutex::new(Some(listen(listener, Arc::clone(&shared))));
        Self { shared, address, listener }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig for it. It is JSON, and so YAML.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_with_token(Self::TOKEN)
    }

    /// A kubeconfig with another token.
    #[must_use]
    pub fn kubeconfig_with_token(&self, token: &str) -> String {
        let authority = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, self.shared.authority.pem());
        let server = format!("https://{}", self.address);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "double", "cluster": { "server": server, "certificate-authority-data": authority } }],
            "users": [{ "name": "multus", "user": { "token": token } }],
            "contexts": [{ "name": "double", "context": { "cluster": "double", "user": "multus" } }],
            "current-context": "double",
        });
        config.to_string()
    }

    /// Writes what a pod finds in the directory of its service account.
    pub fn write_service_account(&self, directory: &Path) {
        let authority = self.shared.authority.pem();
        for (name, content) in [("token", Self::TOKEN), ("ca.crt", &authority), ("namespace", "kube-system")] {
            fs::write(directory.join(name), content).unwrap();
        }
    }

    /// Puts an object in, new or not, and returns it as it is kept. A UID that it has stays.
    pub fn put(&self, object: Value) -> Value {
        let kind = KINDS.iter().find(|kind| object["kind"] == kind.name).unwrap();
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let key = (kind.resource, text("namespace"), text("name"));
        self.shared.change(|state| Value::clone(&state.store.put(key, object)))
    }

    /// Takes an object out; that it is there is the caller's word.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let key = key(resource, namespace, name);
        self.shared.change(|state| state.store.remove(&key)).unwrap();
    }

    /// An object as it is now.
    #[must_use]
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = key(resource, namespace, name);
        self.shared.lock().store.find(&key).map(|object| Value::clone(&object))
    }

    /// All objects of a resource.
    #[must_use]
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        self.shared.lock().store.list(resource, "").iter().map(|object| Value::clone(object)).collect()
    }

    /// Answers `verb` on `resource`, such as `pods/status`, with 403 from now on.
    pub fn deny(&self, verb: &str, resource: &str) {
        self.shared.change(|state| state.denied.insert((verb.to_owned(), resource.to_owned())));
    }

    /// Answers it again.
    pub fn allow(&self, verb: &str, resource: &str) {
        self.shared.change(|state| state.denied.remove(&(verb.to_owned(), resource.to_owned())));
    }

    /// Answers everything that `grants` do not name with 403 from now on.
    pub fn grant_only(&self, grants: Vec<Grant>) {
        self.shared.change(|state| state.granted = Some(grants));
    }

    /// Treats every `verb` on `resource` so, until [`recover`](Self::recover).
    pub fn fail(&self, verb: &str, resource: &str, fault: Fault) {
        self.add_fault(verb, resource, fault, None);
    }

    /// Treats the next `times` such requests so.
    pub fn fail_next(&self, times: usize, verb: &str, resource: &str, fault: Fault) {
        self.add_fault(verb, resource, fault, Some(times));
    }

    fn add_fault(&self, verb: &str, resource: &str, fault: Fault, times: Option<usize>) {
        let rule = FaultRule { verb: verb.to_owned(), resource: resource.to_owned(), fault, times };
        self.shared.change(|state| state.faults.push(rule));
    }

    /// Ends all faults.
    pub fn recover(&self) {
        self.shared.change(|state| state.faults.clear());
    }

    /// Approves and signs requests for certificates from now on, waiting ones too; each is valid for `lifetime`.
    pub fn sign_certificates(&self, lifetime: Duration) {
        self.shared.change(|state| {
            state.lifetime = Some(lifetime);
            state.sign(&self.shared.authority);
        });
    }

    /// Signs requests for certificates from now on, once they are approved.
    pub fn sign_approved_certificates(&self, lifetime: Duration) {
        self.shared.change(|state| state.awaits_approval = true);
        self.sign_certificates(lifetime);
    }

    /// Knows whoever comes with the token as this user, of these groups, in requests for certificates.
    pub fn identify(&self, name: &str, groups: &[&str]) {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self.shared.change(|state| state.token_user = Some(Requester { name: name.to_owned(), groups }));
    }

    /// Every request so far, refused and failed ones too.
    #[must_use]
    pub fn log(&self) -> Vec<Asked> {
        self.shared.lock().log.clone()
    }

    /// How often `verb` on `resource` was asked.
    #[must_use]
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        self.shared.lock().log.iter().filter(|asked| asked.verb == verb && asked.resource == resource).count()
    }

    /// Waits until `verb` on `resource` was asked that often.
    #[track_caller]
    pub fn wait_for(&self, times: usize, verb: &str, resource: &str) {
        let count =
            |state: &State| state.log.iter().filter(|asked| asked.verb == verb && asked.resource == resource).count();
        let state = self.shared.wait(Instant::now() + PATIENCE, |state| count(state) >= times);
        let found = count(&state);
        drop(state);
        assert!(found >= times, "{verb} {resource} was asked {found} times, not {times}");
    }

    /// Makes every watch that allows it send a bookmark, and returns when they have.
    #[track_caller]
    pub fn bookmark(&self) {
        self.shared.change(|state| state.bookmarks += 1);
        let is_done = |state: &State| state.bookmarked.values().all(|sent| *sent == state.bookmarks);
        let is_done = is_done(&self.shared.wait(Instant::now() + PATIENCE, is_done));
        assert!(is_done, "a watch takes no bookmark");
    }

    /// How many connections were made to it.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many bytes it sent in answers and watches.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.lock().sent
    }

    /// Forgets what happened so far: watches from before it are refused as gone.
    pub fn forget(&self) {
        self.shared.change(|state| state.store.forget());
    }

    /// Ends all connections.
    pub fn disconnect(&self) {
        self.shared.change(State::disconnect);
    }

    /// Goes down, with its objects. Nobody listens then.
    pub fn stop(&self) {
        self.shared.change(|state| {
            state.is_stopped = true;
            state.disconnect();
        });
        if let Some(listener) = self.listener.lock().unwrap().take() {
            // So that it looks up.
            let _refused = TcpStream::connect(self.address);
            listener.join().unwrap();
        }
    }

    /// Comes back where it was.
    pub fn resume(&self) {
        let mut listener = self.listener.lock().unwrap();
        assert!(listener.is_none(), "it was not stopped");
        self.shared.change(|state| state.is_stopped = false);
        *listener = Some(listen(TcpListener::bind(self.address).unwrap(), Arc::clone(&self.shared)));
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells everybody who waits.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.news.notify_all();
        outcome
    }

    /// Waits until `holds`, or `deadline`.
    pub(crate) fn wait(&self, deadline: Instant, holds: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let time = deadline.saturating_duration_since(Instant::now());
        let waited = self.news.wait_timeout_while(self.lock(), time, |state| !holds(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Logs a request; says what is to go wrong with it, and whether it is allowed at all.
    pub(crate) fn admit(&self, request: &Request) -> (Option<Fault>, Option<Answer>) {
        let asked = &request.asked;
        self.change(|state| {
            state.log.push(asked.clone());
            let is_meant = |rule: &FaultRule| rule.verb == asked.verb && rule.resource == asked.resource;
            let rule = state.faults.iter_mut().find(|rule| is_meant(rule) && rule.times != Some(0));
            let fault = rule.map(|rule| {
                rule.times = rule.times.map(|times| times - 1);
                rule.fault
            });
            let bearer = format!("Bearer {}", ApiServer::TOKEN);
            let (verb, resource) = (&asked.verb, &asked.resource);
            let refused = if request.authorization.as_ref() != Some(&bearer) && asked.user.is_empty() {
                Some(refusal(401, "Unauthorized", "Unauthorized"))
            } else if state.denied.contains(&(verb.clone(), resource.clone())) || !state.is_granted(asked) {
                let user = "system:serviceaccount:kube-system:multus";
                let message = format!(
                    "{} {:?} is forbidden: User {user:?} cannot {verb} resource {resource:?} in the namespace {:?}",
                    resource.split('/').next().unwrap_or_default(),
                    asked.name,
                    asked.namespace
                );
                Some(refusal(403, "Forbidden", &message))
            } else {
                None
            };
            (fault, refused)
        })
    }
}

impl State {
    fn is_granted(&self, asked: &Asked) -> bool {
        let Some(granted) = &self.granted else {
            return true;
        };
        let wanted = Grant { verb: asked.verb.clone(), group: asked.group.clone(), resource: asked.resource.clone() };
        granted.contains(&wanted)
    }

    /// Who `user` is, by the certificate; without one it came with the token.
    pub(crate) fn requester(&self, user: &str) -> Requester {
        let of = |name: &str, groups: &[&str]| Requester {
            name: name.to_owned(),
            groups: groups.iter().chain(&["system:authenticated"]).map(|group| (*group).to_owned()).collect(),
        };
        match (&self.token_user, user) {
            (Some(known), "") => known.clone(),
            (None, "") => of("system:serviceaccount:kube-system:multus", &["system:serviceaccounts"]),
            (_, user) => of(user, &["system:multus"]),
        }
    }

    /// Signs what waits for it.
    pub(crate) fn sign(&mut self, authority: &Authority) {
        let Some(lifetime) = self.lifetime else {
            return;
        };
        for waiting in self.store.list("certificatesigningrequests", "") {
            let (status, approved) = (&waiting["status"], json!([{ "type": "Approved", "status": "True" }]));
            let is_ready = match self.awaits_approval {
                true => status["conditions"][0]["type"] == "Approved" && status["certificate"].is_null(),
                false => status.is_null(),
            };
            if !is_ready {
                continue;
            }
            let conditions = if self.awaits_approval { status["conditions"].clone() } else { approved };
            let certificate = authority.sign(waiting["spec"]["request"].as_str().unwrap_or_default(), lifetime);
            let mut signed = Value::clone(&waiting);
            signed["status"] = match certificate {
                Some(certificate) => json!({ "conditions": conditions, "certificate": certificate }),
                None => json!({ "conditions": [{ "type": "Failed", "status": "True", "message": "malformed" }] }),
            };
            let name = waiting["metadata"]["name"].as_str().unwrap().to_owned();
            self.store.put(key("certificatesigningrequests", "", &name), signed);
        }
    }

    fn disconnect(&mut self) {
        self.epoch += 1;
        // Each is removed by the thread that serves it.
        for connection in self.connections.values() {
            let _closed = connection.shutdown(Shutdown::Both);
        }
    }
}

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

fn listen(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            let number = shared.change(|state| {
                state.accepted += 1;
                state.connections.insert(state.accepted, socket.try_clone().unwrap());
                (!state.is_stopped).then_some(state.accepted)
            });
            let Some(number) = number else {
                return;
            };
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                // How a client went away is its own affair.
                let _ended = connection::serve(&shared, socket);
                if let Some(socket) = shared.change(|state| state.connections.remove(&number)) {
                    let _closed = socket.shutdown(Shutdown::Both);
                }
            });
        }
    })
}

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    let kind = KINDS.iter().find(|kind| kind.resource == resource).unwrap();
    (kind.resource, namespace.to_owned(), name.to_owned())
}
