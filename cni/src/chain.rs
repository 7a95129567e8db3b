//! The plugins of a list one after the other, as a runtime runs them.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use crate::{
    Attachment, AttachmentId, CachedAttachment, Environment, Error, Invocation, NetworkConfigList, Pending, Plugin,
    Provisional, RawObject, Registry, ResultCache, Success, Version, wire,
};

/// One attachment, and what the runtime says about it besides the list.
#[derive(Clone, Debug)]
pub struct AttachmentRequest {
    /// What to attach.
    pub attachment: Attachment,
    /// The pairs of `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// Values by capability, such as `portMappings`: a plugin gets those it declares, as `runtimeConfig`.
    pub capability_args: RawObject,
}

impl AttachmentRequest {
    /// A request without further arguments.
    #[must_use]
    pub fn new(attachment: Attachment) -> Self {
        Self { attachment, args: Vec::new(), capability_args: RawObject::default() }
    }
}

/// Runs lists: the plugins of the registry, and executed ones, in order.
///
/// The operations of one attachment must take turns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Chain {
    /// The built-in plugins.
    pub registry: Registry,
    /// Where attachments are kept until their DEL.
    pub cache: ResultCache,
    /// Directories with plugin executables, `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// What executed plugins inherit.
    pub environment: Environment,
    /// Where the host's file system is mounted.
    pub root: PathBuf,
}

impl Chain {
    /// A chain without a plugin path or environment, the host's root at `/`.
    #[must_use]
    pub fn new(registry: Registry, cache: ResultCache) -> Self {
        let (environment, root) = (Environment::default(), Path::new("/").to_owned());
        Self { registry, cache, path: Vec::new(), environment, root }
    }

    /// Attaches: each plugin gets the result of the one before as `prevResult`, and the last one's is that of the list.
    ///
    /// All plugins are found before the first one runs. The request and the list are in the cache before it too, and the
    /// result is from then on: whenever this process dies, DEL finds what it needs. Undoing, by whatever way, goes
    /// backwards; the cache is as it was once everything is undone, and keeps the attachment for DEL otherwise.
    ///
    /// # Errors
    /// The first plugin's that failed, when the others are undone, and those of undoing them; [`Error::IncompatibleVersion`];
    /// [`Error::File`] and [`Error::MalformedCache`] when the attachment cannot be stored.
    pub fn add(&self, list: &NetworkConfigList, request: &AttachmentRequest) -> Result<Pending, Error> {
        let version = Version::parse(list.version())?;
        for index in 0..list.len() {
            let found = self.run(list, index, Some(request), None, |_, _| Ok(()));
            found.map_err(|error| list.failed(index, "add", error))?;
        }

        let before = self.cache.read(list.name(), &request.attachment).ok().flatten();
        let cached = CachedAttachment::new(list, request);
        self.store(&cached)?;

        let entry = Entry { cache: self.cache.clone(), cached: cached.clone(), before };
        let mut added = Added { plugins: Vec::new(), entry: Some(entry) };
        match self.add_all(&mut added, cached, list, request, version) {
            Ok(success) => Ok(Pending::new(success, added)),
            Err(cause) => {
                if cause.remains() {
                    // Its DEL needs that.
                    added.entry = None;
                }
                Err(match added.take_back() {
                    Ok(()) => cause,
                    Err(remains) => {
                        let remains = remains.within("taking back what had been added failed");
                        Error::Several(vec![cause, Error::NotUndone(Box::new(remains))])
                    }
                })
            }
        }
    }

    fn add_all(
        &self,
        added: &mut Added,
        cached: CachedAttachment,
        list: &NetworkConfigList,
        request: &AttachmentRequest,
        version: Version,
    ) -> Result<Success, Error> {
        let mut success = None;
        for index in 0..list.len() {
            let previous = previous_result(success.as_ref(), version)?;
            let pending = self.run(list, index, Some(request), previous, |plugin, invocation| {
                plugin.add(&request.attachment, invocation)
            });
            let pending = pending.map_err(|error| list.failed(index, "add", error))?;
            success = Some(pending.success().clone());
            added.plugins.push(pending);
        }
        let success = success.unwrap_or_default();
        self.store(&cached.with_result(&success, version)?)?;
        Ok(success)
    }

    /// Tells the plugins of these attachments to one sandbox that DELs of all of them follow, before the first of these.
    /// Lists of several plugins are left out: the first of them to hear of it must be the last of the list.
    pub fn prepare_del(&self, attachments: &[(&NetworkConfigList, &AttachmentRequest)]) {
        type Together = (Arc<dyn Plugin>, Vec<(Attachment, Invocation)>);
        let mut by_type: BTreeMap<&str, Together> = BTreeMap::new();
        for (list, request) in attachments.iter().filter(|(list, _)| list.len() == 1) {
            let kind = list.types().next().unwrap_or_default();
            // What fails here fails again when its turn comes, and is told then.
            if let Ok((plugin, invocation)) = self.prepared(list, 0, Some(request), None) {
                let (_, together) = by_type.entry(kind).or_insert_with(|| (plugin, Vec::new()));
                together.push((request.attachment.clone(), invocation));
            }
        }
        for (plugin, together) in by_type.into_values().filter(|(_, together)| together.len() > 1) {
            plugin.prepare_del(&together);
        }
    }

    /// Detaches, the last plugin first. Since version 0.4.0 each gets the result of ADD as `prevResult`, if the cache
    /// still has it. After a failure the plugins that remain are called all the same, and the cache keeps the attachment.
    ///
    /// # Errors
    /// Those of all plugins that failed; when the cache's file cannot be removed.
    pub fn del(&self, list: &NetworkConfigList, request: &AttachmentRequest) -> Result<(), Error> {
        let version = Version::parse(list.version()).ok().filter(|version| *version >= Version::V0_4_0);
        // What cannot be read helps nobody, and must not keep the attachment for ever.
        let result = self.cached_result(list, request).ok().flatten();
        let mut failures = Vec::new();
        for index in (0..list.len()).rev() {
            let previous = version.map_or(Ok(None), |version| previous_result(result.as_ref(), version));
            let deleted = previous.and_then(|previous| {
                self.run(list, index, Some(request), previous, |plugin, invocation| {
                    plugin.del(&request.attachment, invocation)
                })
            });
            failures.extend(deleted.map_err(|error| list.failed(index, "delete", error)).err());
        }
        Error::all(failures)?;
        self.cache.remove(list.name(), &request.attachment)
    }

    /// Verifies, in order, each plugin with the result of ADD as `prevResult`; nothing when the list says `disableCheck`.
    ///
    /// # Errors
    /// The first plugin's that failed; [`Error::CheckNotSupported`] before version 0.4.0; [`Error::MalformedCache`] when
    /// the result cannot be read.
    pub fn check(&self, list: &NetworkConfigList, request: &AttachmentRequest) -> Result<(), Error> {
        let version = Version::parse(list.version())?;
        if version < Version::V0_4_0 {
            return Err(Error::CheckNotSupported(list.version().to_owned()));
        }
        if list.disable_check() {
            return Ok(());
        }
        let failed = |error: Error| error.within(format!("failed to get network \"{}\" cached result", list.name()));
        let result = self.cached_result(list, request).map_err(failed)?;
        (0..list.len()).try_for_each(|index| {
            let previous = previous_result(result.as_ref(), version)?;
            self.run(list, index, Some(request), previous, |plugin, invocation| {
                plugin.check(&request.attachment, invocation)
            })
        })
    }

    /// Asks the plugins, in order, whether an ADD could be served; before version 1.1.0 nobody is asked.
    ///
    /// # Errors
    /// The first plugin's that could not; [`Error::IncompatibleVersion`].
    pub fn status(&self, list: &NetworkConfigList) -> Result<(), Error> {
        if Version::parse(list.version())? < Version::V1_1_0 {
            return Ok(());
        }
        let ask = |index| self.run(list, index, None, None, |plugin, invocation| plugin.status(invocation));
        (0..list.len()).try_for_each(ask)
    }

    /// Deletes the attachments to the list's network that are in the cache and not among `valid`, as they were added; then,
    /// since version 1.1.0, tells the plugins which are valid. Nothing when the list says `disableGC`.
    ///
    /// It takes turns with ADD and DEL of the network: what is just being made is among the valid ones, or is deleted.
    ///
    /// # Errors
    /// All failures; nothing is left out for them.
    pub fn gc(&self, list: &NetworkConfigList, valid: &[AttachmentId]) -> Result<(), Error> {
        if list.disable_gc() {
            return Ok(());
        }
        let valid_ids: HashSet<&AttachmentId> = valid.iter().collect();
        let mut failures = Vec::new();
        // Of a file that cannot be read nobody knows whose it is; it goes with its DEL.
        for cached in self.cache.attachments(None)?.into_iter().flatten() {
            let id = cached.request.attachment.id();
            if cached.network != *list.name() || valid_ids.contains(&id) {
                continue;
            }
            let as_added = cached.list().ok().filter(|added| added.name() == list.name());
            let deleted = self.del(as_added.as_ref().unwrap_or(list), &cached.request);
            let stale = format!("failed to delete stale attachment {} {}", id.container_id, id.ifname);
            failures.extend(deleted.map_err(|error| error.within(stale)).err());
        }
        if Version::parse(list.version()).is_ok_and(|version| version >= Version::V1_1_0) {
            let attachment = |id: &AttachmentId| json!({"containerID": id.container_id, "ifname": id.ifname});
            let valid = raw(&valid.iter().map(attachment).collect::<Vec<_>>())?;
            for (index, kind) in list.types().enumerate() {
                // Two names, since plugins read either.
                let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"].map(|key| (key, valid.clone()));
                let freed = self.run(list, index, None, keys, |plugin, invocation| plugin.gc(invocation));
                failures.extend(freed.map_err(|error| error.within(format!("failed to GC plugin {kind}"))).err());
            }
        }
        Error::all(failures)
    }

    /// Makes sure that all plugins are there and speak the list's version.
    ///
    /// # Errors
    /// One for each plugin of which that is not so.
    pub fn validate(&self, list: &NetworkConfigList) -> Result<(), Error> {
        let version = if list.version().is_empty() { Version::V0_1_0.as_str() } else { list.version() };
        let speaks = |(index, kind): (usize, &str)| {
            let spoken = self.run(list, index, None, None, |plugin, invocation| plugin.versions(invocation))?;
            let missing = || Error::VersionNotSpoken { kind: kind.to_owned(), version: version.to_owned() };
            spoken.iter().any(|spoken| spoken == version).then_some(()).ok_or_else(missing)
        };
        Error::all(list.types().enumerate().filter_map(|plugin| speaks(plugin).err()).collect())
    }

    fn store(&self, cached: &CachedAttachment) -> Result<(), Error> {
        let failed = |error: Error| error.within(format!("failed to set network \"{}\" cached result", cached.network));
        self.cache.write(cached).map_err(failed)
    }

    fn cached_result(&self, list: &NetworkConfigList, request: &AttachmentRequest) -> Result<Option<Success>, Error> {
        let cached = self.cache.read(list.name(), &request.attachment)?;
        cached.map(|cached| cached.result()).transpose().map(Option::flatten)
    }

    /// Finds the plugin at `index`, and does `work` with it and what it is to be called with.
    fn run<T>(
        &self,
        list: &NetworkConfigList,
        index: usize,
        request: Option<&AttachmentRequest>,
        injected: impl IntoIterator<Item = (&'static str, Box<RawValue>)>,
        work: impl FnOnce(&dyn Plugin, &Invocation) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (plugin, invocation) = self.prepared(list, index, request, injected)?;
        work(plugin.as_ref(), &invocation)
    }

    fn prepared(
        &self,
        list: &NetworkConfigList,
        index: usize,
        request: Option<&AttachmentRequest>,
        injected: impl IntoIterator<Item = (&'static str, Box<RawValue>)>,
    ) -> Result<(Arc<dyn Plugin>, Invocation), Error> {
        let mut keys: Vec<_> = injected.into_iter().collect();
        let mut args = String::new();
        if let Some(request) = request {
            let runtime_config = list.runtime_config(index, &request.capability_args);
            if !runtime_config.is_empty() {
                keys.push(("runtimeConfig", raw(&runtime_config)?));
            }
            args = request.args.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";");
        }
        let keys: Vec<_> = keys.iter().map(|(key, value)| (*key, value.as_ref())).collect();
        let invocation = Invocation {
            config: list.plugin(index, &keys)?,
            args,
            path: self.path.clone(),
            environment: self.environment.clone(),
            root: self.root.clone(),
        };
        let kind = list.types().nth(index).unwrap_or_default();
        Ok((self.registry.find(kind, &invocation)?, invocation))
    }
}

fn previous_result(result: Option<&Success>, version: Version) -> Result<Option<(&'static str, Box<RawValue>)>, Error> {
    Ok(result.map(|result| wire::raw(result, version)).transpose()?.map(|result| ("prevResult", result)))
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::MalformedConfig(error.to_string()))
}

/// What an ADD has made so far. Unless kept, it is taken back, also while unwinding.
struct Added {
    plugins: Vec<Pending>,
    entry: Option<Entry>,
}

impl Added {
    fn take_back(&mut self) -> Result<(), Error> {
        let mut failures = Vec::new();
        while let Some(last) = self.plugins.pop() {
            failures.extend(last.undo().err());
        }
        // As long as something remains, its DEL needs the entry.
        if let Some(entry) = self.entry.take().filter(|_| failures.is_empty()) {
            failures.extend(entry.take_back().err());
        }
        Error::all(failures)
    }
}

impl Provisional for Added {
    fn keep(mut self: Box<Self>) {
        self.entry = None;
        for plugin in self.plugins.drain(..) {
            plugin.keep();
        }
    }

    fn undo(mut self: Box<Self>) -> Result<(), Error> {
        self.take_back()
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        // Nobody is left to tell: the caller is returning another error, or unwinding.
        let _untold = self.take_back();
    }
}

/// A file in the cache, and what it held before.
struct Entry {
    cache: ResultCache,
    cached: CachedAttachment,
    before: Option<CachedAttachment>,
}

impl Entry {
    fn take_back(self) -> Result<(), Error> {
        match self.before {
            Some(before) => self.cache.write(&before),
            None => self.cache.remove(&self.cached.network, &self.cached.request.attachment),
        }
    }
}
