//! Who is let in, and when.

use expect_test::expect;

use super::check;

#[test]
fn a_buyer_must_be_let_in_unless_the_line_is_open() {
    check(
        "
        at 1000
        hold 1 0/0
        line fifo active=1
        hold 2 0/1
        hold 2 0/1 let-in
        hold 1 0/2
        join 1
        join 3
        tick
        hold 1 0/2
        hold 3 0/3
        leave 1
        hold 1 0/4
        confirm 3
        tick
        hold 3 0/3
        line paused
        hold 3 0/4
        hold 2 0/5
        line open
        hold 2 0/5
        ",
        expect![[r#"
            at 1000
            hold 1 0/0 -> held 0/0 until 2000
                entry 0: buyer 1
                entry 0: held 0/0 for 1000
            line fifo active=1 rate=1000000 grace=10000 session=60000 -> event 5
                line Fifo active 1
            hold 2 0/1 -> AdmissionRequired
                entry 1: buyer 2
            hold 2 0/1 let-in -> held 0/1 until 2000
                entry 1: held 0/1 for 1000
            hold 1 0/2 -> AdmissionRequired
            join 1 -> number 1
                entry 0: joined as 1
            join 3 -> number 2
                entry 2: joined as 2
            tick
                entry 0: admitted until 61000
            hold 1 0/2 -> held 0/2 until 2000
                entry 0: held 0/2 for 1000
            hold 3 0/3 -> AdmissionRequired
            leave 1 -> event 12
                entry 0: left, was Admitted
            hold 1 0/4 -> AdmissionRequired
            confirm 3 -> event 13
                entry 0: confirmed 0/2
            tick
                entry 2: admitted until 61000
            hold 3 0/3 -> held 0/3 until 2000
                entry 2: held 0/3 for 1000
            line paused active=1000 rate=1000000 grace=10000 session=60000 -> event 16
                line Paused active 1000
            hold 3 0/4 -> held 0/4 until 2000
                entry 2: held 0/4 for 1000
            hold 2 0/5 -> AdmissionRequired
            line open active=1000 rate=1000000 grace=10000 session=60000 -> event 18
                line Open active 1000
            hold 2 0/5 -> held 0/5 until 2000
                entry 1: held 0/5 for 1000
        "#]],
    );
}

/// R4. Plant: two counters of numbers.
#[test]
fn one_entry_a_buyer_and_one_number_as_long_as_he_stays() {
    check(
        "
        line fifo active=1
        join 5
        join 6
        join 5
        tick
        join 5
        join 6
        leave 6
        join 6
        leave 5
        leave 5
        join 5
        tick
        ",
        expect![[r#"
            line fifo active=1 rate=1000000 grace=10000 session=60000 -> event 3
                line Fifo active 1
            join 5 -> number 1
                entry 0: joined as 1
            join 6 -> number 2
                entry 1: joined as 2
            join 5 -> number 1 already
            tick
                entry 0: admitted until 60000
            join 5 -> number 1 already
            join 6 -> number 2 already
            leave 6 -> event 7
                entry 1: left, was Waiting
            join 6 -> number 3
                entry 1: joined as 3
            leave 5 -> event 9
                entry 0: left, was Admitted
            leave 5
            join 5 -> number 4
                entry 0: joined as 4
            tick
        "#]],
    );
}

/// R14. Plant: count the abandoned as active.
#[test]
fn the_next_is_let_in_within_one_tick_of_a_place_being_free() {
    check(
        "
        at 1000
        line fifo active=2 grace=100000 session=500
        join 1
        join 2
        join 3
        join 4
        tick
        leave 1
        tick
        hold 2 0/0
        at 1500
        tick
        touch 2
        at 2000
        tick
        at 2002
        tick
        ",
        expect![[r#"
            at 1000
            line fifo active=2 rate=1000000 grace=100000 session=500 -> event 3
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
            leave 1 -> event 10
                entry 0: left, was Admitted
            tick
                entry 2: admitted until 1500
            hold 2 0/0 -> held 0/0 until 2000
                entry 1: held 0/0 for 1000
            at 1500
            tick
                entry 2: session over
                entry 3: admitted until 2000
            touch 2
            at 2000
            tick
                entry 1: expired 0/0
                entry 1: session over
                entry 3: session over
            at 2002
            tick
        "#]],
    );
}

/// R14. Plant: wait for the abandoned at the head.
#[test]
fn the_abandoned_are_passed_over_keep_the_number_and_are_next_when_back() {
    check(
        "
        at 1000
        line fifo active=1 grace=100 session=100000
        join 1
        join 2
        join 3
        join 4
        tick
        at 1100
        touch 4
        at 1102
        leave 1
        tick
        join 5
        touch 3
        join 2
        at 1104
        tick
        leave 4
        tick
        leave 2
        at 1300
        tick
        touch 3
        tick
        ",
        expect![[r#"
            at 1000
            line fifo active=1 rate=1000000 grace=100 session=100000 -> event 3
                line Fifo active 1
            join 1 -> number 1
                entry 0: joined as 1
            join 2 -> number 2
                entry 1: joined as 2
            join 3 -> number 3
                entry 2: joined as 3
            join 4 -> number 4
                entry 3: joined as 4
            tick
                entry 0: admitted until 101000
            at 1100
            touch 4
            at 1102
            leave 1 -> event 9
                entry 0: left, was Admitted
            tick
                entry 1: passed over
                entry 2: passed over
                entry 3: admitted until 101102
            join 5 -> number 5
                entry 4: joined as 5
            touch 3
            join 2 -> number 2 already
            at 1104
            tick
            leave 4 -> event 14
                entry 3: left, was Admitted
            tick
                entry 1: admitted until 101104
            leave 2 -> event 16
                entry 1: left, was Admitted
            at 1300
            tick
                entry 4: passed over
            touch 3
            tick
                entry 2: admitted until 101300
        "#]],
    );
}

#[test]
fn a_session_ends_when_its_time_is_over_and_nothing_is_held() {
    check(
        "
        at 1000
        line fifo active=1 session=200
        join 1
        join 2
        tick
        hold 1 0/0 ttl=300
        at 1200
        tick
        hold 1 0/1 ttl=500
        at 1300
        tick
        confirm 2
        at 1302
        tick
        hold 1 0/2
        join 1
        ",
        expect![[r#"
            at 1000
            line fifo active=1 rate=1000000 grace=10000 session=200 -> event 3
                line Fifo active 1
            join 1 -> number 1
                entry 0: joined as 1
            join 2 -> number 2
                entry 1: joined as 2
            tick
                entry 0: admitted until 1200
            hold 1 0/0 ttl=300 -> held 0/0 until 1300
                entry 0: held 0/0 for 300
            at 1200
            tick
            hold 1 0/1 ttl=500 -> held 0/1 until 1700
                entry 0: held 0/1 for 500
            at 1300
            tick
                entry 0: expired 0/0
            confirm 2 -> event 10
                entry 0: confirmed 0/1
            at 1302
            tick
                entry 0: session over
                entry 1: admitted until 1502
            hold 1 0/2 -> AdmissionRequired
            join 1 -> number 3
                entry 0: joined as 3
        "#]],
    );
}

#[test]
fn admission_keeps_to_the_rate() {
    check(
        "
        line fifo rate=2000 grace=10000000
        join 1
        join 2
        join 3
        join 4
        tick
        at 498
        tick
        at 500
        tick
        at 5000
        tick
        tick
        at 5500
        tick
        ",
        expect![[r#"
            line fifo active=1000 rate=2000 grace=10000000 session=60000 -> event 3
                line Fifo active 1000
            join 1 -> number 1
                entry 0: joined as 1
            join 2 -> number 2
                entry 1: joined as 2
            join 3 -> number 3
                entry 2: joined as 3
            join 4 -> number 4
                entry 3: joined as 4
            tick
                entry 0: admitted until 60000
            at 498
            tick
            at 500
            tick
                entry 1: admitted until 60500
            at 5000
            tick
                entry 2: admitted until 65000
            tick
            at 5500
            tick
                entry 3: admitted until 65500
        "#]],
    );
}

#[test]
fn a_fast_rate_saves_up_a_tenth_of_a_second() {
    check(
        "
        line fifo rate=30000 grace=10000000
        at 10000
        join 1
        join 2
        join 3
        join 4
        join 5
        tick
        at 10034
        tick
        ",
        expect![[r#"
            line fifo active=1000 rate=30000 grace=10000000 session=60000 -> event 3
                line Fifo active 1000
            at 10000
            join 1 -> number 1
                entry 0: joined as 1
            join 2 -> number 2
                entry 1: joined as 2
            join 3 -> number 3
                entry 2: joined as 3
            join 4 -> number 4
                entry 3: joined as 4
            join 5 -> number 5
                entry 4: joined as 5
            tick
                entry 0: admitted until 70000
                entry 1: admitted until 70000
                entry 2: admitted until 70000
            at 10034
            tick
                entry 3: admitted until 70034
        "#]],
    );
}

#[test]
fn a_paused_line_admits_nobody_and_an_open_one_everybody() {
    check(
        "
        line paused
        join 1
        join 2
        tick
        line fifo active=1 rate=0
        tick
        line open
        tick
        join 3
        leave 3
        join 3
        ",
        expect![[r#"
            line paused active=1000 rate=1000000 grace=10000 session=60000 -> event 3
                line Paused active 1000
            join 1 -> number 1
                entry 0: joined as 1
            join 2 -> number 2
                entry 1: joined as 2
            tick
            line fifo active=1 rate=0 grace=10000 session=60000 -> event 6
                line Fifo active 1
            tick
            line open active=1000 rate=1000000 grace=10000 session=60000 -> event 7
                line Open active 1000
            tick
                entry 0: admitted until 60000
                entry 1: admitted until 60000
            join 3 -> number 3
                entry 2: joined as 3
                entry 2: admitted until 60000
            leave 3 -> event 12
                entry 2: left, was Admitted
            join 3 -> number 4
                entry 2: joined as 4
                entry 2: admitted until 60000
        "#]],
    );
}
