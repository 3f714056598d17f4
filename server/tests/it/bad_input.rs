//! Bodies that an organiser or a buyer may send by mistake or by malice.

use serde_json::{Value, json};

use crate::support::batch::batch_text;
use crate::support::house::{self, STARTS_AT, Sale, hall, id, number};
use crate::support::{Client, Launch, Server};

async fn venue(admin: &Client) -> u64 {
    let body = json!({ "name": "House" });
    number(&admin.post("/v1/admin/venues", body).await.expect(201), "venue_id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_json_is_400() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "{",
        "null",
        "{\"seats\":[\"A-1-1\"]",
        "{\"seats\":[\"A-1-1\"]}x",
        "{\"seats\":[\"A-1-1\"],\"seats\":[\"A-1-2\"]}",
        "{\"seats\":[\"\\ud800\"]}",
        "{'seats':['A-1-1']}",
        deep.as_str(),
    ] {
        let mut request =
            buyer.client.request(hyper::Method::POST, &sale.path("/holds"), None, None);
        *request.body_mut() = text.to_owned().into();
        let kind = "application/json".parse().expect("a header value");
        request.headers_mut().insert("content-type", kind);
        let reply = buyer.client.send(request).await;
        let start: String = text.chars().take(40).collect();
        assert_eq!(reply.status, 400, "{start}: {}", reply.text());
    }
    let mut request = buyer.client.request(hyper::Method::POST, &sale.path("/holds"), None, None);
    *request.body_mut() = b"{\"seats\":[\"\xff\xfe\"]}".to_vec().into();
    let kind = "application/json".parse().expect("a header value");
    request.headers_mut().insert("content-type", kind);
    buyer.client.send(request).await.refused(400, "bad-request");
    assert_eq!(sale.stats().await["held"], 0);
}

/// serde reads a list as an object, field by field, unless it is told not to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_where_an_object_is_meant_is_400() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    let list = json!(["a@b.c", "password1"]);
    buyer.client.post("/v1/auth/signup", list).await.refused(400, "bad-request");
    for body in [json!([["A-1-1"], null, null]), json!({ "best_available": [1, null, null, true] })]
    {
        let reply = buyer.client.post(&sale.path("/holds"), body).await;
        reply.refused(400, "bad-request");
    }
    let line = json!(["paused", 1, 1, 1_000, 1_000]);
    sale.admin.put(&sale.admin_path("/line"), line.clone()).await.refused(400, "bad-request");
    let nested = json!({ "line": line });
    sale.admin.patch(&sale.admin_path(""), nested).await.refused(400, "bad-request");
    assert_eq!(sale.stats().await["held"], 0);
}

/// A section of `rows` rows for a generated plan.
fn rows_of(rows: u64, seats_per_row: u64) -> Value {
    json!({ "name": "A", "tier": "T", "rows": rows, "seats_per_row": seats_per_row })
}

/// Changes the hall at a JSON pointer and says what the import must point at.
fn changed(pointer: &str, value: Value) -> Value {
    let mut plan = hall();
    *plan.pointer_mut(pointer).unwrap_or_else(|| panic!("the hall has {pointer}")) = value;
    plan
}

fn without(pointer: &str, field: &str) -> Value {
    let mut plan = hall();
    let place = plan.pointer_mut(pointer).and_then(Value::as_object_mut);
    place.and_then(|place| place.remove(field)).expect("the field was there");
    plan
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_that_cannot_be_sold_are_refused_with_a_pointer() {
    let server = Server::start();
    let admin = house::admin(&server).await;
    let path = format!("/v1/admin/venues/{}/plan", venue(&admin).await);
    let seat = "/zones/1/rows/0/seats/1";
    let guid = format!("{seat}/seat_guid");
    let cases = [
        (changed(&guid, json!("A-1-1")), guid.as_str()),
        (changed(&guid, json!("")), &guid),
        (changed(&guid, json!("g".repeat(129))), &guid),
        (changed(&guid, json!(7)), &guid),
        (changed(&format!("{seat}/category"), json!("Gold")), &format!("{seat}/category")),
        (changed(&format!("{seat}/position/x"), json!("left")), &format!("{seat}/position")),
        (changed("/zones/0/general_admission/capacity", json!(0)), "/zones/0/general_admission"),
        (changed("/zones/0/general_admission/category", json!("?")), "/zones/0/general_admission"),
        (changed("/zones", json!([])), ""),
        (changed("/zones", json!("none")), "/zones"),
        (without("", "zones"), ""),
        (without("/zones/1", "rows"), "/zones/1"),
        (without(seat, "seat_guid"), seat),
        (without(seat, "position"), seat),
    ];
    for (plan, expected) in cases {
        let reply = admin.put(&path, plan).await;
        let problem = reply.refused(400, "bad-plan");
        let pointer = id(&problem, "pointer");
        assert!(pointer.starts_with(expected), "{pointer} is not in {expected}: {problem}");
    }
    let generate = |section: Value| json!({ "generate": { "sections": [section] } });
    let bad = [
        generate(rows_of(0, 10)),
        generate(rows_of(10, 0)),
        generate(rows_of(16_777_217, 1)),
        generate(rows_of(4_294_967_296, 4_294_967_296)),
        generate(rows_of(1, 1_000_000)),
        generate(json!({ "name": "", "tier": "T", "places": 0 })),
        generate(json!({ "name": "A", "tier": "T", "rows": 1, "seats_per_row": 1, "places": 1 })),
        generate(json!({ "name": "A", "tier": "T" })),
        json!({ "generate": { "sections": [] } }),
        json!({ "generate": { "sections": [rows_of(1, 1), rows_of(1, 1)] } }),
    ];
    for plan in bad {
        let reply = admin.put(&path, plan.clone()).await;
        // Two sections of one name may be told apart instead of refused; nothing else may pass.
        let same_names = plan["generate"]["sections"].as_array().is_some_and(|s| s.len() == 2);
        assert!(reply.status == 400 || same_names, "{plan}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_says_what_it_read() {
    let server = Server::start();
    let admin = house::admin(&server).await;
    let path = format!("/v1/admin/venues/{}/plan", venue(&admin).await);
    let mut plan = hall();
    plan["x_printed_by"] = json!("somebody");
    let answer = admin.put(&path, plan).await.expect(200);
    assert_eq!((&answer["sections"], &answer["seats"]), (&json!(4), &json!(240)), "{answer}");
    assert_eq!(answer["rows"], 5 + 6 + 3);
    assert_eq!(answer["tiers"], json!(["R석", "S석", "A석", "테이블석", "스탠딩"]));
    assert_eq!(answer["ignored_fields"]["x_usher"], 2);
    assert_eq!(answer["ignored_fields"]["x_printed_by"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organisers_mistakes_are_400_or_404() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let admin = &sale.admin;
    let good = json!({ "show_id": sale.show, "starts_at": STARTS_AT, "currency": "EUR",
                       "prices": { "Standard": 1_000 } });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let line = |name: &str, value: Value| with("line", json!({ name: value }));
    let bad = [
        with("starts_at", json!("tomorrow")),
        with("starts_at", json!(0)),
        with("currency", json!("EURO")),
        with("prices", json!({})),
        with("prices", json!({ "Standard": -1 })),
        with("prices", json!({ "Standard": 1.5 })),
        with("prices", json!({ "Standard": 1_000, "Gold": 1 })),
        with("limit", json!(0)),
        with("limit", json!(-1)),
        with("hold_ttl_ms", json!(99)),
        with("hold_ttl_ms", json!(7_200_001)),
        with("surprise", json!(1)),
        line("mode", json!("lottery")),
        line("max_active", json!(-1)),
        line("rate_per_s", json!(-1)),
        line("grace_ms", json!("long")),
        line("surprise", json!(1)),
    ];
    for body in bad {
        let reply = admin.post("/v1/admin/showtimes", body.clone()).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
    }
    let reply = admin.post("/v1/admin/showtimes", with("show_id", json!(999_999))).await;
    assert!(matches!(reply.status, 400 | 404), "{}", reply.text());
    let bad = json!({ "name": "x", "venue_id": 999_999 });
    let reply = admin.post("/v1/admin/shows", bad).await;
    assert!(matches!(reply.status, 400 | 404), "{}", reply.text());
    for body in [json!({}), json!({ "name": "" }), json!({ "name": 1 }), json!({ "nme": "x" })] {
        admin.post("/v1/admin/venues", body).await.refused(400, "bad-request");
    }
    for query in ["limit=0", "limit=10000", "after_seq=x", "limit=-1"] {
        let reply = admin.get(&sale.admin_path(&format!("/events?{query}"))).await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.text());
    }
}

/// Text is data: it comes back letter by letter, and the log shows it escaped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_control_and_ansi_characters_are_stored_or_refused() {
    let server = Launch::new().set("TMOMI_LOG", "debug").start();
    let admin = house::admin(&server).await;
    let venue = venue(&admin).await;
    for name in [
        "Robert'); DROP TABLE shows; --",
        "100%_of\\it",
        "\u{1b}[31mred\u{1b}[0m",
        "line\r\nInjected-Header: 1",
        "null\u{0}byte",
        "right\u{202e}left",
        "달빛 🎭 e\u{301}",
        "<script>alert(1)</script>",
    ] {
        let reply = admin.post("/v1/admin/shows", json!({ "name": name, "venue_id": venue })).await;
        if reply.status == 400 {
            continue;
        }
        let show = number(&reply.expect(201), "show_id");
        let read = admin.get(&format!("/v1/shows/{show}")).await.expect(200);
        assert_eq!(read["name"], name);
    }
    for path in ["/v1/%1b%5b31mred", "/v1/shows?q=%1b%5b2J%0d%0aforged", "/v1/shows?q=%27--"] {
        let reply = admin.get(path).await;
        assert!(matches!(reply.status, 200 | 400 | 404), "{path}: {}", reply.text());
    }
    let page = admin.get("/").await.text();
    assert!(!page.contains("<script>alert(1)"), "the front page escapes names");
    let log = server.log();
    assert!(!log.contains("\u{1b}[31mred") && !log.contains("\nforged"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_nonsense_is_answered_line_by_line() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let lines = [
        "[]",
        "\u{0}",
        "{\"buyer\":1}",
        "{\"idempotency_key\":\"\",\"buyer\":1,\"seats\":[\"A-1-1\"]}",
        "{\"idempotency_key\":\"k\",\"buyer\":-1,\"seats\":[\"A-1-1\"]}",
        "{\"idempotency_key\":\"k\",\"buyer\":9007199254740993,\"seats\":[\"A-1-1\"]}",
        "{\"idempotency_key\":\"k\",\"buyer\":1,\"seats\":[]}",
        "",
        "{\"idempotency_key\":\"k\",\"buyer\":999999,\"seats\":[\"A-1-1\"]}",
        "[\"k\",1,[\"A-1-1\"],null,null]",
    ];
    let reply = batch_text(&sale.admin, &sale, lines.join("\n")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    assert_eq!(text.lines().count(), lines.len(), "{text}");
    for answer in text.lines() {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        assert!(matches!(answer["status"].as_u64(), Some(400 | 404)), "{answer}");
    }
    let stranger: Value = serde_json::from_str(text.lines().nth(8).expect("ten")).expect("JSON");
    assert_eq!(stranger["code"], "not-found", "{stranger}");
    assert_eq!(sale.stats().await["held"], 0);
}
