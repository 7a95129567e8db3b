//! What every message to a user keeps to.

use std::fmt::Display;

/// A password as nothing else is spelled.
const PASSWORD: &str = "Zq9Xw7";

/// Asserts that `message`, about `data`, can be shown to anybody and anywhere.
#[track_caller]
pub(crate) fn check(data: &[u8], message: &impl Display) {
    check_length(message);
    let message = message.to_string();
    let data = String::from_utf8_lossy(data);
    let is_secret = data.contains(&format!("\"password\":\"{PASSWORD}")) && data.matches(PASSWORD).count() == 1;
    assert!(!(is_secret && message.contains(PASSWORD)), "a secret: {message}");
}

/// Asserts as much of a message about what is no document, and has no keys.
#[track_caller]
pub(crate) fn check_length(message: &impl Display) {
    let message = message.to_string();
    let length = message.chars().count();
    assert!(!message.is_empty(), "an error without words");
    assert!(length < 1000, "{length} characters: {message}");
}
