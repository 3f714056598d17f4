//! The engine's refusals as problems.

use tmomi_engine::{Conflict, HOLD_TTL_MS_MAX, HOLD_TTL_MS_MIN, PARTS_MAX, Reject, SeatState};

use crate::halls::Hall;
use crate::problem::{Code, ConflictSeat, Problem};

/// How long to wait before another try when the log does not keep up, in ms.
const RING_FULL_RETRY_MS: u64 = 100;

/// What a refused request about the seats of `hall` is answered.
///
/// [`Reject::HoldGone`] is answered as a hold that was given up; a caller that can tell an
/// expired one looks before.
pub(crate) fn problem(reject: Reject, hall: &Hall) -> Problem {
    match reject {
        Reject::SeatUnavailable(part) => {
            let problem = Problem::new(Code::SeatUnavailable, "a seat is held, sold or blocked");
            problem.with_conflicts(conflicts(hall.house().conflict(part), hall))
        }
        Reject::NotBlocked(part) => {
            let problem = Problem::new(Code::SeatUnavailable, "a seat is not blocked");
            problem.with_conflicts(conflicts(hall.house().seat_states(part), hall))
        }
        Reject::Contended => {
            let problem = Problem::new(Code::Contended, "others are trying for the same");
            problem.retry_after_ms(0)
        }
        Reject::NoAdjacentSeats => {
            Problem::new(Code::NoAdjacentSeats, "no row has so many free seats side by side")
        }
        Reject::SoldOut => Problem::new(Code::SoldOut, "there are not so many free seats"),
        Reject::SaleNotOpen => Problem::new(Code::SaleNotOpen, "the sale is not open"),
        Reject::AdmissionRequired => {
            Problem::new(Code::AdmissionRequired, "join the line and wait to be admitted")
        }
        Reject::LimitExceeded { limit, used } => {
            let detail = format!("a buyer may have {limit} seats");
            Problem::new(Code::LimitExceeded, detail).with_limit(limit, used)
        }
        Reject::HoldExpired => Problem::new(Code::HoldExpired, "the deadline has passed"),
        Reject::HoldConfirmed => Problem::new(Code::HoldConfirmed, "the hold is an order"),
        Reject::HoldGone => Problem::new(Code::HoldReleased, "the hold was given up"),
        Reject::UnknownSeat => Problem::new(Code::UnknownSeat, "the house has no such seat"),
        Reject::TooMany => {
            let detail = format!("more than 1000 seats, or in more than {PARTS_MAX} places");
            Problem::bad_request(detail)
        }
        Reject::TtlOutOfRange => {
            let detail = format!("ttl_ms must be {HOLD_TTL_MS_MIN} to {HOLD_TTL_MS_MAX}");
            Problem::bad_field("/ttl_ms", detail)
        }
        Reject::RingFull => {
            let problem = Problem::overloaded("the log does not keep up");
            problem.retry_after_ms(RING_FULL_RETRY_MS)
        }
        Reject::SlabFull => Problem::overloaded("there is no room for another hold or entry"),
        Reject::AlreadyOpen => Problem::internal("a showtime was opened twice"),
    }
}

fn conflicts(conflict: Conflict, hall: &Hall) -> Vec<ConflictSeat> {
    let taken = conflict
        .seats()
        .map(|(seat, state)| ConflictSeat { seat: hall.seat_id(seat), state: state_name(state) });
    taken.collect()
}

/// The name of a seat's state in the API.
pub(crate) fn state_name(state: SeatState) -> &'static str {
    match state {
        SeatState::Free => "free",
        SeatState::Held => "held",
        SeatState::Sold => "sold",
        SeatState::Blocked => "blocked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::halls::tests::hall;
    use tmomi_engine::ids::BlockIndex;

    #[test]
    fn conflicts_are_named_as_the_plan_names_seats() {
        let hall = hall();
        let conflict =
            Conflict { block: BlockIndex(1), held: 0b1, sold: 0b100, ..Conflict::default() };
        let problem =
            Problem::new(Code::SeatUnavailable, "").with_conflicts(conflicts(conflict, &hall));
        let body = serde_json::to_value(problem.body()).expect("text and numbers");
        let expected = serde_json::json!([
            {"seat": "A-2-1", "state": "held"}, {"seat": "A-2-3", "state": "sold"},
        ]);
        assert_eq!(body["conflicts"], expected);
    }
}
