//! What becomes of a command.

use std::collections::{BTreeMap, BTreeSet};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use testkit::Reply;

use crate::{Step, allowed};

/// What a runtime and an operator see after a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub status: Option<i32>,
    /// The error's code.
    pub code: Option<u64>,
    /// Standard output of a success. Of 1.0.0 and newer the order of the keys is left out.
    pub result: Option<Value>,
    /// The network's directory: names, modes and contents.
    pub files: BTreeMap<String, (u32, Vec<u8>)>,
    /// Links, addresses, routes and settings inside the sandboxes, and the links of the host.
    pub kernel: Value,
    /// The error's text, which may differ.
    pub message: String,
}

impl Outcome {
    pub(crate) fn new(
        reply: &Reply,
        files: BTreeMap<String, (u32, Vec<u8>)>,
        kernel: Value,
        normalized: impl Fn(&str) -> String,
    ) -> Self {
        let object: Value = serde_json::from_str(&reply.stdout).unwrap_or_default();
        let has_failed = reply.status != Some(0);
        let result = (!has_failed && !reply.stdout.is_empty()).then(|| match object["cniVersion"].as_str() {
            Some(version) if version >= "1.0.0" => {
                allowed::keys_of_today(serde_json::from_str(&normalized(&reply.stdout)).unwrap())
            }
            _ => Value::String(normalized(&reply.stdout)),
        });
        Self {
            status: reply.status,
            code: if has_failed { object["code"].as_u64() } else { None },
            result,
            files,
            kernel,
            message: if has_failed { format!("{}{}", normalized(&reply.stdout), reply.stderr) } else { String::new() },
        }
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.status == Some(0)
    }
}

/// A command whose outcomes differ.
#[derive(Debug)]
pub struct Seen<'a> {
    pub step: &'a Step,
    /// The configuration as both got it.
    pub config: &'a str,
    pub ours: &'a Outcome,
    pub theirs: &'a Outcome,
    /// Before the command; there was no difference then.
    pub before: &'a Outcome,
}

impl Seen<'_> {
    /// Whether what runtimes are told is the same.
    pub(crate) fn same_answer(&self) -> bool {
        let answer = |outcome: &Outcome| (outcome.status, outcome.code, outcome.result.clone());
        answer(self.ours) == answer(self.theirs)
    }

    pub(crate) fn same_files(&self) -> bool {
        self.ours.files == self.theirs.files
    }

    pub(crate) fn same_state(&self) -> bool {
        self.same_files() && self.ours.kernel == self.theirs.kernel
    }

    /// Whether we left every reservation and every link as it was.
    pub(crate) fn we_changed_nothing(&self) -> bool {
        let reservations = |outcome: &Outcome| {
            outcome
                .files
                .iter()
                .filter(|(_, (_, content))| !content.is_empty())
                .map(|(name, file)| (name.clone(), file.clone()))
                .filter(|(name, _)| !is_last_reserved(name))
                .collect::<Vec<_>>()
        };
        reservations(self.ours) == reservations(self.before) && self.ours.kernel == self.before.kernel
    }

    /// Whether the round goes on at the same places.
    pub(crate) fn same_last_reserved(&self) -> bool {
        let places = |outcome: &Outcome| {
            outcome
                .files
                .iter()
                .filter(|(name, _)| is_last_reserved(name))
                .map(|(name, file)| (name.clone(), file.clone()))
                .collect::<Vec<_>>()
        };
        places(self.ours) == places(self.theirs)
    }

    /// Whether an object of the configuration has a key twice, in any letter case.
    pub(crate) fn has_equal_keys(&self) -> bool {
        serde_json::from_str::<Keys>(self.config).is_ok_and(|Keys(twice)| twice)
    }

    /// The value of the configuration's key that is `key` in lower case.
    pub(crate) fn key(&self, key: &str) -> Value {
        let document: Value = serde_json::from_str(self.config).unwrap_or_default();
        let entries = document.as_object().into_iter().flatten();
        let found = entries.rev().find(|(name, _)| folded(name) == key);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

/// As Go compares keys.
fn folded(key: &str) -> String {
    key.replace('\u{17f}', "s").replace('\u{212a}', "k").to_lowercase()
}

fn is_last_reserved(name: &str) -> bool {
    name.contains("last_reserved_ip")
}

/// Whether a key is there twice.
struct Keys(bool);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seek;
        impl<'de> Visitor<'de> for Seek {
            type Value = Keys;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Keys, E> {
                Ok(Keys(false))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Keys, E> {
                Ok(Keys(false))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Keys, E> {
                Ok(Keys(false))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Keys, E> {
                Ok(Keys(false))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Keys, E> {
                Ok(Keys(false))
            }

            fn visit_str<E>(self, _: &str) -> Result<Keys, E> {
                Ok(Keys(false))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Keys, A::Error> {
                let mut twice = false;
                while let Some(Keys(below)) = elements.next_element()? {
                    twice |= below;
                }
                Ok(Keys(twice))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Keys, A::Error> {
                let (mut twice, mut known) = (false, BTreeSet::new());
                while let Some((key, Keys(below))) = entries.next_entry::<String, Keys>()? {
                    twice |= below || !known.insert(folded(&key));
                }
                Ok(Keys(twice))
            }
        }
        deserializer.deserialize_any(Seek)
    }
}
