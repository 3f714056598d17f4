//! A house to sell over the API, and people with accounts.

use std::path::Path;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use serde_json::{Value, json};
use tmomi_engine::ids::TimeMs;
use tmomi_persist::catalog::{Catalog, NewUser, Role};

use super::clock::LoadClock;
use super::server::{ADMIN_EMAIL, ADMIN_PASSWORD, Server};
use super::wire::Caller;

/// The password of every buyer.
const PASSWORD: &str = "correct horse battery";
/// Seats of a row.
const ROW: u32 = 100;
/// Rows of a section.
const ROWS: u32 = 1_000;
/// Seats of a section.
const SECTION: u32 = ROW * ROWS;

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct Buyer {
    /// The number of the account.
    pub user_id: u64,
    /// The access token.
    pub token: String,
}

/// A showtime on sale.
pub struct House {
    /// Its number.
    pub showtime: u64,
    /// The admin.
    pub admin: Caller,
    /// The admin's token.
    pub admin_token: String,
}

impl House {
    /// Puts a house of at least `seats` numbered seats on sale, 100 seats a row; `terms` has fields
    /// of `POST /v1/admin/showtimes`.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    pub fn open(server: &Server, seats: u32, terms: &Value) -> House {
        let mut admin = Caller::connect(server.address());
        let admin_token = sign_in(&mut admin, ADMIN_EMAIL, ADMIN_PASSWORD);
        admin.identify(admin_token.clone());
        let venue = admin.call("POST", "/v1/admin/venues", &json!({ "name": "House" }));
        let venue = &venue["venue_id"];
        let section = |n: u32| {
            let rows = ROWS.min((seats - n * SECTION).div_ceil(ROW));
            json!({ "name": format!("S{n}"), "tier": "T", "rows": rows, "seats_per_row": ROW })
        };
        let sections: Vec<Value> = (0..seats.div_ceil(SECTION)).map(section).collect();
        let plan = json!({ "generate": { "sections": sections } });
        admin.call("PUT", &format!("/v1/admin/venues/{venue}/plan"), &plan);
        let show = json!({ "name": "Show", "venue_id": venue });
        let show = &admin.call("POST", "/v1/admin/shows", &show)["show_id"];
        let mut body = json!({
            "show_id": show, "starts_at": "2099-06-01T19:30:00Z", "currency": "EUR",
            "prices": { "T": 1_000 }, "limit": 1_000_000, "hold_ttl_ms": 3_600_000,
        });
        let terms = terms.as_object().expect("terms are an object").clone();
        body.as_object_mut().expect("an object").extend(terms);
        let showtime = admin.call("POST", "/v1/admin/showtimes", &body);
        let showtime = showtime["showtime_id"].as_u64().expect("a number");
        House { showtime, admin, admin_token }
    }

    /// The path of something of the showtime, such as `/holds`.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/showtimes/{}{rest}", self.showtime)
    }

    /// What an admin sees of it.
    pub fn stats(&mut self) -> Value {
        let path = format!("/v1/admin/showtimes/{}/stats", self.showtime);
        self.admin.call("GET", &path, &Value::Null)
    }

    /// Changes the settings of its line.
    pub fn set_line(&mut self, settings: &Value) {
        let path = format!("/v1/admin/showtimes/{}/line", self.showtime);
        self.admin.call("PUT", &path, settings);
    }
}

/// The name of seat `n`, counted through all rows.
pub fn seat(n: u32) -> String {
    format!("S{}-{}-{}", n / SECTION, n % SECTION / ROW + 1, n % ROW + 1)
}

/// Makes `count` accounts and signs them in.
///
/// The accounts go straight into the catalog, as an import would put them, with a password hash
/// that is quick to check: a thousand times two hashes that are meant to be slow are not what a
/// bench is to wait for. Everything after that is the API's.
///
/// # Panics
///
/// If the catalog or the server refuses.
pub fn buyers(server: &Server, count: usize) -> Vec<Buyer> {
    let ids = import(&server.catalog(), count);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let sign_in_some = || {
        let mut caller = Caller::connect(server.address());
        let mut made = Vec::new();
        loop {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(user_id) = ids.get(n) else { return made };
            let token = sign_in(&mut caller, &email(n), PASSWORD);
            made.push((n, Buyer { user_id: *user_id, token }));
        }
    };
    let mut buyers: Vec<(usize, Buyer)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(sign_in_some)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("signed in")).collect()
    });
    buyers.sort_unstable_by_key(|(n, _)| *n);
    buyers.into_iter().map(|(_, buyer)| buyer).collect()
}

fn email(n: usize) -> String {
    format!("buyer{n}@crowd.test")
}

fn import(catalog: &Path, count: usize) -> Vec<u64> {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).expect("the least there is");
    let quick = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = quick.hash_password(PASSWORD.as_bytes()).expect("a hash");
    let hash = hash.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let catalog = Catalog::open(catalog).await.expect("the server has made it");
        let mut change = catalog.change().await.expect("its turn");
        let mut ids = Vec::with_capacity(count);
        for n in 0..count {
            let (email, at) = (email(n), TimeMs(LoadClock::start().now_ms()));
            let user = NewUser { email: &email, password_hash: &hash, role: Role::Buyer, at };
            ids.push(change.create_user(user).await.expect("a new address").user_id.0);
        }
        change.commit_unanswered().await.expect("there is room");
        catalog.close().await;
        ids
    })
}

fn sign_in(caller: &mut Caller, email: &str, password: &str) -> String {
    let body = json!({ "email": email, "password": password });
    let answer = caller.call("POST", "/v1/auth/signin", &body);
    answer["access_token"].as_str().expect("a token").to_owned()
}
