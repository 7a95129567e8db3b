//! How many values a document has, without keeping any.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Whether a document has more than `most` values, counted without keeping any. One that is malformed has none after the mistake.
pub(crate) fn has_more_than(most: usize, bytes: &[u8]) -> bool {
    // A value takes a byte at least, and another one what separates it from the next, or ends it.
    if bytes.len().div_ceil(2) <= most {
        return false;
    }
    let mut counter = Counter { left: most, is_exceeded: false };
    let text = String::from_utf8_lossy(bytes);
    // What is malformed is for whoever reads it to say.
    let _counted = counter.deserialize(&mut serde_json::Deserializer::from_str(&text));
    counter.is_exceeded
}

struct Counter {
    left: usize,
    is_exceeded: bool,
}

impl Counter {
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.is_exceeded = self.left == 0;
        self.left = self.left.saturating_sub(1);
        if self.is_exceeded { Err(E::custom("too many values")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Counter {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Counter {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.count()
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.count()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.count()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.count()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.count()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.count()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.count()?;
        while elements.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.count()?;
        while entries.next_key::<IgnoredAny>()?.is_some() {
            entries.next_value_seed(&mut *self)?;
        }
        Ok(())
    }
}
