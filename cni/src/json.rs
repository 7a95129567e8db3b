//! JSON as the Go tools read and write it.
//!
//! Reading: object keys match in any letter case, the last of several equal keys wins, `null` leaves what was there,
//! invalid UTF-8 becomes U+FFFD. Writing: four spaces of indentation, and `<`, `>`, `&`, U+2028, U+2029 escaped.

mod count;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value, ser::PrettyFormatter};

use crate::shortened;

pub(crate) use count::has_more_than;

/// A configuration key that holds something else than it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} {problem}")]
pub struct FieldError {
    path: String,
    problem: String,
}

impl FieldError {
    /// `path` is the key from the top of the document, such as `ipam.ranges[0][1].subnet`; `problem` a clause that
    /// follows it, such as `must be a string, not 5`.
    #[must_use]
    pub fn new(path: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { path: path.into(), problem: problem.to_string() }
    }
}

/// A JSON object with its place in the document. Keys match in any letter case; a `null` value counts as absent.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    path: String,
    entries: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    pub(crate) fn root(entries: &'a Map<String, Value>) -> Self {
        Self { path: String::new(), entries }
    }

    /// The value of `key`, unless absent or `null`.
    #[must_use]
    pub fn item(&self, key: &str) -> Option<Item<'a>> {
        self.item_or_null(key).filter(|item| !item.value.is_null())
    }

    /// The value of `key`, which may be `null`.
    #[must_use]
    pub fn item_or_null(&self, key: &str) -> Option<Item<'a>> {
        let value = self.entries.get(&folded(key))?;
        Some(Item { path: self.path_of(key), value })
    }

    /// The string at `key`.
    ///
    /// # Errors
    /// When it is anything but a string.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>, FieldError> {
        self.item(key).map(|item| item.string()).transpose()
    }

    /// The boolean at `key`.
    ///
    /// # Errors
    /// When it is anything but `true` or `false`.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, FieldError> {
        self.item(key).map(|item| item.boolean()).transpose()
    }

    /// The whole number at `key`, in the range of `T`.
    ///
    /// # Errors
    /// When it is not a number, has a fraction or exponent, or does not fit.
    pub fn integer<T: TryFrom<i64>>(&self, key: &str) -> Result<Option<T>, FieldError> {
        self.item(key).map(|item| item.integer()).transpose()
    }

    /// The object at `key`.
    ///
    /// # Errors
    /// When it is anything but an object.
    pub fn object(&self, key: &str) -> Result<Option<Self>, FieldError> {
        self.item(key).map(|item| item.object()).transpose()
    }

    /// The elements of the array at `key`; empty when absent.
    ///
    /// # Errors
    /// When it is anything but an array.
    pub fn array(&self, key: &str) -> Result<Vec<Item<'a>>, FieldError> {
        self.item(key).map_or(Ok(Vec::new()), |item| item.array())
    }

    /// The strings of the array at `key`; empty when absent.
    ///
    /// # Errors
    /// When it is not an array, or an element is not a string.
    pub fn strings(&self, key: &str) -> Result<Vec<String>, FieldError> {
        self.array(key)?.iter().map(|item| item.string().map(str::to_owned)).collect()
    }

    /// Where `key` of this object stands in the document, for messages.
    #[must_use]
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// All entries, with their keys in lower case.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> {
        self.entries.iter().map(|(key, value)| Item { path: self.path_of(key), value })
    }
}

/// A JSON value with its place in the document.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Item<'a> {
    pub(crate) fn new(path: &str, value: &'a Value) -> Self {
        Self { path: path.to_owned(), value }
    }

    /// The value as a string.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn string(&self) -> Result<&'a str, FieldError> {
        self.value.as_str().ok_or_else(|| self.must_be("a string"))
    }

    /// The value as a boolean.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn boolean(&self) -> Result<bool, FieldError> {
        self.value.as_bool().ok_or_else(|| self.must_be("true or false"))
    }

    /// The value as a whole number in the range of `T`.
    ///
    /// # Errors
    /// When it is not a number, has a fraction or exponent, or does not fit.
    pub fn integer<T: TryFrom<i64>>(&self) -> Result<T, FieldError> {
        self.value.as_i64().and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let bits = 8 * size_of::<T>();
            self.must_be(&format!("a whole number of {bits} bits in the range of its type"))
        })
    }

    /// The value as an object.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn object(&self) -> Result<Object<'a>, FieldError> {
        let entries = self.value.as_object().ok_or_else(|| self.must_be("an object"))?;
        Ok(Object { path: self.path.clone(), entries })
    }

    /// The value as the elements of an array.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn array(&self) -> Result<Vec<Self>, FieldError> {
        let elements = self.value.as_array().ok_or_else(|| self.must_be("an array"))?;
        let item = |(index, value)| Item { path: format!("{}[{index}]", self.path), value };
        Ok(elements.iter().enumerate().map(item).collect())
    }

    /// Whether the value is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// Where the value stands in the document, such as `ipam.ranges[0][1].subnet`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    fn must_be(&self, wanted: &str) -> FieldError {
        // Whole documents are nobody's typing error, and hold what is none of a log's business.
        let text = self.value.to_string();
        let found = if self.value.as_object().is_some_and(|entries| !entries.is_empty()) {
            Cow::Borrowed("an object")
        } else if self.value.as_array().is_some_and(|elements| !elements.is_empty()) {
            Cow::Borrowed("an array")
        } else {
            shortened(&text)
        };
        FieldError::new(&self.path, format_args!("must be {wanted}, not {found}"))
    }
}

/// Reads a document. Equal keys are merged as the module says, so every key of the result is in lower case.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(bytes);
    match serde_json::from_str::<Folded>(&text) {
        Ok(Folded(value)) => Ok(value),
        // The Go tools' words, which callers know.
        Err(error) if error.is_eof() => Err("unexpected end of JSON input".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Writes a value as the Go tools print their results and errors: indented by four spaces, with `<`, `>` and `&` escaped.
#[must_use]
pub fn go_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    // The types printed here have string keys and no failing Serialize, and a Vec takes every write.
    let written = value.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "{written:?}");
    let mut escaped = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(&bytes).chars() {
        match c {
            // They stand nowhere but in strings.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => escaped.push(c),
        }
    }
    escaped.into_bytes()
}

/// Text in quotation marks with escapes, as Go's `%q` prints it.
pub(crate) fn go_quoted(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0b' => quoted.push_str("\\v"),
                '\x0c' => quoted.push_str("\\f"),
                '\0'..=' ' | '\x7f' if c != ' ' => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
                _ if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
                _ => quoted.push(c),
            }
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

/// The form in which keys are compared: Go folds ASCII letters and the two other characters that fold to one.
pub(crate) fn folded(key: &str) -> String {
    if key.is_ascii() {
        return key.to_ascii_lowercase();
    }
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

struct Folded(Value);

impl<'de> Deserialize<'de> for Folded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FoldedVisitor).map(Self)
    }
}

struct FoldedVisitor;

impl<'de> Visitor<'de> for FoldedVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Folded(value)) = elements.next_element()? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Folded(value))) = entries.next_entry::<String, Folded>()? {
            let key = folded(&key);
            if !value.is_null() || !object.contains_key(&key) {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(text: &str) -> Value {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_wins() {
        let value = view(r#"{"master":"a","Master":"b","maſter":"c","other":1}"#);
        let object = Object::root(value.as_object().unwrap());
        assert_eq!(object.string("MASTER").unwrap(), Some("c"));
    }

    #[test]
    fn null_leaves_what_was_there() {
        let value = view(r#"{"master":"a","MASTER":null,"mode":null}"#);
        let object = Object::root(value.as_object().unwrap());
        assert_eq!(object.string("master").unwrap(), Some("a"));
        assert_eq!(object.string("mode").unwrap(), None);
        assert!(object.item_or_null("mode").unwrap().is_null());
    }

    #[test]
    fn wrong_types_name_the_key_the_value_and_the_remedy() {
        let value = view(r#"{"ipam":{"ranges":[[{"subnet":5}]]},"mtu":1400.0,"n":-1}"#);
        let object = Object::root(value.as_object().unwrap());
        let ranges = object.object("ipam").unwrap().unwrap().array("ranges").unwrap();
        let range = ranges[0].array().unwrap()[0].object().unwrap();
        assert_eq!(
            range.string("subnet").unwrap_err().to_string(),
            r#""ipam.ranges[0][0].subnet" must be a string, not 5"#
        );
        assert!(object.integer::<u32>("mtu").unwrap_err().to_string().ends_with("not 1400.0"));
        assert!(object.integer::<u32>("n").is_err());
        assert_eq!(object.integer::<i32>("n").unwrap(), Some(-1));
    }

    #[test]
    fn null_in_a_list_of_texts_is_refused() {
        let value = view(r#"{"search":["a",null]}"#);
        let error = Object::root(value.as_object().unwrap()).strings("search").unwrap_err();
        assert_eq!(error.to_string(), r#""search[1]" must be a string, not null"#);
    }

    #[test]
    fn messages_hold_no_documents_and_no_long_values() {
        let text = format!(r#"{{"a":{{"password":"s3cret"}},"b":["s3cret"],"c":"{}","d":{{}}}}"#, "x".repeat(5000));
        let value = view(&text);
        let object = Object::root(value.as_object().unwrap());
        assert_eq!(object.string("a").unwrap_err().to_string(), r#""a" must be a string, not an object"#);
        assert_eq!(object.string("b").unwrap_err().to_string(), r#""b" must be a string, not an array"#);
        assert_eq!(object.string("d").unwrap_err().to_string(), r#""d" must be a string, not {}"#);
        assert!(object.boolean("c").unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn many_equal_keys_cost_no_more_than_many_keys() {
        let text = format!("{{{}\"a\":1}}", "\"a\":1,\"A\":2,".repeat(200_000));
        assert_eq!(view(&text).as_object().unwrap().len(), 1);
    }

    #[test]
    fn values_are_counted_at_every_level_and_however_often_a_key_is_there() {
        let ten = r#"[0,-1,1.5,null,true,"a\n",{"k":[],"k":2}]"#;
        assert!(!has_more_than(10, ten.as_bytes()) && has_more_than(9, ten.as_bytes()));
        assert!(has_more_than(0, b"5") && !has_more_than(1, b"5"));
        // What is malformed is refused by whoever reads it.
        assert!(!has_more_than(2, b"[1,x,3,4]") && has_more_than(2, b"[1,2,x"));
        assert!(!has_more_than(1000, "[".repeat(1_000_000).as_bytes()));
    }

    #[test]
    fn output_is_escaped_and_indented_as_in_go() {
        let object = serde_json::json!({"msg": "a<b>&c\u{2028}\"\n", "empty": {}});
        let text = String::from_utf8(go_json(&object)).unwrap();
        assert_eq!(text, "{\n    \"empty\": {},\n    \"msg\": \"a\\u003cb\\u003e\\u0026c\\u2028\\\"\\n\"\n}");
    }

    #[test]
    fn invalid_utf8_is_replaced_and_truncation_is_named() {
        let value = parse(b"{\"name\":\"a\xffb\"}").unwrap();
        assert_eq!(value, serde_json::json!({"name": "a\u{fffd}b"}));
        assert_eq!(parse(b"").unwrap_err(), "unexpected end of JSON input");
        assert_eq!(parse(b"{\"a\":").unwrap_err(), "unexpected end of JSON input");
    }

    #[test]
    fn what_go_reads_and_we_do_not() {
        assert!(parse(br#"{"name":"\ud800"}"#).is_err());
        assert!(parse(br#"{"unknown":1e999}"#).is_err());
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(127).as_bytes()).is_ok());
        assert!(parse(nested(128).as_bytes()).is_err());
        assert!(parse(nested(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn quotes_are_those_of_go() {
        assert_eq!(go_quoted("a \"b\"\n\u{1}\u{7f}é\u{85}".as_bytes()), r#""a \"b\"\n\x01\x7fé\u0085""#);
        assert_eq!(go_quoted(b"\xff\\"), r#""\xff\\""#);
    }
}
