//! Which seats a hold gets, and why it gets none.

use expect_test::expect;

use super::check;

/// R1. Plant: the CAS of a block becomes a load and a store of what was asked for.
#[test]
fn a_seat_is_held_once() {
    check(
        "
        hold 1 0/1-2
        hold 2 0/2-3
        hold 2 0/3 1/0
        confirm 1
        hold 3 0/1
        confirm 1
        release 1
        refund 1
        hold 3 0/1
        refund 1
        ",
        expect![[r#"
            hold 1 0/1-2 -> held 0/1-2 until 1000
                entry 0: buyer 1
                entry 0: held 0/1-2 for 1000
            hold 2 0/2-3 -> unavailable: 0/2
                entry 1: buyer 2
            hold 2 0/3 1/0 -> held 0/3 1/0 until 1000
                entry 1: held 0/3 ... for 1000
            confirm 1 -> event 8
                entry 0: confirmed 0/1-2
            hold 3 0/1 -> unavailable: 0/1
                entry 2: buyer 3
            confirm 1 -> HoldConfirmed
            release 1 -> HoldConfirmed
            refund 1 -> event 10
                entry 0: refunded 0/1-2
            hold 3 0/1 -> held 0/1 until 1000
                entry 2: held 0/1 for 1000
            refund 1 -> HoldGone
        "#]],
    );
}

/// R11. Plant: drop the give-back of the blocks before the one that refuses.
#[test]
fn a_hold_of_many_blocks_takes_all_or_nothing() {
    check(
        "
        terms 20 1000
        block 7/8
        hold 1 0/0 1/0 2/0 3/0 5/0 7/8
        hold 1 0/0 1/0 2/0 3/0 5/0 7/7
        release 1
        block 0/0 1/0 2/0 3/0 5/0 7/8
        hold 1 0/0 1/0 2/0 3/0 5/0
        release 2
        unblock 7/8
        hold 1 0/0 1/0 2/0 3/0 5/0 7/8
        confirm 3
        ",
        expect![[r#"
            terms 20 1000 -> event 3
                terms limit 20 ttl 1000
            block 7/8 -> event 4
                blocked 7/8
            hold 1 0/0 1/0 2/0 3/0 5/0 7/8 -> unavailable: 7/8
                entry 0: buyer 1
            hold 1 0/0 1/0 2/0 3/0 5/0 7/7 -> held 0/0 1/0 2/0 3/0 5/0 7/7 until 1000
                entry 0: held 0/0 ... for 1000
            release 1 -> event 11
                entry 0: released 0/0 ...
            block 0/0 1/0 2/0 3/0 5/0 7/8 -> unavailable: 7/8
            hold 1 0/0 1/0 2/0 3/0 5/0 -> held 0/0 1/0 2/0 3/0 5/0 until 1000
                entry 0: held 0/0 ... for 1000
            release 2 -> event 17
                entry 0: released 0/0 ...
            unblock 7/8 -> event 18
                unblocked 7/8
            hold 1 0/0 1/0 2/0 3/0 5/0 7/8 -> held 0/0 1/0 2/0 3/0 5/0 7/8 until 1000
                entry 0: held 0/0 ... for 1000
            confirm 3 -> event 24
                entry 0: confirmed 0/0 ...
        "#]],
    );
}

#[test]
fn what_is_no_seat_or_no_time_is_refused() {
    check(
        "
        terms 2000 1000
        hold 1 0/6
        hold 1 8/0
        hold 1
        hold 1 1/0 0/0
        hold 1 0/0 0/1
        block 4/3
        best 1 0
        best 1 1001
        hold 1 0/0 ttl=99
        hold 1 0/0 ttl=7200001
        terms 0 1000
        terms 4 50
        ",
        expect![[r#"
            terms 2000 1000 -> event 3
                terms limit 2000 ttl 1000
            hold 1 0/6 -> UnknownSeat
                entry 0: buyer 1
            hold 1 8/0 -> UnknownSeat
            hold 1 -> UnknownSeat
            hold 1 1/0 0/0 -> UnknownSeat
            hold 1 0/0 0/1 -> UnknownSeat
            block 4/3 -> UnknownSeat
            best 1 0 -> TooMany
            best 1 1001 -> TooMany
            hold 1 0/0 ttl=99 -> TtlOutOfRange
            hold 1 0/0 ttl=7200001 -> TtlOutOfRange
            terms 0 1000 -> TooMany
            terms 4 50 -> TtlOutOfRange
        "#]],
    );
}

#[test]
fn blocked_seats_are_off_sale_until_unblocked() {
    check(
        "
        hold 1 0/0
        block 0/0-1
        block 0/1 1/0-1
        hold 2 0/1
        hold 2 0/0-1 1/0
        block 1/1
        unblock 0/1
        unblock 1/0-1
        hold 2 0/1
        hold 3 1/0
        ",
        expect![[r#"
            hold 1 0/0 -> held 0/0 until 1000
                entry 0: buyer 1
                entry 0: held 0/0 for 1000
            block 0/0-1 -> unavailable: 0/0
            block 0/1 1/0-1 -> event 6
                blocked 0/1 ...
            hold 2 0/1 -> unavailable: 0/1
                entry 1: buyer 2
            hold 2 0/0-1 1/0 -> unavailable: 0/0-1
            block 1/1 -> unavailable: 1/1
            unblock 0/1 -> event 8
                unblocked 0/1
            unblock 1/0-1 -> event 9
                unblocked 1/0-1
            hold 2 0/1 -> held 0/1 until 1000
                entry 1: held 0/1 for 1000
            hold 3 1/0 -> held 1/0 until 1000
                entry 2: buyer 3
                entry 2: held 1/0 for 1000
        "#]],
    );
}

#[test]
fn the_sale_has_a_beginning_and_an_end() {
    check(
        "
        window 1000 2000
        at 998
        hold 1 0/0
        best 1 1
        join 1
        at 1000
        hold 1 0/0
        at 2000
        hold 1 0/1
        confirm 1
        ",
        expect![[r#"
            window 1000 2000
            at 998
            hold 1 0/0 -> SaleNotOpen
                entry 0: buyer 1
            best 1 1 -> SaleNotOpen
            join 1 -> number 1
                entry 0: joined as 1
                entry 0: admitted until 600998
            at 1000
            hold 1 0/0 -> held 0/0 until 2000
                entry 0: held 0/0 for 1000
            at 2000
            hold 1 0/1 -> SaleNotOpen
            confirm 1 -> HoldExpired
        "#]],
    );
}
