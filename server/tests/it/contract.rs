//! The contract's general part: the order of the checks, the form of every answer.

use serde_json::{Value, json};

use crate::support::house::{self, STARTS_AT, Sale, hall, id, number};
use crate::support::{Client, Launch, Server};

/// Calls that need a token, with a body that is right.
fn guarded(sale: &Sale) -> Vec<(&'static str, String, Option<Value>)> {
    vec![
        ("GET", "/v1/me".into(), None),
        ("POST", sale.path("/line"), None),
        ("GET", sale.path("/line/me"), None),
        ("DELETE", sale.path("/line/me"), None),
        ("GET", sale.path("/line/stream"), None),
        ("POST", sale.path("/holds"), Some(json!({ "seats": ["A-1-1"] }))),
        ("GET", "/v1/holds/none".into(), None),
        ("PATCH", "/v1/holds/none".into(), Some(json!({ "ttl_ms": 1_000 }))),
        ("DELETE", "/v1/holds/none".into(), None),
        ("POST", "/v1/holds/none/confirm".into(), Some(json!({}))),
        ("GET", "/v1/orders".into(), None),
        ("GET", "/v1/orders/none".into(), None),
        ("POST", "/v1/orders/none/refund".into(), None),
        ("GET", "/v1/tickets".into(), None),
        ("GET", "/v1/tickets/none".into(), None),
    ]
}

/// Calls that only an admin may make, with a body that is right.
fn organisers(sale: &Sale) -> Vec<(&'static str, String, Option<Value>)> {
    let showtime = json!({ "show_id": sale.show, "starts_at": STARTS_AT, "currency": "EUR",
                           "prices": { "Standard": 1 } });
    let show = json!({ "name": "x", "venue_id": sale.venue });
    let blocks = json!({ "seats": ["A-1-1"] });
    let mut calls = vec![
        ("POST", "/v1/admin/venues".into(), Some(json!({ "name": "x" }))),
        ("POST", "/v1/admin/shows".into(), Some(show)),
        ("POST", "/v1/admin/showtimes".into(), Some(showtime)),
        ("PUT", format!("/v1/admin/venues/{}/plan", sale.venue), Some(house::rows(1, 1))),
        ("PUT", sale.admin_path("/line"), Some(json!({ "mode": "open" }))),
        ("POST", sale.admin_path("/blocks"), Some(blocks.clone())),
        ("DELETE", sale.admin_path("/blocks"), Some(blocks)),
        ("GET", sale.admin_path("/stats"), None),
        ("GET", sale.admin_path("/events"), None),
    ];
    for (plural, number) in
        [("venues", sale.venue), ("shows", sale.show), ("showtimes", sale.showtime)]
    {
        calls.push(("GET", format!("/v1/admin/{plural}"), None));
        calls.push(("GET", format!("/v1/admin/{plural}/{number}"), None));
        calls.push(("PATCH", format!("/v1/admin/{plural}/{number}"), Some(json!({}))));
        calls.push(("DELETE", format!("/v1/admin/{plural}/{number}"), None));
    }
    calls
}

async fn call(client: &Client, call: &(&str, String, Option<Value>)) -> crate::support::Reply {
    let method = call.0.parse().expect("a method");
    client.send(client.request(method, &call.1, None, call.2.clone())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_no_token_is_told_401_and_a_buyer_on_an_admin_path_403() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    let stranger = Client::stranger(server.address());
    for guarded in guarded(&sale).iter().chain(&organisers(&sale)) {
        let reply = call(&stranger, guarded).await;
        assert_eq!(reply.status, 401, "{} {}", guarded.0, guarded.1);
        reply.refused(401, "unauthenticated");
    }
    for organiser in &organisers(&sale) {
        let reply = call(&buyer.client, organiser).await;
        assert_eq!(reply.status, 403, "{} {}", organiser.0, organiser.1);
        reply.refused(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_come_in_the_order_of_the_contract() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    let stranger = Client::stranger(server.address());
    let nowhere = stranger.post("/v1/nowhere", json!({})).await;
    nowhere.refused(404, "not-found");
    let reply = stranger.put(&sale.path("/holds"), json!({})).await;
    reply.refused(405, "method-not-allowed");
    assert!(reply.header("allow").contains("POST"), "{:?}", reply.headers);
    // Token before role before body before existence.
    let bad = json!({ "surprise": true });
    let path = "/v1/admin/venues/999999/plan";
    stranger.put(path, bad.clone()).await.refused(401, "unauthenticated");
    buyer.client.put(path, bad.clone()).await.refused(403, "forbidden");
    assert_eq!(sale.admin.put(path, bad).await.status, 400);
    let reply = sale.admin.put(path, house::rows(1, 1)).await;
    reply.refused(404, "not-found");
    // Size before media type before body.
    let mut large = buyer.client.request(hyper::Method::POST, &sale.path("/holds"), None, None);
    *large.body_mut() = vec![b' '; (1 << 20) + 1].into();
    buyer.client.send(large).await.refused(413, "body-too-large");
    let mut text = buyer.client.request(hyper::Method::POST, &sale.path("/holds"), None, None);
    *text.body_mut() = "not json".into();
    let kind = "text/plain".parse().expect("a header value");
    text.headers_mut().insert("content-type", kind);
    buyer.client.send(text).await.refused(415, "unsupported-media-type");
    let reply = buyer.client.post("/v1/showtimes/999999/holds", json!({ "seats": 7 })).await;
    reply.refused(400, "bad-request");
    let reply = buyer.client.post("/v1/showtimes/999999/holds", json!({ "seats": ["A"] })).await;
    reply.refused(404, "not-found");
    // What can be said without the house comes before whether there is one.
    let nowhere = "/v1/showtimes/999999";
    for seats in [json!([]), json!(["A", "A"])] {
        let reply = buyer.client.post(&format!("{nowhere}/holds"), json!({ "seats": seats })).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
        let path = "/v1/admin/showtimes/999999/blocks";
        assert_eq!(sale.admin.post(path, json!({ "seats": seats })).await.status, 400);
    }
    // A bad key is part of a bad request, and comes after its type.
    let reply = buyer.client.keyed(&sale.path("/holds"), "two words", None).await;
    reply.refused(415, "unsupported-media-type");
    // A cookie that is no token comes before the question who sent it along.
    let path = sale.path("/line");
    let mut crossed = stranger.request(hyper::Method::POST, &path, None, None);
    let headers = crossed.headers_mut();
    headers.insert("cookie", "tmomi_access=none".parse().expect("a header value"));
    headers.insert("sec-fetch-site", "cross-site".parse().expect("a header value"));
    stranger.send(crossed).await.refused(401, "unauthenticated");
}

/// Planted bug: a read that does not know `min_seq`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_waits_for_min_seq() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let (client, email) = (sale.admin.clone(), String::new());
    let admin = house::Buyer { client, user_id: 0, email };
    let order = sale.bought(&admin, &["A-1-1"]).await;
    let order = sale.admin.get(&format!("/v1/orders/{order}")).await.expect(200);
    let (hold, seq) = (id(&order, "order_id").replacen('o', "h", 1), id(&order, "seq"));
    let mut paths = vec![
        "/v1/shows".to_owned(),
        format!("/v1/shows/{}", sale.show),
        sale.path(""),
        sale.path("/seats"),
        format!("/v1/holds/{hold}"),
        "/v1/orders".to_owned(),
        format!("/v1/orders/{}", id(&order, "order_id")),
        "/v1/tickets".to_owned(),
        format!("/v1/tickets/{}", id(&order["tickets"][0], "ticket_id")),
        sale.admin_path("/stats"),
        sale.admin_path("/events"),
    ];
    for (plural, number) in
        [("venues", sale.venue), ("shows", sale.show), ("showtimes", sale.showtime)]
    {
        paths.push(format!("/v1/admin/{plural}"));
        paths.push(format!("/v1/admin/{plural}/{number}"));
    }
    // Each waits for five seconds, so all of them do it at once.
    let mut waits = tokio::task::JoinSet::new();
    for path in paths {
        let reply = sale.admin.get(&format!("{path}?min_seq={seq}")).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let reply = sale.admin.get(&format!("{path}?min_seq=x")).await;
        assert_eq!(reply.status, 400, "{path}");
        let client = sale.admin.clone();
        waits.spawn(async move {
            // An epoch that this node has not seen.
            let reply = client.get(&format!("{path}?min_seq=999999-1")).await;
            reply.refused(503, "overloaded");
        });
    }
    while let Some(waited) = waits.join_next().await {
        waited.expect("it was refused");
    }
    let nowhere = sale.admin.get("/v1/showtimes/999999?min_seq=x").await;
    nowhere.refused(400, "bad-request");
}

/// The description says of each call whether it needs a token, and that is so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_knows_which_calls_need_a_token() {
    let server = Server::start();
    let stranger = Client::stranger(server.address());
    let api = stranger.get("/openapi.json").await.expect(200);
    for (path, calls) in api["paths"].as_object().expect("paths") {
        let pieces = path.split(['{', '}']).enumerate();
        let target: String = pieces.map(|(n, text)| if n % 2 == 1 { "1" } else { text }).collect();
        for (method, described) in calls.as_object().expect("by method") {
            let method = method.to_uppercase();
            let reply = call(&stranger, &(&method, target.clone(), None)).await;
            // Refreshing without a token of its own kind is refused, too.
            let guarded = reply.status == 401 && path != "/v1/auth/refresh";
            assert_eq!(guarded, described["security"].is_array(), "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_has_not_changed_is_not_sent_again() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let stranger = Client::stranger(server.address());
    let first = stranger.get(&sale.path("/seats")).await;
    let ask = async |tag: &str| {
        let path = sale.path("/seats");
        let mut request = stranger.request(hyper::Method::GET, &path, None, None);
        let tag = tag.parse().expect("a header value");
        request.headers_mut().insert("if-none-match", tag);
        stranger.send(request).await
    };
    let etag = first.header("etag").to_owned();
    for tag in [etag.as_str(), "*"] {
        let again = ask(tag).await;
        assert_eq!(again.status, 304, "{tag}");
        assert!(again.header("etag").starts_with('"'), "{:?}", again.headers);
        assert_eq!(again.header("cache-control"), first.header("cache-control"));
    }
    sale.bought(&house::buyer(&server).await, &["A-1-1"]).await;
    assert_eq!(ask(&etag).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_catalog_says_what_is_on_sale() {
    let server = Server::start();
    let sale = Sale::open(&server, hall(), json!({})).await;
    let (name, venue) = ("달빛 콘서트", sale.venue);
    let body = json!({ "name": name, "venue_id": venue, "description": "Moonlight" });
    let show = number(&sale.admin.post("/v1/admin/shows", body).await.expect(201), "show_id");
    let stranger = Client::stranger(server.address());
    let list = stranger.get("/v1/shows").await.expect(200);
    assert_eq!(list["shows"].as_array().map(Vec::len), Some(2));
    assert_eq!(list["next"], Value::Null);
    for (query, found) in [("%EB%B9%9B", 1), ("oonl", 0), ("빛 콘", 1), ("100%25", 0), ("_", 0)] {
        let query = query.replace("빛 콘", "%EB%B9%9B%20%EC%BD%98");
        let list = stranger.get(&format!("/v1/shows?q={query}")).await.expect(200);
        assert_eq!(list["shows"].as_array().map(Vec::len), Some(found), "{query}: {list}");
    }
    let first = stranger.get("/v1/shows?limit=1").await.expect(200);
    assert_eq!(first["shows"].as_array().map(Vec::len), Some(1));
    let next = first["next"].to_string().trim_matches('"').to_owned();
    let second = stranger.get(&format!("/v1/shows?limit=1&after={next}")).await.expect(200);
    assert_ne!(second["shows"][0]["show_id"], first["shows"][0]["show_id"]);
    let one = stranger.get(&format!("/v1/shows/{show}")).await.expect(200);
    assert_eq!(one["name"], "달빛 콘서트");
    assert_eq!(one["description"], "Moonlight");

    let showtime = stranger.get(&sale.path("")).await.expect(200);
    assert_eq!(showtime["sale"]["state"], "open");
    assert_eq!(showtime["line"]["mode"], "open");
    let sections = showtime["sections"].as_array().expect("sections");
    let names: Vec<&str> = sections.iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, ["스탠딩", "1층 A구역", "테이블", "2층 발코니"]);
    assert_eq!(sections[0]["general_admission"], true);
    let capacity: u64 = sections.iter().map(|section| number(section, "capacity")).sum();
    assert_eq!(capacity, 240);
    let tiers = sections[1]["tiers"].as_array().expect("a section of two tiers");
    assert_eq!(tiers.len(), 2, "{}", sections[1]);
    let long = "_".repeat(30_000);
    stranger.get(&format!("/v1/shows?q={long}")).await.refused(400, "bad-request");
    stranger.get(&format!("/v1/shows?q={}", &long[..200])).await.expect(200);
    for limit in ["0", "1001", "-1", "x", "1e3"] {
        let reply = stranger.get(&format!("/v1/shows?limit={limit}")).await;
        reply.refused(400, "bad-request");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sold_cannot_be_changed_away() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let plan = format!("/v1/admin/venues/{}/plan", sale.venue);
    sale.admin.put(&plan, house::rows(1, 1)).await.refused(409, "in-use");
    sale.bought(&house::buyer(&server).await, &["A-1-1"]).await;
    for path in [
        sale.admin_path(""),
        format!("/v1/admin/shows/{}", sale.show),
        format!("/v1/admin/venues/{}", sale.venue),
    ] {
        let reply = sale.admin.delete(&path).await;
        assert_eq!((reply.status, reply.code().as_str()), (409, "in-use"), "{path}");
    }
    let renamed = format!("/v1/admin/shows/{}", sale.show);
    let renamed = sale.admin.patch(&renamed, json!({ "name": "New name" })).await.expect(200);
    assert_eq!(renamed["name"], "New name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_seats_are_off_sale_all_or_none() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    let path = sale.admin_path("/blocks");
    let body = json!({ "seats": ["A-1-1", "A-1-2"], "reason": "camera" });
    sale.admin.post(&path, body.clone()).await.expect(200);
    let refused = sale.hold(&buyer, &["A-1-1"]).await.refused(409, "seat-unavailable");
    assert_eq!(refused["conflicts"], json!([{ "seat": "A-1-1", "state": "blocked" }]));
    sale.bought(&buyer, &["A-1-3"]).await;
    let mixed = json!({ "seats": ["A-1-4", "A-1-3"] });
    sale.admin.post(&path, mixed).await.refused(409, "seat-unavailable");
    assert_eq!(sale.map(&sale.admin).await.states["A-1-4"], 'f', "nothing changed");
    let request = sale.admin.request(hyper::Method::DELETE, &path, None, Some(body));
    sale.admin.send(request).await.expect(200);
    sale.bought(&buyer, &["A-1-1"]).await;
    let stats = sale.stats().await;
    assert_eq!((&stats["blocked"], &stats["sold"]), (&json!(0), &json!(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_opens_and_closes_at_its_times() {
    let server = Server::start();
    let later = json!({ "opens_at": "2098-01-01T00:00:00Z" });
    let scheduled = Sale::open(&server, house::rows(1, 10), later).await;
    let buyer = house::buyer(&server).await;
    let showtime = buyer.client.get(&scheduled.path("")).await.expect(200);
    assert_eq!(showtime["sale"]["state"], "scheduled");
    scheduled.hold(&buyer, &["A-1-1"]).await.refused(409, "sale-not-open");
    let past = json!({ "opens_at": "2020-01-01T00:00:00Z", "closes_at": "2020-01-02T00:00:00Z" });
    let closed = Sale::open_as(&scheduled.admin, house::rows(1, 10), past).await;
    let showtime = buyer.client.get(&closed.path("")).await.expect(200);
    assert_eq!(showtime["sale"]["state"], "closed");
    closed.hold(&buyer, &["A-1-1"]).await.refused(409, "sale-not-open");
    let now = json!({ "opens_at": "2020-01-01T00:00:00Z" });
    scheduled.admin.patch(&scheduled.admin_path(""), now).await.expect(200);
    scheduled.bought(&buyer, &["A-1-1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_names_every_call() {
    let server = Server::start();
    let stranger = Client::stranger(server.address());
    let api = stranger.get("/openapi.json").await.expect(200);
    let paths = api["paths"].as_object().expect("paths");
    for path in [
        "/v1/auth/signup",
        "/v1/auth/signin",
        "/v1/auth/refresh",
        "/v1/auth/signout",
        "/v1/me",
        "/v1/shows",
        "/v1/orders",
        "/v1/tickets",
        "/v1/admin/venues",
        "/v1/admin/shows",
        "/v1/admin/showtimes",
    ] {
        assert!(paths.contains_key(path), "{path} is not described");
    }
    let is_described = |end: &str| paths.keys().any(|path| path.ends_with(end));
    for end in [
        "/seats",
        "/stream",
        "/line",
        "/line/me",
        "/line/stream",
        "/holds",
        "/holds:batch",
        "/confirm",
        "/refund",
        "/plan",
        "/blocks",
        "/stats",
        "/events",
    ] {
        assert!(is_described(end), "no path ends with {end}");
    }
    let page = stranger.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("https://cdn"), "the page needs no other host");
    assert_eq!(stranger.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_not_on_the_public_listener() {
    let port = crate::support::server::free_port();
    let inside = format!("127.0.0.1:{port}");
    let server = Launch::new().set("TMOMI_METRICS_LISTEN", &inside).start_unready();
    let stranger = Client::stranger(server.address());
    let inside = Client::stranger(inside.parse().expect("an address"));
    crate::support::eventually("ready", std::time::Duration::from_secs(30), async || {
        let reply = inside.attempt(hyper::Method::GET, "/readyz", None, None).await;
        reply.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
    assert_eq!(stranger.get("/metrics").await.status, 404);
    assert_eq!(inside.get("/healthz").await.status, 200);
    let metrics = inside.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().lines().any(|line| line.starts_with("tmomi_")), "{}", metrics.text());
    assert_eq!(inside.get("/v1/shows").await.status, 404, "and nothing else is inside");
}
