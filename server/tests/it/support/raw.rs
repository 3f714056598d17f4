//! Bytes on a socket, for what no HTTP client would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a server did with some bytes.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What it answered.
    pub(crate) bytes: Vec<u8>,
    /// Whether it closed the connection.
    pub(crate) closed: bool,
    /// How long that took.
    pub(crate) took: Duration,
}

impl Outcome {
    /// The status of an HTTP/1.1 answer; 0 if there is none.
    pub(crate) fn status(&self) -> u16 {
        let text = String::from_utf8_lossy(&self.bytes);
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The answer as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A connection without manners.
pub(crate) struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).await.expect("the server accepts");
        stream.set_nodelay(true).expect("a connected socket");
        Raw { stream }
    }

    /// Sends bytes; false if the server has closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Ends the sending side only.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("a connected socket");
    }

    /// Reads until `text` has come; gives all that came, and panics if that is not it.
    pub(crate) async fn read_until(&mut self, text: &str, within: Duration) -> String {
        let (end, mut heard) = (Instant::now() + within, String::new());
        let mut buffer = vec![0; 16 * 1024];
        while !heard.contains(text) {
            let read = tokio::time::timeout_at(end, self.stream.read(&mut buffer)).await;
            let count = read.ok().and_then(Result::ok).filter(|count| *count > 0);
            let count = count.unwrap_or_else(|| panic!("no {text} in {heard}"));
            heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        heard
    }

    /// Reads until the server closes or `within` has passed.
    pub(crate) async fn read_to_close(&mut self, within: Duration) -> Outcome {
        let start = Instant::now();
        let mut outcome = Outcome { bytes: Vec::new(), closed: false, took: Duration::ZERO };
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read) =
            tokio::time::timeout_at(start + within, self.stream.read(&mut buffer)).await
        {
            match read {
                Ok(0) | Err(_) => {
                    outcome.closed = true;
                    break;
                }
                Ok(count) => outcome.bytes.extend_from_slice(&buffer[..count]),
            }
        }
        outcome.took = start.elapsed();
        outcome
    }
}

/// Sends `bytes` on a new connection and waits for the close.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8], within: Duration) -> Outcome {
    let mut raw = Raw::connect(address).await;
    raw.send(bytes).await;
    raw.read_to_close(within).await
}
