//! Whether the daemon grows.

use std::{
    fmt::{self, Display, Formatter},
    fs,
};

use crate::node::Node;

/// How much more memory the last rounds may take than the first, in KiB. What an allocator keeps for several threads settles
/// within that; 150 bytes that each operation of a long run leaves behind, or 3 KiB of a short one's, do not.
const GROWTH: u64 = 4 << 10;
/// Connections to the API server that are open at the moment.
const MORE_FILES: usize = 4;

/// How many samples are told at most.
const SHOWN: usize = 24;

/// Of one daemon, each time that nothing is under way.
#[derive(Default)]
pub(crate) struct Memory {
    samples: Vec<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    kib: u64,
    files: usize,
}

impl Memory {
    pub(crate) fn look_at(&mut self, node: &Node<'_>) {
        let files = fs::read_dir(format!("/proc/{}/fd", node.id())).unwrap().count();
        self.samples.push(Sample { kib: node.memory(), files });
    }

    pub(crate) fn rounds(&self) -> usize {
        self.samples.len()
    }

    /// The first round, in which it warms up, does not count.
    pub(crate) fn is_flat(&self) {
        let counted = &self.samples[1..];
        let third = counted.len().div_ceil(3);
        let (early, late) = (&counted[..third], &counted[counted.len() - third..]);
        let most = |samples: &[Sample]| samples.iter().map(|sample| sample.kib).max().unwrap();
        let least = |samples: &[Sample]| samples.iter().map(|sample| sample.kib).min().unwrap();
        assert!(least(late) <= most(early) + GROWTH, "{self}");
        let files = |samples: &[Sample]| samples.iter().map(|sample| sample.files).min().unwrap();
        assert!(files(late) <= files(early) + MORE_FILES, "{self}");
    }
}

impl Display for Memory {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "the daemon's memory in KiB, and its open files, after rounds of its last life:")?;
        let step = self.samples.len().div_ceil(SHOWN).max(1);
        let shown = self.samples.iter().rev().step_by(step).collect::<Vec<_>>().into_iter().rev();
        shown.into_iter().try_for_each(|sample| write!(formatter, " {}/{}", sample.kib, sample.files))?;
        writeln!(formatter)
    }
}
