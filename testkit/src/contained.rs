//! A test program together with all that it starts, so that nothing outlives it.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, id},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::getuid,
};

/// Its value is the name of the program's control group.
const INSIDE: &str = "TESTKIT_CONTAINED";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Its name goes on with the ID of the process.
const CGROUP: &str = "testkit-";
const RESOLVER: &str = "/etc/resolv.conf";

/// The control group, below the root of every hierarchy, for what the test program starts. It goes with the program.
#[must_use]
pub fn cgroup() -> String {
    format!("/{}", env::var(INSIDE).unwrap())
}

/// Starts the program again, as the first of a process namespace and in a mount namespace where each of `directories` is
/// empty; temporary files are in the first of them. Whatever happens to either of the two, the kernel then ends all
/// processes and mounts.
///
/// `None` is for the program that was started again; what the first one is to exit with is there when that has ended.
pub(crate) fn contain(directories: &[&str]) -> Result<Option<ExitCode>, String> {
    match env::var_os(INSIDE) {
        Some(_) => enter(directories).map(|()| None),
        None => start_again(directories).map(Some),
    }
}

fn start_again(directories: &[&str]) -> Result<ExitCode, String> {
    if !getuid().is_root() {
        return Err("only root can run containers with mounts and control groups".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).map_err(|error| format!("no namespaces: {error}"))?;
    let made: Vec<_> = directories.iter().filter(|directory| fs::create_dir(directory).is_ok()).collect();
    let cgroup = format!("{CGROUP}{}", id());
    let program = env::current_exe().map_err(|error| format!("the program's own path: {error}"))?;
    let mut again = Command::new(program);
    again.args(env::args_os().skip(1)).env(INSIDE, &cgroup).envs(directories.first().map(|first| ("TMPDIR", first)));
    let status = again.status();
    remove_cgroups(&cgroup);
    for directory in made {
        let _somebody_uses_it = fs::remove_dir(directory);
    }
    let code = status.map_err(|error| format!("cannot start again: {error}"))?.code();
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn enter(directories: &[&str]) -> Result<(), String> {
    // Mounts would be everybody's.
    if id() != 1 {
        return Err(format!("{INSIDE} is set, but this is no process namespace of its own: unset it"));
    }
    set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("would outlive the program that started this: {error}"))?;
    let resolver = fs::canonicalize(RESOLVER).and_then(|path| Ok((fs::read(&path)?, path)));
    let attach = |kind: &str, place: &str, flags| {
        let mounted = mount(Some(kind), place, Some(kind), flags, None::<&str>);
        mounted.map_err(|error| format!("{place}: {error}"))
    };
    attach("none", "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    attach("proc", "/proc", MsFlags::empty())?;
    for directory in directories {
        attach("tmpfs", directory, MsFlags::empty())?;
    }
    match resolver {
        // It may be a link into what is empty now.
        Ok((content, path)) if !path.exists() => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&path, content))
                .map_err(|error| format!("{path:?}: {error}"))
        }
        _ => Ok(()),
    }
}

/// Removes that control group, and those of programs that were killed before they could.
fn remove_cgroups(own: &str) {
    let root = PathBuf::from(CGROUPS);
    // The root is that of version 2, or has one for each controller of version 1.
    let controllers: Vec<_> = children(&root).into_iter().chain([root]).collect();
    for group in controllers.iter().flat_map(|controller| children(controller)) {
        let name = group.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let is_dead = |process: &str| !Path::new("/proc").join(process).exists();
        if name == own || name.strip_prefix(CGROUP).is_some_and(is_dead) {
            remove_tree(&group);
        }
    }
}

/// Control groups have files that nobody can remove; they go with the directory.
fn remove_tree(group: &Path) {
    children(group).iter().for_each(|child| remove_tree(child));
    let _absent = fs::remove_dir(group);
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
