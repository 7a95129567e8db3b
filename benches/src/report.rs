//! The report: one Markdown file, which is shown while it grows.

use std::{fs, path::Path};

/// Markdown text.
#[derive(Default)]
pub(crate) struct Report {
    text: String,
}

impl Report {
    /// Adds a heading.
    pub(crate) fn heading(&mut self, title: &str) {
        self.paragraph(&format!("## {title}"));
    }

    /// Adds a paragraph.
    pub(crate) fn paragraph(&mut self, text: &str) {
        println!("{text}\n");
        self.text.push_str(text);
        self.text.push_str("\n\n");
    }

    /// Adds a table; the columns after the first are numbers.
    pub(crate) fn table(&mut self, columns: &[&str], rows: &[Vec<String>]) {
        let rule = columns.iter().enumerate().map(|(column, _)| if column == 0 { "---" } else { "---:" });
        let mut text = row(columns.iter().copied());
        text.push_str(&row(rule));
        for cells in rows {
            text.push_str(&row(cells.iter().map(String::as_str)));
        }
        self.paragraph(text.trim_end());
    }

    /// Replaces the file `path`.
    pub(crate) fn write(&self, path: &Path) {
        replace(path, self.text.trim_end());
    }
}

/// Replaces a file, with a newline at its end.
pub(crate) fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, format!("{text}\n")).unwrap();
    fs::rename(&next, path).unwrap();
}

fn row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<&str> = cells.collect();
    format!("| {} |\n", cells.join(" | "))
}
