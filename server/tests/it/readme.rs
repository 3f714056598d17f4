//! The README is true: every command in it is run, in its order, as it stands there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::server::free_port;
use crate::support::{Client, Server, eventually, house};

/// Where the README says that the server is.
const ADDRESS: &str = "127.0.0.1:8080";
/// A release build may have to be made first.
const READY_WITHIN: Duration = Duration::from_secs(1_200);

fn root() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.parent().expect("the server is in the workspace").to_owned()
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fenced blocks of a language, in order.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(tag)) => open = (tag == language).then(String::new).or(Some("-".into())),
            (Some(block), None) if !block.starts_with('-') => {
                block.push_str(line);
                block.push('\n');
            }
            (Some(_), Some(_)) => {
                blocks.extend(open.take().filter(|block| !block.starts_with('-')))
            }
            _ => {}
        }
    }
    blocks
}

/// A block without its comments.
fn commands(block: &str) -> Vec<&str> {
    let lines = block.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Ends a process group member of ours and waits.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// `cargo run --release`, or, where no release build is wanted, what it would run.
fn start(folder: &TempDir, address: &str) -> Running {
    let release = std::env::var("TMOMI_TEST_TOUR").is_ok_and(|kind| kind == "release");
    let mut command = if release {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["run", "--release"]).current_dir(root());
        cargo
    } else {
        Command::new(env!("CARGO_BIN_EXE_tmomi"))
    };
    without_test_settings(&mut command);
    command.env("TMOMI_LISTEN", address).env("TMOMI_DATA", folder.path().join("data"));
    let log = std::fs::File::create(folder.path().join("server.log")).expect("our folder");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("the file")).stderr(log);
    Running(command.spawn().expect("it starts"))
}

/// The settings of the tests themselves are none of the server's.
fn without_test_settings(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TMOMI_")) {
        command.env_remove(name);
    }
}

fn bash(script: &str, setup: &[(&str, &str)]) -> Output {
    let mut command = Command::new("bash");
    without_test_settings(&mut command);
    command.args(["-euo", "pipefail", "-c", script]).envs(setup.iter().copied());
    command.stdin(Stdio::null()).output().expect("bash is there")
}

#[track_caller]
fn succeeds(script: &str, setup: &[(&str, &str)]) -> String {
    let output = bash(script, setup);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n--- said ---\n{said}\n{complaints}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_readme_runs() {
    let readme = document("README.md");
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let address = format!("127.0.0.1:{}", free_port());
    let mut server = None;
    let mut tickets = String::new();
    for block in blocks(&readme, "sh") {
        let mut script = String::new();
        for command in commands(&block) {
            if command == "cargo run --release" {
                server = Some(start(&folder, &address));
                let client = Client::stranger(address.parse().expect("an address"));
                eventually("the server is ready", READY_WITHIN, async || {
                    let asked = client.attempt(hyper::Method::GET, "/readyz", None, None).await;
                    asked.is_ok_and(|reply| reply.status == 200).then_some(())
                })
                .await;
            } else if let Some(target) = command.strip_prefix("make ") {
                // This test is a part of `make test`; it must not start it again.
                let dry = format!("make --dry-run --directory {} {target}", root().display());
                succeeds(&dry, &[]);
            } else if command.starts_with("cargo run ") {
                // An example; `make examples` has built and run it, here it must exist.
                let example = command.rsplit(' ').next().unwrap_or_default();
                let path = root().join(format!("engine/examples/{example}.rs"));
                assert!(path.exists(), "{command}");
            } else {
                script.push_str(command);
                script.push('\n');
            }
        }
        if !script.is_empty() {
            assert!(server.is_some(), "the server is started before it is called");
            tickets = succeeds(&script.replace(ADDRESS, &address), &[]);
        }
    }
    assert_eq!(tickets.matches("\"seat\": ").count(), 2, "the tour ends with tickets:\n{tickets}");
    let log = std::fs::read_to_string(folder.path().join("server.log")).expect("our folder");
    assert!(log.contains(&address), "it prints its URL:\n{log}");
    assert!(log.to_lowercase().contains("password"), "and the admin's password, once:\n{log}");
}

/// What the README shows of the engine stands in the example, line by line.
#[test]
fn the_embedding_in_the_readme_is_the_example() {
    let example = document("engine/examples/embed.rs");
    let snippets = blocks(&document("README.md"), "rust");
    assert!(!snippets.is_empty(), "the README shows how to embed the engine");
    for line in snippets.iter().flat_map(|block| block.lines()).map(str::trim) {
        let known = line.is_empty() || line == "..." || example.contains(line);
        assert!(known, "the example has no line {line:?}");
    }
}

/// The commands of the operating manual, on a folder that was used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_operating_manual_runs() {
    let server = Server::start();
    let sale = house::Sale::open(&server, house::hall(), serde_json::json!({})).await;
    sale.bought(&house::buyer(&server).await, &["A-1-1"]).await;
    let launch = server.stop();
    let binary = Path::new(env!("CARGO_BIN_EXE_tmomi")).parent().expect("in a folder");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let hall = root().join("server/tests/data/hall.json");
    std::fs::copy(hall, launch.folder().join("hall.json")).expect("our folder");
    let data = launch.data().to_string_lossy().into_owned();
    for block in blocks(&document("docs/OPERATING.md"), "sh") {
        let script = format!("cd {}\n{}", launch.folder().display(), commands(&block).join("\n"));
        let said = succeeds(&script, &[("PATH", &path), ("TMOMI_DATA", &data)]);
        assert!(!said.trim().is_empty(), "{script} says nothing");
    }
}

/// The operating manual has every setting that the program knows, and no other.
#[test]
fn the_operating_manual_names_every_setting() {
    let help = Command::new(env!("CARGO_BIN_EXE_tmomi")).args(["serve", "--help"]).output();
    let help = String::from_utf8(help.expect("it starts").stdout).expect("help is text");
    let names = |text: &str| -> BTreeSet<String> {
        let words =
            text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
        words
            .filter(|word| word.starts_with("TMOMI_") && word.len() > 6)
            .map(str::to_owned)
            .collect()
    };
    assert!(!names(&help).is_empty(), "the help names the environment:\n{help}");
    assert_eq!(names(&document("docs/OPERATING.md")), names(&help));
}

#[test]
fn blocks_are_cut_from_a_page() {
    let page = "a\n```sh\none # x\n# two\n```\nb\n```rust\nlet x;\n```\n```sh\nthree\n```\n";
    assert_eq!(blocks(page, "sh"), ["one # x\n# two\n", "three\n"]);
    assert_eq!(blocks(page, "rust"), ["let x;\n"]);
    assert_eq!(commands("one # x\n# two\n"), ["one"]);
}
