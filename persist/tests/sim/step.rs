//! What can happen, as data: a run is a list of steps, so that it can be had again, shortened and
//! printed. Numbers are taken modulo what there is when the step is taken.

/// Clients at most.
pub(crate) const CLIENTS: usize = 8;

/// Steps of a seed.
const STEPS_MIN: u64 = 200;
const STEPS_MAX: u64 = 3_000;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A client asks for something.
    Ask {
        client: usize,
        ask: Ask,
    },
    /// A client asks once more for what it has no answer to, or again for what it was answered.
    Again {
        client: usize,
        nth: usize,
    },
    /// A client looks at what it was told it has.
    Look {
        client: usize,
    },
    /// The organiser changes something.
    Set(Setting),
    /// Time passes, and nobody has a turn meanwhile.
    Pass {
        ms: u64,
    },
    /// Pump, log and follower have a turn each.
    Turn,
    /// One of them has.
    Pump,
    Commit,
    Follow,
    Snapshot,
    /// The writer has its turn. Its database may be away, before or after it has done what it was
    /// asked, and somebody may have put a record of an ended reign into the log.
    Write {
        away: Away,
        zombie: bool,
    },
    /// Everybody has a turn again and again while time passes, and nothing fails: whatever is due
    /// must be done then.
    Calm {
        ms: u64,
    },
    /// The process is killed, in the call to the disk after so many others. What it wrote is
    /// there, synced or not.
    Kill {
        calls: usize,
        luck: u64,
    },
    /// The power fails, in the call to the disk after so many others.
    PowerCut {
        calls: usize,
        luck: u64,
    },
    /// The next sync but so many fails; a process that meets it is started again.
    BadSync {
        after: usize,
        luck: u64,
    },
    /// The disk is full, or has room again.
    Full(bool),
    /// The shard is closed in order and opened again.
    Close {
        luck: u64,
    },
}

/// How the database of the rows is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    No,
    Before,
    After,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Join,
    Leave,
    Touch,
    /// Some seats of one block, or of several.
    Hold {
        block: u32,
        mask: u64,
        blocks: u32,
        ttl_ms: u32,
        let_in: bool,
    },
    Best {
        count: u32,
        ttl_ms: u32,
        let_in: bool,
    },
    Extend {
        nth: usize,
        ttl_ms: u32,
    },
    Confirm {
        nth: usize,
    },
    Release {
        nth: usize,
    },
    Refund {
        nth: usize,
    },
    Block {
        block: u32,
        mask: u64,
        blocks: u32,
    },
    Unblock {
        block: u32,
        mask: u64,
        blocks: u32,
    },
}

/// What the organiser changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Limit(u32),
    /// 0: open, 1: first in, first out, 2: paused.
    Line {
        mode: u8,
        max_active: u32,
    },
}

/// Numbers from a seed (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True `percent` times in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The steps of a seed. Some seeds have many clients and few faults, some the other way round.
pub(crate) fn steps_of(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    let clients = 2 + dice.below(CLIENTS as u64 - 1);
    let faults = 1 + dice.below(6);
    let count = STEPS_MIN + dice.below(STEPS_MAX - STEPS_MIN);
    let mut steps = Vec::with_capacity(count as usize + 1);
    steps.push(Step::Set(line(&mut dice)));
    while steps.len() < count as usize {
        let client = dice.below(clients) as usize;
        steps.push(match dice.below(100) {
            0..40 => Step::Ask { client, ask: ask(&mut dice) },
            40..47 => Step::Again { client, nth: dice.below(8) as usize },
            47..50 => Step::Look { client },
            50..52 => Step::Set(setting(&mut dice)),
            52..58 => Step::Pass { ms: pass_ms(&mut dice) },
            58..70 => Step::Turn,
            70..75 => Step::Pump,
            75..80 => Step::Commit,
            80..84 => Step::Follow,
            84..87 => Step::Snapshot,
            87..92 => Step::Write { away: away(&mut dice), zombie: dice.chance(30) },
            92..94 => Step::Calm { ms: 5 + dice.below(80) },
            _ if dice.below(6) < faults => fault(&mut dice),
            _ => Step::Turn,
        });
    }
    steps
}

fn ask(dice: &mut Dice) -> Ask {
    let nth = dice.below(4) as usize;
    let ttl_ms = 100 + dice.below(2_500) as u32;
    let let_in = dice.chance(50);
    let (block, mask) = (dice.below(9) as u32, mask(dice));
    let blocks = if dice.chance(40) { 2 + dice.below(4) as u32 } else { 1 };
    match dice.below(100) {
        0..14 => Ask::Join,
        14..17 => Ask::Leave,
        17..23 => Ask::Touch,
        23..43 => Ask::Hold { block, mask, blocks, ttl_ms, let_in },
        43..51 => Ask::Best { count: 1 + dice.below(5) as u32, ttl_ms, let_in },
        51..57 => Ask::Extend { nth, ttl_ms },
        57..76 => Ask::Confirm { nth },
        76..83 => Ask::Release { nth },
        83..93 => Ask::Refund { nth },
        93..96 => Ask::Block { block, mask, blocks },
        _ => Ask::Unblock { block, mask, blocks },
    }
}

/// Few seats: requests must collide.
fn mask(dice: &mut Dice) -> u64 {
    match dice.below(3) {
        0 => 0b11 << dice.below(5),
        _ => 1 << dice.below(6),
    }
}

fn pass_ms(dice: &mut Dice) -> u64 {
    match dice.below(10) {
        0..6 => 1 + dice.below(10),
        6..9 => 10 + dice.below(150),
        _ => 500 + dice.below(3_000),
    }
}

fn setting(dice: &mut Dice) -> Setting {
    match dice.below(3) {
        0 => Setting::Limit(1 + dice.below(8) as u32),
        _ => line(dice),
    }
}

fn line(dice: &mut Dice) -> Setting {
    let mode = [0, 1, 1, 1, 1, 2][dice.below(6) as usize];
    Setting::Line { mode, max_active: 1 + dice.below(4) as u32 }
}

fn away(dice: &mut Dice) -> Away {
    match dice.below(8) {
        0 => Away::Before,
        1 => Away::After,
        _ => Away::No,
    }
}

fn fault(dice: &mut Dice) -> Step {
    let luck = dice.next();
    let calls = dice.below(14) as usize;
    match dice.below(10) {
        0..2 => Step::Kill { calls, luck },
        2..6 => Step::PowerCut { calls, luck },
        6 => Step::BadSync { after: dice.below(4) as usize, luck },
        7 => Step::Full(true),
        8 => Step::Full(false),
        _ => Step::Close { luck },
    }
}
