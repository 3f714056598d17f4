//! Names and prices out of the catalog.

use std::collections::BTreeMap;

use tmomi_engine::event::LineSettings;
use tmomi_engine::ids::{ShowtimeId, TimeMs};
use tmomi_persist::catalog::{Catalog, NewShow, NewShowtime, NewVenue, ShowtimePatch};
use tmomi_persist::writer::{CatalogNames, Names, NamesError};

const NOW: TimeMs = TimeMs(1_900_000_000_000);

#[tokio::test]
async fn prices_are_read_anew_and_deleted_showtimes_keep_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&folder.path().join("catalog.db")).await.unwrap();
    let mut change = catalog.change().await.unwrap();
    let venue = NewVenue { name: "Hall", address: None };
    let venue_id = change.create_venue(venue).await.unwrap().venue_id;
    let plan = br#"{"generate":{"sections":[{"name":"F","tier":"S","places":70}]}}"#;
    change.set_plan(venue_id, plan, 70, NOW).await.unwrap();
    let show = NewShow { venue_id, name: "Show", description: None, image_url: None };
    let show = change.create_show(show).await.unwrap().show_id;
    let terms = NewShowtime {
        starts_at: NOW,
        currency: "EUR".to_owned(),
        prices: BTreeMap::from([("S".to_owned(), 5)]),
        opens_at: NOW,
        closes_at: None,
        limit: 4,
        hold_ttl_ms: 1,
        line: LineSettings::default(),
    };
    let id = change.create_showtime(show, terms.clone()).await.unwrap().showtime_id;
    let unpriced = NewShowtime { prices: BTreeMap::new(), ..terms };
    let unpriced = change.create_showtime(show, unpriced).await.unwrap().showtime_id;
    change.commit_unanswered().await.unwrap();

    let mut names = CatalogNames::new(catalog.clone());
    let house = names.house(id).await.unwrap();
    assert_eq!((&*house.prices[0].0, house.prices[0].1, &*house.currency), ("S", 5, "EUR"));
    let seat = house.plan.seat(&house.layout, "F-70").unwrap();
    assert_eq!(house.plan.seat_id(&house.layout, seat), "F-70");

    let mut change = catalog.change().await.unwrap();
    let prices = Some(BTreeMap::from([("S".to_owned(), 9)]));
    let patch = ShowtimePatch { prices, ..ShowtimePatch::default() };
    change.update_showtime(id, patch).await.unwrap();
    change.delete_showtime(id, NOW).await.unwrap();
    change.commit_unanswered().await.unwrap();
    assert_eq!(names.house(id).await.unwrap().prices[0].1, 9);

    for missing in [unpriced, ShowtimeId(77)] {
        let refused = names.house(missing).await.unwrap_err();
        assert!(matches!(refused, NamesError::Missing(_)), "{refused}");
    }
    // A database that does not answer is no reason to stop for good.
    catalog.close().await;
    let refused = names.house(id).await.unwrap_err();
    assert!(matches!(refused, NamesError::Away(_)), "{refused}");
}
