//! House rules that a compiler does not know.

use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const LINE_COLUMNS_MAX: usize = 100;
/// Who may import whom: each crate with the crates that it may name.
const ARROWS: [(&str, &[&str]); 4] = [
    ("engine", &[]),
    ("persist", &["engine"]),
    ("server", &["engine", "persist"]),
    ("bench", &["engine", "persist", "server"]),
];
/// The one place that reads a clock.
const CLOCK: &str = "server/src/clock.rs";

fn root() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.parent().expect("the server is in the workspace").to_owned()
}

/// The Rust files of a crate: path from the root, and text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let parts = ["src", "tests", "examples", "benches"];
    let files = parts
        .iter()
        .flat_map(|part| crate::support::tools::files_below(&root().join(folder).join(part)));
    let rust = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a source is text");
        let name = path.strip_prefix(root()).expect("below the root");
        (name.to_string_lossy().into_owned(), text)
    };
    rust.map(read).collect()
}

fn all_sources() -> Vec<(String, String)> {
    ARROWS.iter().flat_map(|(folder, _)| sources(folder)).collect()
}

#[test]
fn files_and_lines_are_short() {
    let mut wrong = Vec::new();
    for (name, text) in all_sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{name} has {lines} lines"));
        }
        for (n, line) in text.lines().enumerate() {
            if line.chars().count() > LINE_COLUMNS_MAX {
                wrong.push(format!("{name}:{} is too long", n + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_to_do() {
    // Put together here, so that this file does not find itself.
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let mut found = Vec::new();
    for (name, text) in all_sources() {
        for (n, line) in text.lines().enumerate() {
            let is_word =
                |word: &str| line.split(|c: char| !c.is_alphanumeric()).any(|part| part == word);
            if words.iter().any(|word| is_word(word)) {
                found.push(format!("{name}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn imports_run_one_way() {
    for (folder, allowed) in ARROWS {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml"));
        let manifest = manifest.expect("each crate has a manifest");
        for (other, _) in ARROWS.iter().filter(|(other, _)| !allowed.contains(other)) {
            if *other == folder {
                continue;
            }
            let package = format!("tmomi-{other}");
            let named = manifest.lines().any(|line| line.starts_with(&package));
            assert!(!named, "{folder} depends on {package}");
            let path = format!("tmomi_{other}::");
            for (name, text) in sources(folder) {
                assert!(!text.contains(&path), "{name} imports {path}");
            }
        }
    }
}

#[test]
fn one_file_reads_the_clock() {
    let calls = [concat!("Instant::", "now"), concat!("SystemTime::", "now")];
    for (name, text) in all_sources() {
        // A bench measures, so it has clocks of its own.
        if !name.contains("/src/") || name.starts_with("bench/") || name == CLOCK {
            continue;
        }
        // What stands behind the first test module is a test.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for call in calls {
            assert!(!code.contains(call), "{name} calls {call}; time is an argument");
        }
    }
}

/// Links between documents lead somewhere, and commands of `make` are targets.
#[test]
fn documents_point_at_what_is_there() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("a Makefile");
    let mut documents = crate::support::tools::files_below(&root().join("docs"));
    documents.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    for path in documents.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = std::fs::read_to_string(path).expect("a document is text");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = path.parent().expect("in a folder").join(file);
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
        }
        for line in text.lines().filter_map(|line| line.strip_prefix("make ")) {
            let target = line.split_whitespace().next().unwrap_or_default();
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{}: make {target}?", path.display());
        }
    }
}

/// Containers and `make services` are the same servers.
#[test]
fn servers_have_one_version() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).expect("it is there");
    let (compose, services) = (read("compose.yaml"), read(".ci/services"));
    let line = services.lines().find_map(|line| line.strip_prefix("VERSIONS = {\""));
    let versions = line.expect("a line of versions").trim_end_matches("\"}");
    let mut images: Vec<&str> =
        compose.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
    for pair in versions.split("\", \"") {
        let image = pair.replace("\": \"", ":");
        let found = images.iter().position(|had| had.trim_start_matches("apache/") == image);
        images.remove(found.unwrap_or_else(|| panic!("{image} is not in compose.yaml")));
    }
    assert!(images.is_empty(), ".ci/services does not have {images:?}");
}
