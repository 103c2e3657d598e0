//! The contents of one file of a simulated disk: what a reader sees, and what is durable.

use crate::fakes::SeededRandom;
use crate::sys::Random as _;

#[derive(Default, Clone)]
pub(super) struct Inode {
    pub(super) contents: Vec<u8>,
    pub(super) durable_contents: Vec<u8>,
    /// The writes by which `contents` differ from `durable_contents`, in order.
    unsynced_writes: Vec<PendingWrite>,
    pub(super) modified: i64,
    /// The octet at this offset cannot be read.
    pub(super) unreadable_offset: Option<u64>,
}

#[derive(Clone)]
enum PendingWrite {
    Data(usize, Vec<u8>),
    Truncate(usize),
}

impl Inode {
    pub(super) fn write(&mut self, octets: &[u8], at: usize) {
        let write = PendingWrite::Data(at, octets.to_owned());
        write.apply(&mut self.contents, octets.len());
        self.unsynced_writes.push(write);
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.contents.truncate(length);
        self.unsynced_writes.push(PendingWrite::Truncate(length));
    }

    pub(super) fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced_writes) {
            let octets = if let PendingWrite::Data(_, octets) = &write { octets.len() } else { 0 };
            write.apply(&mut self.durable_contents, octets);
        }
    }

    /// Called after a power cut: the contents that are left are durable.
    pub(super) fn mark_durable(&mut self) {
        self.durable_contents.clone_from(&self.contents);
        self.unsynced_writes.clear();
    }

    /// Simulates a power cut: a random number of the unsynced writes took effect, in order, the last one in
    /// part; and a page of each may be missing although later pages were written.
    pub(super) fn tear_unsynced_writes(&mut self, random: &SeededRandom) {
        let below = |n: usize| usize::try_from(random.below(n as u64)).unwrap_or(0);
        let mut now = self.durable_contents.clone();
        let lengths = self.unsynced_writes.iter().map(|write| match write {
            PendingWrite::Data(_, octets) => octets.len(),
            PendingWrite::Truncate(_) => 0,
        });
        let mut left = below(lengths.sum::<usize>() + 1);
        for write in &self.unsynced_writes {
            if left == 0 {
                break;
            }
            match write {
                // A truncation may be lost.
                PendingWrite::Truncate(_) if below(2) == 0 => {}
                PendingWrite::Truncate(_) => write.apply(&mut now, 0),
                PendingWrite::Data(at, octets) => {
                    let written = octets.len().min(left);
                    left -= written;
                    write.apply(&mut now, written);
                    if below(4) == 0 {
                        let hole = at + below(written + 1);
                        let old =
                            self.durable_contents.iter().copied().skip(hole).chain(std::iter::repeat(0));
                        let page = now.iter_mut().take(at + written).skip(hole).take(64);
                        page.zip(old).for_each(|(slot, octet)| *slot = octet);
                    }
                }
            }
        }
        self.contents = now;
    }
}

impl PendingWrite {
    /// Applies the first `octets` octets of this write to `file`.
    fn apply(&self, file: &mut Vec<u8>, octets: usize) {
        match self {
            Self::Data(at, all) => {
                let end = at + octets;
                if file.len() < end {
                    file.resize(end, 0);
                }
                if let (Some(slots), Some(octets)) = (file.get_mut(*at..end), all.get(..octets)) {
                    slots.copy_from_slice(octets);
                }
            }
            Self::Truncate(length) => file.truncate(*length),
        }
    }
}
