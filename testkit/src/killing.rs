//! A process that is killed in the middle of its work, whichever of its threads does it.

use crate::tracer::{Verdict, traced};

/// Does `work` while `process` is followed with all its threads, and kills it as it enters its system call number `at` since
/// then, before that has done anything. Returns also how many it has entered; it lives on when there were fewer.
pub fn kill_at<T>(process: u32, at: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let mut entered = 0;
    let count = |_| {
        entered += 1;
        if entered == at { Verdict::Deadly } else { Verdict::Done }
    };
    (traced(process, count, work), entered)
}
