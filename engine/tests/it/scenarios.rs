//! One rule each, as a script with its answers and events, on both engines.

use expect_test::Expect;
use tmomi_engine::naive::Naive;

use crate::desk::Fast;
use crate::run::{Run, small_house};

mod best;
mod holds;
mod large;
mod line;
mod seats;

/// Runs the script on both engines. The showtime is [`crate::desk::show`] in [`small_house`].
fn check(script: &str, expect: Expect) {
    let layout = small_house();
    let (mut naive, mut fast) = (Run::<Naive>::new(&layout), Run::<Fast>::new(&layout));
    let text = fast.text(script);
    assert_eq!(naive.text(script), text, "naive, fast");
    expect.assert_eq(&text);
    assert_eq!(naive.fold.hash(), fast.fold.hash());
}
