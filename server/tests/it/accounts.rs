//! Who one is: sign-up, sessions, and tokens that must not be believed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::house::{self, PASSWORD, Sale, fresh_email, id};
use crate::support::server::{ADMIN_EMAIL, ADMIN_PASSWORD};
use crate::support::{Client, Launch, Server, eventually};

const ME: &str = "/v1/me";

/// A token in its three parts.
struct Parts {
    header: Value,
    claims: Value,
    signature: String,
}

impl Parts {
    fn of(token: &str) -> Parts {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("three parts: {token}") };
        let read = |part: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64url");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        Parts { header: read(header), claims: read(claims), signature: signature.to_owned() }
    }

    fn signed_part(&self) -> String {
        let write = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        format!("{}.{}", write(&self.header), write(&self.claims))
    }

    fn text(&self) -> String {
        format!("{}.{}", self.signed_part(), self.signature)
    }
}

fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    let mut block = [0; 64];
    let hashed = Sha256::digest(key);
    let key = if key.len() > 64 { hashed.as_slice() } else { key };
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|b| b ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

async fn me(server: &Server, token: &str) -> crate::support::Reply {
    Client::stranger(server.address()).with_token(token).get(ME).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_tokens_are_refused() {
    let server = Server::start();
    let buyer = house::buyer(&server).await;
    let token = buyer.client.token.clone().expect("signed in");
    me(&server, &token).await.expect(200);
    let jwks = buyer.client.get("/.well-known/jwks.json").await.expect(200);
    let public = jwks["keys"][0]["x"].as_str().expect("an Ed25519 key has x");
    let public = URL_SAFE_NO_PAD.decode(public).expect("base64url");

    let forge = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&token);
        change(&mut parts);
        parts.text()
    };
    let with_kid = |kid: Value| forge(&|parts| parts.header["kid"] = kid.clone());
    let confused = |key: &[u8]| {
        let mut parts = Parts::of(&token);
        parts.header["alg"] = json!("HS256");
        parts.signature = URL_SAFE_NO_PAD.encode(hmac_sha256(key, &parts.signed_part()));
        parts.text()
    };
    let jwk = jwks["keys"][0].to_string();
    let mut forged = vec![
        ("no signature", forge(&|parts| parts.signature.clear())),
        ("alg none", forge(&|parts| parts.header["alg"] = json!("none"))),
        ("key confusion", confused(&public)),
        ("key confusion with the JWK", confused(jwk.as_bytes())),
        ("unknown kid", with_kid(json!("nobody"))),
        ("path as kid", with_kid(json!("../../../../dev/null"))),
        ("SQL as kid", with_kid(json!("x' UNION SELECT 'k"))),
        ("number as kid", with_kid(json!(0))),
        ("no kid", with_kid(Value::Null)),
        ("other claims", forge(&|parts| parts.claims["role"] = json!("admin"))),
        ("later end", forge(&|parts| parts.claims["exp"] = json!(4_102_444_800_u64))),
        ("own key", forge(&|parts| parts.header["jwk"] = json!({ "kty": "OKP", "x": "AA" }))),
        ("cut", token[..token.len() - 4].to_owned()),
        ("two parts", token.rsplit_once('.').expect("three").0.to_owned()),
        ("words", "not.a.token".to_owned()),
        ("dots", "..".to_owned()),
        ("nothing", String::new()),
        ("long", "a".repeat(20_000)),
    ];
    let none = forge(&|parts| {
        parts.header["alg"] = json!("none");
        parts.signature.clear();
    });
    forged.push(("alg none, no signature", none));
    for (what, forged) in forged {
        let reply = me(&server, &forged).await;
        assert_eq!((reply.status, reply.code()), (401, "unauthenticated".into()), "{what}");
    }
    me(&server, &token).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_house_is_refused() {
    let (one, two) = (Server::start(), Server::start());
    let buyer = house::buyer(&one).await;
    let token = buyer.client.token.expect("signed in");
    me(&two, &token).await.refused(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admission_token_is_no_access_token() {
    let server = Server::start();
    let line = json!({ "mode": "fifo", "max_active": 1, "rate_per_s": 1_000 });
    let sale = Sale::open(&server, house::rows(1, 10), json!({ "line": line })).await;
    let buyer = house::buyer(&server).await;
    buyer.client.post_empty(&sale.path("/line")).await.expect(201);
    let path = sale.path("/line/me");
    let admitted = eventually("admitted", std::time::Duration::from_secs(5), async || {
        let me = buyer.client.get(&path).await.expect(200);
        me["admission_token"].is_string().then_some(me)
    })
    .await;
    let token = id(&admitted, "admission_token");
    let claims = Parts::of(&token).claims;
    assert_eq!(claims["aud"], "tmomi-admission");
    assert_eq!(claims["sub"], buyer.user_id.to_string());
    assert_eq!(claims["showtime_id"], sale.showtime);
    assert_eq!(claims["number"], 1);
    assert!(claims["exp"].is_u64() && claims["iat"].is_u64() && claims["iss"].is_string());
    me(&server, &token).await.refused(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_token_ends() {
    let server = Launch::new().set("TMOMI_ACCESS_TTL_S", "2").start();
    let buyer = house::buyer(&server).await;
    let token = buyer.client.token.clone().expect("signed in");
    me(&server, &token).await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(3_100)).await;
    me(&server, &token).await.refused(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_a_query_string_is_ignored() {
    let server = Server::start();
    let buyer = house::buyer(&server).await;
    let token = buyer.client.token.expect("signed in");
    let stranger = Client::stranger(server.address());
    for name in ["access_token", "token", "authorization", "tmomi_access"] {
        let reply = stranger.get(&format!("{ME}?{name}={token}")).await;
        reply.refused(401, "unauthenticated");
    }
    // As a cookie it counts.
    let mut request = stranger.request(hyper::Method::GET, ME, None, None);
    let cookie = format!("other=1; tmomi_access={token}").parse().expect("a header value");
    request.headers_mut().insert("cookie", cookie);
    stranger.send(request).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_a_crash_and_a_reused_refresh_token_ends_the_family() {
    let server = Server::start();
    let buyer = house::buyer(&server).await;
    let stranger = Client::stranger(server.address());
    let body = json!({ "email": buyer.email, "password": PASSWORD });
    let first = stranger.post("/v1/auth/signin", body).await;
    assert!(first.header("set-cookie").contains("HttpOnly"), "{:?}", first.headers);
    let first = first.expect(200);
    assert_eq!(first["token_type"], "Bearer");
    assert!(first["expires_in"].as_u64() > Some(0));

    let server = server.crash();
    me(&server, &id(&first, "access_token")).await.expect(200);
    let refresh = async |token: &str| {
        stranger.post("/v1/auth/refresh", json!({ "refresh_token": token })).await
    };
    let second = refresh(&id(&first, "refresh_token")).await.expect(200);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    me(&server, &id(&second, "access_token")).await.expect(200);
    // Somebody has stolen the first one: neither he nor the buyer goes on with this family.
    assert_eq!(refresh(&id(&first, "refresh_token")).await.status, 401);
    assert_eq!(refresh(&id(&second, "refresh_token")).await.status, 401);
    assert_eq!(refresh("made up").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_ends_the_session() {
    let server = Server::start();
    let buyer = house::buyer(&server).await;
    let body = json!({ "email": buyer.email, "password": PASSWORD });
    let session = buyer.client.post("/v1/auth/signin", body).await.expect(200);
    let refresh = json!({ "refresh_token": session["refresh_token"] });
    let signed_in = buyer.client.with_token(&id(&session, "access_token"));
    let reply = signed_in.post_empty("/v1/auth/signout").await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    let reply = buyer.client.post("/v1/auth/refresh", refresh).await;
    assert_eq!(reply.status, 401, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_up_refuses_what_is_no_account() {
    let server = Server::start();
    let stranger = Client::stranger(server.address());
    let sign_up = async |email: &str, password: &str| {
        let body = json!({ "email": email, "password": password });
        stranger.post("/v1/auth/signup", body).await
    };
    let email = fresh_email();
    let account = sign_up(&email, PASSWORD).await.expect(201);
    assert_eq!((&account["email"], &account["role"]), (&json!(email), &json!("buyer")));
    sign_up(&email, PASSWORD).await.refused(409, "email-taken");
    sign_up(&email.to_uppercase(), PASSWORD).await.refused(409, "email-taken");
    sign_up(&fresh_email(), &"p".repeat(128)).await.expect(201);
    for (email, password) in [
        (fresh_email().as_str(), "seven77"),
        (fresh_email().as_str(), "p".repeat(129).as_str()),
        ("", PASSWORD),
        ("no-at-sign", PASSWORD),
        ("two@at@signs", PASSWORD),
        ("white space@crowd.test", PASSWORD),
        (format!("{}@crowd.test", "e".repeat(500)).as_str(), PASSWORD),
    ] {
        sign_up(email, password).await.refused(400, "bad-request");
    }
    let role = json!({ "email": fresh_email(), "password": PASSWORD, "role": "admin" });
    stranger.post("/v1/auth/signup", role).await.refused(400, "bad-request");
    // Length is counted in characters.
    sign_up(&fresh_email(), "비밀번호비밀번호").await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_user_and_a_wrong_password_look_the_same() {
    let server = Server::start();
    let buyer = house::buyer(&server).await;
    let mut answers = Vec::new();
    for email in [buyer.email.clone(), fresh_email()] {
        let body = json!({ "email": email, "password": "not the password" });
        let start = tokio::time::Instant::now();
        for _ in 0..5 {
            let reply = buyer.client.post("/v1/auth/signin", body.clone()).await;
            reply.refused(401, "bad-credentials");
            let mut problem = reply.json();
            problem.as_object_mut().expect("an object").remove("request_id");
            answers.push(problem);
        }
        let took = start.elapsed();
        assert!(took.as_millis() > 5, "no password was hashed in {took:?}");
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_never_logged() {
    let server = Launch::new().set("TMOMI_LOG", "trace").start();
    let stranger = Client::stranger(server.address());
    let email = fresh_email();
    let password = "a secret that nobody logs";
    let body = json!({ "email": email, "password": password });
    stranger.post("/v1/auth/signup", body.clone()).await.expect(201);
    let session = stranger.post("/v1/auth/signin", body).await.expect(200);
    let (access, refresh) = (id(&session, "access_token"), id(&session, "refresh_token"));
    stranger.with_token(&access).get(ME).await.expect(200);
    stranger.get(&format!("{ME}?access_token={access}")).await.refused(401, "unauthenticated");
    let body = json!({ "refresh_token": refresh });
    stranger.post("/v1/auth/refresh", body).await.expect(200);
    house::admin(&server).await;
    let launch = server.stop();
    let log = launch.start().log();
    assert!(!log.is_empty(), "the server logs");
    let signature = access.rsplit('.').next().expect("three parts");
    for secret in [password, signature, &refresh, ADMIN_PASSWORD] {
        assert!(!log.contains(secret), "the log has {secret:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_makes_and_updates_the_admin() {
    let server = Server::start();
    let admin = house::admin(&server).await;
    assert_eq!(admin.get(ME).await.expect(200)["role"], "admin");
    let launch = server.stop().set("TMOMI_ADMIN_PASSWORD", "another long secret");
    let server = launch.start();
    let stranger = Client::stranger(server.address());
    let old = json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD });
    stranger.post("/v1/auth/signin", old).await.refused(401, "bad-credentials");
    house::sign_in(&stranger, ADMIN_EMAIL, "another long secret").await;
    let launch = server.stop().unset("TMOMI_ADMIN_EMAIL").unset("TMOMI_ADMIN_PASSWORD");
    let server = launch.start();
    house::sign_in(&stranger, ADMIN_EMAIL, "another long secret").await;
    drop(server);
}
