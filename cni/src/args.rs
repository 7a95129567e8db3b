//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.

use crate::{Error, json::go_quoted, shortened};

/// The parsed `CNI_ARGS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Reads `text` for a plugin that knows the keys `known`, compared letter by letter.
    ///
    /// # Errors
    /// When a pair is not `KEY=VALUE`, or when there is a key that is not in `known` while `IgnoreUnknown` is not set
    /// to `1` or `true`.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, Error> {
        let mut pairs = Vec::new();
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for piece in text.split(';').filter(|_| !text.is_empty()) {
            let pair = match piece.split_once('=') {
                Some((key, value)) if !value.contains('=') => (key, value),
                _ => return Err(Error::Args(format!("invalid pair {}", quoted(piece)))),
            };
            match pair {
                ("IgnoreUnknown", value) => ignore_unknown = boolean(piece, value)?,
                (key, value) if known.contains(&key) => pairs.push((key.to_owned(), value.to_owned())),
                _ => unknown.push(piece),
            }
        }
        if !ignore_unknown && !unknown.is_empty() {
            let unknown: Vec<String> = unknown.into_iter().map(quoted).collect();
            return Err(Error::Args(format!("unknown args [{}]", shortened(&unknown.join(" ")))));
        }
        Ok(Self(pairs))
    }

    /// The value of a known key; the last one wins, and an empty value counts as absent.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        let value = self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }
}

fn boolean(pair: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Error::Args(format!(
            "error parsing value of pair {}: boolean unmarshal error: invalid input {}",
            quoted(pair),
            shortened(value)
        ))),
    }
}

fn quoted(piece: &str) -> String {
    go_quoted(shortened(piece).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> String {
        Args::parse(text, &["MAC"]).unwrap_err().to_string()
    }

    #[test]
    fn known_keys_are_kept_and_unknown_ones_need_a_word() {
        let args = Args::parse("IgnoreUnknown=TRUE;MAC=c2:11:22:33:44:55;FOO=bar", &["MAC"]).unwrap();
        assert_eq!(args.value("MAC"), Some("c2:11:22:33:44:55"));
        assert_eq!(args.value("FOO"), None);
        assert_eq!(Args::parse("", &[]).unwrap(), Args::default());
        assert_eq!(Args::parse("MAC=", &["MAC"]).unwrap().value("MAC"), None);
        assert_eq!(failure("FOO=bar;K=v;mac=x"), r#"ARGS: unknown args ["FOO=bar" "K=v" "mac=x"]"#);
        assert_eq!(failure("CommonArgs=x"), r#"ARGS: unknown args ["CommonArgs=x"]"#);
        assert_eq!(failure("IgnoreUnknown=0;Unk=nown"), r#"ARGS: unknown args ["Unk=nown"]"#);
    }

    #[test]
    fn malformed_pairs_are_quoted() {
        assert_eq!(failure("MAC=a;"), r#"ARGS: invalid pair """#);
        assert_eq!(failure("MAC=a=b"), r#"ARGS: invalid pair "MAC=a=b""#);
        assert_eq!(failure("some"), r#"ARGS: invalid pair "some""#);
        assert_eq!(
            failure("IgnoreUnknown=yes"),
            r#"ARGS: error parsing value of pair "IgnoreUnknown=yes": boolean unmarshal error: invalid input yes"#
        );
    }
}
