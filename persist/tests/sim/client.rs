//! Clients: they ask, wait, are told, ask again with the same key when they do not know.

use tmomi_engine::ids::{BuyerId, HoldId, LineNumber, Part, RequestKey, Seq};
use tmomi_engine::{BestRequest, Context, Handle, Held, HoldRequest, House, Reject};
use tmomi_persist::image::{Image, Outcome};

use crate::step::Ask;
use crate::truth::{About, End, SHOW, Told, Truth, seq_of};

/// Requests that a client remembers.
const REQUESTS: usize = 8;

pub(crate) struct Client {
    pub(crate) buyer: BuyerId,
    keys: u64,
    pub(crate) requests: Vec<Request>,
    /// Holds and orders that it was told of, the newest last.
    pub(crate) holds: Vec<HoldId>,
}

/// A request and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    key: RequestKey,
    call: Call,
    /// What anybody had been told when it was sent first.
    floor: Told,
    answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// It was decided, by event `seq`, and is not committed yet.
    Waiting {
        seq: Seq,
        outcome: Option<Outcome>,
        fresh: bool,
    },
    /// The process ended meanwhile.
    Unknown,
    Told(Option<Outcome>),
}

/// A request with everything in it, so that it can be sent again.
#[derive(Clone, Debug)]
enum Call {
    Join,
    Leave,
    Hold { parts: Vec<Part>, ttl_ms: u32, let_in: bool },
    Best { count: u32, ttl_ms: u32, let_in: bool },
    Extend { id: HoldId, ttl_ms: u32 },
    Confirm { id: HoldId },
    Release { id: HoldId },
    Refund { id: HoldId },
    Block { parts: Vec<Part> },
    Unblock { parts: Vec<Part> },
}

/// A decision: its last event, what the key will lead to, and whether it was made just now.
struct Decided {
    seq: Seq,
    outcome: Option<Outcome>,
    fresh: bool,
}

/// What a client needs to have something decided.
pub(crate) struct Desk<'a> {
    pub(crate) handle: &'a mut Handle,
    pub(crate) house: &'a House,
    pub(crate) image: &'a Image,
    pub(crate) claimed: &'a dyn Fn() -> Seq,
    pub(crate) context: Context,
}

impl Client {
    pub(crate) fn new(index: usize) -> Client {
        // The first two are one buyer with two windows.
        let buyer = BuyerId(index.max(1) as u64);
        let keys = (index as u64 + 1) << 32;
        Client { buyer, keys, requests: Vec::new(), holds: Vec::new() }
    }

    /// Sends a request.
    pub(crate) fn ask(&mut self, ask: Ask, desk: Desk<'_>, truth: &mut Truth) {
        if let Ask::Touch = ask {
            let entry = desk.house.entry_of(self.buyer);
            return entry.into_iter().for_each(|it| desk.house.touch(it, desk.context.now));
        }
        let Some(call) = self.call(ask, desk.house) else { return };
        self.keys += 1;
        let key = RequestKey { hash: self.keys, fingerprint: !self.keys };
        let (floor, answer) = (truth.told, Answer::Unknown);
        self.send(Request { key, call, floor, answer }, desk, truth);
    }

    /// Sends a request once more, whatever became of it.
    pub(crate) fn again(&mut self, nth: usize, desk: Desk<'_>, truth: &mut Truth) {
        if self.requests.is_empty() {
            return;
        }
        let index = self.requests.len() - 1 - nth % self.requests.len();
        // One that is waiting is in progress: the server takes no second one with its key.
        if !matches!(self.requests[index].answer, Answer::Waiting { .. }) {
            let request = self.requests.remove(index);
            self.send(request, desk, truth);
        }
    }

    fn call(&self, ask: Ask, house: &House) -> Option<Call> {
        let of = |nth: usize| {
            let count = self.holds.len();
            (count > 0).then(|| self.holds[count - 1 - nth % count])
        };
        Some(match ask {
            Ask::Join => Call::Join,
            Ask::Leave => Call::Leave,
            Ask::Touch => return None,
            Ask::Hold { block, mask, blocks, ttl_ms, let_in } => {
                Call::Hold { parts: parts(house, block, mask, blocks), ttl_ms, let_in }
            }
            Ask::Best { count, ttl_ms, let_in } => Call::Best { count, ttl_ms, let_in },
            Ask::Extend { nth, ttl_ms } => Call::Extend { id: of(nth)?, ttl_ms },
            Ask::Confirm { nth } => Call::Confirm { id: of(nth)? },
            Ask::Release { nth } => Call::Release { id: of(nth)? },
            Ask::Refund { nth } => Call::Refund { id: of(nth)? },
            Ask::Block { block, mask, blocks } => {
                Call::Block { parts: parts(house, block, mask, blocks) }
            }
            Ask::Unblock { block, mask, blocks } => {
                Call::Unblock { parts: parts(house, block, mask, blocks) }
            }
        })
    }

    fn send(&mut self, mut request: Request, desk: Desk<'_>, truth: &mut Truth) {
        let known = desk.image.key(request.key.hash).map(|key| plain(key.outcome));
        let told = matches!(request.answer, Answer::Told(Some(_)));
        assert!(known.is_some() || !told, "R3: the key of {request:?} is forgotten");
        if let Some(outcome) = known {
            self.tell(&mut request, Some(outcome), false, truth);
            return self.keep(request);
        }
        let (claimed, now) = (desk.claimed, desk.context.now);
        match self.decide(&request, desk) {
            Ok(Decided { seq, outcome, fresh }) => {
                request.answer = Answer::Waiting { seq, outcome, fresh };
                self.keep(request);
            }
            Err((reject, about)) => truth.refuse(claimed(), now, reject, about),
        }
    }

    fn keep(&mut self, request: Request) {
        self.requests.push(request);
        if self.requests.len() > REQUESTS {
            self.requests.remove(0);
        }
    }

    /// Replies go out for everything up to `applied`.
    pub(crate) fn hear(&mut self, applied: Seq, truth: &mut Truth) {
        for mut request in std::mem::take(&mut self.requests) {
            if let Answer::Waiting { seq, outcome, fresh } = request.answer
                && seq <= applied
            {
                self.tell(&mut request, outcome, fresh, truth);
            }
            self.requests.push(request);
        }
    }

    /// The process ended: what was not told is not known.
    pub(crate) fn lose(&mut self) {
        for request in &mut self.requests {
            if matches!(request.answer, Answer::Waiting { .. }) {
                request.answer = Answer::Unknown;
            }
        }
    }

    /// Whether it waits for a reply.
    pub(crate) fn is_waiting(&self) -> bool {
        self.requests.iter().any(|request| matches!(request.answer, Answer::Waiting { .. }))
    }

    fn tell(
        &mut self,
        request: &mut Request,
        outcome: Option<Outcome>,
        fresh: bool,
        truth: &mut Truth,
    ) {
        if let Answer::Told(before) = request.answer {
            assert_eq!(before, outcome, "R3: {request:?} is told something else");
        }
        // A join that found the number of one before has nothing under its own key.
        if let Some(outcome) = outcome
            && (fresh || !matches!(request.answer, Answer::Waiting { .. }))
        {
            truth.tell(request.key.hash, outcome);
            assert!(seq_of(outcome) > request.floor.seq, "R6: {request:?}: {outcome:?}");
            if let Outcome::Joined { number, .. } = outcome {
                assert!(number > request.floor.number, "R4: {request:?} jumped to {number}");
            }
        }
        match (&request.call, outcome) {
            (_, Some(Outcome::Held { id, .. })) if !self.holds.contains(&id) => self.holds.push(id),
            (Call::Release { id }, None) => truth.end_of(*id, End::Released),
            _ => {}
        }
        let is_own = fresh || !matches!(request.answer, Answer::Waiting { .. });
        request.answer = Answer::Told(outcome.filter(|_| is_own));
    }

    fn decide(&self, request: &Request, desk: Desk<'_>) -> Result<Decided, (Reject, About)> {
        let Desk { handle, house, context, .. } = desk;
        let context = Context { key: request.key, ..context };
        let now = context.now;
        let other = |reject| (reject, About::Other);
        let of = |id| move |reject| (reject, About::Hold(id));
        let unkeyed = |seq| Ok(Decided { seq, outcome: None, fresh: true });
        let keyed =
            |outcome| Ok(Decided { seq: seq_of(outcome), outcome: Some(outcome), fresh: true });
        match &request.call {
            Call::Join => {
                let joined = handle.join(house, self.buyer, context).map_err(other)?;
                let (entry, number, seq) = (joined.entry, joined.number, joined.seq);
                assert!(number > LineNumber::NONE);
                let (showtime, admitted_until) = (SHOW, None);
                let outcome = Outcome::Joined { showtime, entry, number, admitted_until, seq };
                Ok(Decided { seq, outcome: Some(outcome), fresh: joined.fresh })
            }
            Call::Leave => {
                let Some(entry) = house.entry_of(self.buyer) else {
                    return Err(other(Reject::AdmissionRequired));
                };
                match handle.leave(house, entry, now).map_err(other)? {
                    Some(seq) => unkeyed(seq),
                    None => Err(other(Reject::AdmissionRequired)),
                }
            }
            Call::Hold { .. } | Call::Best { .. } => {
                keyed(self.hold(request, handle, house, context)?)
            }
            Call::Extend { id, ttl_ms } => {
                unkeyed(handle.extend(*id, *ttl_ms, context).map_err(of(*id))?.seq)
            }
            Call::Confirm { id } => {
                let payment = Some(b"paid".as_slice().into());
                let seq = handle.confirm(*id, payment, context).map_err(of(*id))?;
                keyed(Outcome::Confirmed { id: *id, seq })
            }
            Call::Release { id } => unkeyed(handle.release(*id, context).map_err(of(*id))?),
            Call::Refund { id } => {
                let seq = handle.refund(*id, context).map_err(of(*id))?;
                keyed(Outcome::Refunded { id: *id, seq })
            }
            Call::Block { parts } => {
                let reason = Some(b"camera".as_slice().into());
                let seq = handle.block(house, parts, reason, context).map_err(other)?;
                keyed(Outcome::Blocked { showtime: SHOW, seats: request.call.seats(), seq })
            }
            Call::Unblock { parts } => {
                let seq = handle.unblock(house, parts, None, context).map_err(other)?;
                keyed(Outcome::Unblocked { showtime: SHOW, seats: request.call.seats(), seq })
            }
        }
    }
}

impl Client {
    fn hold(
        &self,
        request: &Request,
        handle: &mut Handle,
        house: &House,
        context: Context,
    ) -> Result<Outcome, (Reject, About)> {
        let (ttl_ms, let_in) = match &request.call {
            Call::Hold { ttl_ms, let_in, .. } | Call::Best { ttl_ms, let_in, .. } => {
                (*ttl_ms, *let_in)
            }
            _ => unreachable!("the caller has taken the others"),
        };
        let entered = handle.enter(house, self.buyer, context.now);
        let entry = entered.map_err(|reject| (reject, About::Other))?;
        let wish = HoldRequest { entry, ttl_ms: Some(ttl_ms), admitted_by_caller: let_in };
        let count = request.call.seats();
        let made: Result<Held, Reject> = match &request.call {
            Call::Hold { parts, .. } => handle.hold(house, wish, parts, context),
            _ => handle.hold_best(house, wish, best(count), context),
        };
        let made = made.map_err(|reject| (reject, About::Seats { entry, count, let_in }));
        let Held { id, deadline, seq } = made?;
        let seats: u32 = handle.parts().iter().map(|part| part.mask.count_ones()).sum();
        let asked = match &request.call {
            Call::Hold { parts, .. } => handle.parts() == parts,
            _ => true,
        };
        assert!(asked && seats == count, "R11: {request:?} got {:?}", handle.parts());
        Ok(Outcome::Held { id, deadline, seq })
    }
}

impl Call {
    /// How many seats it is about.
    fn seats(&self) -> u32 {
        match self {
            Call::Hold { parts, .. } | Call::Block { parts } | Call::Unblock { parts } => {
                parts.iter().map(|part| part.mask.count_ones()).sum()
            }
            Call::Best { count, .. } => *count,
            _ => 0,
        }
    }
}

/// The outcome as who decides knows it: whether a join let the buyer in is the line's affair.
fn plain(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Joined { showtime, entry, number, seq, .. } => {
            Outcome::Joined { showtime, entry, number, admitted_until: None, seq }
        }
        other => other,
    }
}

fn best(count: u32) -> BestRequest {
    BestRequest { count, section: None, tier: None, adjacent: count > 3, avoid_orphans: true }
}

/// The seats of `mask` in so many blocks from `block` on, as far as they are there.
fn parts(house: &House, block: u32, mask: u64, blocks: u32) -> Vec<Part> {
    let all = house.layout().blocks();
    let first = block as usize % all.len();
    let run = all.iter().enumerate().skip(first).take(blocks as usize);
    run.map(|(index, about)| {
        let seats = mask & about.full();
        let mask = if seats == 0 { 1 } else { seats };
        Part { block: tmomi_engine::ids::BlockIndex(index as u32), mask }
    })
    .collect()
}
