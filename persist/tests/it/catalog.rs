//! The catalog database: what it keeps, what it refuses, and what survives.

use std::collections::BTreeMap;

use serde_json::json;
use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_engine::ids::{BuyerId, ShowtimeId, TimeMs};
use tmomi_persist::catalog::{
    Answer, Begun, CALL_KEPT_MS, Call, Catalog, CatalogError, Change, Known, NewShow, NewShowtime,
    NewUser, NewVenue, Noun, OpenError, Page, Role, Rotation, ShowId, ShowPatch, ShowtimePatch,
    SigningKey, VenueId, VenuePatch,
};
use tmomi_persist::plan::Plan;

use crate::databases::{self, Database};

const NOW: TimeMs = TimeMs(1_900_000_000_000);
const ALL: Page = Page { after: 0, limit: 1_000 };

/// Every test is one of each kind of database.
macro_rules! on_every_database {
    ($($name:ident)*) => {$(
        mod $name {
            use super::databases;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$name(&databases::sqlite("catalog.db")).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mysql() {
                super::$name(&databases::mysql().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() {
                super::$name(&databases::mariadb().await).await;
            }
        }
    )*};
}

on_every_database! {
    an_email_is_taken_whatever_the_case_of_its_letters
    accounts_sessions_and_keys_survive_a_restart
    who_exists_is_asked_in_one_question
    reuse_of_a_refresh_token_kills_its_family_and_no_other
    what_stands_on_something_keeps_it_in_use
    a_plan_that_nothing_used_is_replaced_and_forgotten
    showtimes_keep_every_term_and_take_changes
    every_tier_of_a_plan_has_its_price
    shows_are_found_by_any_part_of_show_or_venue
    changes_of_venues_and_shows_touch_only_what_was_sent
    a_call_and_its_answer_are_there_together_or_not_at_all
    the_same_call_at_the_same_time_is_done_once
    a_number_is_never_given_twice
    a_database_of_a_newer_version_is_refused_and_left_alone
}

async fn open(database: &Database) -> Catalog {
    Catalog::open(database.place.clone()).await.unwrap()
}

fn new_user(email: &str) -> NewUser<'_> {
    NewUser { email, password_hash: "$argon2id$x", role: Role::Buyer, at: NOW }
}

async fn add_user(catalog: &Catalog, email: &str) -> Result<BuyerId, CatalogError> {
    let mut change = catalog.change().await?;
    let user = change.create_user(new_user(email)).await?;
    change.commit_unanswered().await?;
    Ok(user.user_id)
}

fn terms(starts_at: u64) -> NewShowtime {
    NewShowtime {
        starts_at: TimeMs(starts_at),
        currency: "KRW".to_owned(),
        prices: BTreeMap::from([("R".to_owned(), 150_000), ("S".to_owned(), 90_000)]),
        opens_at: NOW,
        closes_at: None,
        limit: 4,
        hold_ttl_ms: 300_000,
        line: LineSettings::default(),
    }
}

/// A venue with a plan and a show there.
async fn add_show(change: &mut Change, name: &str, venue: &str) -> (VenueId, ShowId) {
    let new = NewVenue { name: venue, address: Some("Seoul") };
    let venue = change.create_venue(new).await.unwrap().venue_id;
    change.set_plan(venue, b"{}", 500, NOW).await.unwrap();
    let new = NewShow { venue_id: venue, name, description: None, image_url: Some("/a.png") };
    (venue, change.create_show(new).await.unwrap().show_id)
}

async fn an_email_is_taken_whatever_the_case_of_its_letters(database: &Database) {
    let catalog = open(database).await;
    let first = add_user(&catalog, "Bühne@Example.com").await.unwrap();
    let taken = add_user(&catalog, "bÜHNE@example.COM").await;
    assert!(matches!(taken, Err(CatalogError::EmailTaken)), "{taken:?}");
    let found = catalog.user_by_email("BÜHNE@EXAMPLE.COM").await.unwrap();
    assert_eq!((found.user_id, found.email.as_str()), (first, "Bühne@Example.com"));
    assert_eq!(found.role, Role::Buyer);
    // The refused change is gone, and the next one is not hindered.
    assert!(add_user(&catalog, "other@example.com").await.unwrap() > first);
    let unknown = catalog.user_by_email("nobody@example.com").await;
    assert!(matches!(unknown, Err(CatalogError::NotFound(Noun::User))));
}

async fn accounts_sessions_and_keys_survive_a_restart(database: &Database) {
    let catalog = open(database).await;
    let user = add_user(&catalog, "a@example.com").await.unwrap();
    let key = SigningKey {
        kid: "k1".to_owned(),
        private: vec![7; 32],
        created_at: NOW,
        retired_at: None,
    };
    let mut change = catalog.change().await.unwrap();
    change.begin_session(user, &[1; 32], NOW.plus_ms(1_000)).await.unwrap();
    change.add_signing_key(&key).await.unwrap();
    change.set_setting("shard", "7").await.unwrap();
    change.set_setting("shard", "8").await.unwrap();
    change.commit_unanswered().await.unwrap();
    catalog.close().await;

    let catalog = open(database).await;
    assert_eq!(catalog.setting("shard").await.unwrap().as_deref(), Some("8"));
    assert_eq!(catalog.setting("else").await.unwrap(), None);
    assert_eq!(catalog.signing_keys().await.unwrap(), [key]);
    let mut change = catalog.change().await.unwrap();
    let rotation = change.rotate_session(&[1; 32], &[2; 32], NOW, NOW).await.unwrap();
    assert_eq!(rotation, Rotation::Fresh(user));
    change.retire_signing_key("k1", NOW).await.unwrap();
    change.commit_unanswered().await.unwrap();
    assert_eq!(catalog.signing_keys().await.unwrap()[0].retired_at, Some(NOW));
    let mut change = catalog.change().await.unwrap();
    assert_eq!(change.forget_signing_keys(NOW.plus_ms(1)).await.unwrap(), 1);
    change.set_credentials(user, "new", Role::Admin).await.unwrap();
    change.commit_unanswered().await.unwrap();
    let user = catalog.user(user).await.unwrap();
    assert_eq!((user.password_hash.as_str(), user.role), ("new", Role::Admin));
    assert!(!format!("{user:?}").contains("new"), "hashes are not for logs");
}

async fn who_exists_is_asked_in_one_question(database: &Database) {
    let catalog = open(database).await;
    let mut users = Vec::new();
    for n in 0..3 {
        users.push(add_user(&catalog, &format!("{n}@example.com")).await.unwrap());
    }
    let strangers = (1_000..30_000).map(BuyerId);
    let asked: Vec<BuyerId> = strangers.chain(users.iter().rev().copied()).collect();
    assert_eq!(catalog.known_users(&asked).await.unwrap(), users);
    assert!(catalog.known_users(&[]).await.unwrap().is_empty());
}

async fn reuse_of_a_refresh_token_kills_its_family_and_no_other(database: &Database) {
    let catalog = open(database).await;
    let user = add_user(&catalog, "a@example.com").await.unwrap();
    let mut change = catalog.change().await.unwrap();
    let far = NOW.plus_ms(1_000_000);
    change.begin_session(user, &[1; 32], far).await.unwrap();
    change.begin_session(user, &[9; 32], far).await.unwrap();
    let mut rotate = async |old: u8, new: u8| {
        change.rotate_session(&[old; 32], &[new; 32], far, NOW).await.unwrap()
    };
    assert_eq!(rotate(1, 2).await, Rotation::Fresh(user));
    assert_eq!(rotate(2, 3).await, Rotation::Fresh(user));
    assert_eq!(rotate(1, 4).await, Rotation::Reused);
    // Planted bug: do not delete the family. Then the thief's token would go on.
    assert_eq!(rotate(3, 5).await, Rotation::Unknown);
    assert_eq!(rotate(2, 5).await, Rotation::Unknown);
    assert_eq!(rotate(9, 10).await, Rotation::Fresh(user));
    let late = change.rotate_session(&[10; 32], &[11; 32], far, far).await.unwrap();
    assert_eq!(late, Rotation::Expired);
    let session = change.session_of(&[10; 32]).await.unwrap().expect("it goes on");
    change.end_family(session.family).await.unwrap();
    let gone = change.rotate_session(&[10; 32], &[11; 32], far, NOW).await.unwrap();
    assert_eq!(gone, Rotation::Unknown);
    change.begin_session(user, &[20; 32], NOW).await.unwrap();
    assert_eq!(change.forget_tokens(NOW).await.unwrap(), 1);
}

async fn what_stands_on_something_keeps_it_in_use(database: &Database) {
    let catalog = open(database).await;
    let mut change = catalog.change().await.unwrap();
    let (venue, show) = add_show(&mut change, "Show", "Hall").await;
    let plan = change.set_plan(venue, b"{1}", 7, NOW).await.unwrap();
    let showtime = change.create_showtime(show, terms(NOW.0)).await.unwrap();
    assert_eq!(showtime.plan_id, plan);

    let refused = |result: Result<(), CatalogError>, noun| match result {
        Err(CatalogError::InUse(what)) => assert_eq!(what, noun),
        other => panic!("{noun} must be in use: {other:?}"),
    };
    refused(change.delete_venue(venue, NOW).await, Noun::Venue);
    refused(change.delete_show(show, NOW).await, Noun::Show);
    refused(change.set_plan(venue, b"{2}", 8, NOW).await.map(|_| ()), Noun::Plan);
    let other = NewVenue { name: "Other", address: None };
    let other = change.create_venue(other).await.unwrap().venue_id;
    let move_to = ShowPatch { venue_id: Some(other), ..ShowPatch::default() };
    refused(change.update_show(show, move_to.clone()).await.map(|_| ()), Noun::Show);

    // Without the showtime everything can go; what the log may speak of can still be read.
    change.delete_showtime(showtime.showtime_id, NOW).await.unwrap();
    let newer = change.set_plan(venue, b"{2}", 8, NOW).await.unwrap();
    assert_eq!(change.update_show(show, move_to).await.unwrap().venue_id, other);
    change.delete_show(show, NOW).await.unwrap();
    change.delete_venue(venue, NOW).await.unwrap();
    change.commit_unanswered().await.unwrap();

    let missing = catalog.showtime(showtime.showtime_id).await;
    assert!(matches!(missing, Err(CatalogError::NotFound(Noun::Showtime))));
    assert!(matches!(catalog.show(show).await, Err(CatalogError::NotFound(Noun::Show))));
    assert!(matches!(catalog.venue(venue).await, Err(CatalogError::NotFound(Noun::Venue))));
    assert_eq!(catalog.showtime_ever(showtime.showtime_id).await.unwrap(), showtime);
    assert_eq!(catalog.plan(plan).await.unwrap().body, b"{1}");
    assert_eq!(catalog.plan(newer).await.unwrap().seats, 8);
}

async fn a_plan_that_nothing_used_is_replaced_and_forgotten(database: &Database) {
    let catalog = open(database).await;
    let mut change = catalog.change().await.unwrap();
    let (venue, show) = add_show(&mut change, "Show", "Hall").await;
    let bare = change.create_venue(NewVenue { name: "b", address: None }).await.unwrap().venue_id;
    let new = NewShow { venue_id: bare, name: "b", description: None, image_url: None };
    let there = change.create_show(new).await.unwrap().show_id;
    let refused = change.create_showtime(there, terms(1)).await;
    assert!(matches!(refused, Err(CatalogError::NotFound(Noun::Plan))));
    let refused = change.create_showtime(ShowId(99), terms(1)).await;
    assert!(matches!(refused, Err(CatalogError::NotFound(Noun::Show))));
    let refused = change.create_show(NewShow { venue_id: VenueId(u64::MAX), ..new }).await;
    assert!(matches!(refused, Err(CatalogError::NotFound(Noun::Venue))));
    let old = change.set_plan(venue, b"1", 1, NOW).await.unwrap();
    let plan = change.set_plan(venue, b"2", 2, NOW).await.unwrap();
    change.create_showtime(show, terms(1)).await.unwrap();
    change.commit_unanswered().await.unwrap();
    assert!(matches!(catalog.plan(old).await, Err(CatalogError::NotFound(Noun::Plan))));
    let venue = catalog.venue(venue).await.unwrap();
    assert_eq!((venue.capacity, venue.plan), (2, Some(plan)));
}

async fn showtimes_keep_every_term_and_take_changes(database: &Database) {
    let catalog = open(database).await;
    let mut change = catalog.change().await.unwrap();
    let (_, show) = add_show(&mut change, "Show", "Hall").await;
    let line = LineSettings {
        mode: LineMode::Fifo,
        max_active: 1,
        rate_per_1000s: 2_500,
        grace_ms: 3,
        session_ms: u32::MAX,
    };
    let made = NewShowtime { closes_at: Some(TimeMs(5)), line, ..terms(9) };
    let late = change.create_showtime(show, made.clone()).await.unwrap();
    let early = change.create_showtime(show, terms(2)).await.unwrap();
    change.commit_unanswered().await.unwrap();
    assert_eq!(catalog.showtime(late.showtime_id).await.unwrap().terms, made);
    let ids = |list: &[tmomi_persist::catalog::Showtime]| -> Vec<ShowtimeId> {
        list.iter().map(|showtime| showtime.showtime_id).collect()
    };
    let of_show = catalog.showtimes_of(show).await.unwrap();
    assert_eq!(ids(&of_show), [early.showtime_id, late.showtime_id]);
    assert_eq!(of_show[0], early);

    let mut change = catalog.change().await.unwrap();
    let patch = ShowtimePatch {
        closes_at: Some(None),
        prices: Some(BTreeMap::from([("R".to_owned(), (1 << 53) - 1)])),
        limit: Some(9),
        ..ShowtimePatch::default()
    };
    let changed = change.update_showtime(late.showtime_id, patch).await.unwrap();
    change.commit_unanswered().await.unwrap();
    assert_eq!(catalog.showtime(late.showtime_id).await.unwrap(), changed);
    assert_eq!((changed.terms.closes_at, changed.terms.limit), (None, 9));
    assert_eq!(changed.terms.prices.len(), 1);
    assert_eq!(changed.terms.line, line);
    let page = catalog.showtimes(Page { after: 0, limit: 1 }).await.unwrap();
    assert_eq!((ids(&page.items), page.next), (vec![late.showtime_id], Some(1)));
    let page = catalog.showtimes(Page { after: 1, limit: 1 }).await.unwrap();
    assert_eq!((ids(&page.items), page.next), (vec![early.showtime_id], None));
}

/// Planted bug: a plan has tiers that only a blank at their ends tells apart, which is one key to
/// two of the databases.
async fn every_tier_of_a_plan_has_its_price(database: &Database) {
    let names = ["R", "R ", "r", "R\u{e9}", "Re\u{301}", "R\t"];
    let section = |tier: &&str| json!({ "name": tier, "tier": tier, "places": 1 });
    let sections: Vec<_> = names.iter().map(section).collect();
    let plan = json!({ "generate": { "sections": sections } }).to_string();
    let plan = Plan::from_json(plan.as_bytes()).unwrap();
    let prices = plan.tiers().iter().zip(1..).map(|(tier, price)| (tier.to_string(), price));
    let made = NewShowtime { prices: prices.collect(), ..terms(1) };
    let catalog = open(database).await;
    let mut change = catalog.change().await.unwrap();
    let (_, show) = add_show(&mut change, "Show", "Hall").await;
    let showtime = change.create_showtime(show, made.clone()).await.unwrap().showtime_id;
    change.commit_unanswered().await.unwrap();
    assert_eq!(catalog.showtime(showtime).await.unwrap().terms, made);
    assert_eq!(made.prices.len(), 4);
}

async fn shows_are_found_by_any_part_of_show_or_venue(database: &Database) {
    let catalog = open(database).await;
    let mut change = catalog.change().await.unwrap();
    let (_, opera) = add_show(&mut change, "오페라의 유령", "세종문화회관").await;
    let (_, percent) = add_show(&mut change, "100% Ärger_!", "Bühne").await;
    let (venue, _) = add_show(&mut change, "1000 x", "Hall").await;
    for starts_at in [30, 10, 20] {
        change.create_showtime(opera, terms(starts_at)).await.unwrap();
    }
    let gone = change.create_showtime(opera, terms(5)).await.unwrap().showtime_id;
    change.delete_showtime(gone, NOW).await.unwrap();
    let new = NewShow { venue_id: venue, name: "gone", description: None, image_url: None };
    let gone = change.create_show(new).await.unwrap().show_id;
    change.delete_show(gone, NOW).await.unwrap();
    change.commit_unanswered().await.unwrap();

    let find = async |part: &str| -> Vec<u64> {
        let found = catalog.shows(Some(part), ALL).await.unwrap().items;
        found.iter().map(|show| show.show_id.0).collect()
    };
    assert_eq!(find("페라").await, [opera.0]);
    assert_eq!(find("문화").await, [opera.0]);
    assert_eq!(find("ÄRG").await, [percent.0]);
    assert_eq!(find("bÜh").await, [percent.0]);
    // Planted bug: no escape. Then `%` would find "1000 x" as well.
    assert_eq!(find("0%").await, [percent.0]);
    assert_eq!(find("_").await, [percent.0]);
    assert_eq!(find("_!").await, [percent.0]);
    assert_eq!(find("'; DROP TABLE shows; --").await, [0; 0]);
    assert_eq!(find("").await.len(), 3);

    let first = catalog.all_shows(Page { after: 0, limit: 1 }).await.unwrap();
    assert_eq!(first.items[0], catalog.show(first.items[0].show_id).await.unwrap());
    assert_eq!(first.next, Some(first.items[0].show_id.0));
    let list = catalog.shows(None, Page { after: 0, limit: 2 }).await.unwrap();
    assert_eq!(list.next, Some(percent.0));
    let card = &list.items[0];
    assert_eq!((card.starts_on, card.ends_on), (Some(TimeMs(10)), Some(TimeMs(30))));
    assert_eq!((card.showtimes, card.venue.as_str()), (3, "세종문화회관"));
    assert_eq!((list.items[1].starts_on, list.items[1].showtimes), (None, 0));
    let rest = catalog.shows(None, Page { after: percent.0, limit: 2 }).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
}

async fn changes_of_venues_and_shows_touch_only_what_was_sent(database: &Database) {
    let catalog = open(database).await;
    let mut change = catalog.change().await.unwrap();
    let (venue, show) = add_show(&mut change, "Show", "Hall").await;
    let patch = VenuePatch { address: Some(None), ..VenuePatch::default() };
    let changed = change.update_venue(venue, patch).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.address, changed.capacity), ("Hall", None, 500));
    let patch = ShowPatch {
        name: Some("\0\x1b[31m'\"".to_owned()),
        description: Some(Some("d".to_owned())),
        ..ShowPatch::default()
    };
    let changed = change.update_show(show, patch).await.unwrap();
    change.commit_unanswered().await.unwrap();
    assert_eq!(catalog.show(show).await.unwrap(), changed);
    assert_eq!(changed.name, "\0\x1b[31m'\"", "control characters are kept as they are");
    assert_eq!(changed.image_url.as_deref(), Some("/a.png"));
    assert_eq!(catalog.venues(ALL).await.unwrap().items.len(), 1);
}

async fn a_call_and_its_answer_are_there_together_or_not_at_all(database: &Database) {
    let catalog = open(database).await;
    let call = Call { scope: 3, key: [1; 32], fingerprint: [2; 32], at: NOW };
    let venue = NewVenue { name: "Hall", address: None };
    let fresh = async |catalog: &Catalog, call| match catalog.begin(Some(call)).await.unwrap() {
        Begun::Fresh(change) => change,
        other => panic!("nothing was done under this key: {other:?}"),
    };

    // Broken off before the commit: nothing happened.
    let mut change = fresh(&catalog, call).await;
    change.create_venue(venue).await.unwrap();
    drop(change);
    assert!(catalog.venues(ALL).await.unwrap().items.is_empty());

    let mut change = fresh(&catalog, call).await;
    change.create_venue(venue).await.unwrap();
    let answer = Answer { status: 201, body: b"{\"venue_id\":1}".to_vec() };
    change.commit(&answer).await.unwrap();
    catalog.close().await;

    let catalog = open(database).await;
    let again = Call { at: NOW.plus_ms(CALL_KEPT_MS - 1), ..call };
    assert!(matches!(catalog.begin(Some(again)).await.unwrap(), Begun::Done(a) if a == answer));
    let reused = Call { fingerprint: [3; 32], ..call };
    assert!(matches!(catalog.begin(Some(reused)).await.unwrap(), Begun::KeyReused));
    drop(fresh(&catalog, Call { scope: 4, ..call }).await);
    assert_eq!(catalog.known(&again).await.unwrap(), Known::Answer(answer));
    assert_eq!(catalog.known(&reused).await.unwrap(), Known::Other);
    assert_eq!(catalog.known(&Call { scope: 4, ..call }).await.unwrap(), Known::Nothing);
    assert_eq!(catalog.keys_of(3, again.at).await.unwrap(), [[1; 32]]);
    assert!(catalog.keys_of(3, NOW.plus_ms(CALL_KEPT_MS)).await.unwrap().is_empty());
    assert!(catalog.keys_of(4, NOW).await.unwrap().is_empty());
    assert_eq!(catalog.venues(ALL).await.unwrap().items.len(), 1);

    // After a day the key is free, and takes another answer.
    let later = Call { fingerprint: [3; 32], at: NOW.plus_ms(CALL_KEPT_MS), ..call };
    let other = Answer { status: 200, body: Vec::new() };
    fresh(&catalog, later).await.commit(&other).await.unwrap();
    assert!(matches!(catalog.begin(Some(later)).await.unwrap(), Begun::Done(a) if a == other));
    let mut change = catalog.change().await.unwrap();
    assert_eq!(change.forget_answers(later.at).await.unwrap(), 0);
    assert_eq!(change.forget_answers(later.at.plus_ms(CALL_KEPT_MS)).await.unwrap(), 1);
}

/// Planted bug: a change on a server does not wait for its turn.
async fn the_same_call_at_the_same_time_is_done_once(database: &Database) {
    let catalog = open(database).await;
    // Another process comes by connections of its own.
    let other = open(database).await;
    let tasks = (0..16).map(|n| {
        let catalog = if n % 2 == 0 { catalog.clone() } else { other.clone() };
        tokio::spawn(async move {
            let call = Call { scope: 3, key: [1; 32], fingerprint: [2; 32], at: NOW };
            match catalog.begin(Some(call)).await.unwrap() {
                Begun::Fresh(mut change) => {
                    let venue = NewVenue { name: "Hall", address: None };
                    let id = change.create_venue(venue).await.unwrap().venue_id.0;
                    let body = id.to_string().into_bytes();
                    change.commit(&Answer { status: 201, body: body.clone() }).await.unwrap();
                    body
                }
                Begun::Done(answer) => answer.body,
                Begun::KeyReused => panic!("the same call"),
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), b"1");
    }
    assert_eq!(catalog.venues(ALL).await.unwrap().items.len(), 1);
}

async fn a_number_is_never_given_twice(database: &Database) {
    let catalog = open(database).await;
    let mut change = catalog.change().await.unwrap();
    let (venue, show) = add_show(&mut change, "Show", "Hall").await;
    change.delete_show(show, NOW).await.unwrap();
    change.delete_venue(venue, NOW).await.unwrap();
    change.commit_unanswered().await.unwrap();
    catalog.close().await;
    let catalog = open(database).await;
    let mut change = catalog.change().await.unwrap();
    let (next, next_show) = add_show(&mut change, "Show", "Hall").await;
    assert!(next > venue && next_show > show);
}

async fn a_database_of_a_newer_version_is_refused_and_left_alone(database: &Database) {
    let catalog = open(database).await;
    add_user(&catalog, "a@example.com").await.unwrap();
    catalog.close().await;
    let newer = "INSERT INTO _sqlx_migrations
        (version, description, success, checksum, execution_time) VALUES (9999, 'x', 1, x'00', 0)";
    database.run(newer).await;
    let refused = Catalog::open(database.place.clone()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 9999, .. }), "{refused}");
    assert!(refused.to_string().contains("format 9999"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    std::fs::write(&path, "not a database, but long enough to have a header of its own".repeat(99))
        .unwrap();
    let refused = Catalog::open(&path).await.unwrap_err();
    assert!(matches!(refused, OpenError::NoDatabase(_)), "{refused}");
}
