//! A hash table in a file: pages with checksums, records of one size, each at its home or with no gap behind it.
//!
//! A change is one write of a page, or a few, which a kill may divide: whoever makes it has broken the seal before. What
//! a page says that is not what was written is an error, after which the table is made anew.

use std::{
    fs::{self, File, OpenOptions},
    io,
    marker::PhantomData,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
};

use crate::disk::absent_is_fine;

/// What a table holds.
pub(super) trait Record: Sized {
    /// Bytes of a record; the first of them is not 0.
    const SIZE: usize;

    /// By which it is found.
    fn hash(&self) -> u64;

    fn encode(&self) -> Vec<u8>;

    /// `None` for no record.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

#[derive(Debug)]
pub(super) struct Table<R> {
    file: File,
    path: PathBuf,
    pages: u64,
    count: u64,
    records: PhantomData<R>,
}

const PAGE: usize = 4096;
const CHECKSUM: usize = 8;

/// Where a search ended: at the record, or at the first place without one.
struct Place<R> {
    slot: u64,
    page: Vec<u8>,
    record: Option<R>,
}

impl<R: Record> Table<R> {
    const SLOTS: usize = (PAGE - CHECKSUM) / R::SIZE;

    /// Opens a table; `None` when the file is not there, or has another size than it says.
    pub(super) fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut table = Self { file, path, pages: 0, count: 0, records: PhantomData };
        let header = table.read_page(0)?;
        let (pages, count) = (u64_at(&header, CHECKSUM), u64_at(&header, CHECKSUM + 8));
        let size = pages.checked_add(1).and_then(|pages| pages.checked_mul(wide(PAGE)));
        if pages == 0 || size != Some(table.file.metadata()?.len()) {
            return Ok(None);
        }
        (table.pages, table.count) = (pages, count);
        Ok(Some(table))
    }

    /// Makes a table of these records, in place of the one that was there.
    pub(super) fn create(path: PathBuf, records: Vec<R>) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let count = wide(records.len());
        // A quarter full, so that it grows rarely and is searched quickly.
        let pages = (count * 4).div_ceil(wide(Self::SLOTS)).max(4);
        let table = Self { file, path, pages, count, records: PhantomData };

        let slots = usize::try_from(table.capacity()).map_err(io::Error::other)?;
        let mut content: Vec<Option<R>> = Vec::new();
        content.resize_with(slots, || None);
        for record in records {
            let mut slot = narrow(table.home(record.hash()));
            while content.get(slot).is_some_and(Option::is_some) {
                slot = (slot + 1) % slots;
            }
            if let Some(place) = content.get_mut(slot) {
                *place = Some(record);
            }
        }
        for (number, records) in (1..).zip(content.chunks(Self::SLOTS)) {
            let mut page = vec![0; PAGE];
            for (slot, record) in records.iter().enumerate() {
                if let Some(record) = record {
                    Self::put(&mut page, slot, &record.encode());
                }
            }
            table.write_page(number, page)?;
        }
        table.write_header()?;
        // Replacing a file makes ext4 write it out at once.
        absent_is_fine(fs::remove_file(&table.path))?;
        fs::rename(&temporary, &table.path)?;
        Ok(table)
    }

    /// The record of that hash that `is` it.
    pub(super) fn find(&self, hash: u64, is: impl Fn(&R) -> bool) -> io::Result<Option<R>> {
        Ok(self.search(hash, is)?.record)
    }

    /// All records of that hash.
    pub(super) fn find_all(&self, hash: u64) -> io::Result<Vec<R>> {
        let mut found = Vec::new();
        self.search(hash, |record| {
            if record.hash() == hash {
                found.extend(R::decode(&record.encode()));
            }
            false
        })?;
        Ok(found)
    }

    /// Puts `record` where one that is the `same` was, or else where there was none.
    pub(super) fn replace(&mut self, record: R, same: impl Fn(&R, &R) -> bool) -> io::Result<()> {
        let Place { slot, mut page, record: old } = self.search(record.hash(), |found| same(found, &record))?;
        let is_new = old.is_none();
        if is_new && (self.count + 1) * 2 > self.capacity() {
            let mut records = self.all()?;
            records.push(record);
            *self = Self::create(self.path.clone(), records)?;
            return Ok(());
        }
        Self::put(&mut page, narrow(slot) % Self::SLOTS, &record.encode());
        self.write_page(slot / wide(Self::SLOTS) + 1, page)?;
        if is_new {
            self.count += 1;
            self.write_header()?;
        }
        Ok(())
    }

    /// Takes out the record of that hash that `is` it, and closes the gap.
    pub(super) fn remove(&mut self, hash: u64, is: impl Fn(&R) -> bool) -> io::Result<()> {
        let found = self.search(hash, is)?;
        if found.record.is_none() {
            return Ok(());
        }
        let capacity = self.capacity();
        let distance = |from: u64, to: u64| (to + capacity - from) % capacity;
        let mut gap = found.slot;
        let mut slot = gap;
        // Half of all places are without one.
        for _ in 0..capacity {
            slot = (slot + 1) % capacity;
            let Some(record) = self.read(slot)? else {
                break;
            };
            // One whose home lies behind the gap stays; any other would no longer be found.
            if distance(self.home(record.hash()), slot) >= distance(gap, slot) {
                self.write(gap, &record.encode())?;
                gap = slot;
            }
        }
        self.write(gap, &vec![0; R::SIZE])?;
        self.count = self.count.saturating_sub(1);
        self.write_header()
    }

    /// Looks at every record from the home of `hash` on, up to the one that `is` it or the first place without one. At
    /// least half of all places are without one.
    fn search(&self, hash: u64, mut is: impl FnMut(&R) -> bool) -> io::Result<Place<R>> {
        let mut slot = self.home(hash);
        let mut page = self.read_page(slot / wide(Self::SLOTS) + 1)?;
        for _ in 0..self.capacity() {
            match R::decode(Self::bytes(&page, narrow(slot) % Self::SLOTS)) {
                Some(record) if !is(&record) => {}
                record => return Ok(Place { slot, page, record }),
            }
            slot = (slot + 1) % self.capacity();
            if slot.is_multiple_of(wide(Self::SLOTS)) {
                page = self.read_page(slot / wide(Self::SLOTS) + 1)?;
            }
        }
        Err(corrupt())
    }

    fn all(&self) -> io::Result<Vec<R>> {
        let mut records = Vec::new();
        for number in 1..=self.pages {
            let page = self.read_page(number)?;
            records.extend((0..Self::SLOTS).filter_map(|slot| R::decode(Self::bytes(&page, slot))));
        }
        Ok(records)
    }

    fn read(&self, slot: u64) -> io::Result<Option<R>> {
        let page = self.read_page(slot / wide(Self::SLOTS) + 1)?;
        Ok(R::decode(Self::bytes(&page, narrow(slot) % Self::SLOTS)))
    }

    fn write(&self, slot: u64, bytes: &[u8]) -> io::Result<()> {
        let number = slot / wide(Self::SLOTS) + 1;
        let mut page = self.read_page(number)?;
        Self::put(&mut page, narrow(slot) % Self::SLOTS, bytes);
        self.write_page(number, page)
    }

    fn write_header(&self) -> io::Result<()> {
        let mut page = vec![0; CHECKSUM];
        page.extend(self.pages.to_le_bytes());
        page.extend(self.count.to_le_bytes());
        page.resize(PAGE, 0);
        self.write_page(0, page)
    }

    fn read_page(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut page = vec![0; PAGE];
        self.file.read_exact_at(&mut page, number * wide(PAGE))?;
        if u64_at(&page, 0) == checksum(number, &page) { Ok(page) } else { Err(corrupt()) }
    }

    fn write_page(&self, number: u64, mut page: Vec<u8>) -> io::Result<()> {
        let sum = checksum(number, &page).to_le_bytes();
        page.splice(..CHECKSUM, sum);
        self.file.write_all_at(&page, number * wide(PAGE))
    }

    fn bytes(page: &[u8], slot: usize) -> &[u8] {
        let at = CHECKSUM + slot * R::SIZE;
        page.get(at..at + R::SIZE).unwrap_or_default()
    }

    fn put(page: &mut [u8], slot: usize, record: &[u8]) {
        let at = CHECKSUM + slot * R::SIZE;
        if let Some(place) = page.get_mut(at..at + R::SIZE) {
            place.copy_from_slice(record);
        }
    }

    fn capacity(&self) -> u64 {
        self.pages * wide(Self::SLOTS)
    }

    /// Where a record of that hash belongs.
    fn home(&self, hash: u64) -> u64 {
        // The upper half is the better half of a product.
        (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % self.capacity()
    }
}

/// Of a page's content and its number, so that none is taken for another.
fn checksum(number: u64, page: &[u8]) -> u64 {
    let content = page.get(CHECKSUM..).unwrap_or_default();
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    content.chunks_exact(8).fold(mix(0x2545_f491_4f6c_dd1d, number), |sum, word| mix(sum, u64_at(word, 0)))
}

fn corrupt() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn narrow(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Pair {
        hash: u8,
        value: u8,
    }

    impl Record for Pair {
        // Few to a page, so that a search crosses pages.
        const SIZE: usize = 1000;

        fn hash(&self) -> u64 {
            self.hash.into()
        }

        fn encode(&self) -> Vec<u8> {
            let mut bytes = vec![0; Self::SIZE];
            bytes.splice(..3, [1, self.hash, self.value]);
            bytes
        }

        fn decode(bytes: &[u8]) -> Option<Self> {
            (bytes[0] != 0).then_some(Self { hash: bytes[1], value: bytes[2] })
        }
    }

    #[test]
    fn it_holds_what_was_put_in_and_not_taken_out() {
        proptest!(ProptestConfig::with_cases(64), |(changes in proptest::collection::vec((any::<bool>(), 0..8_u8, 0..20_u8), 1..120))| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("table");
            let mut table = Table::<Pair>::create(path.clone(), Vec::new()).unwrap();
            let mut expected: Vec<Pair> = Vec::new();
            for (put, hash, value) in changes {
                let pair = Pair { hash, value };
                expected.retain(|other| *other != pair);
                if put {
                    table.replace(pair, |old, new| old == new).unwrap();
                    expected.push(pair);
                } else {
                    table.remove(pair.hash(), |found| *found == pair).unwrap();
                }
                // As another process finds it.
                table = Table::open(path.clone()).unwrap().unwrap();
                prop_assert_eq!(table.count, wide(expected.len()));
                for hash in 0..8 {
                    let mut found = table.find_all(u64::from(hash)).unwrap();
                    found.sort_unstable();
                    let mut of_hash: Vec<Pair> = expected.iter().copied().filter(|pair| pair.hash == hash).collect();
                    of_hash.sort_unstable();
                    prop_assert_eq!(found, of_hash);
                }
            }
        });
    }

    #[test]
    fn a_changed_bit_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table");
        let pair = Pair { hash: 3, value: 4 };
        drop(Table::create(path.clone(), vec![pair]).unwrap());
        let good = fs::read(&path).unwrap();
        for place in (0..good.len()).step_by(97) {
            let mut bytes = good.clone();
            bytes[place] ^= 1;
            fs::write(&path, bytes).unwrap();
            let read =
                Table::<Pair>::open(path.clone()).and_then(|table| table.map_or(Err(corrupt()), |table| table.all()));
            assert!(read.is_err(), "{place}");
        }
    }
}
