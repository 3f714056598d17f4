//! Data folders that must not be served: damaged, in use, of a newer version.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::house::{self, Sale};
use crate::support::tools::files_below;
use crate::support::{Launch, Server};

/// A folder with some sales in its journal; whether the server ended well decides whether they
/// are in a snapshot, too.
async fn used_folder(crash: bool) -> Launch {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(20, 60), json!({ "limit": 1_000 })).await;
    let buyer = house::buyer(&server).await;
    for n in 0..100 {
        sale.bought(&buyer, &[&format!("A-{}-{}", n / 60 + 1, n % 60 + 1)]).await;
    }
    if crash { server.kill() } else { server.stop() }
}

fn files_of(launch: &Launch, part: &str) -> Vec<PathBuf> {
    let files = files_below(launch.data());
    let relative = |path: &PathBuf| path.strip_prefix(launch.data()).map(Path::to_owned);
    let of_part =
        |path: &PathBuf| relative(path).is_ok_and(|path| path.to_string_lossy().contains(part));
    let found: Vec<PathBuf> = files.iter().filter(|path| of_part(path)).cloned().collect();
    assert!(!found.is_empty(), "no file of {part} among {files:?}");
    found
}

/// Changes one byte and gives it back.
fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).expect("a file of the server");
    bytes[offset] ^= 0x10;
    std::fs::write(path, bytes).expect("we own it");
}

/// Whether a message says where in the file: "byte 123".
fn names_a_byte(said: &str) -> bool {
    let after = said.split("byte ").skip(1);
    after.map(str::chars).any(|mut rest| rest.next().is_some_and(|c| c.is_ascii_digit()))
}

/// CRC-32C (Castagnoli), bit by bit: to make a header that is sound and new.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(!0, byte)
}

/// The first file with something in it, and how many of its bytes are not padding.
fn filled(paths: &[PathBuf]) -> (PathBuf, usize) {
    let with_length = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("a file of the server");
        let last = bytes.iter().rposition(|byte| *byte != 0)?;
        Some((path.clone(), last + 1))
    };
    paths.iter().filter_map(with_length).max_by_key(|(_, used)| *used).expect("one has content")
}

/// Rule R13. Planted bug: the checksum is skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_the_journal_stops_the_start_and_names_file_and_offset() {
    let launch = used_folder(true).await;
    let (path, used) = filled(&files_of(&launch, ".journal"));
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    for part in [4, 2] {
        let offset = used / part;
        flip(&path, offset);
        let (_, said) = launch.start_refused();
        assert!(said.contains(&name), "the file {name} is not named:\n{said}");
        assert!(names_a_byte(&said), "no offset is named:\n{said}");
        let (status, said) = launch.run(&["journal", "verify"]);
        assert!(!status.success() && said.contains(&name), "verify says:\n{said}");
        flip(&path, offset);
    }
    // Mended, it serves everything again.
    let (status, said) = launch.run(&["journal", "verify"]);
    assert!(status.success(), "{said}");
    launch.start();
}

/// Rule R13. Planted bug: a snapshot's checksum covers its head only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_a_snapshot_is_noticed() {
    let launch = used_folder(false).await;
    let (path, used) = filled(&files_of(&launch, "snap"));
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    for part in [4, 2] {
        flip(&path, used / part);
        let (status, said) = launch.run(&["snapshot", "verify"]);
        assert!(!status.success() && said.contains(&name), "verify says:\n{said}");
        let (_, said) = launch.start_refused();
        assert!(said.contains(&name), "the file {name} is not named:\n{said}");
        assert!(names_a_byte(&said), "no offset is named:\n{said}");
        assert!(said.contains("move this file"), "what to do is not said:\n{said}");
        flip(&path, used / part);
    }
    launch.start();
}

/// A torn tail is what a power cut leaves: it is cut, and everything before it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_cut() {
    let launch = used_folder(true).await;
    let (path, used) = filled(&files_of(&launch, ".journal"));
    let mut bytes = std::fs::read(&path).expect("a file of the server");
    bytes[used - 10..].fill(0);
    std::fs::write(&path, bytes).expect("we own it");
    let server = launch.start();
    let shows = crate::support::Client::stranger(server.address()).get("/v1/shows").await;
    assert_eq!(shows.status, 200);
}

/// The version stands at byte 8 of a segment, the checksum of the first 28 bytes behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_a_newer_version_is_refused() {
    let launch = used_folder(true).await;
    let (path, _) = filled(&files_of(&launch, ".journal"));
    let old = std::fs::read(&path).expect("a file of the server");
    let mut new = old.clone();
    new[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let check = crc32c(&new[..28]);
    new[28..32].copy_from_slice(&check.to_le_bytes());
    std::fs::write(&path, new).expect("we own it");
    let (_, said) = launch.start_refused();
    assert!(said.contains("newer") && said.contains("version 2"), "{said}");
    std::fs::write(&path, old).expect("we own it");
    launch.start();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_segment_stops_the_start() {
    let server = Launch::new().set("TMOMI_SEGMENT_BYTES", "1048576").start();
    let sale = Sale::open(&server, house::rows(500, 100), json!({ "limit": 100_000 })).await;
    let buyer = house::buyer(&server).await.user_id;
    let line = |n: usize| {
        let seat = format!("A-{}-{}", n / 100 + 1, n % 100 + 1);
        json!({ "idempotency_key": format!("k{n}"), "buyer": buyer, "seats": [seat] })
    };
    for first in (0..50_000).step_by(10_000) {
        let lines: Vec<_> = (first..first + 10_000).map(line).collect();
        crate::support::batch::batch(&sale, &lines).await;
    }
    let launch = server.kill();
    let segments: Vec<PathBuf> = files_of(&launch, ".journal");
    assert!(segments.len() > 3, "several segments: {segments:?}");
    let aside = launch.folder().join("aside");
    std::fs::rename(&segments[segments.len() / 2], &aside).expect("we own it");
    let (_, said) = launch.start_refused();
    assert!(said.contains("journal") || said.contains("segment"), "{said}");
    std::fs::rename(&aside, &segments[segments.len() / 2]).expect("we own it");
    let server = launch.start();
    assert_eq!(sale.stats().await["held"], 50_000);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_in_use_is_refused() {
    let server = Server::start();
    let second = server.launch().clone().elsewhere();
    let (_, said) = second.start_refused();
    assert!(said.contains("in use") || said.contains("another process"), "{said}");
    let reply = crate::support::Client::stranger(server.address()).get("/v1/shows").await;
    assert_eq!(reply.status, 200, "the first goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_said() {
    let server = Server::start();
    let folder = server.launch().folder().join("other");
    let second = server.launch().clone().on(&folder);
    let (_, said) = second.start_refused();
    assert!(said.contains(&server.address().port().to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_are_none_are_refused_by_name() {
    let launch = Launch::new();
    let (_, said) = launch.clone().set("TMOMI_LISTENN", "x").start_refused();
    assert!(said.contains("TMOMI_LISTENN"), "{said}");
    let (_, said) = launch.clone().set("TMOMI_SEGMENT_BYTES", "1").start_refused();
    assert!(said.to_lowercase().contains("segment_bytes"), "{said}");
    let (_, said) = launch.clone().set("TMOMI_ADMIN_PASSWORD", "").start_refused();
    assert!(said.to_lowercase().contains("admin"), "{said}");
    let file = launch.folder().join("tmomi.toml");
    std::fs::write(&file, "lisen = 'x'\n").expect("our folder");
    let path = file.to_string_lossy().into_owned();
    let (_, said) = launch.arguments(&["serve", "--config", &path]).start_refused();
    assert!(said.contains("lisen") && said.contains("tmomi.toml"), "{said}");
}

/// The catalog has the keys that sign tokens. Planted bug: files are made as the shell says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let launch = Launch::new();
    std::fs::create_dir(launch.data()).expect("a folder");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(launch.data(), everybody).expect("it is ours");
    let server = launch.start();
    let files = files_below(launch.data());
    assert!(files.iter().any(|file| file.ends_with("catalog.db")), "{files:?}");
    for file in files {
        let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
    drop(server);
}
