//! Tmomi's engine: decides who gets which seat, and who is next, in memory and without a lock.
//!
//! The engine decides and only decides. It has no clock, socket, file or allocator trick in it:
//! time is an argument, and every decision comes out as a fixed 64-byte [`Event`](event::Event)
//! that a log can keep and replay. Any number of threads decide at once, each with a
//! [`Handle`]; one thread, the [`Keeper`], reads the decisions in their order and lets time pass.
//!
//! # The protocol
//!
//! ```text
//!   any thread, with its Handle                          one thread: Keeper
//!
//!   1 room in the ring?  no: RingFull
//!   2 take    free &= !seats   (one CAS, the decision)
//!             or the hold's word -> BUSY
//!   3 claim   seq = ring.claim(n)      (one fetch_add)
//!             write the n events
//!             publish ------------------> ring ------->  drain: whole decisions, by number
//!   4 settle  the hold's word, freed seats,              -> log, images, timers
//!             the buyer's account                        tick: expire, end sessions, admit
//! ```
//!
//! Every change of a seat, a hold or an entry happens while one thread owns it alone, and the
//! sequence number is taken while it does. So the order of the numbers is a legal order of the
//! decisions: for any seat, hold, confirm, release and hold again stand in the log in the order
//! in which they happened. The events of one decision are consecutive, and the keeper never
//! gives out part of a decision.
//!
//! Two threads meet only on the words that their requests share: a block of seats, a hold, a
//! buyer's entry, and the counter of sequence numbers. A refusal writes nothing.
//!
//! # Use
//!
//! ```
//! use std::sync::Arc;
//! use tmomi_engine::event::{Batch, LineSettings};
//! use tmomi_engine::ids::{BuyerId, Part, RowIndex, ShowtimeId, TierIndex, TimeMs};
//! use tmomi_engine::layout::{Layout, LayoutSpec, SectionSpec};
//! use tmomi_engine::{Context, Engine, EngineConfig, HoldRequest, OpenShowtime};
//!
//! let hall = SectionSpec::Uniform {
//!     rows: 20,
//!     seats_per_row: 30,
//!     tier: TierIndex(0),
//!     first_distance: 0,
//! };
//! let layout = Arc::new(Layout::build(LayoutSpec { sections: vec![hall] })?);
//! let (engine, mut keeper) = Engine::new(EngineConfig::default());
//! let mut handle = engine.handle().expect("the first of 64");
//!
//! let now = TimeMs(1_767_225_600_000);
//! let open = OpenShowtime {
//!     showtime: ShowtimeId(1),
//!     layout: Arc::clone(&layout),
//!     blob: Box::default(),
//!     limit: 4,
//!     hold_ttl_ms: 300_000,
//!     line: LineSettings::default(),
//!     opens_at: now,
//!     closes_at: TimeMs(u64::MAX),
//! };
//! let (house, _) = handle.open(now, open).expect("not open yet");
//!
//! let entry = handle.enter(&house, BuyerId(7), now).expect("there is room");
//! let seat = layout.seat(RowIndex(3), 12).expect("row 3 has 30 seats");
//! let seats = [Part { block: seat.block(), mask: 1 << seat.bit() }];
//! let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: false };
//! let held = handle.hold(&house, request, &seats, Context::at(now)).expect("it is free");
//! assert!(handle.hold(&house, request, &seats, Context::at(now)).is_err());
//! handle.confirm(held.id, None, Context::at(now)).expect("it is his");
//!
//! let mut decided = Batch::default();
//! keeper.drain(&mut decided, 100);
//! assert_eq!(decided.events.len(), 5); // opened, line set, buyer, held, confirmed
//! # Ok::<(), tmomi_engine::layout::LayoutError>(())
//! ```
//!
//! # Map
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`ids`], [`event`] | the words: numbers; outcomes in 64 bytes |
//! | [`layout`], [`state`] | a house; a shard at rest |
//! | `seat_map` | masks of free seats; the CAS that decides; trying several blocks |
//! | `best` | which seats to try for a request that names none; general admission too |
//! | `hold` | the slab of holds and the state word they race on |
//! | `line`, `index` | entries, numbers, the buyer's account; who has which entry |
//! | `ring`, `emit` | sequence numbers, publishing, draining |
//! | `wheel`, `keeper` | timers; the one who drains, expires and admits |
//! | `handle`, `engine`, `house` | the operations in terms of the words above |
//! | [`naive`] | the same operations behind plain collections, for tests and benches |

mod back;
mod best;
mod emit;
mod engine;
mod entry;
pub mod event;
mod handle;
mod hold;
mod house;
pub mod ids;
mod index;
mod keeper;
pub mod layout;
mod line;
#[cfg(all(test, loom))]
mod model;
pub mod naive;
mod reject;
mod ring;
mod seat_map;
pub mod state;
mod summary;
mod sync;
mod table;
mod timers;
mod wheel;

pub use best::{BEST_SEATS_MAX, BestRequest};
pub use engine::{Engine, EngineConfig, SHOWTIMES_MAX};
pub use entry::LIMIT_MAX;
pub use handle::{Context, Extended, Handle, Held, HoldRequest, Joined, OpenShowtime};
pub use hold::{HOLD_TTL_MS_MAX, HOLD_TTL_MS_MIN, SLOTS_MAX};
pub use house::House;
pub use keeper::Keeper;
pub use reject::{Conflict, Reject, SeatState};
pub use ring::{DECISION_EVENTS_MAX, PARTS_MAX, WRITER_EVENTS_MAX};
