//! A CNI call as it stands on the daemon's socket and in the spool.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use multus_cni::{Command, Invocation};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A call: the environment of the plugin's process, and its standard input.
///
/// In JSON `{"env": {"CNI_COMMAND": "ADD", …}, "config": "<base64>"}`, as upstream's shim and daemon have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// All variables, by name.
    pub environment: BTreeMap<String, String>,
    /// The network configuration, byte for byte.
    pub config: Vec<u8>,
}

/// Bytes that are no request.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MalformedRequest(String);

#[derive(Serialize)]
struct Printed<'a> {
    env: &'a BTreeMap<String, String>,
    config: String,
}

#[derive(Deserialize)]
struct Parsed {
    env: HashMap<String, String>,
    config: String,
}

impl Request {
    /// The call that this process got. JSON is text, so what is not UTF-8 becomes U+FFFD, as upstream's.
    ///
    /// # Errors
    /// When a variable that the daemon acts on would not arrive as it is.
    pub(crate) fn new(invocation: &Invocation) -> Result<Self, Error> {
        for name in ["CNI_NETNS", "CNI_ARGS"] {
            if invocation.environment.set(name).is_some_and(|value| value.to_str().is_none()) {
                return Err(Error::NotText(name));
            }
        }
        let text = |value: &OsStr| value.to_string_lossy().into_owned();
        let variables = invocation.environment.iter().map(|(name, value)| (text(name).trim().to_owned(), text(value)));
        Ok(Self { environment: variables.collect(), config: invocation.config.bytes().to_owned() })
    }

    /// The same call with another command.
    #[must_use]
    pub(crate) fn with_command(mut self, command: Command) -> Self {
        self.environment.insert("CNI_COMMAND".to_owned(), command.as_str().to_owned());
        self
    }

    /// Reads a request; keys that it does not have are passed over.
    ///
    /// # Errors
    /// [`MalformedRequest`], which says what is wrong and quotes nothing: configurations hold secrets.
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedRequest> {
        let malformed = |problem: String| MalformedRequest(format!("not a CNI request: {problem}"));
        let parsed: Parsed = serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            malformed(format!("no JSON object with \"env\" and \"config\" (line {line}, column {column})"))
        })?;
        let config = STANDARD.decode(parsed.config);
        let config = config.map_err(|_| malformed("\"config\" is not base64".to_owned()))?;
        Ok(Self { environment: parsed.env.into_iter().collect(), config })
    }

    /// The request in JSON, on one line, its variables sorted.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        let printed = serde_json::to_vec(&Printed { env: &self.environment, config: STANDARD.encode(&self.config) });
        // Strings in maps with strings for keys: there is nothing that could fail.
        debug_assert!(printed.is_ok(), "{printed:?}");
        printed.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};

    use multus_cni::NetworkConfig;
    use proptest::prelude::*;

    use super::*;

    fn invocation(variables: &[(&[u8], &[u8])], config: &[u8]) -> Invocation {
        let word = |bytes: &[u8]| OsString::from_vec(bytes.to_owned());
        let mut invocation = Invocation::new(NetworkConfig::parse(config).unwrap());
        invocation.environment = variables.iter().map(|(name, value)| (word(name), word(value))).collect();
        invocation
    }

    #[test]
    fn the_configuration_arrives_byte_for_byte_and_the_last_of_two_variables_counts() {
        let config = b"{\n \"Name\":\"n\", \"x\": 1e2, \"x\" :\"\xff\"}\n";
        let invocation = invocation(&[(b"A", b"1"), (b" B ", b"<\xff>\n\"="), (b"A", b"2")], config);
        let request = Request::new(&invocation).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&request.print()).unwrap();
        assert_eq!(json["env"], serde_json::json!({"A": "2", "B": "<\u{fffd}>\n\"="}));
        assert_eq!(STANDARD.decode(json["config"].as_str().unwrap()).unwrap(), config);
    }

    #[test]
    fn a_sandbox_is_never_called_by_a_similar_name() {
        for name in ["CNI_NETNS", "CNI_ARGS"] {
            let error = Request::new(&invocation(&[(name.as_bytes(), b"/run/\xff")], b"{\"name\":\"n\"}")).unwrap_err();
            assert_eq!((error.code().number(), error.to_string().contains(name)), (4, true), "{error}");
        }
    }

    #[test]
    fn a_request_that_is_none_is_not_quoted() {
        for bytes in
            ["", "null", "[]", "{}", r#"{"env":{"A":"s3cret"},"config":5}"#, r#"{"env":{},"config":"s3cret!"}"#]
        {
            let error = Request::parse(bytes.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("not a CNI request: ") && !error.contains("s3cret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_request_is_read_back(
            environment in prop::collection::btree_map(".*", ".*", 0..5), config in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let request = Request { environment, config };
            prop_assert_eq!(Request::parse(&request.print()).unwrap(), request);
        }
    }
}
