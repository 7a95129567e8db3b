//! The configuration of one plugin.

use serde_json::{Map, Value};

use crate::{AttachmentId, Error, FieldError, NetworkName, Object, Success, Version, json};

/// The configuration of one plugin: the bytes as they came, which is what a delegate gets, and a view to read keys from.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    bytes: Vec<u8>,
    entries: Map<String, Value>,
    name: NetworkName,
}

impl NetworkConfig {
    /// Reads a configuration and checks what every plugin needs: a JSON object with a valid `name`.
    ///
    /// # Errors
    /// [`Error::MalformedConfig`], [`Error::MissingNetworkName`] or [`Error::InvalidNetworkName`].
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let bytes = bytes.into();
        let entries = match json::parse(&bytes).map_err(Error::MalformedConfig)? {
            Value::Object(entries) => entries,
            Value::Null => Map::new(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(Error::MalformedConfig("a network configuration is a JSON object".to_owned()));
            }
        };
        let name = Object::root(&entries).string("name").map_err(|error| Error::MalformedConfig(error.to_string()))?;
        let name = name.unwrap_or_default().parse()?;
        Ok(Self { bytes, entries, name })
    }

    /// The configuration exactly as it was written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The keys, to be read by name in any letter case.
    #[must_use]
    pub fn view(&self) -> Object<'_> {
        Object::root(&self.entries)
    }

    /// `name`: the network's.
    #[must_use]
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// `cniVersion` as written; absent is empty.
    ///
    /// # Errors
    /// When it is not a string.
    pub fn version_text(&self) -> Result<&str, Error> {
        let text = self.view().string("cniVersion");
        let text = text.map_err(|error| {
            Error::MalformedVersion(format!("decoding version from network config: json: cannot unmarshal {error}"))
        })?;
        Ok(text.unwrap_or_default())
    }

    /// `cniVersion`, absent meaning 0.1.0.
    ///
    /// # Errors
    /// When it is not a version this implementation speaks.
    pub fn version(&self) -> Result<Version, Error> {
        Version::parse(self.version_text()?)
    }

    /// `ipam.type`; `None` when there is no IPAM, or its type is empty.
    ///
    /// # Errors
    /// When a value is of a wrong type.
    pub fn ipam_type(&self) -> Result<Option<&str>, FieldError> {
        let ipam = self.view().object("ipam")?;
        let kind = ipam.map(|ipam| ipam.string("type")).transpose()?.flatten();
        Ok(kind.filter(|kind| !kind.is_empty()))
    }

    /// `prevResult`, where there is one.
    ///
    /// # Errors
    /// When it cannot be read as a result of the configuration's version.
    pub fn previous_result(&self) -> Result<Option<Success>, Error> {
        match self.view().object("prevResult")? {
            None => Ok(None),
            Some(object) => Success::from_previous(&object, self.version()?).map(Some),
        }
    }

    /// `cni.dev/valid-attachments`, which GC gets from the runtime: everything else may be freed. `None` when the
    /// key is absent or `null`: then nothing is known, and nothing may be freed.
    ///
    /// # Errors
    /// When it is not an array of objects with the strings `containerID` and `ifname`.
    pub fn valid_attachments(&self) -> Result<Option<Vec<AttachmentId>>, Error> {
        let Some(list) = self.view().item("cni.dev/valid-attachments") else {
            return Ok(None);
        };
        let read = |item: crate::Item<'_>| {
            let object = item.object()?;
            let required = |key| object.string(key)?.ok_or_else(|| FieldError::new(object.path_of(key), "is missing"));
            Ok(AttachmentId {
                container_id: required("containerID")?.to_owned(),
                ifname: required("ifname")?.to_owned(),
            })
        };
        list.array()?.into_iter().map(read).collect::<Result<Vec<_>, FieldError>>().map(Some).map_err(Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (u32, String) {
        let error = NetworkConfig::parse(text).unwrap_err();
        (error.code().number(), error.to_string())
    }

    #[test]
    fn the_bytes_stay_what_they_were() {
        let text = r#"{ "name":"n", "big":12345678901234567890123, "x":1.50, "name":"m" }"#;
        let config = NetworkConfig::parse(text).unwrap();
        assert_eq!(config.bytes(), text.as_bytes());
        assert_eq!(config.name().as_str(), "m");
    }

    #[test]
    fn what_is_not_a_configuration_has_its_code() {
        assert_eq!(refused(""), (6, "error unmarshall network config: unexpected end of JSON input".into()));
        assert_eq!(refused("[]").0, 6);
        assert_eq!(refused("{} x").0, 6);
        assert_eq!(refused(r#"{"name":5}"#).0, 6);
        assert_eq!(refused("null"), (7, "missing network name".into()));
        assert_eq!(refused(r#"{"name":""}"#), (7, "missing network name".into()));
        assert_eq!(refused(r#"{"name":"../x"}"#), (7, "invalid characters found in network name".into()));
        let error = NetworkConfig::parse(r#"{"name":"n","cniVersion":1}"#).unwrap().version().unwrap_err();
        assert_eq!(error.code().number(), 6);
        assert!(error.to_string().starts_with("decoding version from network config: json: cannot unmarshal "));
    }

    #[test]
    fn valid_attachments_are_none_unless_given() {
        let list = |text: &str| NetworkConfig::parse(text).unwrap().valid_attachments();
        assert_eq!(list(r#"{"name":"n"}"#).unwrap(), None);
        assert_eq!(list(r#"{"name":"n","cni.dev/valid-attachments":null}"#).unwrap(), None);
        assert_eq!(list(r#"{"name":"n","cni.dev/valid-attachments":[]}"#).unwrap(), Some(vec![]));
        assert!(list(r#"{"name":"n","cni.dev/valid-attachments":[{"ifname":"eth0"}]}"#).is_err());
        let given = list(r#"{"name":"n","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}"#);
        assert_eq!(given.unwrap().unwrap(), [AttachmentId { container_id: "c".into(), ifname: "eth0".into() }]);
    }
}
