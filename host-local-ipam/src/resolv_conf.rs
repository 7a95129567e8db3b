//! The file that `resolvConf` names, see resolv.conf(5).

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use multus_cni::Dns;
use nix::fcntl::OFlag;

/// More than any resolver reads.
const MAX_SIZE: u64 = 1024 * 1024;

/// Reads the name service settings in a file.
pub(crate) fn read(path: &Path) -> io::Result<Dns> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it must be a regular file"));
    }
    let mut bytes = Vec::new();
    // Such as /proc/kmsg, which is no less a file, and waits until the kernel has something to say.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    file.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

/// Reads name service settings. Lines add up, except that the last `domain` wins; everything else is skipped.
fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        let keyword = words.next().unwrap_or_default();
        match keyword.as_str() {
            "nameserver" => dns.nameservers.extend(words.next()),
            "domain" => dns.domain = words.next().unwrap_or(dns.domain),
            "search" => dns.search.extend(words),
            "options" => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up_and_comments_do_not_count() {
        let dns = parse(
            "# generated\n;nameserver 9.9.9.9\n\tnameserver 192.0.2.1\n\t nameserver 2001:db8::1 # not more\n\
             domain a.example\ndomain b.example\nsearch one two\nsearch three\noptions ndots:5\noptions edns0\n\
             nameserver\nsortlist 1.2.3.4\n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(dns.domain, "b.example");
        assert_eq!(dns.search, ["one", "two", "three"]);
        assert_eq!(dns.options, ["ndots:5", "edns0"]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn only_files_are_read_whatever_they_hold() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        fs::write(&file, b"# caf\xe9\nnameserver 192.0.2.1\n").unwrap();
        assert_eq!(read(&file).unwrap().nameservers, ["192.0.2.1"]);
        // The first MiB.
        let line = "nameserver 192.0.2.1\n";
        let blank = |length: usize| " ".repeat(length - 1) + "\n";
        fs::write(&file, blank((1 << 20) - line.len()) + line).unwrap();
        assert_eq!(read(&file).unwrap().nameservers, ["192.0.2.1"]);
        fs::write(&file, blank(1 << 20) + line).unwrap();
        assert_eq!(read(&file).unwrap().nameservers, [""; 0]);
        for path in [directory.path(), Path::new("/dev/zero")] {
            assert_eq!(read(path).unwrap_err().to_string(), "it must be a regular file");
        }
    }

    #[test]
    fn a_file_that_never_ends_is_not_waited_for() {
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(read(Path::new("/proc/kmsg"))).unwrap());
        // Where it may not be read it is an error as well.
        let _nothing_to_read_now = ended.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    }
}
