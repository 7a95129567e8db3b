//! What was attached, in files, in the format of libcni: so that DEL knows what ADD did.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Attachment, AttachmentRequest, ContainerId, Error, NetworkConfigList, NetworkName, RawObject, Success, Version,
    file, wire,
};

/// A directory of attachments: one file for each, named by network, container and interface.
///
/// Whoever changes the file of one attachment at the same time as another must take turns.
#[derive(Clone, Debug)]
pub struct ResultCache {
    directory: PathBuf,
}

impl ResultCache {
    /// Where runtimes keep their cache, unless told otherwise.
    pub const DEFAULT_CACHE_DIR: &'static str = "/var/lib/cni";

    /// The cache in `<cache_dir>/results`, which is made when it is first needed.
    #[must_use]
    pub fn new(cache_dir: &Path) -> Self {
        Self { directory: cache_dir.join("results") }
    }

    /// What is known of `attachment` to `network`, of which the namespace does not matter.
    ///
    /// # Errors
    /// [`Error::MalformedCache`] for a file that is torn, or tells of another attachment; [`Error::File`] when it cannot
    /// be read.
    pub fn read(&self, network: &NetworkName, attachment: &Attachment) -> Result<Option<CachedAttachment>, Error> {
        let path = self.path(network, attachment);
        let Some(bytes) = file::read(&path)? else {
            return Ok(None);
        };
        let cached = match parse(&path, &bytes)? {
            Content::Attachment(cached) => cached,
            Content::ResultAlone(result) => CachedAttachment {
                network: network.clone(),
                request: AttachmentRequest::new(attachment.clone()),
                config: Vec::new(),
                result: Some(result),
            },
        };
        cached.must_be_of(network, attachment, &path)?;
        Ok(Some(cached))
    }

    /// All attachments, or those of `container`, by file name. Each file that cannot be read is an error of its own, and
    /// what has only a result, as old runtimes wrote it, is passed over.
    ///
    /// # Errors
    /// When the directory cannot be read. One that does not exist is empty.
    pub fn attachments(&self, container: Option<&ContainerId>) -> Result<Vec<Result<CachedAttachment, Error>>, Error> {
        let within = container.map(|id| format!("-{id}-"));
        let named = |name: &String| !name.starts_with('.') && within.as_ref().is_none_or(|id| name.contains(id));
        let read = |name: String| -> Result<Option<CachedAttachment>, Error> {
            let path = self.directory.join(name);
            match file::read(&path)?.map(|bytes| parse(&path, &bytes)).transpose()? {
                Some(Content::Attachment(cached)) => Ok(Some(cached)),
                // Removed in the meantime.
                Some(Content::ResultAlone(_)) | None => Ok(None),
            }
        };
        let of_container = |cached: &Result<CachedAttachment, Error>| match (cached, container) {
            (Ok(cached), Some(container)) => cached.request.attachment.container_id == *container,
            (Err(_), _) | (_, None) => true,
        };
        let names = file::names(&self.directory)?;
        Ok(names.into_iter().filter(named).filter_map(|name| read(name).transpose()).filter(of_container).collect())
    }

    /// Stores `cached` in place of what is there.
    ///
    /// # Errors
    /// When it cannot be written, or when another attachment has the file.
    pub fn write(&self, cached: &CachedAttachment) -> Result<(), Error> {
        let CachedAttachment { network, request: AttachmentRequest { attachment, args, capability_args }, .. } = cached;
        let path = self.own_path(network, attachment)?;
        let document = Document {
            kind: KIND.to_owned(),
            container_id: attachment.container_id.to_string(),
            config: Some(BASE64_STANDARD.encode(&cached.config)),
            if_name: attachment.ifname.to_string(),
            network_name: network.to_string(),
            netns: attachment.sandbox(),
            cni_args: args.clone(),
            capability_args: capability_args.clone(),
            result: cached.result.clone(),
        };
        let malformed =
            |error: serde_json::Error| Error::MalformedCache { path: path.clone(), problem: error.to_string() };
        file::replace(&path, &serde_json::to_vec(&document).map_err(malformed)?)
    }

    /// Forgets `attachment` to `network`, whether its file can be read or not.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self, network: &NetworkName, attachment: &Attachment) -> Result<(), Error> {
        // What another attachment has is not this one's to remove.
        self.own_path(network, attachment).map_or(Ok(()), |path| file::remove(&path))
    }

    /// The path, unless the file there is that of another attachment.
    fn own_path(&self, network: &NetworkName, attachment: &Attachment) -> Result<PathBuf, Error> {
        let path = self.path(network, attachment);
        let content = file::read(&path).ok().flatten().and_then(|bytes| parse(&path, &bytes).ok());
        if let Some(Content::Attachment(cached)) = content {
            cached.must_be_of(network, attachment, &path)?;
        }
        Ok(path)
    }

    /// All three names were checked when they were read: none has a slash, and the first begins with a letter or digit.
    fn path(&self, network: &NetworkName, attachment: &Attachment) -> PathBuf {
        self.directory.join(format!("{network}-{}-{}", attachment.container_id, attachment.ifname))
    }
}

/// What ADD was asked for, and what it made.
#[derive(Clone, Debug)]
pub struct CachedAttachment {
    /// The network.
    pub network: NetworkName,
    /// What was asked for.
    pub request: AttachmentRequest,
    /// The list, or the configuration of the single plugin, byte for byte; empty when only a result was stored.
    pub config: Vec<u8>,
    result: Option<Box<RawValue>>,
}

impl CachedAttachment {
    /// An attachment that is about to be made.
    #[must_use]
    pub fn new(list: &NetworkConfigList, request: &AttachmentRequest) -> Self {
        let (network, config) = (list.name().clone(), list.bytes().to_owned());
        Self { network, request: request.clone(), config, result: None }
    }

    /// The configuration to delete the attachment with.
    ///
    /// # Errors
    /// Those of [`NetworkConfigList::parse_either`].
    pub fn list(&self) -> Result<NetworkConfigList, Error> {
        NetworkConfigList::parse_either(&self.config)
    }

    /// What ADD made; `None` when it did not come to its end.
    ///
    /// # Errors
    /// Those of [`Success::parse`].
    pub fn result(&self) -> Result<Option<Success>, Error> {
        self.result.as_ref().map(|result| Success::parse(result.get().as_bytes(), Version::V0_1_0)).transpose()
    }

    /// The attachment with `result` as made, told in `version`.
    ///
    /// # Errors
    /// When it cannot be told in JSON.
    pub fn with_result(mut self, result: &Success, version: Version) -> Result<Self, Error> {
        // By way of an object, whose keys are sorted, as in the files of others.
        let sorted = serde_json::from_str::<serde_json::Value>(wire::raw(result, version)?.get());
        let sorted = sorted.and_then(|result| serde_json::value::to_raw_value(&result));
        self.result = Some(sorted.map_err(|error| Error::MalformedResult(error.to_string()))?);
        Ok(self)
    }

    /// Two attachments can have one file: the names may have hyphens in them.
    fn must_be_of(&self, network: &NetworkName, attachment: &Attachment, path: &Path) -> Result<(), Error> {
        let own = &self.request.attachment;
        if self.network == *network && own.id() == attachment.id() {
            return Ok(());
        }
        let problem =
            format!("it tells of network {}, container {}, interface {}", self.network, own.container_id, own.ifname);
        Err(Error::MalformedCache { path: path.to_owned(), problem })
    }
}

const KIND: &str = "cniCacheV1";

/// A file, its keys in the order in which libcni writes them.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    kind: String,
    container_id: String,
    config: Option<String>,
    if_name: String,
    network_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cni_args: Vec<(String, String)>,
    #[serde(skip_serializing_if = "RawObject::is_empty")]
    capability_args: RawObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
}

enum Content {
    Attachment(CachedAttachment),
    /// What runtimes stored before there was more.
    ResultAlone(Box<RawValue>),
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Content, Error> {
    let malformed = |problem: String| Error::MalformedCache { path: path.to_owned(), problem };
    let text = str::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
    let document: Document = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    match document.kind.as_str() {
        KIND => {}
        "" => {
            let result = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
            return Ok(Content::ResultAlone(result));
        }
        other => return Err(malformed(format!("its kind is {other:?}, and must be {KIND:?}"))),
    }
    let attachment = || -> Result<CachedAttachment, Error> {
        Ok(CachedAttachment {
            network: document.network_name.parse()?,
            request: AttachmentRequest {
                attachment: Attachment {
                    container_id: document.container_id.parse()?,
                    ifname: document.if_name.parse()?,
                    netns: Some(document.netns).filter(|path| !path.is_empty()).map(PathBuf::from),
                },
                args: document.cni_args,
                capability_args: document.capability_args,
            },
            config: BASE64_STANDARD
                .decode(document.config.unwrap_or_default())
                .map_err(|error| Error::MalformedConfig(error.to_string()))?,
            result: document.result,
        })
    };
    attachment().map(Content::Attachment).map_err(|error| malformed(error.to_string()))
}
