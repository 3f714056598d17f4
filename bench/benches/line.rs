//! What a place in the line costs to tell, by the length of the line.
//!
//! `cargo bench -p tmomi-bench --bench line`
#![allow(missing_docs, reason = "the macros of criterion make functions without any")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tmomi_bench::Rng;
use tmomi_bench::rounds::is_short;
use tmomi_bench::sale::{self, NOW, SHOW};
use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{BuyerId, EntryId, LineNumber, RequestKey, Seq};
use tmomi_persist::image::Image;
use tmomi_persist::layout_codec;

/// Events applied at a time.
const BATCH_EVENTS: u32 = 1 << 16;

/// An image in which `waiting` buyers joined, and nobody was admitted.
fn line_of(waiting: u32) -> Image {
    let mut image = Image::new();
    let mut batch = Batch::default();
    let blob = layout_codec::encode(sale::layout(64).spec());
    push(&mut batch, 1, Body::Opened { limit: 4, hold_ttl_ms: 1_000 });
    batch.blobs.push((Seq(1), blob.into()));
    for n in 0..waiting {
        let (entry, buyer) = (EntryId(n), BuyerId(n.into()));
        let (number, key) = (LineNumber(n + 1), RequestKey::NONE);
        push(&mut batch, u64::from(n) + 2, Body::Joined { entry, buyer, number, key });
        if n % BATCH_EVENTS == 0 || n + 1 == waiting {
            image.apply(&batch).expect("in order");
            batch.clear();
        }
    }
    image
}

fn push(batch: &mut Batch, seq: u64, body: Body) {
    let (more_follows, has_blob) = (false, matches!(body, Body::Opened { .. }));
    let event = Event { seq: Seq(seq), at: NOW, showtime: SHOW, more_follows, has_blob, body };
    batch.events.push(event.pack());
}

/// The position of somebody, at random.
fn position(c: &mut Criterion) {
    let mut group = c.benchmark_group("position in line");
    let share = if is_short() { 100 } else { 1 };
    group.warm_up_time(Duration::from_millis(500) / share);
    group.measurement_time(Duration::from_secs(2) / share);
    group.sample_size(20);
    let lengths = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
    for waiting in lengths.into_iter().take(if is_short() { 2 } else { 5 }) {
        let image = line_of(waiting);
        let line = image.showtime(SHOW).expect("it was opened");
        let mut rng = Rng::new(0x5eed);
        group.bench_function(BenchmarkId::new("image", waiting), |b| {
            b.iter(|| black_box(line.ahead(LineNumber(1 + rng.below(waiting)))));
        });
    }
    group.finish();
}

criterion_group!(benches, position);
criterion_main!(benches);
