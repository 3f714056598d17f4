//! The engine as its users see it: both engines under one suite, and threads on the fast one.
//!
//! * `alive`: signs of life that no script can give
//! * `scenarios`: one rule each, as a script with its answers, on both engines
//! * `model`: random scripts, the fast engine against the naive one
//! * `stress`: many threads on the fast engine; the log is folded, the answers are held against it
//! * `fold`: the strict reader of a log that all of them use

mod alive;
mod desk;
mod fold;
mod model;
mod op;
mod run;
mod scenarios;
mod stress;
