//! JSON objects that are changed here and there and otherwise stay as they were written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::{RawValue, to_raw_value};

use crate::{Error, FieldError, json};

/// A JSON object whose values stay as written: what passes through typed or untyped values would lose digits.
#[derive(Clone, Debug, Default)]
pub struct RawObject(Vec<(String, Box<RawValue>)>);

impl RawObject {
    /// Reads an object.
    ///
    /// # Errors
    /// [`Error::MalformedConfig`] when `bytes` are not one JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_str(&String::from_utf8_lossy(bytes)).map_err(malformed)
    }

    /// The object on one line, its keys sorted.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        let printed = serde_json::to_vec(self);
        // Neither strings nor raw values fail to be written, nor does a Vec fail to take them.
        debug_assert!(printed.is_ok(), "{printed:?}");
        printed.unwrap_or_default()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `key` in any letter case, unless absent or `null`; the last of several.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&RawValue> {
        let key = json::folded(key);
        let mut values = self.0.iter().rev().filter(|(spelling, _)| json::folded(spelling) == key);
        values.find(|(_, value)| value.get() != "null").map(|(_, value)| value.as_ref())
    }

    /// How many times `key` is there, in any letter case and with any value.
    #[must_use]
    pub fn spellings(&self, key: &str) -> usize {
        let key = json::folded(key);
        self.0.iter().filter(|(spelling, _)| json::folded(spelling) == key).count()
    }

    /// The object at `key`, in any letter case; empty when absent.
    ///
    /// # Errors
    /// When it is anything but an object.
    pub fn object(&self, key: &str) -> Result<Self, FieldError> {
        let object = self.value(key).map_or(Ok(Self::default()), |value| serde_json::from_str(value.get()));
        object.map_err(|_| FieldError::new(key, "must be an object"))
    }

    /// Sets `key`, in place of every spelling of it.
    ///
    /// # Errors
    /// [`Error::MalformedConfig`] when `value` cannot be told in JSON.
    pub fn set(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let value = to_raw_value(value).map_err(malformed)?;
        self.0.retain(|(spelling, _)| json::folded(spelling) != json::folded(key));
        self.0.push((key.to_owned(), value));
        Ok(())
    }

    /// Sets all keys of `others`, letter by letter.
    pub fn merge(&mut self, others: &Self) {
        self.0.extend(others.0.iter().cloned());
    }

    /// The entries whose keys are among `keys`, letter by letter.
    pub(crate) fn only(&self, keys: &BTreeSet<String>) -> Self {
        Self(self.0.iter().filter(|(key, _)| keys.contains(key)).cloned().collect())
    }
}

impl Serialize for RawObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)).collect::<BTreeMap<_, _>>())
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

/// In the order of the document, since of several spellings of a key the last one counts.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = RawObject;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawObject, A::Error> {
        let mut object = RawObject::default();
        while let Some(entry) = entries.next_entry()? {
            object.0.push(entry);
        }
        Ok(object)
    }
}

fn malformed(error: serde_json::Error) -> Error {
    Error::MalformedConfig(error.to_string())
}
