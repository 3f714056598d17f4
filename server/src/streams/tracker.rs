//! What a seat map is and what changed on it, from the events.
//!
//! The tracker folds the events of one showtime into masks of its own and remembers every seat
//! they touched. Comparing two images instead would be simpler, and wrong: a client may read the
//! map between two frames, and a seat that was held just then and is free again at both ends
//! would stay held on that client's map for ever. So the next frame has the final state of every
//! seat that was touched, changed or not.

use tmomi_engine::SeatState;
use tmomi_engine::event::{Batch, Body, Event, EventWords};
use tmomi_engine::ids::{BlockIndex, Part, SectionIndex, Seq, ShowtimeId};
use tmomi_engine::layout::Layout;
use tmomi_persist::image::{Image, Masks};
use tmomi_persist::plan::Plan;

/// The seats of a block that are in one state.
type MaskOf = fn(&Masks) -> u64;

/// One showtime at one number.
#[derive(Debug)]
pub(crate) struct Tracker {
    showtime: ShowtimeId,
    seq: Seq,
    /// By block.
    masks: Box<[Masks]>,
    /// By block: what was touched since it was last told.
    touched: Box<[u64]>,
    /// The blocks that have a touched seat, each once. Places of general admission are not on the
    /// map and not here.
    blocks: Vec<BlockIndex>,
    /// Free seats by section.
    free: Box<[u32]>,
    /// Some section had more or fewer free seats in between.
    counts_touched: bool,
    /// What the parts of the decision that is being read become.
    becomes: Option<SeatState>,
}

impl Tracker {
    /// The showtime as the image has it, with nothing touched; `None` if it was never opened.
    pub(crate) fn new(image: &Image, showtime: ShowtimeId) -> Option<Tracker> {
        let found = image.showtime(showtime)?;
        let blocks = found.layout().blocks().len();
        let masks = (0..blocks).map(|block| {
            found.masks(BlockIndex(block as u32)).expect("an image has the blocks of its layout")
        });
        Some(Tracker {
            showtime,
            seq: image.applied(),
            masks: masks.collect(),
            touched: vec![0; blocks].into(),
            blocks: Vec::new(),
            free: found.sections().iter().map(|counts| counts.free).collect(),
            counts_touched: false,
            becomes: None,
        })
    }

    /// The number of the last event that is in it.
    pub(crate) fn seq(&self) -> Seq {
        self.seq
    }

    /// Free seats of every section, in plan order.
    pub(crate) fn free(&self) -> &[u32] {
        &self.free
    }

    /// Whether there is anything to tell.
    pub(crate) fn touched(&self) -> bool {
        self.seats_touched() || self.counts_touched
    }

    /// Whether a seat of the map was touched since the last [`told`](Self::told).
    pub(crate) fn seats_touched(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Whether the counts were touched since this was last asked.
    pub(crate) fn take_counts_touched(&mut self) -> bool {
        std::mem::take(&mut self.counts_touched)
    }

    /// Folds a batch. What it has already is left out.
    pub(crate) fn follow(&mut self, batch: &Batch, layout: &Layout) {
        let known = batch.events.partition_point(|words| words[0] <= self.seq.0);
        let ours = u64::from(self.showtime.0);
        for words in batch.events[known..].iter().filter(|words| words[2] >> 32 == ours) {
            self.apply(words, layout);
        }
        self.seq = self.seq.max(batch.last_seq().unwrap_or_default());
    }

    fn apply(&mut self, words: &EventWords, layout: &Layout) {
        // The image has read the same words before.
        let event = Event::unpack(words).expect("an event that was applied");
        let (first, becomes) = match event.body {
            Body::Held { first, .. } => (first, SeatState::Held),
            Body::Confirmed { first, .. } => (first, SeatState::Sold),
            Body::Blocked { first, .. } => (first, SeatState::Blocked),
            Body::Released { first, .. }
            | Body::Expired { first, .. }
            | Body::Refunded { first, .. }
            | Body::Unblocked { first, .. } => (first, SeatState::Free),
            Body::More { parts } => {
                if let Some(becomes) = self.becomes {
                    let used = parts.into_iter().filter(|part| part.mask != 0);
                    used.for_each(|part| self.turn(part, becomes, layout));
                }
                return;
            }
            _ => {
                self.becomes = None;
                return;
            }
        };
        self.becomes = Some(becomes);
        self.turn(first, becomes, layout);
    }

    fn turn(&mut self, part: Part, becomes: SeatState, layout: &Layout) {
        let Part { block, mask } = part;
        let index = block.0 as usize;
        let masks = &mut self.masks[index];
        let taken = (masks.held | masks.sold | masks.blocked) & mask;
        masks.held &= !mask;
        masks.sold &= !mask;
        masks.blocked &= !mask;
        match becomes {
            SeatState::Free => {}
            SeatState::Held => masks.held |= mask,
            SeatState::Sold => masks.sold |= mask,
            SeatState::Blocked => masks.blocked |= mask,
        }
        let SectionIndex(section) = layout.block(block).section;
        let free = &mut self.free[usize::from(section)];
        let (was, now) = match becomes {
            SeatState::Free => (mask & !taken, mask),
            _ => (mask & !taken, 0),
        };
        *free = *free - was.count_ones() + now.count_ones();
        self.counts_touched |= was != now;
        if layout.sections()[usize::from(section)].general {
            return;
        }
        if self.touched[index] == 0 {
            self.blocks.push(block);
        }
        self.touched[index] |= mask;
    }

    /// Everything that was touched has been told.
    pub(crate) fn told(&mut self) {
        for block in self.blocks.drain(..) {
            self.touched[block.0 as usize] = 0;
        }
    }

    /// Writes the data of a `seats` event: the state of every seat that was touched.
    pub(crate) fn push_seats(&self, out: &mut String, seq: &str, plan: &Plan, layout: &Layout) {
        let states: [(&str, MaskOf); 4] = [
            ("free", |now| !(now.held | now.sold | now.blocked)),
            ("held", |now| now.held),
            ("sold", |now| now.sold),
            ("blocked", |now| now.blocked),
        ];
        out.push_str("{\"seq\":\"");
        out.push_str(seq);
        out.push('"');
        let mut id = String::new();
        for (state, mask_of) in states {
            out.push_str(",\"");
            out.push_str(state);
            out.push_str("\":");
            let mut separator = '[';
            for &block in &self.blocks {
                let index = block.0 as usize;
                let mask = self.touched[index] & mask_of(&self.masks[index]);
                let part = Part { block, mask };
                for seat in part.seats() {
                    out.push(separator);
                    separator = ',';
                    id.clear();
                    plan.push_seat_id(layout, seat, &mut id);
                    push_text(out, &id);
                }
            }
            out.push_str(if separator == '[' { "[]" } else { "]" });
        }
        out.push('}');
    }
}

/// Writes the data of a `counts` event: the free seats of every section, in plan order.
pub(crate) fn push_counts(out: &mut String, seq: &str, free: &[u32], plan: &Plan) {
    out.push_str("{\"seq\":\"");
    out.push_str(seq);
    out.push_str("\",\"sections\":");
    let mut separator = '[';
    for (section, free) in plan.sections().zip(free) {
        out.push(separator);
        separator = ',';
        out.push_str("{\"name\":");
        push_text(out, section.name());
        out.push_str(",\"free\":");
        out.push_str(&free.to_string());
        out.push('}');
    }
    out.push_str("]}");
}

/// Writes a text as JSON has it.
fn push_text(out: &mut String, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("a text is JSON"));
    }
}
