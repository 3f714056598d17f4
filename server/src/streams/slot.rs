//! The readers of a line stream as its hub sees them: what each was told and is to be told next.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tmomi_engine::ids::EntryId;
use tmomi_persist::image::ShowtimeImage;

use crate::standing::{LineView, Standing};

/// One reader, as the hub sees it.
pub(super) struct Slot {
    pub(super) entry: EntryId,
    /// The reader is no more.
    pub(super) gone: AtomicBool,
    pub(super) news: Mutex<News>,
    pub(super) waker: AtomicWaker,
}

/// What the reader has to send, and what it was told.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The state that was told last, or is about to be.
    pub(super) told: Option<Standing>,
    pub(super) sold_out: bool,
    pub(super) tell_standing: bool,
    pub(super) tell_sold_out: bool,
    pub(super) comment: bool,
    pub(super) end: bool,
}

/// What a pass has to do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Task {
    /// Positions may be told.
    pub(super) positions: bool,
    /// All of them, since the settings have changed.
    pub(super) all: bool,
    /// Nothing is free or held any more.
    pub(super) sold_out: bool,
    pub(super) comment: bool,
}

/// Tells some readers what has changed for them.
pub(super) fn pass_over(slots: &[Arc<Slot>], view: LineView<'_>, task: Task) {
    for slot in slots {
        let mut news = slot.news.lock();
        if news.look(slot.entry, view, task) {
            drop(news);
            slot.waker.wake();
        }
    }
}

impl News {
    /// Notes what has changed for the entry; `true` if there is something to send.
    fn look(&mut self, entry: EntryId, view: LineView<'_>, task: Task) -> bool {
        let mut tell = task.comment;
        self.comment |= task.comment;
        if self.sold_out != task.sold_out {
            self.sold_out = task.sold_out;
            self.tell_sold_out = task.sold_out;
            tell |= task.sold_out;
        }
        let waits = |standing: &Standing| matches!(standing, Standing::Waiting(_));
        if !task.positions && self.told.as_ref().is_some_and(waits) && view.waits(entry) {
            return tell;
        }
        match view.standing(entry) {
            // The place was given up.
            None => {
                tell |= !std::mem::replace(&mut self.end, true);
            }
            Some(now)
                if task.all && waits(&now) || self.told.is_none_or(|told| differs(told, now)) =>
            {
                self.told = Some(now);
                self.tell_standing = true;
                tell = true;
            }
            Some(_) => {}
        }
        tell
    }
}

/// Whether there is something to tell. A time to wait that is another is not enough: it goes up
/// and down with every buyer who comes and goes.
fn differs(told: Standing, now: Standing) -> bool {
    match (told, now) {
        (Standing::Waiting(told), Standing::Waiting(now)) => {
            (told.number, told.ahead) != (now.number, now.ahead)
        }
        _ => told != now,
    }
}

impl Slot {
    /// A reader that was told nothing yet.
    pub(super) fn new(entry: EntryId) -> Slot {
        let (gone, news, waker) = (AtomicBool::new(false), Mutex::default(), AtomicWaker::new());
        Slot { entry, gone, news, waker }
    }

    /// What there is to send; `None` at the end.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<News>> {
        // Before the look: news that come after it wake us.
        self.waker.register(cx.waker());
        let mut news = self.news.lock();
        if news.tell_standing || news.tell_sold_out || news.comment {
            let (told, sold_out, end) = (news.told, news.sold_out, news.end);
            let rest = News { told, sold_out, end, ..News::default() };
            return Poll::Ready(Some(std::mem::replace(&mut news, rest)));
        }
        if news.end { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// Nothing is free, and nothing will be because a hold ends.
pub(super) fn sold_out(showtime: &ShowtimeImage) -> bool {
    showtime.sections().iter().all(|counts| counts.free == 0 && counts.held == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::tests::World;
    use tmomi_engine::event::{LineMode, LineSettings};

    const FIFO: LineSettings = LineSettings {
        mode: LineMode::Fifo,
        max_active: 1,
        rate_per_1000s: 100_000,
        grace_ms: 60_000,
        session_ms: 5_000,
    };

    fn slot(world: &World, entry: EntryId) -> Arc<Slot> {
        let slot = Slot::new(entry);
        let standing = LineView::new(world.showtime(), &world.house).standing(entry);
        slot.news.lock().told = standing;
        Arc::new(slot)
    }

    /// What one pass gives a reader to send.
    fn pass(world: &World, slot: &Arc<Slot>, positions: bool) -> String {
        let sold_out = sold_out(world.showtime());
        let task = Task { positions, sold_out, ..Task::default() };
        pass_over(std::slice::from_ref(slot), LineView::new(world.showtime(), &world.house), task);
        match slot.poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Pending => "nothing".to_owned(),
            Poll::Ready(None) => "end".to_owned(),
            Poll::Ready(Some(news)) => {
                let standing = match news.told.filter(|_| news.tell_standing) {
                    Some(Standing::Waiting(at)) => format!("ahead {}", at.ahead),
                    Some(Standing::Admitted(_)) => "admitted".to_owned(),
                    Some(Standing::Expired(_)) => "expired".to_owned(),
                    None => String::new(),
                };
                standing + if news.tell_sold_out { " sold_out" } else { "" }
            }
        }
    }

    #[test]
    fn a_reader_is_told_what_changed_and_nothing_twice() {
        let mut world = World::new(FIFO);
        let entries: Vec<EntryId> = (1..=3).map(|buyer| world.join(buyer)).collect();
        world.pass_ms(10);
        let last = slot(&world, entries[2]);
        assert_eq!(pass(&world, &last, true), "nothing");
        world.leave(entries[0]);
        world.pass_ms(10);
        // Positions wait for their time, admissions do not.
        assert_eq!(pass(&world, &last, false), "nothing");
        assert_eq!(pass(&world, &last, true), "ahead 0");
        assert_eq!(pass(&world, &last, true), "nothing");
        world.leave(entries[1]);
        world.pass_ms(10);
        assert_eq!(pass(&world, &last, false), "admitted");
        assert_eq!(pass(&world, &last, true), "nothing");
        world.pass_ms(5_100);
        assert_eq!(pass(&world, &last, false), "expired");
        // He joins again while the stream is open.
        world.join(3);
        assert_eq!(pass(&world, &last, false), "ahead 0");
        world.leave(entries[2]);
        assert_eq!(pass(&world, &last, false), "end");
    }

    #[test]
    fn sold_out_is_told_once_and_again_after_a_refund() {
        let mut world = World::new(FIFO);
        let entry = world.join(1);
        world.pass_ms(10);
        let slot = slot(&world, entry);
        assert_eq!(pass(&world, &slot, true), "nothing");
        let order = world.sell_all(entry);
        assert_eq!(pass(&world, &slot, true), " sold_out");
        assert_eq!(pass(&world, &slot, true), "nothing");
        world.refund(order);
        assert_eq!(pass(&world, &slot, true), "nothing");
        world.sell_all(entry);
        assert_eq!(pass(&world, &slot, true), " sold_out");
    }
}
