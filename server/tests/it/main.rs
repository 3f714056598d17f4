//! The proof from outside: the real program, real sockets, real faults, and nothing but the HTTP
//! contract. Each module is one promise; `support` starts servers and speaks for clients.

mod accounts;
mod bad_http;
mod bad_input;
mod confirm;
mod contract;
mod crash;
mod damage;
mod faults;
mod history;
mod idempotency;
mod line;
mod mass;
mod offers;
mod outlet;
mod overload;
mod readme;
mod refusals;
mod rows;
mod sale;
mod sizes;
mod streams;
mod support;
mod tidy;
