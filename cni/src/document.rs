//! JSON documents besides configurations and results.

use serde_json::Value;

use crate::{Item, json};

/// A JSON document as the Go tools read it: object keys match in any letter case, the last of several equal keys wins,
/// `null` leaves what was there.
#[derive(Clone, Debug)]
pub struct Document(Value);

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong and where, without any of the content.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        json::parse(bytes).map(Self)
    }

    /// Whether a document has more than `most` values, objects and lists among them. Each may take hundreds of bytes once it is
    /// read, and two in the document: whoever does not trust its author asks before.
    #[must_use]
    pub fn has_more_than(most: usize, bytes: &[u8]) -> bool {
        json::has_more_than(most, bytes)
    }

    /// The document's value. `name` is what messages call it, as in `networks[1].mac`; it may be empty.
    #[must_use]
    pub fn root(&self, name: &str) -> Item<'_> {
        Item::new(name, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_document_and_the_place() {
        let document = Document::parse(br#"[{"MAC":5}]"#).unwrap();
        let elements = document.root("networks").array().unwrap();
        let error = elements[0].object().unwrap().string("mac").unwrap_err();
        assert_eq!(error.to_string(), r#""networks[0].mac" must be a string, not 5"#);
        let document = Document::parse(br#"{"a":{"b":5}}"#).unwrap();
        let error = document.root("").object().unwrap().object("a").unwrap().unwrap().string("b").unwrap_err();
        assert_eq!(error.to_string(), r#""a.b" must be a string, not 5"#);
    }

    #[test]
    fn syntax_errors_hold_nothing_of_the_content() {
        let error = Document::parse(br#"{"password":"hunter2" "#).unwrap_err();
        assert_eq!(error, "unexpected end of JSON input");
        let error = Document::parse(br#"{"password":hunter2}"#).unwrap_err();
        assert!(!error.contains("hunter") && error.contains("column 13"), "{error}");
    }
}
