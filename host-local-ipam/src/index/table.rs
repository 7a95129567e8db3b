//! A hash table in some pages of a file: pages with checksums, records of one size, each at its home or with no gap behind
//! it.
//!
//! Changes are made in memory and written together, which a kill may divide: whoever makes them has broken the seal before.
//! What a page says that is not what was written is an error, after which the table is made anew.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io::{self, Write},
    marker::PhantomData,
    ops::Range,
    os::unix::fs::FileExt,
};

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

/// The bytes of a page; small, since every change is the checksum and the write of one.
pub(super) const PAGE: usize = 512;
const CHECKSUM: usize = 8;

/// The pages of a file, some of them in memory.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    read: BTreeMap<u64, Page>,
}

#[derive(Debug)]
struct Page {
    content: Vec<u8>,
    changed: bool,
}

impl Pages {
    /// How many pages stay in memory between two writes.
    const KEPT: usize = 64;

    pub(super) fn new(file: File) -> Self {
        Self { file, read: BTreeMap::new() }
    }

    /// The content of a page, which starts behind its checksum.
    pub(super) fn page(&mut self, number: u64) -> io::Result<&[u8]> {
        self.read_page(number).map(|page| page.content.as_slice())
    }

    /// The same, to be changed.
    pub(super) fn page_mut(&mut self, number: u64) -> io::Result<&mut [u8]> {
        let page = self.read_page(number)?;
        page.changed = true;
        Ok(&mut page.content)
    }

    fn read_page(&mut self, number: u64) -> io::Result<&mut Page> {
        match self.read.entry(number) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => {
                let mut content = vec![0; PAGE];
                self.file.read_exact_at(&mut content, number * wide(PAGE))?;
                if u64_at(&content, 0) != checksum(number, &content) {
                    return Err(corrupt());
                }
                Ok(vacant.insert(Page { content, changed: false }))
            }
        }
    }

    /// Writes what was changed, each page with its checksum, and `first` as the first of all pages, last.
    pub(super) fn write(&mut self, first: Vec<u8>) -> io::Result<()> {
        for (number, page) in self.read.iter_mut().filter(|(_, page)| page.changed) {
            seal(*number, &mut page.content);
            self.file.write_all_at(&page.content, number * wide(PAGE))?;
            page.changed = false;
        }
        let mut first = first;
        first.resize(PAGE, 0);
        seal(0, &mut first);
        self.file.write_all_at(&first, 0)?;
        if self.read.len() > Self::KEPT {
            self.read.clear();
        }
        Ok(())
    }
}

/// A table in some of the pages of a file.
#[derive(Debug)]
pub(super) struct Table<R> {
    pages: Range<u64>,
    count: u64,
    records: PhantomData<R>,
}

/// Where a search ended: at the record, or at the first place without one.
struct Place<R> {
    slot: u64,
    record: Option<R>,
}

impl<R: Record> Table<R> {
    const SLOTS: usize = (PAGE - CHECKSUM) / R::SIZE;

    /// How many pages `count` records are given: three times what they need, so that the table is searched quickly and
    /// grows rarely.
    pub(super) fn pages_for(count: usize) -> u64 {
        (wide(count) * 3).div_ceil(wide(Self::SLOTS)).max(4)
    }

    /// The table of `count` records in these pages.
    pub(super) fn new(pages: Range<u64>, count: u64) -> Self {
        Self { pages, count, records: PhantomData }
    }

    /// Writes the pages of a table of these records.
    pub(super) fn write_all(pages: Range<u64>, records: Vec<R>, file: &mut impl Write) -> io::Result<()> {
        let capacity = narrow((pages.end - pages.start) * wide(Self::SLOTS));
        let mut content: Vec<Option<R>> = Vec::new();
        content.resize_with(capacity, || None);
        for record in records {
            let mut slot = narrow(home(record.hash(), wide(capacity)));
            while content.get(slot).is_some_and(Option::is_some) {
                slot = (slot + 1) % capacity;
            }
            if let Some(place) = content.get_mut(slot) {
                *place = Some(record);
            }
        }
        for (number, records) in pages.zip(content.chunks(Self::SLOTS)) {
            let mut page = vec![0; PAGE];
            for (slot, record) in records.iter().enumerate() {
                if let Some(record) = record {
                    Self::put(&mut page, slot, &record.encode());
                }
            }
            seal(number, &mut page);
            file.write_all(&page)?;
        }
        Ok(())
    }

    /// The number of its records.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Its pages.
    pub(super) fn pages(&self) -> Range<u64> {
        self.pages.clone()
    }

    /// Whether it has no place for another record: half of all places stay without one.
    pub(super) fn is_full(&self) -> bool {
        (self.count + 1) * 2 > self.capacity()
    }

    /// The record of that hash that `is` it.
    pub(super) fn find(&self, pages: &mut Pages, hash: u64, is: impl Fn(&R) -> bool) -> io::Result<Option<R>> {
        Ok(self.search(pages, hash, is)?.record)
    }

    /// All records of that hash.
    pub(super) fn find_all(&self, pages: &mut Pages, hash: u64) -> io::Result<Vec<R>> {
        let mut found = Vec::new();
        self.search(pages, hash, |record| {
            if record.hash() == hash {
                found.extend(R::decode(&record.encode()));
            }
            false
        })?;
        Ok(found)
    }

    /// Puts `record` where one that is the `same` was, or else where there was none. Not into a table that is full.
    pub(super) fn replace(&mut self, pages: &mut Pages, record: R, same: impl Fn(&R, &R) -> bool) -> io::Result<()> {
        let Place { slot, record: old } = self.search(pages, record.hash(), |found| same(found, &record))?;
        self.write(pages, slot, &record.encode())?;
        self.count += u64::from(old.is_none());
        Ok(())
    }

    /// Takes out the record of that hash that `is` it, and closes the gap.
    pub(super) fn remove(&mut self, pages: &mut Pages, hash: u64, is: impl Fn(&R) -> bool) -> io::Result<()> {
        let found = self.search(pages, hash, is)?;
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
            let Some(record) = self.read(pages, slot)? else {
                break;
            };
            // One whose home lies behind the gap stays; any other would no longer be found.
            if distance(home(record.hash(), capacity), slot) >= distance(gap, slot) {
                self.write(pages, gap, &record.encode())?;
                gap = slot;
            }
        }
        self.write(pages, gap, &vec![0; R::SIZE])?;
        self.count = self.count.saturating_sub(1);
        Ok(())
    }

    /// All records.
    pub(super) fn all(&self, pages: &mut Pages) -> io::Result<Vec<R>> {
        let mut records = Vec::new();
        for number in self.pages.clone() {
            let page = pages.page(number)?;
            records.extend((0..Self::SLOTS).filter_map(|slot| R::decode(Self::bytes(page, slot))));
        }
        Ok(records)
    }

    /// Looks at every record from the home of `hash` on, up to the one that `is` it or the first place without one. At
    /// least half of all places are without one.
    fn search(&self, pages: &mut Pages, hash: u64, mut is: impl FnMut(&R) -> bool) -> io::Result<Place<R>> {
        let mut slot = home(hash, self.capacity());
        for _ in 0..self.capacity() {
            match self.read(pages, slot)? {
                Some(record) if !is(&record) => {}
                record => return Ok(Place { slot, record }),
            }
            slot = (slot + 1) % self.capacity();
        }
        Err(corrupt())
    }

    fn read(&self, pages: &mut Pages, slot: u64) -> io::Result<Option<R>> {
        let page = pages.page(self.page_of(slot))?;
        Ok(R::decode(Self::bytes(page, narrow(slot) % Self::SLOTS)))
    }

    fn write(&self, pages: &mut Pages, slot: u64, record: &[u8]) -> io::Result<()> {
        Self::put(pages.page_mut(self.page_of(slot))?, narrow(slot) % Self::SLOTS, record);
        Ok(())
    }

    fn page_of(&self, slot: u64) -> u64 {
        self.pages.start + slot / wide(Self::SLOTS)
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
        (self.pages.end - self.pages.start) * wide(Self::SLOTS)
    }
}

fn seal(number: u64, page: &mut [u8]) {
    let sum = checksum(number, page).to_le_bytes();
    if let Some(place) = page.first_chunk_mut() {
        *place = sum;
    }
}

/// Where a record of that hash belongs.
fn home(hash: u64, capacity: u64) -> u64 {
    // The upper half is the better half of a product.
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % capacity
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
        const SIZE: usize = 200;

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
            let (mut pages, mut table) = made(Vec::new(), 2);
            let mut expected: Vec<Pair> = Vec::new();
            for (put, hash, value) in changes {
                let pair = Pair { hash, value };
                expected.retain(|other| *other != pair);
                if put {
                    table.replace(&mut pages, pair, |old, new| old == new).unwrap();
                    expected.push(pair);
                } else {
                    table.remove(&mut pages, pair.hash(), |found| *found == pair).unwrap();
                }
                prop_assert_eq!(table.count(), wide(expected.len()));
                if table.is_full() {
                    (pages, table) = made(table.all(&mut pages).unwrap(), expected.len());
                }
                for hash in 0..8 {
                    let mut found = table.find_all(&mut pages, u64::from(hash)).unwrap();
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
        let pair = Pair { hash: 3, value: 4 };
        let (pages, table) = made(vec![pair], 1);
        let all = || table.all(&mut Pages::new(pages.file.try_clone().unwrap()));
        for place in (PAGE..5 * PAGE).step_by(97) {
            let mut byte = [0];
            pages.file.read_exact_at(&mut byte, wide(place)).unwrap();
            pages.file.write_all_at(&[byte[0] ^ 1], wide(place)).unwrap();
            assert!(all().is_err(), "{place}");
            pages.file.write_all_at(&byte, wide(place)).unwrap();
            assert_eq!(all().unwrap(), [pair]);
        }
    }

    #[test]
    fn what_was_changed_is_read_after_it_was_written() {
        let pair = |hash| Pair { hash, value: 7 };
        let (mut pages, mut table) = made(vec![pair(1)], 100);
        let stored = |pages: &Pages, table: &Table<Pair>| {
            let mut hashes: Vec<u8> = Vec::new();
            let all = table.all(&mut Pages::new(pages.file.try_clone().unwrap())).unwrap();
            hashes.extend(all.iter().map(|pair| pair.hash));
            hashes.sort_unstable();
            hashes
        };
        for hash in 2..100 {
            table.replace(&mut pages, pair(hash), |old, new| old == new).unwrap();
        }
        assert_eq!(stored(&pages, &table), [1]);
        pages.write(Vec::new()).unwrap();
        assert_eq!(stored(&pages, &table), (1..100).collect::<Vec<u8>>());
    }

    /// A table with room for `count` records, behind a first page.
    fn made(records: Vec<Pair>, count: usize) -> (Pages, Table<Pair>) {
        let mut file = tempfile::tempfile().unwrap();
        let pages = 1..1 + Table::<Pair>::pages_for(count);
        let held = wide(records.len());
        file.write_all(&[0; PAGE]).unwrap();
        Table::write_all(pages.clone(), records, &mut file).unwrap();
        (Pages::new(file), Table::new(pages, held))
    }
}
