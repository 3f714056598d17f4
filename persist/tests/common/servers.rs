//! The real servers that `.ci/services` runs: where the shared ones are, and one of its own for a
//! test that does it harm.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How often and how long a process is waited for that got a signal.
const STATE_LOOKS_MAX: usize = 1_000;
const STATE_LOOK: Duration = Duration::from_millis(10);
/// States of a thread, as /proc has them.
const ENDED: [char; 2] = ['Z', 'X'];
const STOPPED: [char; 1] = ['T'];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kafka,
    MySql,
    MariaDb,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Kafka => "kafka",
            Kind::MySql => "mysql",
            Kind::MariaDb => "mariadb",
        }
    }
}

/// Where the shared Kafka is: `host:port`.
pub(crate) fn kafka() -> String {
    shared(Kind::Kafka)
}

/// Where the shared MySQL is: `host:port`, user `root` without a password.
pub(crate) fn mysql() -> String {
    shared(Kind::MySql)
}

/// Where the shared MariaDB is: `host:port`, user `root` without a password.
pub(crate) fn mariadb() -> String {
    shared(Kind::MariaDb)
}

/// What the environment says, or else what `make services` has started.
///
/// # Panics
///
/// If there is none: a test that needs a server is never passed over in silence.
fn shared(kind: Kind) -> String {
    let variable = format!("TMOMI_TEST_{}", kind.name().to_uppercase());
    if let Ok(address) = env::var(&variable) {
        return address;
    }
    let run = root().join("target/services/run").join(kind.name());
    let address = fs::read_to_string(run.join("address")).unwrap_or_default();
    let answers = !address.is_empty() && std::net::TcpStream::connect(address.trim()).is_ok();
    assert!(answers, "no {} is running: run `make services` first, or set {variable}", kind.name());
    address.trim().to_owned()
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package is in the workspace").to_owned()
}

/// A server of one test; it ends with it, and so does its data.
pub(crate) struct Own {
    kind: Kind,
    address: String,
    pid: Pid,
    folder: TempDir,
}

impl Own {
    /// Starts one with empty data; it answers when this returns.
    pub(crate) fn start(kind: Kind) -> Own {
        let place = root().join("target/services/own");
        fs::create_dir_all(&place).expect("a folder below target");
        let folder = TempDir::new_in(place).expect("a folder below target");
        let (address, pid) = run(kind, folder.path());
        Own { kind, address, pid, folder }
    }

    /// `host:port`; the same after each [`Own::restart`].
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// `kill -9`. It has ended when this returns.
    pub(crate) fn kill(&self) {
        // It may be dead already.
        let _ = kill_process(self.pid, Signal::KILL);
        assert!(reaches(self.pid, &ENDED), "{:?} survives SIGKILL", self.kind);
    }

    /// Starts it again with its data, on its port.
    pub(crate) fn restart(&mut self) {
        let (address, pid) = run(self.kind, self.folder.path());
        assert_eq!(address, self.address, "clients know it by its address");
        self.pid = pid;
    }

    /// SIGSTOP: its connections stay, and nobody answers once this returns.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        assert!(reaches(self.pid, &STOPPED), "{:?} survives SIGSTOP", self.kind);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the server runs");
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs the server of this folder and says where it is and which process.
fn run(kind: Kind, folder: &Path) -> (String, Pid) {
    let folder = folder.join(kind.name());
    let mut command = Command::new(root().join(".ci/services"));
    command.arg("run").arg(kind.name()).arg(&folder);
    let done = command.stdin(Stdio::null()).output().expect(".ci/services can be run");
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "no {}; run `make services` first?\n{why}", kind.name());
    let read = |name| fs::read_to_string(folder.join(name)).expect("it says where it is");
    let pid = read("pid").trim().parse().ok().and_then(Pid::from_raw);
    (read("address").trim().to_owned(), pid.expect("a process has a number"))
}

/// Waits until all threads of a process are in one of these states: the last one holds its files
/// and its port, or still answers.
fn reaches(pid: Pid, states: &[char]) -> bool {
    (0..STATE_LOOKS_MAX).any(|_| {
        let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
        let all = threads.into_iter().flatten().flatten().all(|thread| {
            // The state stands behind the name, which is in parentheses.
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(states))
        });
        if !all {
            thread::sleep(STATE_LOOK);
        }
        all
    })
}
