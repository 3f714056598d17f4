//! The real servers that the tests talk to are there, and one can be harmed alone.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::Duration;

use crate::servers::{self, Kind, Own};

/// What MySQL and MariaDB say first: four bytes of length and number, the protocol, and the
/// version up to a zero.
fn version(address: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut stream = BufReader::new(stream);
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    assert_eq!(head[4], 10, "the protocol that all of them speak");
    let mut version = Vec::new();
    stream.read_until(0, &mut version)?;
    Ok(String::from_utf8(version).expect("a version is text"))
}

#[test]
fn each_server_answers() {
    let mysql = version(&servers::mysql()).expect("MySQL answers");
    assert!(mysql.starts_with("9."), "MySQL is {mysql}");
    let mariadb = version(&servers::mariadb()).expect("MariaDB answers");
    assert!(mariadb.contains("10.11.") && mariadb.contains("MariaDB"), "MariaDB is {mariadb}");
    TcpStream::connect(servers::kafka()).expect("Kafka answers");
}

#[test]
fn a_server_of_ones_own_comes_back_after_kill_on_its_port() {
    let mut own = Own::start(Kind::MySql);
    assert_ne!(own.address(), servers::mysql(), "it is not the shared one");
    assert!(version(own.address()).expect("it answers").starts_with("9."));

    own.kill();
    version(own.address()).expect_err("it is dead");
    version(&servers::mysql()).expect("the shared one goes on");

    own.restart();
    version(own.address()).expect("it is back");

    own.pause();
    let why = version(own.address()).expect_err("it cannot answer");
    assert_eq!(why.kind(), std::io::ErrorKind::WouldBlock, "its port is still there");
    own.resume();
    version(own.address()).expect("it goes on");
}
