//! Log files that are full.
#![cfg(feature = "rotation")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Read,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use multus_log::{Level, Log, Rotation};
use tempfile::TempDir;

const ROTATION: Rotation = Rotation { max_size: 200, max_backups: 3, max_age: 0, compress: false };

/// A time that goes on by a second at each line.
fn tick() -> SystemTime {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SECONDS: AtomicU64 = AtomicU64::new(1_700_000_000);
    UNIX_EPOCH + Duration::from_secs(SECONDS.fetch_add(1, Ordering::Relaxed))
}

fn log(directory: &TempDir, rotation: Rotation, now: fn() -> SystemTime) -> Log {
    let log = Log::new("test", now).with_level("debug", Level::Panic);
    log.with_file(&directory.path().join("multus.log")).with_rotation(rotation)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::yield_now();
    }
}

#[test]
fn a_file_that_somebody_removed_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let (log, path) = (log(&directory, ROTATION, tick), directory.path().join("multus.log"));
    log.write(Level::Verbose, "lost");
    fs::remove_file(&path).unwrap();
    for number in 0..20 {
        log.write(Level::Verbose, &format!("line {number}"));
    }
    assert!(fs::read_to_string(&path).unwrap().ends_with(" line 19\n"));
}

#[test]
fn a_full_file_is_put_aside_and_the_oldest_go() {
    let directory = tempfile::tempdir().unwrap();
    let log = log(&directory, ROTATION, tick);
    for number in 0..100 {
        log.write(Level::Verbose, &format!("line {number}"));
    }
    eventually("the oldest to go", || names(directory.path()).len() == 4);
    let names = names(directory.path());
    assert!(names[0].starts_with("multus-2023-11-14T22-1") && names[3] == "multus.log", "{names:?}");
    let all: String = names.iter().map(|name| fs::read_to_string(directory.path().join(name)).unwrap()).collect();
    let numbers: Vec<u32> = all.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (numbers[0]..100).collect::<Vec<_>>());
    for name in names {
        assert!(fs::metadata(directory.path().join(name)).unwrap().len() <= ROTATION.max_size);
    }
}

#[test]
fn old_files_are_compressed_and_end_with_their_age() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("multus-2023-11-01T00-00-00.000.log.gz"), "").unwrap();
    fs::write(directory.path().join("multus-notes.log"), "").unwrap();
    let rotation = Rotation { max_age: 5, max_backups: 0, compress: true, ..ROTATION };
    let log = log(&directory, rotation, tick);
    for number in 0..6 {
        log.write(Level::Error, &format!("line {number}"));
    }
    let is_done =
        |names: &[String]| names.len() == 3 && names[0].ends_with(".log.gz") && names[0].as_str() > "multus-2023-11-02";
    eventually("the old file to be compressed", || is_done(&names(directory.path())));
    let compressed = fs::File::open(directory.path().join(&names(directory.path())[0])).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(compressed).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("2023-11-14T") && text.contains("Z [error] line 0\n"), "{text}");
}

#[test]
fn many_writers_lose_no_line() {
    let directory = tempfile::tempdir().unwrap();
    let rotation = Rotation { max_size: 2000, max_backups: 0, ..ROTATION };
    let logs: Vec<Log> = (0..4).map(|_| log(&directory, rotation.clone(), SystemTime::now)).collect();
    thread::scope(|scope| {
        for log in &logs {
            scope.spawn(move || {
                for number in 0..100 {
                    log.write(Level::Verbose, &format!("line {number}"));
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
    let names = names(directory.path());
    let count = |name: &String| fs::read_to_string(directory.path().join(name)).unwrap().lines().count();
    assert_eq!(names.iter().map(count).sum::<usize>(), 400, "{names:?}");
}
