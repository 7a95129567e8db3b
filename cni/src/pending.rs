//! The result of an ADD that can still be taken back.

use std::fmt;

use crate::{Error, Success};

/// What stands behind a [`Pending`] result: it is either kept or undone, once.
pub trait Provisional: Send {
    /// Makes it last.
    fn keep(self: Box<Self>);

    /// Takes it back.
    ///
    /// # Errors
    /// When something of it remains.
    fn undo(self: Box<Self>) -> Result<(), Error>;
}

/// A closure that undoes; there is nothing to do for keeping.
impl<F: FnOnce() -> Result<(), Error> + Send> Provisional for F {
    fn keep(self: Box<Self>) {}

    fn undo(self: Box<Self>) -> Result<(), Error> {
        self()
    }
}

/// What an ADD made, until whoever asked for it takes responsibility.
///
/// [`keep`](Self::keep) it once its result is delivered; [`undo`](Self::undo) it when anything after it failed.
/// Dropping it undoes it too, so that an early return or a panic leaves nothing behind, but then nobody hears of a
/// failure to do so.
#[must_use = "dropping this undoes the ADD"]
pub struct Pending {
    success: Success,
    provisional: Option<Box<dyn Provisional>>,
}

impl Pending {
    /// `provisional` takes back everything that `success` tells of; mostly a closure that does.
    pub fn new(success: Success, provisional: impl Provisional + 'static) -> Self {
        Self { success, provisional: Some(Box::new(provisional)) }
    }

    /// What was made.
    #[must_use]
    pub fn success(&self) -> &Success {
        &self.success
    }

    /// Makes it last.
    pub fn keep(mut self) -> Success {
        if let Some(provisional) = self.provisional.take() {
            provisional.keep();
        }
        std::mem::take(&mut self.success)
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When something of it remains.
    pub fn undo(mut self) -> Result<(), Error> {
        self.provisional.take().map_or(Ok(()), Provisional::undo)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(provisional) = self.provisional.take() {
            // Nobody is left to tell: the caller is returning another error, or unwinding.
            let _untold = provisional.undo();
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pending").field("success", &self.success).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn it_is_undone_once_unless_kept() {
        let undone = Arc::new(AtomicUsize::new(0));
        let pending = || {
            let undone = Arc::clone(&undone);
            Pending::new(Success::default(), move || {
                undone.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        };
        pending().keep();
        assert_eq!(undone.load(Ordering::Relaxed), 0);
        pending().undo().unwrap();
        assert_eq!(undone.load(Ordering::Relaxed), 1);
        drop(pending());
        assert_eq!(undone.load(Ordering::Relaxed), 2);
        let unwinding = std::panic::catch_unwind(|| {
            let _pending = pending();
            std::panic::resume_unwind(Box::new("out of luck"));
        });
        assert!(unwinding.is_err());
        assert_eq!(undone.load(Ordering::Relaxed), 3);
    }
}
