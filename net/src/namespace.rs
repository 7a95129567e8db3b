//! Network namespaces, and the only way into them.

use std::{
    any::Any,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{FsType, NSFS_MAGIC, statfs},
};

use crate::{Connection, Error};

/// An open network namespace: it exists as long as this does. Clones share the open file.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
    path: PathBuf,
}

impl Namespace {
    /// Opens the namespace that `path` names, such as `/var/run/netns/x` or `/proc/1234/ns/net`.
    ///
    /// # Errors
    /// [`Error::NamespaceUnreachable`] when it does not exist, [`Error::NotANamespace`] when it is another kind of
    /// file, [`Error::Namespace`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let found = statfs(path)
            .map_err(|errno| Error::NamespaceUnreachable { path: path.to_owned(), source: errno.into() })?;
        let FsType(magic) = found.filesystem_type();
        if FsType(magic) != NSFS_MAGIC {
            return Err(Error::NotANamespace { path: path.to_owned(), magic });
        }
        let file = File::open(path).map_err(|source| failed("open", path, source))?;
        Ok(Self { file: Arc::new(file), path: path.to_owned() })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self, Error> {
        let path = Path::new("/proc/thread-self/ns/net");
        let file = File::open(path).map_err(|source| failed("open", path, source))?;
        Ok(Self { file: Arc::new(file), path: path.to_owned() })
    }

    /// Whether both are the same namespace, by whatever paths they were opened.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn is_same_as(&self, other: &Self) -> Result<bool, Error> {
        let identity = |namespace: &Self| {
            let metadata = namespace.file.metadata();
            metadata.map(|file| (file.dev(), file.ino())).map_err(|source| failed("stat", &namespace.path, source))
        };
        Ok(identity(self)? == identity(other)?)
    }

    /// Opens a connection that speaks of the namespace, for use from outside; each of its replies is waited for at most
    /// `timeout`.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel gives no socket.
    pub fn connect(&self, timeout: Duration) -> Result<Connection, Error> {
        self.enter(|| Connection::open(timeout))
    }

    /// Runs `work` inside the namespace, on a thread made for it that ends with it, while the calling thread waits.
    ///
    /// In a process of one thread that one goes in itself and comes back: there is nobody to meet it in the wrong place,
    /// and a thread would take a fifth of the time that an ADD has. Should it not come back, the process is aborted.
    ///
    /// Neither a child process nor a thread must be started from `work`: it would be born in the namespace, and stay.
    ///
    /// # Errors
    /// When the namespace cannot be entered, when the work panics, and what the work returns.
    pub fn enter<T, E>(&self, work: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E>
    where
        T: Send,
        E: From<Error> + Send,
    {
        self.enter_while(work, || ()).0
    }

    /// [`enter`](Self::enter)s the namespace for `work`, while the calling thread does not wait but works `outside`; in a
    /// process of one thread it does so afterwards.
    pub fn enter_while<T, U, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
        outside: impl FnOnce() -> U,
    ) -> (Result<T, E>, U)
    where
        T: Send,
        E: From<Error> + Send,
    {
        let inside = || {
            self.move_into()?;
            work()
        };
        // In a user namespace it may be that a thread can leave where it is, and not come back.
        let home = if is_only_thread() { Self::current().ok() } else { None };
        if let Some(home) = home.filter(|home| home.move_into().is_ok()) {
            let result = panic::catch_unwind(AssertUnwindSafe(inside));
            if home.move_into().or_else(|_| home.move_into()).is_err() {
                // It has just been possible. A process that went on from here would do to the sandbox what it means for
                // the host.
                std::process::abort();
            }
            return (result.unwrap_or_else(panicked), outside());
        }
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, inside);
            let done_outside = outside();
            let done = match thread {
                Ok(thread) => thread.join().unwrap_or_else(panicked),
                Err(source) => Err(failed("start a thread in", &self.path, source).into()),
            };
            (done, done_outside)
        })
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Moves the calling thread.
    fn move_into(&self) -> Result<(), Error> {
        let moved = setns(&*self.file, CloneFlags::CLONE_NEWNET);
        moved.map_err(|errno| failed("setns", &self.path, io::Error::from(errno)))
    }
}

/// Whether this process has one thread: proc counts a link for each, besides the two of any directory.
fn is_only_thread() -> bool {
    fs::metadata("/proc/self/task").is_ok_and(|task| task.nlink() == 3)
}

fn panicked<T, E: From<Error>>(panic: Box<dyn Any + Send>) -> Result<T, E> {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Err(Error::Panicked(text.unwrap_or("a panic without words").to_owned()).into())
}

fn failed(attempt: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Namespace { attempt, path: path.to_owned(), source }
}
