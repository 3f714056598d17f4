//! One showtime of an image.

use std::sync::Arc;

use tmomi_engine::event::LineSettings;
use tmomi_engine::ids::{BlockIndex, BuyerId, EntryId, LineNumber, Part, SectionIndex, Seq};
use tmomi_engine::layout::Layout;

use super::line::{Entry, Line};
use super::seats::{Counts, Masks, Seats};

/// Everything about one showtime that its events say.
#[derive(Clone, Debug)]
pub struct ShowtimeImage {
    pub(crate) layout: Arc<Layout>,
    pub(crate) seats: Seats,
    pub(crate) line: Line,
    pub(crate) terms: Terms,
    pub(crate) settings: LineSettings,
    pub(crate) last_seq: Seq,
    pub(crate) seats_seq: Seq,
    pub(crate) past: Past,
}

/// What has ever become of a showtime's seats, whatever they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Past {
    /// No seat was ever held.
    Untouched,
    /// Somebody was told a price.
    Held,
    /// There are orders, refunded ones perhaps.
    Sold,
}

/// Limit and hold time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) limit: u32,
    /// The highest limit so far. A hold that was decided just before the limit was lowered may be
    /// logged just after, so this is what no buyer is ever above.
    pub(crate) limit_highest: u32,
    pub(crate) hold_ttl_ms: u32,
}

impl ShowtimeImage {
    pub(crate) fn new(layout: Arc<Layout>, limit: u32, hold_ttl_ms: u32) -> ShowtimeImage {
        ShowtimeImage {
            seats: Seats::new(&layout),
            layout,
            line: Line::default(),
            terms: Terms { limit, limit_highest: limit, hold_ttl_ms },
            settings: LineSettings::default(),
            last_seq: Seq(0),
            seats_seq: Seq(0),
            past: Past::Untouched,
        }
    }

    /// Its layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Seats a buyer may have held or bought at a time.
    pub fn limit(&self) -> u32 {
        self.terms.limit
    }

    /// How long a hold lasts unless the request says otherwise, in ms.
    pub fn hold_ttl_ms(&self) -> u32 {
        self.terms.hold_ttl_ms
    }

    /// The settings of its line.
    pub fn settings(&self) -> &LineSettings {
        &self.settings
    }

    /// The last event that was about it.
    pub fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// The last event that changed one of its seats, or opened it.
    pub fn seats_seq(&self) -> Seq {
        self.seats_seq
    }

    /// What has ever become of its seats.
    pub fn past(&self) -> Past {
        self.past
    }

    /// The seats of one section by state; `None` if there is no such section.
    pub fn section(&self, section: SectionIndex) -> Option<Counts> {
        self.seats.section(section)
    }

    /// The seats of every section by state, in plan order.
    pub fn sections(&self) -> &[Counts] {
        self.seats.sections()
    }

    /// All seats by state.
    pub fn counts(&self) -> Counts {
        self.sections().iter().fold(Counts::default(), |sum, section| Counts {
            free: sum.free + section.free,
            held: sum.held + section.held,
            sold: sum.sold + section.sold,
            blocked: sum.blocked + section.blocked,
        })
    }

    /// The seats of one block; `None` if there is no such block.
    pub fn masks(&self, block: BlockIndex) -> Option<Masks> {
        self.seats.masks(block)
    }

    /// The entries by [`EntryId`]. Slots that nobody has are there too; see
    /// [`entry`](Self::entry).
    pub fn entries(&self) -> &[Entry] {
        self.line.entries()
    }

    /// An entry; `None` if nobody has it.
    pub fn entry(&self, entry: EntryId) -> Option<&Entry> {
        self.line.entry(entry)
    }

    /// The entry of a buyer, if he has one.
    pub fn entry_of(&self, buyer: BuyerId) -> Option<EntryId> {
        self.line.entry_of(buyer)
    }

    /// How many numbers below `number` wait and were not passed over.
    pub fn ahead(&self, number: LineNumber) -> u32 {
        self.line.positions().ahead(number)
    }

    /// The highest number given; [`LineNumber::NONE`] before the first.
    pub fn last_number(&self) -> LineNumber {
        self.line.positions().last()
    }

    /// Entries in the line, passed over or not.
    pub fn waiting(&self) -> u32 {
        self.line.waiting()
    }

    /// Entries that are let in.
    pub fn active(&self) -> u32 {
        self.line.active()
    }

    /// The blocked seats, by block.
    pub(crate) fn blocked(&self) -> Vec<Part> {
        let masks = self.seats.all_masks().map(|masks| masks.blocked).enumerate();
        masks
            .filter(|(_, mask)| *mask != 0)
            .map(|(block, mask)| Part { block: BlockIndex(block as u32), mask })
            .collect()
    }
}
