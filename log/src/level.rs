//! How much is told.

/// How much is told; each tells what those before it tell, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Panic,
    /// What went wrong.
    Error,
    /// What was done.
    Verbose,
    /// How it was done.
    Debug,
}

impl Level {
    const ALL: [Self; 4] = [Self::Panic, Self::Error, Self::Verbose, Self::Debug];

    /// The level of that name, in whatever letter case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(word))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Verbose => "verbose",
            Self::Debug => "debug",
        }
    }
}
