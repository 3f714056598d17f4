//! What stands in every record of the engine's slab, four bytes each.
//!
//! In pieces that are made when a record of theirs is first used, so that a record's number, which
//! an event or a snapshot may claim at will, costs no more than its piece.

use tmomi_engine::SLOTS_MAX;
use tmomi_engine::ids::HoldSlot;

/// Records of a piece: 16 KiB.
const PIECE_SLOTS: usize = 1 << 12;
/// Set if the number is an order's.
const IS_ORDER: u32 = 1 << 31;

/// What stands in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing.
    Free,
    /// The active hold with this number.
    Active(u32),
    /// The order with this number.
    Order(u32),
}

/// What stands in all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    pieces: Vec<Option<Box<[u32; PIECE_SLOTS]>>>,
}

impl Slots {
    /// What stands in the record.
    #[inline]
    pub(super) fn get(&self, slot: HoldSlot) -> Slot {
        let (piece, at) = locate(slot);
        match self.pieces.get(piece) {
            Some(Some(piece)) => unpack(piece[at]),
            _ => Slot::Free,
        }
    }

    /// Loads what stands in the record: of no meaning, but it is in the cache then.
    #[inline]
    pub(super) fn touch(&self, slot: HoldSlot) -> u64 {
        let (piece, at) = locate(slot);
        match self.pieces.get(piece) {
            Some(Some(piece)) => piece[at].into(),
            _ => 0,
        }
    }

    /// Puts something into the record, whose number is below [`SLOTS_MAX`].
    #[inline]
    pub(super) fn set(&mut self, slot: HoldSlot, stands: Slot) {
        debug_assert!(slot.0 < SLOTS_MAX);
        let (piece, at) = locate(slot);
        match self.pieces.get_mut(piece) {
            Some(Some(piece)) => piece[at] = pack(stands),
            _ => self.make_piece(piece)[at] = pack(stands),
        }
    }

    /// What stands in the records, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> {
        self.pieces.iter().flatten().flat_map(|piece| piece.iter().map(|word| unpack(*word)))
    }

    #[cold]
    fn make_piece(&mut self, piece: usize) -> &mut [u32; PIECE_SLOTS] {
        if piece >= self.pieces.len() {
            self.pieces.resize_with(piece + 1, || None);
        }
        let zeroed = || vec![0; PIECE_SLOTS].try_into().expect("it has as many");
        self.pieces[piece].get_or_insert_with(zeroed)
    }
}

fn locate(slot: HoldSlot) -> (usize, usize) {
    (slot.0 as usize / PIECE_SLOTS, slot.0 as usize % PIECE_SLOTS)
}

/// A free record is zero, and numbers count from one.
fn pack(slot: Slot) -> u32 {
    match slot {
        Slot::Free => 0,
        Slot::Active(number) => number + 1,
        Slot::Order(number) => (number + 1) | IS_ORDER,
    }
}

fn unpack(word: u32) -> Slot {
    match word {
        0 => Slot::Free,
        order if order & IS_ORDER != 0 => Slot::Order((order & !IS_ORDER) - 1),
        active => Slot::Active(active - 1),
    }
}
