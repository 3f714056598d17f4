//! The real program, started as a user starts it, and ended as the world ends it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

/// The account that every test server is given.
pub(crate) const ADMIN_EMAIL: &str = "admin@house.test";
/// Its password.
pub(crate) const ADMIN_PASSWORD: &str = "a-long-enough-secret";

/// How long a server may take to say it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Servers listen below the ports that the system gives to outgoing connections, so that a
/// restarted server finds its port free, and below those of `.ci/services`, whose servers come back
/// to their ports, too.
const PORTS: std::ops::Range<u32> = 10_000..20_000;

/// How a server is to be started.
#[derive(Clone)]
pub(crate) struct Launch {
    folder: Arc<TempDir>,
    data: PathBuf,
    port: u16,
    arguments: Vec<String>,
    settings: BTreeMap<String, String>,
}

impl Launch {
    /// `tmomi serve` on a free port of the loopback and an empty data folder, without limits by
    /// address.
    pub(crate) fn new() -> Launch {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        let data = folder.path().join("data");
        let launch = Launch {
            data,
            folder: Arc::new(folder),
            port: free_port(),
            arguments: vec!["serve".to_owned()],
            settings: BTreeMap::new(),
        };
        launch
            .set("TMOMI_RATE_LIMITS", "off")
            .set("TMOMI_ADDRESS_CONNECTIONS_MAX", "20000")
            .set("TMOMI_ADMIN_EMAIL", ADMIN_EMAIL)
            .set("TMOMI_ADMIN_PASSWORD", ADMIN_PASSWORD)
    }

    /// With one more setting.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Launch {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Without a setting that is otherwise given.
    pub(crate) fn unset(mut self, name: &str) -> Launch {
        self.settings.remove(name);
        self
    }

    /// With other arguments than `serve`.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Launch {
        self.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    /// On a data folder somewhere else.
    pub(crate) fn on(mut self, data: &Path) -> Launch {
        self.data = data.to_owned();
        self
    }

    /// On another free port.
    pub(crate) fn elsewhere(mut self) -> Launch {
        self.port = free_port();
        self
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// A folder beside it that is removed with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Server {
        self.start_inside(self.port)
    }

    /// The same where `port` of the loopback is the one that says so.
    pub(crate) fn start_inside(&self, port: u16) -> Server {
        let mut server = self.start_unready();
        let start = Instant::now();
        while !is_ready((Ipv4Addr::LOCALHOST, port).into()) {
            if let Some(status) = server.child.try_wait().expect("our own child") {
                panic!("the server ended with {status}:\n{}", server.log());
            }
            assert!(start.elapsed() < READY_WITHIN, "not ready:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Starts it and does not wait.
    pub(crate) fn start_unready(&self) -> Server {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file in our folder");
        let child = Command::new(env!("CARGO_BIN_EXE_tmomi"))
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMOMI_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("TMOMI_DATA", &self.data)
            .envs(&self.settings)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file again"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        Server { child, launch: self.clone() }
    }

    /// Starts it where it must refuse to serve, and gives its status and what it said.
    pub(crate) fn start_refused(&self) -> (ExitStatus, String) {
        let before = self.read_log().len();
        let mut server = self.start_unready();
        let status = server.wait_exit(READY_WITHIN);
        let said = self.read_log()[before..].to_owned();
        assert!(!status.success(), "it must not end well:\n{said}");
        (status, said)
    }

    /// Runs the program with `arguments` on this data folder to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_tmomi"))
            .args(arguments)
            .env_clear()
            .env("TMOMI_DATA", &self.data)
            .envs(&self.settings)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status, said)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn read_log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A running server. Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    launch: Launch,
}

impl Server {
    /// A server with nothing special about it.
    pub(crate) fn start() -> Server {
        Launch::new().start()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.launch.port).into()
    }

    /// How it was started.
    pub(crate) fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said so far, of earlier starts on this folder too.
    pub(crate) fn log(&self) -> String {
        self.launch.read_log()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process has a number");
        kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// `kill -9`: it gets no chance to save anything.
    pub(crate) fn kill(mut self) -> Launch {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
        self.launch.clone()
    }

    /// `kill -9` and a new start on the same folder and port.
    pub(crate) fn crash(self) -> Server {
        self.kill().start()
    }

    /// SIGTERM, and its end, which must be a good one.
    pub(crate) fn stop(mut self) -> Launch {
        self.signal(Signal::TERM);
        let status = self.wait_exit(Duration::from_secs(30));
        assert!(status.success(), "after SIGTERM it ended with {status}:\n{}", self.log());
        self.launch.clone()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Waits for its end.
    pub(crate) fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(start.elapsed() < within, "still running after {within:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory in bytes, from /proc.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("Linux says VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("KiB");
        kib * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; both calls then do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(4_000);
            let tail = (tail..log.len()).find(|i| log.is_char_boundary(*i)).unwrap_or(0);
            eprintln!("--- the server said ---\n{}", &log[tail..]);
        }
    }
}

/// Whether `GET /readyz` says 200.
fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// A port that nobody listens on. Tests run in processes of their own, so the first try depends
/// on the process.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + std::process::id().wrapping_mul(97).wrapping_add(step) % span;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port as u16)).is_ok() {
            return port as u16;
        }
    }
    panic!("no free port between {} and {}", PORTS.start, PORTS.end);
}
