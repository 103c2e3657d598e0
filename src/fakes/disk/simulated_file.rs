//! An open file of a simulated disk.

use std::io;
use std::path::PathBuf;

use super::SimulatedDisk;
use super::disk_state::{DiskState, disk_scheduling_point};
use super::inode::Inode;
use crate::sys::{DiskFile, FileIdentity};

pub(super) struct SimulatedFile {
    pub(super) disk: SimulatedDisk,
    pub(super) inode: u64,
    /// The path by which the file was opened.
    pub(super) path: PathBuf,
    pub(super) epoch: u64,
}

impl SimulatedFile {
    fn with_inode<T>(&self, act: impl FnOnce(&mut DiskState, &mut Inode) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state_after_dir_change();
        if state.epoch != self.epoch {
            return Err(io::Error::other("the process that opened this file is gone"));
        }
        let mut inode = state.files.remove(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let result = act(&mut state, &mut inode);
        state.files.insert(self.inode, inode);
        result
    }
}

impl DiskFile for SimulatedFile {
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        disk_scheduling_point("write", &self.path);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        // A full disk still allows writes that need no more room.
        let operation =
            |inode: &Inode| if at + octets.len() > inode.contents.len() { "append" } else { "write" };
        self.with_inode(|state, inode| match state.begin_operation(operation(inode)) {
            Ok(()) => {
                inode.write(octets, at);
                Ok(())
            }
            Err((e, is_half)) => {
                let half = if is_half { octets.len() / 2 } else { 0 };
                inode.write(octets.get(..half).unwrap_or_default(), at);
                Err(e)
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        disk_scheduling_point("sync", &self.path);
        self.with_inode(|state, inode| {
            state.begin_whole_operation("sync")?;
            if state.takes_effect("sync", self.path.parent(), "") {
                inode.sync();
            }
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with_inode(|_, inode| {
            let rest = usize::try_from(offset).ok().and_then(|offset| inode.contents.get(offset..));
            let rest = rest.unwrap_or_default();
            let n = rest.len().min(buffer.len());
            if inode
                .unreadable_offset
                .is_some_and(|unreadable| (offset..offset + n as u64).contains(&unreadable))
            {
                return Err(io::Error::other("input/output error"));
            }
            buffer.iter_mut().zip(rest).for_each(|(slot, octet)| *slot = *octet);
            Ok(n)
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.with_inode(|_, inode| Ok(inode.contents.len() as u64))
    }

    fn truncate(&self, octets: u64) -> io::Result<()> {
        disk_scheduling_point("truncate", &self.path);
        self.with_inode(|state, inode| {
            state.begin_whole_operation("truncate")?;
            inode.truncate(usize::try_from(octets).unwrap_or(usize::MAX));
            Ok(())
        })
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.with_inode(|state, _| {
            let links = state.names.values().filter(|inode| **inode == self.inode).count();
            Ok(FileIdentity { device: 0, inode: self.inode, links: links as u64 })
        })
    }
}
