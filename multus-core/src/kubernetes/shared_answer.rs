//! One answer for everybody who asks at the same time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Whoever asks first asks for all who began before that.
pub(super) struct SharedAnswer<T> {
    state: Mutex<State<T>>,
    news: Condvar,
}

struct State<T> {
    /// How many times it was asked.
    asked: u64,
    is_under_way: bool,
    /// The newest answer, and which time it was.
    newest: Option<(u64, T)>,
}

impl<T: Clone> SharedAnswer<T> {
    /// An answer that was asked for after this call began: by `ask`, or by that of another call.
    pub(super) fn ask(&self, ask: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        let before = state.asked;
        loop {
            match &state.newest {
                Some((number, answer)) if *number > before => return answer.clone(),
                _ if !state.is_under_way => break,
                _ => state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        state.asked += 1;
        state.is_under_way = true;
        let number = state.asked;
        drop(state);
        let _turn = Turn(self);
        let answer = ask();
        self.lock().newest = Some((number, answer.clone()));
        answer
    }
}

impl<T> SharedAnswer<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for SharedAnswer<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { asked: 0, is_under_way: false, newest: None }), news: Condvar::new() }
    }
}

/// Ends also when asking panics: then another one asks.
struct Turn<'a, T>(&'a SharedAnswer<T>);

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.0.lock().is_under_way = false;
        self.0.news.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            atomic::{AtomicU64, Ordering},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn an_answer_is_never_older_than_the_question() {
        let (shared, clock) = (SharedAnswer::default(), AtomicU64::new(0));
        let asked = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let begun = clock.fetch_add(1, Ordering::SeqCst);
                        let answered = shared.ask(|| {
                            asked.fetch_add(1, Ordering::SeqCst);
                            let time = clock.fetch_add(1, Ordering::SeqCst);
                            thread::yield_now();
                            time
                        });
                        assert!(answered > begun, "{answered} {begun}");
                    }
                });
            }
        });
        assert!((500..=4000).contains(&asked.into_inner()));
    }

    #[test]
    fn who_comes_while_somebody_asks_waits_for_one_more_answer_and_no_other() {
        let shared = SharedAnswer::default();
        let asked = AtomicU64::new(0);
        let (sender, gate) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (shared, asked) = (&shared, &asked);
            let ask = move || asked.fetch_add(1, Ordering::SeqCst) + 1;
            let first = scope.spawn(move || shared.ask(|| ask() + u64::from(gate.recv().is_err())));
            while asked.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            let others: Vec<_> = (0..50).map(|_| scope.spawn(move || shared.ask(ask))).collect();
            thread::sleep(Duration::from_millis(100));
            sender.send(()).unwrap();
            assert_eq!(first.join().unwrap(), 1);
            for other in others {
                assert_eq!(other.join().unwrap(), 2);
            }
        });
    }

    #[test]
    fn a_panic_is_one_callers_own() {
        let shared = SharedAnswer::default();
        assert!(catch_unwind(AssertUnwindSafe(|| shared.ask(|| panic!("boom")))).is_err());
        assert_eq!(shared.ask(|| 7), 7);
    }
}
