//! Tools of the system that make faults: strace, prlimit, libfaketime, small file systems.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// strace on a running server, doing something to its system calls until dropped.
pub(crate) struct Strace {
    child: Child,
}

impl Strace {
    /// Attaches to `pid` and injects `injection` (strace's words) into calls on files below
    /// `paths`.
    pub(crate) fn attach(pid: u32, call: &str, injection: &str, paths: &[PathBuf]) -> Strace {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
        command.args(["-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:{injection}")]);
        for path in paths {
            command.arg("-P").arg(path);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let strace = Strace { child: child.spawn().expect("strace is installed") };
        strace.wait_attached(pid);
        strace
    }

    /// Every thread of the server has a tracer once strace is there.
    fn wait_attached(&self, pid: u32) {
        for _ in 0..500 {
            if all_threads_traced(pid) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("strace did not attach to {pid}");
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // SIGTERM lets strace detach; a killed one would leave its threads stopped.
        let pid = self.child.id() as i32;
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn all_threads_traced(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"))
    })
}

/// Limits the file handles of a running process.
pub(crate) fn limit_file_handles(pid: u32, handles: u32) {
    let limit = format!("--nofile={handles}:{handles}");
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(status.expect("prlimit is installed").success());
}

/// The library that lies about the time, if it is installed.
pub(crate) fn faketime_library() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?.flatten();
    libraries.map(|d| d.path().join("faketime/libfaketime.so.1")).find(|path| path.exists())
}

/// A file system of `bytes` in memory, unmounted when dropped.
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it at `path`; `None` where mounting is not allowed.
    pub(crate) fn mount(path: &Path, bytes: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(path).expect("a folder of ours");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        let mounted = status.is_ok_and(|status| status.success());
        mounted.then(|| SmallDisk { path: path.to_owned() })
    }

    /// Its root.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it to the last byte with a file, which is returned.
    pub(crate) fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.path.join("filler");
        let mut file = std::fs::File::create(&path).expect("a file can still be made");
        // From large to small, so that the last page is taken too.
        for size in [1 << 20, 1 << 16, 1 << 12, 1] {
            while file.write(&vec![7; size]).is_ok_and(|written| written == size) {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is just being killed may still have files open on it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// Every file below `folder`, with its path.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}
