//! The counts that are expected.

use std::{fs, path::Path, process::Command};

/// How far counts may be from the baseline's, in percent, where the same compiler made both.
const TOLERANCE: f64 = 5.0;
/// The same, where different ones did.
const TOLERANCE_OF_ANOTHER_COMPILER: f64 = 20.0;

/// Counts of instructions, and the compiler whose they are.
pub(crate) struct Baseline {
    /// As `rustc --version` tells.
    pub(crate) rustc: String,
    /// By the name of the work, for one time.
    pub(crate) counts: Vec<(String, u64)>,
}

impl Baseline {
    /// Reads what [`write`](Self::write) wrote.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let failed = |problem: String| format!("{}: {problem}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let mut baseline = Self { rustc: String::new(), counts: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once(' ').ok_or_else(|| failed(format!("{line:?} has no value")))?;
            match key {
                "rustc" => value.trim().clone_into(&mut baseline.rustc),
                work => {
                    let count = value.trim().parse();
                    let count = count.map_err(|error| failed(format!("{line:?}: no count: {error}")))?;
                    baseline.counts.push((work.to_owned(), count));
                }
            }
        }
        Ok(baseline)
    }

    /// Replaces the file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let next = path.with_extension("next");
        let written = fs::write(&next, self.print()).and_then(|()| fs::rename(&next, path));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The file's content.
    pub(crate) fn print(&self) -> String {
        let mut text =
            "# Instructions of one time, counted by callgrind. `make instructions-baseline` writes this.\n".to_owned();
        text.push_str(&format!("rustc {}\n", self.rustc));
        for (work, count) in &self.counts {
            text.push_str(&format!("{work} {count}\n"));
        }
        text
    }

    /// Tells how `counted` compares, and returns what is outside the tolerance.
    pub(crate) fn compare(&self, counted: &Self) -> Vec<String> {
        let tolerance = if self.rustc == counted.rustc {
            TOLERANCE
        } else {
            println!(
                "the baseline is of rustc {}, this is {}: up to {TOLERANCE_OF_ANOTHER_COMPILER} % apart is fine",
                self.rustc, counted.rustc
            );
            TOLERANCE_OF_ANOTHER_COMPILER
        };
        let mut outside = Vec::new();
        for (work, count) in &counted.counts {
            let Some((_, expected)) = self.counts.iter().find(|(known, _)| known == work) else {
                outside.push(format!("{work} takes {count} instructions, and is not in the baseline"));
                continue;
            };
            let change = percent(*count, *expected);
            println!("{work:<16} {count:>10} instructions, {change:+.1} % of the baseline's {expected}");
            if change.abs() > tolerance {
                let word = if change > 0.0 { "more" } else { "fewer" };
                outside.push(format!(
                    "{work} takes {:.1} % {word} instructions than the baseline ({count}, not {expected}), which is more than {tolerance} %",
                    change.abs()
                ));
            }
        }
        for (work, _) in &self.counts {
            if !counted.counts.iter().any(|(known, _)| known == work) {
                outside.push(format!("{work} is in the baseline, and no more among the works"));
            }
        }
        outside
    }
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "a share of counts far below 2^52")]
fn percent(count: u64, expected: u64) -> f64 {
    (count as f64 / expected as f64 - 1.0) * 100.0
}

/// As `rustc --version` tells, without the word `rustc`.
pub(crate) fn rustc_version() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output().map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim().trim_start_matches("rustc ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(rustc: &str, counts: &[(&str, u64)]) -> Baseline {
        let counts = counts.iter().map(|(work, count)| ((*work).to_owned(), *count)).collect();
        Baseline { rustc: rustc.to_owned(), counts }
    }

    #[test]
    fn both_directions_count() {
        let expected = baseline("1", &[("parse", 1000)]);
        for (count, is_inside) in [(949, false), (951, true), (1049, true), (1051, false)] {
            assert_eq!(expected.compare(&baseline("1", &[("parse", count)])).is_empty(), is_inside, "{count}");
        }
        for (count, is_inside) in [(799, false), (801, true), (1199, true), (1201, false)] {
            assert_eq!(expected.compare(&baseline("2", &[("parse", count)])).is_empty(), is_inside, "{count}");
        }
    }

    #[test]
    fn work_that_is_only_on_one_side_is_told() {
        let (one, two) = (baseline("1", &[("a", 1)]), baseline("1", &[("a", 1), ("b", 1)]));
        assert_eq!(one.compare(&two), ["b takes 1 instructions, and is not in the baseline"]);
        assert_eq!(two.compare(&one), ["b is in the baseline, and no more among the works"]);
    }

    #[test]
    fn what_is_written_is_read() {
        let path = std::env::temp_dir().join(format!("instructions-{}", std::process::id()));
        let written = baseline("1.95.0 (59807616e 2026-04-14)", &[("parse", 12), ("plan", 345)]);
        written.write(&path).unwrap();
        let read = Baseline::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((read.rustc, read.counts), (written.rustc, written.counts));
    }
}
