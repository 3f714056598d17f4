//! Which seats are the best; and starting again.

use expect_test::expect;

use super::check;

#[test]
fn the_best_row_comes_first_and_its_middle() {
    check(
        "
        terms 90 1000
        best 1 2 section=0
        best 1 2 section=0
        best 1 2 section=0
        best 1 2 section=1
        best 1 2 section=1 tier=0
        best 1 5
        best 1 2
        best 1 65
        best 1 3 tier=2
        best 1 7 tier=2
        best 1 5 section=0 loose
        best 1 6 section=0
        best 1 5 section=0
        best 1 1 section=0 tier=1
        ",
        expect![[r#"
            terms 90 1000 -> event 3
                terms limit 90 ttl 1000
            best 1 2 section=0 -> held 0/2-3 until 1000
                entry 0: buyer 1
                entry 0: held 0/2-3 for 1000
            best 1 2 section=0 -> held 0/0-1 until 1000
                entry 0: held 0/0-1 for 1000
            best 1 2 section=0 -> held 0/4-5 until 1000
                entry 0: held 0/4-5 for 1000
            best 1 2 section=1 -> held 3/1-2 until 1000
                entry 0: held 3/1-2 for 1000
            best 1 2 section=1 tier=0 -> held 2/1-2 until 1000
                entry 0: held 2/1-2 for 1000
            best 1 5 -> held 7/0-4 until 1000
                entry 0: held 7/0-4 for 1000
            best 1 2 -> held 7/5-6 until 1000
                entry 0: held 7/5-6 for 1000
            best 1 65 -> held 5/2-63 6/0-2 until 1000
                entry 0: held 5/2-63 ... for 1000
            best 1 3 tier=2 -> SoldOut
            best 1 7 tier=2 -> SoldOut
            best 1 5 section=0 loose -> held 1/0-4 until 1000
                entry 0: held 1/0-4 for 1000
            best 1 6 section=0 -> LimitExceeded { limit: 90, used: 87 }
            best 1 5 section=0 -> LimitExceeded { limit: 90, used: 87 }
            best 1 1 section=0 tier=1 -> SoldOut
        "#]],
    );
}

#[test]
fn a_single_seat_is_not_left_alone_if_that_can_be() {
    check(
        "
        terms 90 1000
        best 1 3 section=0 lone
        release 1
        best 1 3 section=0
        release 2
        block 0/0
        best 1 2 section=0
        best 1 2 section=0
        best 1 2 section=0
        block 1/0-2
        best 1 2 section=0
        ",
        expect![[r#"
            terms 90 1000 -> event 3
                terms limit 90 ttl 1000
            best 1 3 section=0 lone -> held 0/1-3 until 1000
                entry 0: buyer 1
                entry 0: held 0/1-3 for 1000
            release 1 -> event 6
                entry 0: released 0/1-3
            best 1 3 section=0 -> held 0/0-2 until 1000
                entry 0: held 0/0-2 for 1000
            release 2 -> event 8
                entry 0: released 0/0-2
            block 0/0 -> event 9
                blocked 0/0
            best 1 2 section=0 -> held 0/1-2 until 1000
                entry 0: held 0/1-2 for 1000
            best 1 2 section=0 -> held 0/3-4 until 1000
                entry 0: held 0/3-4 for 1000
            best 1 2 section=0 -> held 1/2-3 until 1000
                entry 0: held 1/2-3 for 1000
            block 1/0-2 -> unavailable: 1/2
            best 1 2 section=0 -> held 1/0-1 until 1000
                entry 0: held 1/0-1 for 1000
        "#]],
    );
}

#[test]
fn an_engine_built_from_its_log_goes_on_where_the_old_one_stopped() {
    check(
        "
        at 1000
        line fifo active=2 session=500 grace=200
        join 1
        join 2
        join 3
        join 4
        tick
        hold 1 0/0 1/0 2/0
        hold 2 0/1
        confirm 1
        block 0/5
        at 1300
        restart
        join 3
        hold 1 0/0
        hold 1 0/1
        hold 2 0/5 let-in
        refund 1
        confirm 2
        at 1500
        tick
        join 5
        unblock 0/5
        ",
        expect![[r#"
            at 1000
            line fifo active=2 rate=1000000 grace=200 session=500 -> event 3
                line Fifo active 2
            join 1 -> number 1
                entry 0: joined as 1
            join 2 -> number 2
                entry 1: joined as 2
            join 3 -> number 3
                entry 2: joined as 3
            join 4 -> number 4
                entry 3: joined as 4
            tick
                entry 0: admitted until 1500
                entry 1: admitted until 1500
            hold 1 0/0 1/0 2/0 -> held 0/0 1/0 2/0 until 2000
                entry 0: held 0/0 ... for 1000
            hold 2 0/1 -> held 0/1 until 2000
                entry 1: held 0/1 for 1000
            confirm 1 -> event 14
                entry 0: confirmed 0/0 ...
            block 0/5 -> event 15
                blocked 0/5
            at 1300
            restart
            join 3 -> number 3 already
            hold 1 0/0 -> unavailable: 0/0
            hold 1 0/1 -> unavailable: 0/1
            hold 2 0/5 let-in -> unavailable: 0/5
            refund 1 -> event 17
                entry 0: refunded 0/0 ...
            confirm 2 -> event 18
                entry 1: confirmed 0/1
            at 1500
            tick
                entry 0: session over
                entry 1: session over
                entry 2: admitted until 2000
                entry 3: admitted until 2000
            join 5 -> number 5
                entry 4: joined as 5
            unblock 0/5 -> event 24
                unblocked 0/5
        "#]],
    );
}
