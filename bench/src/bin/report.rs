//! Runs the benches and writes what they print into `docs/PERFORMANCE.md`, between two marks.
//!
//! `make bench-report` for all of them, `make bench-report BENCH='journal line'` for some: the
//! rows of the others stay.
//!
//! A bench prints rows of [`Rounds`], which has its rounds and its baseline, or it is one of
//! criterion's: then it is run five times, and the first of each group is the baseline.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{fs, io};

use tmomi_bench::rounds::{Rounds, TABLE_HEAD, rounds};

const DOCUMENT: &str = "docs/PERFORMANCE.md";
const BEGIN: &str = "<!-- bench-report:begin -->";
const END: &str = "<!-- bench-report:end -->";
const MACHINE: &str = "machine";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench is in the workspace");
    let mut chosen: Vec<String> = std::env::args().skip(1).collect();
    if chosen.is_empty() {
        chosen = all_benches(root).expect("the benches are there");
    }
    let mut sections = vec![(MACHINE.to_owned(), machine(root))];
    let mut failed = false;
    for bench in chosen {
        match section(root, &bench) {
            Ok(section) => sections.push((bench, section)),
            Err(error) => {
                eprintln!("bench {bench}: {error}; its rows stay as they are");
                failed = true;
            }
        }
    }
    let path = root.join(DOCUMENT);
    let text = fs::read_to_string(&path).expect("the document is there");
    let text = replaced(&text, sections).expect("the document has both marks");
    fs::write(&path, text).expect("the document can be written");
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The names of all benches, in order: one file each.
fn all_benches(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("bench/benches"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// What the document says of one bench: the command and its rows.
fn section(root: &Path, bench: &str) -> Result<String, String> {
    let arguments = ["bench", "-p", "tmomi-bench", "--bench", bench];
    let mut output = Output::default();
    output.read(root, &arguments)?;
    if !output.groups.is_empty() {
        for _ in 1..rounds() {
            output.read(root, &arguments)?;
        }
    }
    let rows: Vec<String> =
        output.rows.into_iter().chain(output.groups.iter().flat_map(Rounds::rows)).collect();
    if rows.is_empty() {
        return Err("it printed no row".into());
    }
    Ok(format!("`cargo {}`\n\n{TABLE_HEAD}\n{}\n", arguments.join(" "), rows.join("\n")))
}

/// What a bench printed.
#[derive(Default)]
struct Output {
    /// Rows as they are to stand there.
    rows: Vec<String>,
    /// Criterion's figures by group.
    groups: Vec<Rounds>,
    /// Criterion prints a long name on a line of its own, before the figure.
    name: String,
}

impl Output {
    /// Runs the bench and reads all it prints, which is shown, too.
    fn read(&mut self, root: &Path, arguments: &[&str]) -> Result<(), String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(root).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().expect("it is piped");
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| error.to_string())?;
            eprintln!("{line}");
            self.line(&line);
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(status.to_string()) }
    }

    fn line(&mut self, line: &str) {
        if let Some((name, figure)) = line.split_once("time:") {
            let name = if name.trim().is_empty() { self.name.as_str() } else { name.trim() };
            if let (Some((group, contender)), Some(ns)) = (name.split_once('/'), middle_ns(figure))
            {
                let group = match self.groups.iter().position(|known| known.title() == group) {
                    Some(at) => &mut self.groups[at],
                    None => {
                        self.groups.push(Rounds::new(group, "ns"));
                        self.groups.last_mut().expect("it was added")
                    }
                };
                group.add(contender, ns);
            }
        } else if is_row(line) {
            self.rows.push(line.to_owned());
        } else if !line.trim().is_empty() {
            self.name = line.trim().to_owned();
        }
    }
}

/// Whether a line is a row of [`Rounds`], and not the head that a bench prints for its reader.
fn is_row(line: &str) -> bool {
    let cells: Vec<&str> = line.split('|').collect();
    cells.len() == 6 && cells[3].contains(" to ") && cells[4].contains(" to ")
}

/// The estimate of criterion's `[low unit middle unit high unit]`, in ns.
fn middle_ns(figure: &str) -> Option<f64> {
    let words: Vec<&str> = figure.trim().trim_matches(['[', ']']).split_whitespace().collect();
    let [_, _, middle, unit, _, _] = words[..] else { return None };
    let ns_each = match unit {
        "ps" => 1e-3,
        "ns" => 1.0,
        "µs" | "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(middle.parse::<f64>().ok()? * ns_each)
}

/// The document with these sections in place of those of the same name.
fn replaced(text: &str, sections: Vec<(String, String)>) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (old, after) = rest.split_once(END)?;
    let parse = |section: &str| {
        let (name, body) = section.split_once('\n')?;
        Some((name.trim().to_owned(), body.trim_start().to_owned()))
    };
    let mut all: Vec<(String, String)> = old.split("\n### ").skip(1).filter_map(parse).collect();
    for (name, section) in sections {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = section,
            None => all.push((name, section)),
        }
    }
    let bodies = all.iter().map(|(name, body)| format!("\n### {name}\n\n{}\n", body.trim_end()));
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", bodies.collect::<String>()))
}

/// The number without what its builder appended.
fn version(release: &str) -> String {
    release.trim().split('-').next().unwrap_or_default().to_owned()
}

/// What the figures were measured on.
fn machine(root: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or("?".into(), |(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kib: u64 = field(&read("/proc/meminfo"), "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or_default();
    let rows = [
        ("processor", field(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores.to_string()),
        ("memory", format!("{:.1} GiB", memory_kib as f64 / f64::from(1 << 20))),
        ("kernel", version(&read("/proc/sys/kernel/osrelease"))),
        ("file system of `target/`", file_system(&root.join("target"), &read("/proc/mounts"))),
        ("compiler", compiler()),
    ];
    let rows = rows.map(|(what, value)| format!("| {what} | {value} |\n"));
    format!("| | |\n| --- | --- |\n{}", rows.concat())
}

/// The type of the file system that `path` is on, by the longest mount point above it.
fn file_system(path: &Path, mounts: &str) -> String {
    let path = path.canonicalize().unwrap_or(path.to_owned());
    let above = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    above.max_by_key(|(length, _)| *length).map_or("?".into(), |(_, kind)| kind.to_owned())
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output();
    said.map_or("?".into(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "| a | b | 1.00 us (0.90 to 1.10) | 1.00 (1.00 to 1.00) |";

    #[test]
    fn rows_and_figures_are_told_from_what_else_is_printed() {
        let mut output = Output::default();
        let lines = [
            "| what | how | took | of the first |",
            ROW,
            "hold of 10M seats/a name that is longer",
            "                        time:   [1.0 µs 2.5 µs 3.0 µs]",
            "hold of 10M seats/b     time:   [1.0 ns 5.0 ns 9.0 ns]",
            "                        change: [-1% +1% +2%] (p = 0.05 < 0.05)",
        ];
        lines.iter().for_each(|line| output.line(line));
        assert_eq!(output.rows, [ROW]);
        let rows = output.groups[0].rows();
        assert!(rows[0].contains("2500 ns") && rows[0].contains("longer"), "{rows:?}");
        assert!(rows[1].contains("5.00 ns") && rows[1].contains("0.00 ("), "{rows:?}");
    }

    #[test]
    fn only_what_was_run_is_replaced() {
        let text = format!("top\n{BEGIN}\n\n### a\n\nold a\n\n### b\n\nold b\n\n{END}\nend\n");
        let sections = vec![("b".to_owned(), "new b\n".to_owned()), ("c".into(), "c\n".into())];
        let text = replaced(&text, sections).expect("it has marks");
        let middle = "\n\n### a\n\nold a\n\n### b\n\nnew b\n\n### c\n\nc\n\n";
        assert_eq!(text, format!("top\n{BEGIN}{middle}{END}\nend\n"));
        assert_eq!(replaced(&text, Vec::new()).as_ref(), Some(&text), "and nothing else moves");
        assert!(replaced("no marks", Vec::new()).is_none());
    }
}
