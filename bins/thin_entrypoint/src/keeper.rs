//! Our configuration, as long as it is to be there.

use std::{
    ffi::OsString,
    fs,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use multus_cni::{Document, FieldError, configuration_files};
use tracing::{info, warn};

use crate::{
    Error, Generated, Kubeconfig, Master, Template, Thick, file,
    pace::Pace,
    watch::{Watch, Woken},
};

/// Writes our configuration into the directory that the container runtime reads, and keeps it there: it is written again when
/// the master or the credentials change, and when somebody else changes, renames or removes it.
///
/// While there is no usable master, what was written stays. It also stays when the program ends, so that pods wait instead of
/// starting without their networks, unless [`remove`](Self::remove) is called.
pub struct Keeper {
    conf_dir: PathBuf,
    source: Source,
    kubeconfig: Option<Kubeconfig>,
    readiness_indicator_file: Option<PathBuf>,
    rename_master: bool,
    written: Option<Configuration>,
    pace: Pace,
    /// How long to wait still before what somebody undoes is done again, and what to say of it.
    quarrel: Option<(Duration, String)>,
    /// What the log has been told, and what is still so.
    complaints: Vec<String>,
    /// What somebody has just renamed our file to.
    renamed_to: Option<OsString>,
    /// While it is waited for news.
    watch: Option<Watch>,
    /// Some of the news were read too early to be waited for.
    look_again: bool,
}

/// Where our configuration comes from.
pub enum Source {
    /// It is made from a master.
    Generated {
        /// Where the master is looked for.
        directory: PathBuf,
        /// The master's name; otherwise it is the first configuration there.
        file: Option<String>,
        /// What the master's `cniVersion` is made in its file; empty leaves it.
        force_version: String,
        /// What makes it.
        template: Box<dyn Template>,
    },
    /// It is a file that somebody wrote, and is called the same.
    File(PathBuf),
}

/// What a look at everything has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All is as it should be.
    Kept,
    /// Our configuration was written.
    Written,
    /// Somebody else keeps undoing it; it will be written after a pause.
    Paused(Duration),
}

#[derive(Clone, PartialEq, Eq)]
struct Configuration {
    path: PathBuf,
    content: Vec<u8>,
}

impl Keeper {
    /// For the directory `conf_dir`, which must exist.
    #[must_use]
    pub fn new(conf_dir: &Path, source: Source) -> Self {
        Self {
            conf_dir: conf_dir.to_owned(),
            source,
            kubeconfig: None,
            readiness_indicator_file: None,
            rename_master: false,
            written: None,
            pace: Pace::default(),
            quarrel: None,
            complaints: Vec::new(),
            renamed_to: None,
            watch: None,
            look_again: false,
        }
    }

    /// As a daemon's configuration says: `multusConfigFile`, `cniConfigDir`, `multusAutoconfigDir`, `multusMasterCNI`,
    /// `forceCNIVersion`, `readinessindicatorfile`, and the keys of [`Thick`].
    ///
    /// # Errors
    /// [`Error::Options`] with the first key that is malformed.
    pub fn from_daemon_config(bytes: &[u8]) -> Result<Self, Error> {
        let thick = Thick::parse(bytes)?;
        let document = Document::parse(bytes).map_err(Error::Options)?;
        let options = || {
            let view = document.root("").object()?;
            let text = |key| Ok::<_, FieldError>(view.string(key)?.filter(|text| !text.is_empty()));
            let conf_dir = Path::new(text("cniConfigDir")?.unwrap_or("/etc/cni/net.d"));
            let force_version = view.boolean("forceCNIVersion")?.unwrap_or(false);
            let source = match text("multusConfigFile")? {
                None | Some("auto") => Source::Generated {
                    directory: text("multusAutoconfigDir")?.map_or_else(|| conf_dir.to_owned(), PathBuf::from),
                    file: text("multusMasterCNI")?.map(str::to_owned),
                    force_version: if force_version { thick.version().to_owned() } else { String::new() },
                    template: Box::new(thick),
                },
                Some(path) => Source::File(path.into()),
            };
            let keeper = Self::new(conf_dir, source);
            Ok(match text("readinessindicatorfile")? {
                Some(path) => keeper.after(path.into()),
                None => keeper,
            })
        };
        options().map_err(|error: FieldError| Error::Options(error.to_string()))
    }

    /// Writes nothing unless this file exists.
    #[must_use]
    pub fn after(self, readiness_indicator_file: PathBuf) -> Self {
        Self { readiness_indicator_file: Some(readiness_indicator_file), ..self }
    }

    /// Keeps a kubeconfig, too.
    #[must_use]
    pub fn with_kubeconfig(self, kubeconfig: Kubeconfig) -> Self {
        Self { kubeconfig: Some(kubeconfig), ..self }
    }

    /// Renames the master to `<name>.old` once our configuration is written.
    #[must_use]
    pub fn renaming_master(self, rename_master: bool) -> Self {
        Self { rename_master, ..self }
    }

    /// Waits until our configuration is written; `false` when `stop` became readable before. It is not kept afterwards.
    ///
    /// # Errors
    /// [`Error::Wait`]. Whatever else is wrong is told to the log, once, and tried again.
    pub fn write(&mut self, stop: BorrowedFd<'_>) -> Result<bool, Error> {
        self.work(stop, |keeper| keeper.written.is_some())?;
        Ok(self.written.is_some())
    }

    /// Keeps everything until `stop` becomes readable.
    ///
    /// # Errors
    /// [`Error::Wait`]. Whatever else is wrong is told to the log, once, and tried again.
    pub fn keep(&mut self, stop: BorrowedFd<'_>) -> Result<(), Error> {
        self.work(stop, |_| false)
    }

    /// Looks at everything once, at the time `now`.
    ///
    /// # Errors
    /// The first thing that is missing or wrong. What could be done in spite of it was.
    pub fn refresh(&mut self, now: Instant) -> Result<Standing, Error> {
        let credentials = self.kubeconfig.as_ref().map_or(Ok(false), Kubeconfig::refresh);
        if let (Ok(true), Some(kubeconfig)) = (&credentials, &self.kubeconfig) {
            info!("{:?} is written, with the credentials in {:?}", kubeconfig.path(), kubeconfig.service_account());
        }
        let wanted = self.wanted();
        let standing = match wanted.as_ref().ok().or(self.written.as_ref()).cloned() {
            Some(wanted) => self.put(wanted, now)?,
            None => Standing::Kept,
        };
        wanted?;
        credentials?;
        Ok(standing)
    }

    /// Gives the master its name back, and takes our configuration away.
    ///
    /// # Errors
    /// When a file cannot be removed or renamed.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.restore_master()?;
        if let Some(written) = self.written.take() {
            file::remove(&written.path)?;
        }
        self.remove_others(None)
    }

    /// Gives the master its name back where it was [renamed](Self::renaming_master).
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn restore_master(&self) -> Result<(), Error> {
        match self.find_master()?.filter(|path| is_old(path)) {
            Some(path) => fs::rename(&path, path.with_extension("")).map_err(Error::file("rename", &path)),
            None => Ok(()),
        }
    }

    fn work(&mut self, stop: BorrowedFd<'_>, is_done: impl Fn(&Self) -> bool) -> Result<(), Error> {
        self.watch.get_or_insert_with(Watch::new);
        loop {
            if let Some(watch) = &self.watch {
                watch.cover(self.directories());
            }
            let outcome = self.refresh(Instant::now());
            let (pause, quarrel) = self.quarrel.take().unzip();
            self.tell(outcome.err().map(|error| error.to_string()).into_iter().chain(quarrel).collect());
            if is_done(self) {
                return Ok(());
            }
            let limit = if std::mem::take(&mut self.look_again) { Some(Duration::ZERO) } else { pause };
            let name = self.written.as_ref().and_then(|written| written.path.file_name());
            match self.watch.as_ref().map(|watch| watch.wait(stop, limit, name)).transpose()? {
                Some(Woken::Look { renamed_to }) => self.renamed_to = renamed_to,
                Some(Woken::Stop) | None => return Ok(()),
            }
        }
    }

    /// What stays wrong is told once.
    fn tell(&mut self, complaints: Vec<String>) {
        for complaint in complaints.iter().filter(|complaint| !self.complaints.contains(complaint)) {
            warn!("{complaint}");
        }
        self.complaints = complaints;
    }

    fn directories(&self) -> Vec<&Path> {
        let source = match &self.source {
            Source::Generated { directory, .. } => Some(directory.as_path()),
            Source::File(path) => path.parent(),
        };
        let indicator = self.readiness_indicator_file.as_ref().and_then(|path| path.parent());
        let credentials = self.kubeconfig.as_ref().map(Kubeconfig::service_account);
        let kubeconfig = self.kubeconfig.as_ref().and_then(|kubeconfig| kubeconfig.path().parent());
        [Some(self.conf_dir.as_path()), source, indicator, credentials, kubeconfig].into_iter().flatten().collect()
    }

    /// What our configuration should be.
    fn wanted(&self) -> Result<Configuration, Error> {
        if let Some(path) = self.readiness_indicator_file.as_ref().filter(|path| !path.exists()) {
            return Err(Error::Absent(format!("readiness indicator file {path:?}")));
        }
        let (directory, force_version, template) = match &self.source {
            Source::Generated { directory, force_version, template, .. } => (directory, force_version, template),
            Source::File(path) => {
                let content = file::read(path)?.filter(|content| !content.is_empty());
                let content = content.ok_or_else(|| Error::Absent(format!("configuration {path:?}")))?;
                Document::parse(&content).map_err(|problem| Error::Options(format!("file {path:?}: {problem}")))?;
                return Ok(Configuration { path: self.conf_dir.join(path.file_name().unwrap_or_default()), content });
            }
        };
        let absent = || Error::Absent(format!("master configuration in {directory:?}"));
        let path = self.find_master()?.ok_or_else(absent)?;
        let mut master = Master::read(&path)?.ok_or_else(absent)?;
        if !force_version.is_empty() && master.version() != force_version {
            master = master.with_version(force_version)?;
            file::replace(&path, &master.content().print(), 0o644)?;
            info!("cniVersion in {path:?} is set to {force_version}");
        }
        let Generated { file_name, content } = template.generate(&master)?;
        Ok(Configuration { path: self.conf_dir.join(file_name), content })
    }

    /// Also under the name that it was given.
    fn find_master(&self) -> Result<Option<PathBuf>, Error> {
        let Source::Generated { directory, file, .. } = &self.source else {
            return Ok(None);
        };
        let found = Master::find(directory, file.as_deref())?;
        if found.is_some() || !self.rename_master {
            return Ok(found);
        }
        let renamed = configuration_files(directory, &["old"]);
        let renamed = renamed.map_err(|error| Error::Master { path: directory.clone(), problem: error.to_string() })?;
        let is_master = |path: &PathBuf| {
            let original = path.with_extension("");
            let is_named = file.as_ref().is_none_or(|file| original.ends_with(file));
            is_named && original.extension().is_some_and(|extension| extension == "conf" || extension == "conflist")
        };
        Ok(renamed.into_iter().find(is_master))
    }

    fn put(&mut self, wanted: Configuration, now: Instant) -> Result<Standing, Error> {
        let path = wanted.path.clone();
        let found = file::read(&path)?;
        let mut renamed_to = self.renamed_to.take();
        if let Some(watch) = self.watch.as_ref().filter(|_| found.is_none() && renamed_to.is_none()) {
            // It was gone before this, so that its news is there by now.
            renamed_to = watch.renamed(path.file_name());
            self.look_again = true;
        }
        let standing = if found.as_ref() == Some(&wanted.content) {
            Standing::Kept
        } else {
            if self.written.as_ref() == Some(&wanted) {
                let pause = self.pace.wait(now);
                let deed = match (&found, &renamed_to) {
                    (Some(_), _) => "changed".to_owned(),
                    (None, Some(name)) => format!("renamed to {name:?}"),
                    (None, None) => "removed".to_owned(),
                };
                if !pause.is_zero() {
                    let text = format!(
                        "{path:?} was {deed} again, and is restored after a pause; until then pods may start without their \
                         networks. Another program wants this directory for itself: with Cilium, set cni.exclusive to false"
                    );
                    self.quarrel = Some((pause, text));
                    return Ok(Standing::Paused(pause));
                }
                warn!("{path:?} was {deed} by somebody else; it is restored");
                self.pace.note(now);
            }
            file::replace(&path, &wanted.content, 0o600)?;
            Standing::Written
        };
        self.written = Some(wanted);
        if let Source::Generated { .. } = self.source {
            self.remove_others(Some(&path))?;
            self.rename_master()?;
        }
        if standing == Standing::Written {
            info!("{path:?} is written");
        }
        Ok(standing)
    }

    /// A master of another version makes a file of another name.
    fn remove_others(&self, ours: Option<&Path>) -> Result<(), Error> {
        let Source::Generated { .. } = self.source else {
            return Ok(());
        };
        let paths = Generated::FILE_NAMES.iter().map(|name| self.conf_dir.join(name));
        paths.filter(|path| Some(path.as_path()) != ours).try_for_each(|path| file::remove(&path).map(drop))
    }

    fn rename_master(&self) -> Result<(), Error> {
        match self.find_master()?.filter(|path| self.rename_master && !is_old(path)) {
            Some(path) => fs::rename(&path, old(&path)).map_err(Error::file("rename", &path)),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Keeper").field("conf_dir", &self.conf_dir).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Generated { directory, file, .. } => formatter
                .debug_struct("Generated")
                .field("directory", directory)
                .field("file", file)
                .finish_non_exhaustive(),
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
        }
    }
}

fn is_old(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "old")
}

fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}
