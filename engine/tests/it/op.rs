//! One operation on a showtime and its answer, as data and as text.
//!
//! ```text
//! at 1500                      the clock, ms; what follows happens then
//! tick                         what the time asks for
//! enter 7 | join 7 | leave 7 | touch 7
//! hold 7 0/1-3,5 2/0 ttl=300 let-in      buyer, block/seats of the block
//! best 7 3 section=0 tier=1 loose lone   three seats; not adjacent; orphans do not matter
//! extend 2 500 | confirm 2 | release 2 | refund 2      the second hold that was made
//! block 0/4 | unblock 0/4
//! line fifo active=2 rate=1000 grace=500 session=1000
//! terms 4 300000 | window 0 9000
//! restart                      the engine is built anew from what its log says
//! ```

use std::fmt;

use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_engine::ids::{BlockIndex, BuyerId, EntryId, LineNumber, Part, SectionIndex, Seq};
use tmomi_engine::ids::{TierIndex, TimeMs};
use tmomi_engine::{BestRequest, Reject};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    At(TimeMs),
    Tick,
    Enter(BuyerId),
    Join(BuyerId),
    Leave(BuyerId),
    Touch(BuyerId),
    Hold { buyer: BuyerId, parts: Vec<Part>, ttl_ms: Option<u32>, let_in: bool },
    Best { buyer: BuyerId, best: BestRequest, ttl_ms: Option<u32>, let_in: bool },
    Extend { nth: usize, ttl_ms: u32 },
    Confirm { nth: usize },
    Release { nth: usize },
    Refund { nth: usize },
    Block(Vec<Part>),
    Unblock(Vec<Part>),
    Line(LineSettings),
    Terms { limit: u32, hold_ttl_ms: u32 },
    Window { opens_at: TimeMs, closes_at: TimeMs },
    Restart,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Entry(EntryId),
    Joined { entry: EntryId, number: LineNumber, fresh: bool, seq: Seq },
    Held { hold: Seq, deadline: TimeMs, seq: Seq, parts: Vec<Part> },
    Extended { deadline: TimeMs, seq: Seq },
    Seq(Seq),
    Refused(Reject),
}

impl Op {
    /// Reads a line. Panics if it is none: scripts are part of the tests.
    pub(crate) fn parse(line: &str) -> Op {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, args) = words.split_first().expect("an operation");
        let number = |n: usize| args[n].parse::<u64>().expect("a number");
        let buyer = || BuyerId(number(0));
        let nth = || number(0) as usize - 1;
        let option = |name: &str| {
            let value = args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
            value.map(|value| value.parse::<u32>().expect("a number"))
        };
        let flag = |name: &str| args.contains(&name);
        let parts = || args.iter().filter(|arg| arg.contains('/')).map(|arg| part(arg)).collect();
        let (ttl_ms, let_in) = (option("ttl"), flag("let-in"));
        match *name {
            "at" => Op::At(TimeMs(number(0))),
            "tick" => Op::Tick,
            "enter" => Op::Enter(buyer()),
            "join" => Op::Join(buyer()),
            "leave" => Op::Leave(buyer()),
            "touch" => Op::Touch(buyer()),
            "hold" => Op::Hold { buyer: buyer(), parts: parts(), ttl_ms, let_in },
            "best" => {
                let best = BestRequest {
                    count: number(1) as u32,
                    section: option("section").map(|n| SectionIndex(n as u16)),
                    tier: option("tier").map(|n| TierIndex(n as u16)),
                    adjacent: !flag("loose"),
                    avoid_orphans: !flag("lone"),
                };
                Op::Best { buyer: buyer(), best, ttl_ms, let_in }
            }
            "extend" => Op::Extend { nth: nth(), ttl_ms: number(1) as u32 },
            "confirm" => Op::Confirm { nth: nth() },
            "release" => Op::Release { nth: nth() },
            "refund" => Op::Refund { nth: nth() },
            "block" => Op::Block(parts()),
            "unblock" => Op::Unblock(parts()),
            "line" => Op::Line(LineSettings {
                mode: match args[0] {
                    "open" => LineMode::Open,
                    "fifo" => LineMode::Fifo,
                    "paused" => LineMode::Paused,
                    other => panic!("no mode {other:?}"),
                },
                max_active: option("active").unwrap_or(1_000),
                rate_per_1000s: option("rate").unwrap_or(1_000_000),
                grace_ms: option("grace").unwrap_or(10_000),
                session_ms: option("session").unwrap_or(60_000),
            }),
            "terms" => Op::Terms { limit: number(0) as u32, hold_ttl_ms: number(1) as u32 },
            "window" => Op::Window { opens_at: TimeMs(number(0)), closes_at: TimeMs(number(1)) },
            "restart" => Op::Restart,
            other => panic!("no operation {other:?}"),
        }
    }
}

/// `2/0,4-6`: block 2, seats 0 and 4 to 6.
fn part(text: &str) -> Part {
    let (block, seats) = text.split_once('/').expect("block/seats");
    let mut mask = 0;
    for run in seats.split(',') {
        let (from, to) = run.split_once('-').unwrap_or((run, run));
        let seat = |text: &str| text.parse::<u32>().expect("a seat");
        (seat(from)..=seat(to)).for_each(|bit| mask |= 1 << bit);
    }
    Part { block: BlockIndex(block.parse().expect("a block")), mask }
}

/// Parts as [`Op::parse`] reads them.
pub(crate) struct Parts<'a>(pub(crate) &'a [Part]);

impl fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0 {
            let mut runs: Vec<(u32, u32)> = Vec::new();
            for bit in part.seats().map(|seat| seat.bit()) {
                match runs.last_mut() {
                    Some((_, to)) if *to + 1 == bit => *to = bit,
                    _ => runs.push((bit, bit)),
                }
            }
            let run = |(from, to): (u32, u32)| match from == to {
                true => from.to_string(),
                false => format!("{from}-{to}"),
            };
            let runs: Vec<_> = runs.into_iter().map(run).collect();
            write!(f, " {}/{}", part.block, runs.join(","))?;
        }
        Ok(())
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = |f: &mut fmt::Formatter<'_>, ttl_ms: Option<u32>, let_in: bool| {
            ttl_ms.map_or(Ok(()), |ttl_ms| write!(f, " ttl={ttl_ms}"))?;
            if let_in { write!(f, " let-in") } else { Ok(()) }
        };
        match self {
            Op::At(now) => write!(f, "at {now}"),
            Op::Tick => write!(f, "tick"),
            Op::Enter(buyer) => write!(f, "enter {buyer}"),
            Op::Join(buyer) => write!(f, "join {buyer}"),
            Op::Leave(buyer) => write!(f, "leave {buyer}"),
            Op::Touch(buyer) => write!(f, "touch {buyer}"),
            Op::Hold { buyer, parts, ttl_ms, let_in } => {
                write!(f, "hold {buyer}{}", Parts(parts))?;
                rest(f, *ttl_ms, *let_in)
            }
            Op::Best { buyer, best, ttl_ms, let_in } => {
                write!(f, "best {buyer} {}", best.count)?;
                best.section.map_or(Ok(()), |section| write!(f, " section={section}"))?;
                best.tier.map_or(Ok(()), |tier| write!(f, " tier={tier}"))?;
                write!(f, "{}", if best.adjacent { "" } else { " loose" })?;
                write!(f, "{}", if best.avoid_orphans { "" } else { " lone" })?;
                rest(f, *ttl_ms, *let_in)
            }
            Op::Extend { nth, ttl_ms } => write!(f, "extend {} {ttl_ms}", nth + 1),
            Op::Confirm { nth } => write!(f, "confirm {}", nth + 1),
            Op::Release { nth } => write!(f, "release {}", nth + 1),
            Op::Refund { nth } => write!(f, "refund {}", nth + 1),
            Op::Block(parts) => write!(f, "block{}", Parts(parts)),
            Op::Unblock(parts) => write!(f, "unblock{}", Parts(parts)),
            Op::Line(line) => write!(
                f,
                "line {} active={} rate={} grace={} session={}",
                format!("{:?}", line.mode).to_lowercase(),
                line.max_active,
                line.rate_per_1000s,
                line.grace_ms,
                line.session_ms,
            ),
            Op::Terms { limit, hold_ttl_ms } => write!(f, "terms {limit} {hold_ttl_ms}"),
            Op::Window { opens_at, closes_at } => write!(f, "window {opens_at} {closes_at}"),
            Op::Restart => write!(f, "restart"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => write!(f, "done"),
            Answer::Entry(entry) => write!(f, "entry {entry}"),
            Answer::Joined { number, fresh: true, .. } => write!(f, "number {number}"),
            Answer::Joined { number, .. } => write!(f, "number {number} already"),
            Answer::Held { deadline, parts, .. } => {
                write!(f, "held{} until {deadline}", Parts(parts))
            }
            Answer::Extended { deadline, .. } => write!(f, "until {deadline}"),
            Answer::Seq(seq) => write!(f, "event {seq}"),
            Answer::Refused(Reject::SeatUnavailable(part)) => {
                write!(f, "unavailable:{}", Parts(&[*part]))
            }
            Answer::Refused(Reject::NotBlocked(part)) => {
                write!(f, "not blocked:{}", Parts(&[*part]))
            }
            Answer::Refused(reject) => write!(f, "{reject:?}"),
        }
    }
}
