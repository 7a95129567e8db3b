//! How often to do again what somebody undoes.

use std::time::{Duration, Instant};

/// Allows the first time at once and each further one after a longer pause, until there was peace for a while.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Instant>,
    pause: Duration,
}

impl Pace {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    const PEACE: Duration = Duration::from_secs(150);

    /// How long to wait still.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.last.map_or(Duration::ZERO, |last| (last + self.pause).saturating_duration_since(now))
    }

    /// It was done.
    pub(crate) fn note(&mut self, now: Instant) {
        let is_quarrel = self.last.is_some_and(|last| now.saturating_duration_since(last) < Self::PEACE);
        self.pause = if is_quarrel { (self.pause * 2).min(Self::LONGEST) } else { Self::SHORTEST };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarrel_becomes_slower_and_is_forgotten_in_peace() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            let wait = pace.wait(now);
            waits.push(wait.as_secs());
            now += wait;
            pace.note(now);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        now += Duration::from_secs(200);
        assert_eq!(pace.wait(now), Duration::ZERO);
        pace.note(now);
        assert_eq!(pace.wait(now), Duration::from_secs(1));
    }
}
