//! The map of a showtime's seats as JSON, rendered once for every state of the house.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tmomi_engine::ids::{BlockIndex, Epoch, RowIndex, SectionIndex, Seq, ShowtimeId, TierIndex};
use tmomi_engine::layout::Layout;
use tmomi_persist::image::{Image, Masks};

use crate::halls::Hall;
use crate::json::Json;
use crate::problem::Result;
use crate::text::seq_text;

/// Bytes of JSON that a seat takes, roughly: what to reserve.
const SEAT_BYTES: usize = 28;

/// What every seat was at one number.
pub(crate) struct Snapshot {
    /// The reign of the number.
    pub(crate) epoch: Epoch,
    /// The number.
    pub(crate) seq: Seq,
    masks: Vec<Masks>,
}

impl Snapshot {
    /// Copies the masks of a showtime; `None` if the image does not have it. To be called with the
    /// image locked, for as short as copying takes.
    pub(crate) fn take(image: &Image, showtime: ShowtimeId) -> Option<Snapshot> {
        let house = image.showtime(showtime)?;
        let blocks = house.layout().blocks().len() as u32;
        let masks = (0..blocks).map(|block| house.masks(BlockIndex(block)).unwrap_or_default());
        Some(Snapshot { epoch: image.epoch(), seq: image.applied(), masks: masks.collect() })
    }

    /// The map's `ETag`.
    pub(crate) fn tag(&self) -> String {
        seq_text(self.epoch, self.seq)
    }

    fn letter(&self, block: BlockIndex, bit: u32) -> char {
        let masks = &self.masks[block.0 as usize];
        let has = |mask: u64| mask >> bit & 1 == 1;
        match () {
            () if has(masks.sold) => 's',
            () if has(masks.held) => 'h',
            () if has(masks.blocked) => 'b',
            () => 'f',
        }
    }

    fn free(&self, layout: &Layout, section: SectionIndex) -> u32 {
        let blocks = layout.sections()[usize::from(section.0)].blocks.clone();
        let free = blocks.map(|index| {
            let masks = &self.masks[index as usize];
            let taken = masks.held | masks.sold | masks.blocked;
            u32::from(layout.block(BlockIndex(index)).len) - taken.count_ones()
        });
        free.sum()
    }
}

/// A map that was rendered.
#[derive(Clone)]
pub(crate) struct Rendered {
    /// Its `ETag`, without quotes.
    pub(crate) tag: String,
    /// The number that it is true at.
    pub(crate) seq: Seq,
    /// The JSON.
    pub(crate) body: Bytes,
}

/// The last whole map that was rendered.
#[derive(Default)]
pub(crate) struct RenderedSeats {
    last: Mutex<Option<Arc<Rendered>>>,
    turn: tokio::sync::Mutex<()>,
}

impl RenderedSeats {
    /// The last map if it is true at `needed` or later, or else the one that `render` gives, which
    /// must be. One renders at a time, and all who wait for that take the same.
    ///
    /// # Errors
    ///
    /// Those of `render`.
    pub(crate) async fn at(
        &self,
        needed: Seq,
        render: impl Future<Output = Result<Rendered>>,
    ) -> Result<Arc<Rendered>> {
        if let Some(last) = self.get(needed) {
            return Ok(last);
        }
        let _turn = self.turn.lock().await;
        match self.get(needed) {
            Some(last) => Ok(last),
            None => Ok(self.put(render.await?)),
        }
    }

    fn get(&self, needed: Seq) -> Option<Arc<Rendered>> {
        self.last.lock().as_ref().filter(|last| last.seq >= needed).cloned()
    }

    /// Keeps a map unless there is a newer one.
    fn put(&self, rendered: Rendered) -> Arc<Rendered> {
        let rendered = Arc::new(rendered);
        let mut last = self.last.lock();
        if last.as_ref().is_none_or(|last| last.seq < rendered.seq) {
            *last = Some(Arc::clone(&rendered));
        }
        rendered
    }
}

/// Renders the map, or one section of it.
pub(crate) fn render(hall: &Hall, snapshot: &Snapshot, only: Option<SectionIndex>) -> Rendered {
    let layout = hall.layout();
    let sections = 0..layout.sections().len() as u16;
    let wanted = sections.map(SectionIndex).filter(|index| only.is_none_or(|only| only == *index));
    let capacity: u32 = match only {
        Some(section) => layout.sections()[usize::from(section.0)].capacity,
        None => layout.capacity(),
    };
    let mut json = Json::with_capacity(capacity as usize * SEAT_BYTES + 256);
    let tag = snapshot.tag();
    json.raw("{\"seq\":").text(&tag).raw(",\"sections\":[");
    for (n, section) in wanted.enumerate() {
        json.comma(n);
        render_section(&mut json, hall, snapshot, section);
    }
    json.raw("]}");
    Rendered { tag, seq: snapshot.seq, body: Bytes::from(json.0) }
}

fn render_section(json: &mut Json, hall: &Hall, snapshot: &Snapshot, index: SectionIndex) {
    let section = hall.plan().section(index);
    json.raw("{\"name\":").text(section.name());
    if section.general_admission() {
        let free = snapshot.free(hall.layout(), index);
        let capacity = section.capacity();
        json.raw(",\"general_admission\":true,\"capacity\":").number(capacity);
        json.raw(",\"free\":").number(free).raw(",\"rows\":[]}");
        return;
    }
    let tiers = hall.section_tiers(index);
    json.raw(",\"rows\":[");
    for (n, row) in section.rows().enumerate() {
        json.comma(n);
        json.raw("{\"name\":").text(&row.name()).raw(",\"seats\":[");
        let mut id = String::new();
        for position in 0..row.seats() {
            id.clear();
            row.push_seat_id(position, &mut id);
            json.comma(position as usize);
            json.text(&id);
        }
        json.raw("],\"x\":[");
        for position in 0..row.seats() {
            json.comma(position as usize);
            json.coordinate(row.point(position).0);
        }
        json.raw("],\"y\":[");
        for position in 0..row.seats() {
            json.comma(position as usize);
            json.coordinate(row.point(position).1);
        }
        render_states(json, hall.layout(), snapshot, row.index(), tiers);
        json.raw("}");
    }
    json.raw("]}");
}

/// The letters of a row, and its tiers if the section has several.
fn render_states(
    json: &mut Json,
    layout: &Layout,
    snapshot: &Snapshot,
    row: RowIndex,
    tiers: &[TierIndex],
) {
    json.raw("],\"states\":\"");
    for (index, block) in layout.row_blocks(row) {
        (0..u32::from(block.len)).for_each(|bit| json.0.push(snapshot.letter(index, bit)));
    }
    json.raw("\"");
    if tiers.len() > 1 {
        json.raw(",\"tier\":[");
        for (_, block) in layout.row_blocks(row) {
            let place = tiers.iter().position(|tier| *tier == block.tier);
            for bit in 0..u32::from(block.len) {
                json.comma((block.start + bit) as usize);
                json.number(place.expect("a section knows its tiers") as u32);
            }
        }
        json.raw("]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::halls::tests::hall;

    fn snapshot(hall: &Hall) -> Snapshot {
        let mut masks = vec![Masks::default(); hall.layout().blocks().len()];
        masks[0] = Masks { held: 0b001, sold: 0b010, blocked: 0 };
        masks[1].blocked = 0b100;
        masks.last_mut().expect("the floor").sold = 0b11;
        Snapshot { epoch: Epoch(2), seq: Seq(9), masks }
    }

    #[test]
    fn a_map_has_a_letter_for_every_seat() {
        let hall = hall();
        let rendered = render(&hall, &snapshot(&hall), None);
        let map: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
        assert_eq!(map["seq"], "2-9");
        let rows = &map["sections"][0]["rows"];
        assert_eq!(rows[0]["states"], "hsf");
        assert_eq!(rows[1]["states"], "ffb");
        assert_eq!(rows[1]["seats"], serde_json::json!(["A-2-1", "A-2-2", "A-2-3"]));
        assert_eq!(rows[0]["x"].as_array().map(Vec::len), Some(3));
        let long = map["sections"][1]["rows"][0]["states"].as_str().expect("letters");
        assert_eq!(long.len(), 70);
        let floor = &map["sections"][2];
        assert_eq!((&floor["capacity"], &floor["free"]), (&5.into(), &3.into()));
    }

    #[test]
    fn one_section_is_only_that() {
        let hall = hall();
        let rendered = render(&hall, &snapshot(&hall), Some(SectionIndex(1)));
        let map: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
        assert_eq!(map["sections"].as_array().map(Vec::len), Some(1));
        assert_eq!(map["sections"][0]["name"], "B");
    }

    #[test]
    fn a_rendering_is_used_until_a_seat_changes() {
        let cache = RenderedSeats::default();
        let rendered = |seq| Rendered { tag: String::new(), seq: Seq(seq), body: Bytes::new() };
        cache.put(rendered(9));
        cache.put(rendered(8));
        assert_eq!(cache.get(Seq(9)).map(|last| last.seq), Some(Seq(9)));
        assert!(cache.get(Seq(10)).is_none());
    }

    #[tokio::test]
    async fn a_crowd_that_asks_for_the_same_map_renders_it_once() {
        let cache = RenderedSeats::default();
        let times = std::sync::atomic::AtomicU32::new(0);
        let crowd = (0..50).map(|n| {
            let render = async {
                tokio::task::yield_now().await;
                times.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(Rendered { tag: String::new(), seq: Seq(9), body: Bytes::new() })
            };
            cache.at(Seq(n % 10), render)
        });
        let maps = futures_util::future::join_all(crowd).await;
        assert!(maps.iter().all(|map| map.as_ref().is_ok_and(|map| map.seq == Seq(9))));
        assert_eq!(times.into_inner(), 1);
    }
}
