//! Many sequences, on all processors.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::{Value, json};
use testkit::Choices;

use crate::{ALLOWED, Outcome, Plugins, Seen, Side, Step};

/// What to compare, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// What is counted, for the report.
    pub what: &'static str,
    /// Only this command counts; all do where there is none.
    pub counted: Option<&'static str>,
    /// How many must be counted in the end. In a plain test it is a tenth.
    pub wanted: u64,
    pub steps: fn(&mut Choices) -> Vec<Step>,
    pub side: fn(Plugins) -> Side,
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Totals {
    pub counted: u64,
    pub commands: u64,
    pub succeeded: u64,
    pub sequences: u64,
    /// How often each row of `docs/compat.md` was needed.
    pub allowed: BTreeMap<&'static str, u64>,
}

/// Enough to see what they have in common.
const MOST_FAILURES: usize = 12;

impl Campaign {
    /// Compares until enough was compared, and fails where a difference is not allowed. `DIFFERENTIAL_SEED` is where the
    /// sequences begin, `DIFFERENTIAL_FULL` asks for all of them, and with `DIFFERENTIAL_CASE` there is only that one.
    pub fn run(&self) -> Totals {
        let number = |name| {
            env::var(name)
                .ok()
                .map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
        };
        let seed = number("DIFFERENTIAL_SEED").unwrap_or(1);
        if let Some(case) = number("DIFFERENTIAL_CASE") {
            let totals = Mutex::default();
            let failure = self.sequence(case, &totals);
            assert!(failure.is_none(), "{}", failure.unwrap());
            return totals.into_inner().unwrap();
        }
        let wanted = if env::var_os("DIFFERENTIAL_FULL").is_some() { self.wanted } else { self.wanted / 10 };
        let (totals, failures) = (Mutex::new(Totals::default()), Mutex::new(Vec::new()));
        let next = AtomicU64::new(seed.wrapping_mul(1_000_000));
        let is_done = || totals.lock().unwrap().counted >= wanted || failures.lock().unwrap().len() >= MOST_FAILURES;
        let work = || {
            while !is_done() {
                let failure = self.sequence(next.fetch_add(1, Ordering::Relaxed), &totals);
                failures.lock().unwrap().extend(failure);
            }
        };
        let workers = thread::available_parallelism().map_or(2, usize::from);
        thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
        let (totals, failures) = (totals.into_inner().unwrap(), failures.into_inner().unwrap());
        let Totals { counted, commands, succeeded, sequences, allowed } = &totals;
        eprintln!(
            "{}: {counted}, with seed {seed}; {commands} commands in {sequences} sequences, of which {succeeded} succeeded",
            self.what
        );
        allowed.iter().for_each(|(row, times)| eprintln!("{times:>8} times: {row}"));
        assert!(failures.is_empty(), "{}", failures.concat());
        totals
    }

    /// What is not allowed in the sequence of that number.
    fn sequence(&self, case: u64, totals: &Mutex<Totals>) -> Option<String> {
        let steps = (self.steps)(&mut Choices::new(case));
        let (mut ours, mut theirs) = ((self.side)(Plugins::Ours), (self.side)(Plugins::Go));
        let mut before = ours.state();
        totals.lock().unwrap().sequences += 1;
        for (index, step) in steps.iter().enumerate() {
            let config = ours.config(step);
            let (our, their) = (ours.run(step), theirs.run(step));
            let seen = Seen { step, config: &config, ours: &our, theirs: &their, before: &before };
            let mut totals = totals.lock().unwrap();
            totals.commands += 1;
            totals.counted += u64::from(self.counted.is_none_or(|command| command == step.command));
            totals.succeeded += u64::from(our.succeeded());
            if our.status == their.status && seen.same_answer() && seen.same_state() {
                drop(totals);
                before = our;
                continue;
            }
            let Some(rule) = ALLOWED.iter().find(|rule| (rule.applies)(&seen)) else {
                return Some(described(case, index, &seen));
            };
            *totals.allowed.entry(rule.row).or_default() += 1;
            drop(totals);
            if !seen.same_state() {
                return None;
            }
            before = our;
        }
        None
    }
}

fn described(case: u64, index: usize, seen: &Seen<'_>) -> String {
    let mut text = format!("\nDIFFERENTIAL_CASE={case}, step {index}: {:?}\n  with {}\n", seen.step, seen.config);
    let Seen { ours, theirs, .. } = seen;
    let told =
        |outcome: &Outcome| json!({"status": outcome.status, "message": outcome.message, "result": outcome.result});
    let files = |outcome: &Outcome| {
        let show = |(name, (mode, content)): (&String, &(u32, Vec<u8>))| {
            (name.clone(), format!("{mode:o} {}", String::from_utf8_lossy(content)))
        };
        json!(outcome.files.iter().map(show).collect::<BTreeMap<_, _>>())
    };
    differ("told", &told(ours), &told(theirs), &mut text);
    differ("files", &files(ours), &files(theirs), &mut text);
    differ("kernel", &ours.kernel, &theirs.kernel, &mut text);
    text
}

/// Writes a line for each place where these differ.
fn differ(place: &str, ours: &Value, theirs: &Value, text: &mut String) {
    match (ours, theirs) {
        (Value::Object(our), Value::Object(their)) => {
            let keys: BTreeSet<&String> = our.keys().chain(their.keys()).collect();
            keys.into_iter().for_each(|key| differ(&format!("{place}.{key}"), &ours[key], &theirs[key], text));
        }
        (Value::Array(our), Value::Array(their)) if our.len() == their.len() => {
            let pairs = our.iter().zip(their).enumerate();
            pairs.for_each(|(index, (ours, theirs))| differ(&format!("{place}[{index}]"), ours, theirs, text));
        }
        _ if ours == theirs => {}
        _ => *text += &format!("  {place}: ours {ours}, theirs {theirs}\n"),
    }
}
