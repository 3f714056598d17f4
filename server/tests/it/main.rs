//! The proof from outside: the real program, real sockets, real faults, and nothing but the HTTP
//! contract. Each module is one promise; `support` starts servers and speaks for clients.

mod accounts;
mod bad_http;
mod bad_input;
mod confirm;
mod contract;
mod crash;
mod damage;
mod database;
#[path = "../../../persist/tests/common/databases.rs"]
#[allow(dead_code, reason = "each test binary needs its part of it")]
mod databases;
mod faults;
mod history;
mod idempotency;
#[cfg(feature = "kafka")]
mod kafka;
mod line;
mod mass;
mod offers;
mod outlet;
mod overload;
mod readme;
mod reconcile;
mod refusals;
mod rows;
mod sale;
#[path = "../../../persist/tests/common/servers.rs"]
#[allow(dead_code, reason = "each test binary needs its part of it")]
mod servers;
mod sizes;
mod streams;
mod support;
mod tidy;
#[cfg(feature = "kafka")]
mod whole;
