//! A machine that starts anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ETC: &str = "/etc";

/// Which machine, in which of its boots, the thread that made this and the programs that it starts find themselves on,
/// until this is dropped. Their `/etc` has nothing but the machine's ID.
#[derive(Debug)]
pub struct Machine {
    boot_id: PathBuf,
    machine_id: PathBuf,
}

impl Machine {
    /// A machine whose files are kept in `directory`, in a mount namespace of the thread's own. The program has
    /// [entered private namespaces](crate::enter_private_namespaces).
    #[must_use]
    pub fn new(directory: &Path, machine: u64, boot: u64) -> Self {
        let etc = directory.join("etc");
        fs::create_dir(&etc).unwrap();
        let this = Self { boot_id: directory.join("boot_id"), machine_id: etc.join("machine-id") };
        this.enter(machine, boot);
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        for (from, to) in [(&this.boot_id, BOOT_ID), (&etc, ETC)] {
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        }
        this
    }

    /// Goes on in that boot of that machine; the numbers are the first 16 hexadecimal digits of the IDs.
    pub fn enter(&self, machine: u64, boot: u64) {
        let digits = format!("{boot:016x}");
        let (first, second, third) = (&digits[..8], &digits[8..12], &digits[12..]);
        fs::write(&self.boot_id, format!("{first}-{second}-{third}-0000-000000000000\n")).unwrap();
        fs::write(&self.machine_id, format!("{machine:016x}{:016x}\n", 0)).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for place in [BOOT_ID, ETC] {
            umount2(place, MntFlags::MNT_DETACH).unwrap();
        }
    }
}
