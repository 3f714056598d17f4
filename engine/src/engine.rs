//! The engine of a shard: what its handles and its keeper share.

mod restore;

use std::sync::Arc;

use once_cell::race::OnceBox;

use crate::handle::Handle;
use crate::hold::Slab;
use crate::house::House;
use crate::ids::{Seq, ShowtimeId, TimeMs};
use crate::index::Index;
use crate::keeper::Keeper;
use crate::reject::Reject;
use crate::ring::{Ring, WRITER_EVENTS_MAX};
use crate::state::{Nothing, ShardState};
use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// Showtimes of one shard at most.
pub const SHOWTIMES_MAX: usize = 1 << 14;

/// The sizes of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Slots of the event ring, a power of two; 64 bytes each. At least
    /// `(handles_max + 1) * WRITER_EVENTS_MAX`.
    pub ring_slots: usize,
    /// Threads that may decide at a time: handles that exist at once.
    pub handles_max: usize,
}

impl Default for EngineConfig {
    /// 131,072 slots (8 MiB) and 64 handles.
    fn default() -> Self {
        EngineConfig { ring_slots: 1 << 17, handles_max: 64 }
    }
}

const _: () = assert!(65 * WRITER_EVENTS_MAX < 1 << 17);

/// One shard's engine; a cheap handle to it that any thread may clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) ring: Arc<Ring>,
    pub(crate) slab: Slab,
    houses: Box<[OnceBox<Arc<House>>]>,
    house_count: AtomicU32,
    by_showtime: Index,
    handles: AtomicU32,
    /// The keeper's own is one of them.
    handles_max: u32,
    /// Somebody is opening a showtime.
    opening: AtomicBool,
}

impl Engine {
    /// An engine without a showtime, whose first event will be number 1, and its keeper, which
    /// must be drained and ticked.
    ///
    /// # Panics
    ///
    /// If the ring is no power of two or too small for the handles.
    pub fn new(config: EngineConfig) -> (Engine, Keeper) {
        Engine::restore(config, &Nothing, TimeMs(0))
    }

    /// The engine of an image: its next event will be number `state.applied() + 1`. Everybody in
    /// a line has given a sign of life at `now`. Every house is on sale until
    /// [`House::set_window`] says when.
    ///
    /// # Panics
    ///
    /// If the configuration is wrong as above, or the state contradicts itself.
    pub fn restore(config: EngineConfig, state: &impl ShardState, now: TimeMs) -> (Engine, Keeper) {
        let writers = config.handles_max + 1;
        let (ring, reader) = Ring::new(config.ring_slots, writers, state.applied());
        let (slab, houses) = restore::slab_and_houses(state, now);
        let shared = Shared {
            ring,
            slab,
            houses: (0..SHOWTIMES_MAX).map(|_| OnceBox::new()).collect(),
            house_count: AtomicU32::new(houses.len() as u32),
            by_showtime: Index::new(),
            handles: AtomicU32::new(1),
            handles_max: writers as u32,
            opening: AtomicBool::new(false),
        };
        houses.into_iter().for_each(|house| _ = shared.put(house));
        let engine = Engine { shared: Arc::new(shared) };
        let keeper = Keeper::new(engine.clone(), reader, state, now);
        (engine, keeper)
    }

    /// A handle to decide with; `None` if there are `handles_max` of them.
    pub fn handle(&self) -> Option<Handle> {
        let shared = &self.shared;
        // Acquire pairs with the Release in `drop_handle`: a look for room sees what the handle
        // whose place this one takes has claimed.
        if shared.handles.fetch_add(1, Ordering::Acquire) >= shared.handles_max {
            shared.handles.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Handle::new(Arc::clone(shared)))
    }

    /// The showtime, if it was opened in this shard.
    pub fn house(&self, showtime: ShowtimeId) -> Option<Arc<House>> {
        self.shared.find(showtime).cloned()
    }

    /// The number of the last event that was claimed: when an image has applied it, it has every
    /// decision made before this call.
    pub fn claimed(&self) -> Seq {
        self.shared.ring.claimed()
    }

    /// Events the ring has room for before decisions are refused with
    /// [`Reject::RingFull`](crate::Reject::RingFull).
    pub fn ring_room(&self) -> u64 {
        self.shared.ring.room()
    }

    /// Events in the ring that the keeper has not drained.
    pub fn ring_depth(&self) -> u64 {
        self.shared.ring.depth()
    }
}

impl Shared {
    pub(crate) fn find(&self, showtime: ShowtimeId) -> Option<&Arc<House>> {
        let index = self.by_showtime.get(showtime.0.into(), |index| self.showtime_of(index))?;
        Some(self.house(index))
    }

    /// Houses there are.
    pub(crate) fn house_count(&self) -> u32 {
        self.house_count.load(Ordering::Acquire)
    }

    /// The house at `index`, which the caller has from the engine.
    pub(crate) fn house(&self, index: u32) -> &Arc<House> {
        self.houses[index as usize].get().expect("a house is there before its index is known")
    }

    /// The right to open a showtime, one at a time; `false`: somebody else is at it.
    pub(crate) fn begin_opening(&self) -> bool {
        !self.opening.swap(true, Ordering::Acquire)
    }

    pub(crate) fn end_opening(&self) {
        self.opening.store(false, Ordering::Release);
    }

    /// A place for another house.
    pub(crate) fn next_house(&self) -> Option<u32> {
        let index = self.house_count.fetch_add(1, Ordering::AcqRel);
        if index as usize >= SHOWTIMES_MAX {
            self.house_count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(index)
    }

    /// Makes a house findable whose showtime is not.
    pub(crate) fn put(&self, house: House) -> Arc<House> {
        let (index, showtime) = (house.index, house.showtime());
        let house = Arc::new(house);
        let set = self.houses[index as usize].set(Box::new(Arc::clone(&house))).is_ok();
        let key = showtime.0.into();
        let own = || Ok::<_, Reject>(index);
        let found = self.by_showtime.find_or_insert(key, |at| self.showtime_of(at), own);
        assert!(set && found == Ok((index, None)), "a showtime is opened once");
        house
    }

    fn showtime_of(&self, index: u32) -> u64 {
        self.house(index).showtime().0.into()
    }

    pub(crate) fn drop_handle(&self) {
        // Release: see `handle`.
        self.handles.fetch_sub(1, Ordering::Release);
    }
}
