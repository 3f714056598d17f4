//! The two streams. Each showtime with readers has one task a stream, the hub: it follows what
//! is applied, and hands what changed to all readers.
//!
//! ```text
//! applied batches -> tracker (masks, touched) -> frames (ring, one encoding) -> readers   seats
//! image ----------> one pass over all slots: who stands where ---> slots -----> readers   line
//! ```
//!
//! A reader is a cursor or a slot and has no timer of its own: comments and signs of life are the
//! hub's. A reader that does not read costs what it has, is told `reset` when the ring overtakes
//! it, and its connection is cut when its client takes no byte for long. Nothing here is ever
//! waited for by a decision.

mod frames;
pub(crate) mod line;
pub(crate) mod seats;
mod slot;
pub(crate) mod sse;
#[cfg(test)]
pub(crate) mod tests;
mod tracker;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tmomi_engine::ids::ShowtimeId;

use crate::app::AppState;
use crate::problem::{Code, Problem, Result};
use line::LineHub;
use seats::SeatHub;

/// A comment is sent so often.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// All hubs, by showtime, and the public streams by address.
#[derive(Default)]
pub(crate) struct Streams {
    seats: Mutex<HashMap<ShowtimeId, Arc<SeatHub>>>,
    lines: Mutex<HashMap<ShowtimeId, Arc<LineHub>>>,
    addresses: Mutex<HashMap<IpAddr, u32>>,
}

impl Streams {
    /// No stream is open.
    pub(crate) fn new() -> Streams {
        Streams::default()
    }
}

/// A public stream counts for its address while this lives.
#[must_use]
struct AddressSlot {
    app: AppState,
    address: IpAddr,
}

impl AddressSlot {
    /// Counts one more stream of an address, of which there may be as many as connections.
    ///
    /// # Errors
    ///
    /// 429 `rate-limited`.
    fn take(app: &AppState, address: IpAddr) -> Result<AddressSlot> {
        let address = household(address);
        let mut addresses = app.streams.addresses.lock();
        let open = addresses.entry(address).or_default();
        if app.settings.rate_limits.is_on() && *open >= app.settings.address_connections_max {
            let detail = "too many open streams of this address";
            return Err(Problem::new(Code::RateLimited, detail).retry_after_ms(1_000));
        }
        *open += 1;
        Ok(AddressSlot { app: Arc::clone(app), address })
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut addresses = self.app.streams.addresses.lock();
        if let Some(open) = addresses.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What one household has: an address, or the first 64 bits of a v6 one.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}
