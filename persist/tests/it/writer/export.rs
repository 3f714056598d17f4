//! Orders and tickets out of the rows are those that were sold.

use std::io;

use tmomi_engine::ids::ShowtimeId;
use tmomi_persist::writer::export::{self, ExportError, ExportedOrder, ExportedTicket};

use super::reconcile::{Stage, stages};

async fn orders(stage: &Stage, showtime: Option<ShowtimeId>) -> Vec<ExportedOrder> {
    let mut all = Vec::new();
    let mut each = |order| {
        all.push(order);
        Ok(())
    };
    export::orders(&stage.database.place, showtime, &mut each).await.unwrap();
    all
}

async fn tickets(stage: &Stage, showtime: Option<ShowtimeId>) -> Vec<ExportedTicket> {
    let mut all = Vec::new();
    let mut each = |ticket| {
        all.push(ticket);
        Ok(())
    };
    export::tickets(&stage.database.place, showtime, &mut each).await.unwrap();
    all
}

/// More than a page of orders, each with all of its tickets, which count from 0 in each.
#[tokio::test]
async fn what_is_exported_is_what_was_sold() {
    for mut stage in stages(61).await {
        stage.go_on(6_000);
        stage.write().await;
        let mut sold: Vec<_> = stage.image.orders().iter().collect();
        sold.sort_unstable_by_key(|order| (order.hold.showtime, order.hold.id.seq));
        assert!(sold.len() > 64, "more than a page: {}", sold.len());
        let exported = orders(&stage, None).await;
        assert_eq!(exported.len(), sold.len());
        for (found, order) in exported.iter().zip(&sold) {
            let hold = &order.hold;
            assert_eq!((found.id, found.showtime), (hold.id, hold.showtime));
            assert_eq!(Some(found.buyer), stage.image.buyer_of(hold));
            assert_eq!(found.tickets, u64::from(hold.seats()));
            assert_eq!(found.confirmed_at, Some(order.confirmed.at));
            assert_eq!(found.refunded_at, order.refunded.map(|moment| moment.at));
            let state = if order.refunded.is_some() { "refunded" } else { "confirmed" };
            assert_eq!((found.state.as_str(), found.currency.as_str()), (state, "KRW"));
            assert_eq!(found.payment_ref.as_deref(), Some("paid"));
        }
        let all = tickets(&stage, None).await;
        let mut left = all.iter();
        for (order, sold) in exported.iter().zip(&sold) {
            let seats = sold.hold.parts().iter().flat_map(|part| part.seats());
            let mut total = 0;
            for (place, seat) in seats.enumerate() {
                let found = left.next().expect("a ticket of each seat");
                assert_eq!((found.order, found.place), (order.id, place));
                assert_eq!(found.seat, stage.seat_id(seat));
                total += found.price;
            }
            assert_eq!(order.total, total);
        }
        assert_eq!(left.next(), None);
        let showtime = Some(ShowtimeId(9));
        let some: Vec<_> = exported.into_iter().filter(|one| one.showtime.0 == 9).collect();
        assert_eq!(orders(&stage, showtime).await, some);
        let some: Vec<_> = all.into_iter().filter(|one| one.showtime.0 == 9).collect();
        assert_eq!(tickets(&stage, showtime).await, some);
    }
}

#[tokio::test]
async fn the_first_line_that_is_not_taken_ends_an_export() {
    for mut stage in stages(63).await {
        stage.go_on(300);
        stage.write().await;
        let mut taken = 0;
        let mut each = |_| {
            taken += 1;
            if taken == 2 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        };
        let ended = export::orders(&stage.database.place, None, &mut each).await;
        assert!(matches!(ended, Err(ExportError::Output(_))), "{ended:?}");
        assert_eq!(taken, 2);
    }
}
