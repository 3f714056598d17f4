//! The program, started as a user starts it, and what the system says of its process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Names another program than the one beside the bench.
pub const PROGRAM: &str = "TMOMI_BENCH_SERVER";
/// The admin of every bench.
pub const ADMIN_EMAIL: &str = "admin@house.test";
/// Its password.
pub const ADMIN_PASSWORD: &str = "a-long-enough-secret";

/// How long a stopped process may take to end in order before it is killed.
const END_WITHIN: Duration = Duration::from_secs(20);
/// The kernel counts CPU time in hundredths of a second, whatever its own clock.
const CPU_TICK: Duration = Duration::from_millis(10);

/// Where decisions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In a journal, as always.
    Journal,
    /// Nowhere: `--memory`.
    Memory,
}

/// A process of ours. Dropped, it is ended.
pub struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `command` with its standard output to be read by [`line`](Self::line).
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Process {
        let started = command.stdout(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Process { child, out }
    }

    /// The next line it says.
    ///
    /// # Panics
    ///
    /// If it ended.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.out.read_line(&mut line).expect("what it says is text");
        assert!(read > 0, "it ended: {:?}", self.child.try_wait());
        line.trim_end().to_owned()
    }

    /// The child.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads since it began, in steps of 10 ms.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // The name of the program, in parentheses, may have spaces.
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |n: usize| fields[n].parse::<u32>().expect("a number");
        // Fields 14 and 15 of proc(5), counted from the state, which is the third.
        CPU_TICK * (ticks(11) + ticks(12))
    }

    /// Memory that it has in use, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux has it");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("KiB") * 1_024
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid());
        std::fs::read_to_string(path).expect("it runs")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process has a number");
        let _ = kill_process(pid, Signal::TERM);
        let step = Duration::from_millis(10);
        for _ in 0..END_WITHIN.as_millis() / step.as_millis() {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(step);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running server with an empty house.
pub struct Server {
    // First, so that it has ended when the folder goes.
    process: Process,
    address: SocketAddr,
    folder: TempDir,
    keep: Keep,
}

impl Server {
    /// Starts the program on a free port of the loopback, without limits by address and user, with
    /// its files in a folder of its own below `below`.
    ///
    /// # Panics
    ///
    /// If it does not start; what it says is on standard error.
    pub fn start(below: &Path, keep: Keep) -> Server {
        let folder = TempDir::new_in(below).expect("a folder for files that pass");
        let log = File::create(folder.path().join("server.log")).expect("a file in our folder");
        let mut command = Command::new(program());
        command.args(["serve"]).env_clear().stdin(Stdio::null()).stderr(log);
        command
            .env("TMOMI_LISTEN", "127.0.0.1:0")
            .env("TMOMI_DATA", folder.path().join("data"))
            // Where a house that keeps nothing has its catalog.
            .env("TMPDIR", folder.path())
            .env("TMOMI_MEMORY", if keep == Keep::Memory { "on" } else { "off" })
            .env("TMOMI_RATE_LIMITS", "off")
            .env("TMOMI_ACCESS_TTL_S", "3600")
            .env("TMOMI_ADMIN_EMAIL", ADMIN_EMAIL)
            .env("TMOMI_ADMIN_PASSWORD", ADMIN_PASSWORD)
            .env("TMOMI_LOG", "warn");
        let mut process = Process::start(&mut command);
        let line = process.line();
        let address = line.rsplit_once("http://").and_then(|(_, address)| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        Server { process, address, folder, keep }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The file of its accounts.
    pub(super) fn catalog(&self) -> PathBuf {
        let data = match self.keep {
            Keep::Journal => self.folder.path().join("data"),
            Keep::Memory => {
                let made = std::fs::read_dir(self.folder.path()).expect("our folder");
                let mut made = made.filter_map(|entry| Some(entry.ok()?.path()));
                made.find(|path| path.is_dir()).expect("the server's own folder")
            }
        };
        data.join("catalog.db")
    }
}

/// The program: what [`PROGRAM`] names, or else what `cargo build --release -p tmomi-server` made
/// in the folder that this bench was built in.
fn program() -> PathBuf {
    let named = std::env::var_os(PROGRAM).map(PathBuf::from);
    let program = named.unwrap_or_else(|| {
        let bench = std::env::current_exe().expect("a program knows where it is");
        let profile = bench.parent().and_then(Path::parent).expect("target/release/deps/bench");
        profile.join("tmomi")
    });
    let built = "build it first: cargo build --release -p tmomi-server";
    assert!(program.is_file(), "{} is not there; {built}", program.display());
    program
}
