//! What a client's `Idempotency-Key` led to.

use tmomi_engine::ids::{EntryId, HoldId, LineNumber, RequestKey, Seq, ShowtimeId, TimeMs};

use super::recent::{Recent, Remembered};

/// Keys remembered at most: some 1.5 GB. A shard that takes more within a day forgets the oldest
/// early.
const KEYS_MAX: usize = 1 << 24;

/// The outcome that a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A number in the line; the entry had none in the line before.
    Joined {
        /// Where.
        showtime: ShowtimeId,
        /// Whose.
        entry: EntryId,
        /// The number.
        number: LineNumber,
        /// The end of the session, if the decision itself let the entry in.
        admitted_until: Option<TimeMs>,
        /// The last event of the decision, as in all outcomes.
        seq: Seq,
    },
    /// A hold.
    Held {
        /// Which.
        id: HoldId,
        /// Its deadline when it was made.
        deadline: TimeMs,
        /// The decision.
        seq: Seq,
    },
    /// An order.
    Confirmed {
        /// Which.
        id: HoldId,
        /// The decision.
        seq: Seq,
    },
    /// A refund.
    Refunded {
        /// Of which order.
        id: HoldId,
        /// The decision.
        seq: Seq,
    },
    /// Seats off sale.
    Blocked {
        /// Where.
        showtime: ShowtimeId,
        /// How many.
        seats: u32,
        /// The decision.
        seq: Seq,
    },
    /// Blocked seats on sale again.
    Unblocked {
        /// Where.
        showtime: ShowtimeId,
        /// How many.
        seats: u32,
        /// The decision.
        seq: Seq,
    },
}

/// A key that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyImage {
    /// Fingerprint of path and body: another one under the same key is misuse.
    pub fingerprint: u64,
    /// When the decision was made.
    pub at: TimeMs,
    /// What it was.
    pub outcome: Outcome,
}

/// A key with its hash.
#[derive(Clone, Debug)]
struct Hashed {
    hash: u64,
    key: KeyImage,
}

impl Remembered for Hashed {
    fn key(&self) -> u64 {
        self.hash
    }

    fn at(&self) -> TimeMs {
        self.key.at
    }
}

/// The keys of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    recent: Recent<Hashed>,
}

impl Keys {
    pub(crate) fn new() -> Keys {
        Keys { recent: Recent::new(KEYS_MAX) }
    }

    pub(crate) fn get(&self, hash: u64) -> Option<&KeyImage> {
        self.recent.get(hash).map(|hashed| &hashed.key)
    }

    /// Remembers the outcome, if the client sent a key at all.
    pub(crate) fn remember(&mut self, key: RequestKey, at: TimeMs, outcome: Outcome) {
        if key.is_some() {
            self.restore(key.hash, KeyImage { fingerprint: key.fingerprint, at, outcome });
        }
    }

    /// Loads where the key will be entered: of no meaning, but it is in the cache then.
    #[inline]
    pub(crate) fn touch(&self, key: RequestKey) -> u64 {
        if key.is_some() { self.recent.touch(key.hash) } else { 0 }
    }

    /// Puts a key behind all others.
    pub(crate) fn restore(&mut self, hash: u64, key: KeyImage) {
        self.recent.insert(Hashed { hash, key });
    }

    pub(crate) fn forget(&mut self, now: TimeMs) {
        self.recent.forget(now);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.recent.len()
    }

    /// Hash and image, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &KeyImage)> {
        self.recent.iter().map(|hashed| (hashed.hash, &hashed.key))
    }
}
