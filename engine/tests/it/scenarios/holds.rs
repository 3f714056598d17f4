//! How holds end, and what they count for.

use expect_test::expect;

use super::check;

/// R12. Plant: lose a timer.
#[test]
fn a_hold_ends_at_its_deadline_and_no_earlier() {
    check(
        "
        hold 1 0/0
        hold 2 0/1 ttl=100
        hold 3 0/2 ttl=98
        at 98
        tick
        at 100
        confirm 2
        extend 2 500
        hold 4 0/1
        tick
        hold 4 0/1
        at 998
        tick
        extend 1 1000
        at 1000
        tick
        at 1998
        tick
        confirm 2
        release 2
        confirm 1
        ",
        expect![[r#"
            hold 1 0/0 -> held 0/0 until 1000
                entry 0: buyer 1
                entry 0: held 0/0 for 1000
            hold 2 0/1 ttl=100 -> held 0/1 until 100
                entry 1: buyer 2
                entry 1: held 0/1 for 100
            hold 3 0/2 ttl=98 -> TtlOutOfRange
                entry 2: buyer 3
            at 98
            tick
            at 100
            confirm 2 -> HoldExpired
            extend 2 500 -> HoldExpired
            hold 4 0/1 -> unavailable: 0/1
                entry 3: buyer 4
            tick
                entry 1: expired 0/1
            hold 4 0/1 -> held 0/1 until 1100
                entry 3: held 0/1 for 1000
            at 998
            tick
            extend 1 1000 -> until 1998
                entry 0: extended by 1000
            at 1000
            tick
            at 1998
            tick
                entry 0: expired 0/0
                entry 3: expired 0/1
            confirm 2 -> HoldGone
            release 2 -> HoldGone
            confirm 1 -> HoldGone
        "#]],
    );
}

/// R12.
#[test]
fn a_hold_is_extended_to_two_hours_of_life_at_most() {
    check(
        "
        hold 1 0/0 ttl=7200000
        at 7000000
        extend 1 7200000
        extend 1 99
        extend 1 7200001
        at 7199998
        tick
        extend 1 5000
        at 7200000
        tick
        ",
        expect![[r#"
            hold 1 0/0 ttl=7200000 -> held 0/0 until 7200000
                entry 0: buyer 1
                entry 0: held 0/0 for 7200000
            at 7000000
            extend 1 7200000 -> until 7200000
                entry 0: extended by 200000
            extend 1 99 -> TtlOutOfRange
            extend 1 7200001 -> TtlOutOfRange
            at 7199998
            tick
            extend 1 5000 -> until 7200000
                entry 0: extended by 2
            at 7200000
            tick
                entry 0: expired 0/0
        "#]],
    );
}

/// R5. Plant: forget the limit on expiry.
#[test]
fn the_limit_counts_held_and_sold_seats_and_gets_them_back() {
    check(
        "
        hold 1 0/0-2
        hold 1 1/0-1
        hold 1 1/0
        confirm 1
        hold 1 1/1
        release 2
        hold 1 1/1 ttl=100
        at 100
        tick
        hold 1 1/2
        refund 1
        hold 1 0/0-2
        hold 1 0/3
        terms 2 1000
        release 4
        hold 1 1/2
        release 5
        hold 1 1/2-3
        ",
        expect![[r#"
            hold 1 0/0-2 -> held 0/0-2 until 1000
                entry 0: buyer 1
                entry 0: held 0/0-2 for 1000
            hold 1 1/0-1 -> LimitExceeded { limit: 4, used: 3 }
            hold 1 1/0 -> held 1/0 until 1000
                entry 0: held 1/0 for 1000
            confirm 1 -> event 6
                entry 0: confirmed 0/0-2
            hold 1 1/1 -> LimitExceeded { limit: 4, used: 4 }
            release 2 -> event 7
                entry 0: released 1/0
            hold 1 1/1 ttl=100 -> held 1/1 until 100
                entry 0: held 1/1 for 100
            at 100
            tick
                entry 0: expired 1/1
            hold 1 1/2 -> held 1/2 until 1100
                entry 0: held 1/2 for 1000
            refund 1 -> event 11
                entry 0: refunded 0/0-2
            hold 1 0/0-2 -> held 0/0-2 until 1100
                entry 0: held 0/0-2 for 1000
            hold 1 0/3 -> LimitExceeded { limit: 4, used: 4 }
            terms 2 1000 -> event 13
                terms limit 2 ttl 1000
            release 4 -> event 14
                entry 0: released 1/2
            hold 1 1/2 -> LimitExceeded { limit: 2, used: 3 }
            release 5 -> event 15
                entry 0: released 0/0-2
            hold 1 1/2-3 -> held 1/2-3 until 1100
                entry 0: held 1/2-3 for 1000
        "#]],
    );
}

#[test]
fn an_ended_hold_says_how_it_ended() {
    check(
        "
        hold 1 0/0
        release 1
        release 1
        confirm 1
        extend 1 100
        refund 1
        hold 1 0/0
        refund 2
        confirm 2
        confirm 2
        extend 2 100
        refund 2
        refund 2
        confirm 9
        ",
        expect![[r#"
            hold 1 0/0 -> held 0/0 until 1000
                entry 0: buyer 1
                entry 0: held 0/0 for 1000
            release 1 -> event 5
                entry 0: released 0/0
            release 1 -> HoldGone
            confirm 1 -> HoldGone
            extend 1 100 -> HoldGone
            refund 1 -> HoldGone
            hold 1 0/0 -> held 0/0 until 1000
                entry 0: held 0/0 for 1000
            refund 2 -> HoldGone
            confirm 2 -> event 7
                entry 0: confirmed 0/0
            confirm 2 -> HoldConfirmed
            extend 2 100 -> HoldConfirmed
            refund 2 -> event 8
                entry 0: refunded 0/0
            refund 2 -> HoldGone
            confirm 9 -> HoldGone
        "#]],
    );
}
