//! Results for terminals and for programs.
//!
//! Names and owners come out of files that anybody may have written: none reaches a terminal with a control character.

use std::{fmt::Write as _, io, io::Write, time::Duration};

use serde::Serialize;

use crate::{arguments::Format, failure::Failure};

/// What a command says on standard output.
pub(crate) struct Output {
    text: String,
    json: String,
}

impl Output {
    /// `records` as JSON, and as `text`.
    pub(crate) fn new(text: String, records: &[impl Serialize]) -> Result<Self, Failure> {
        let json = serde_json::to_string_pretty(records).map_err(|error| Failure::Write(error.into()))?;
        Ok(Self { text, json: ascii(&json) })
    }

    /// Prints it. Whoever stops reading has seen enough.
    pub(crate) fn print(&self, format: Format, stdout: &mut dyn Write) -> Result<(), Failure> {
        print(if format == Format::Json { &self.json } else { &self.text }, stdout)
    }
}

pub(crate) fn print(text: &str, stdout: &mut dyn Write) -> Result<(), Failure> {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Write(error)),
        _ => Ok(()),
    }
}

/// Lines of columns as wide as they need to be; the first line is the head.
pub(crate) fn table<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        lines.iter().filter_map(|line| line.get(column)).map(|word| width(word)).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (word, wide) in line.iter().zip(widths) {
            let _infallible = write!(row, "{word}{}", " ".repeat(wide + 2 - width(word)));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// The text, with whatever a terminal might obey or hide written as an escape.
pub(crate) fn printable(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() && (c.is_ascii() || c.is_alphanumeric());
    text.chars().fold(String::new(), |mut plain, c| {
        match is_plain(c) {
            true => plain.push(c),
            false => plain.extend(c.escape_default()),
        }
        plain
    })
}

/// How long ago, in the largest unit that says enough.
pub(crate) fn age(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn width(word: &str) -> usize {
    word.chars().count()
}

/// The same JSON in ASCII. Only strings have other characters.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c {
            '\n' | ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _infallible = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('\n');
    text
}
