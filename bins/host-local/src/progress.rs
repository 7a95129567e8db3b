//! How far the tool is, for those who wait at a terminal.

use std::{
    io::Write,
    time::{Duration, Instant},
};

/// A bar on one line of a terminal, shown once something takes more than a second.
pub(crate) struct Progress<'a> {
    /// Absent where nobody looks.
    terminal: Option<&'a mut dyn Write>,
    started: Instant,
    shown: Option<Instant>,
}

const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(100);
const WIDTH: usize = 30;

impl<'a> Progress<'a> {
    /// Starts the clock.
    pub(crate) fn new(terminal: Option<&'a mut impl Write>, now: Instant) -> Self {
        let terminal = terminal.map(|terminal| -> &mut dyn Write { terminal });
        Self { terminal, started: now, shown: None }
    }

    /// `done` of `total` parts of `what` are done.
    pub(crate) fn show(&mut self, what: &str, done: usize, total: usize, now: Instant) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        let is_due = self.shown.is_none_or(|shown| now.duration_since(shown) >= INTERVAL);
        if now.duration_since(self.started) < PATIENCE || !is_due {
            return;
        }
        self.shown = Some(now);
        let filled = (done * WIDTH).checked_div(total).unwrap_or(WIDTH).min(WIDTH);
        let (full, empty) = ("#".repeat(filled), " ".repeat(WIDTH - filled));
        let _nobody_looks = write!(terminal, "\r\x1b[K[{full}{empty}] {what}: {done} of {total}");
        let _nobody_looks = terminal.flush();
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let (Some(terminal), Some(_)) = (&mut self.terminal, self.shown) {
            let _nobody_looks = write!(terminal, "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_more_than_a_second_sees_how_far_it_is_and_then_nothing_of_it() {
        let start = Instant::now();
        let mut screen = Vec::new();
        let mut progress = Progress::new(Some(&mut screen), start);
        for (done, milliseconds) in [(0, 0), (10, 999), (15, 1000), (16, 1050), (20, 1100)] {
            progress.show("storage", done, 30, start + Duration::from_millis(milliseconds));
        }
        drop(progress);
        let bar =
            |filled| format!("\r\x1b[K[{}{}] storage: {filled} of 30", "#".repeat(filled), " ".repeat(30 - filled));
        assert_eq!(String::from_utf8(screen).unwrap(), format!("{}{}\r\x1b[K", bar(15), bar(20)));
        let mut screen = Vec::new();
        let mut progress = Progress::new(Some(&mut screen), start);
        progress.show("storage", 30, 30, start + Duration::from_millis(999));
        drop(progress);
        assert!(screen.is_empty(), "nobody waited");
    }
}
