//! What those on the connections want.

use std::cell::Cell;
use std::fmt::Write;
use std::rc::Rc;

use super::crowd::Guest;
use super::house::{Buyer, House, seat};
use super::wire::{Answer, Template};

/// Free seats, handed out one after the other to all who share it, so that nobody is refused.
#[derive(Clone, Debug, Default)]
pub struct Seats(Rc<Cell<u32>>);

impl Seats {
    /// From seat `first` on.
    pub fn from(first: u32) -> Seats {
        Seats(Rc::new(Cell::new(first)))
    }

    /// The next one.
    pub fn next(&self) -> u32 {
        let next = self.0.get();
        self.0.set(next + 1);
        next
    }
}

/// Holds one seat after the other.
pub struct Holder {
    template: Template,
    seats: Seats,
    body: String,
}

impl Holder {
    /// A buyer who takes of `seats`.
    pub fn new(house: &House, buyer: &Buyer, seats: &Seats) -> Holder {
        let template = Template::new("POST", &house.path("/holds"), Some(&buyer.token));
        Holder { template, seats: seats.clone(), body: String::new() }
    }

    /// One for each of `count` connections, the buyers taking turns.
    pub fn crowd(house: &House, buyers: &[Buyer], count: usize, seats: &Seats) -> Vec<Holder> {
        let buyers = buyers.iter().cycle().take(count);
        buyers.map(|buyer| Holder::new(house, buyer, seats)).collect()
    }
}

impl Guest for Holder {
    fn ask(&mut self, out: &mut Vec<u8>) -> bool {
        let n = self.seats.next();
        self.body.clear();
        write!(self.body, "{{\"seats\":[\"{}\"]}}", seat(n)).expect("memory takes it");
        self.template.push_keyed(out, n.into(), &self.body);
        true
    }

    fn hear(&mut self, answer: Answer<'_>) {
        let text = || String::from_utf8_lossy(answer.body).into_owned();
        assert_eq!(answer.status, 201, "{}", text());
    }
}

/// Joins the line, holds a seat and confirms it, again and again. The first join takes a number,
/// the later ones are told that they have it.
pub struct Shopper {
    join: Template,
    holder: Holder,
    token: String,
    next: Step,
    key: u64,
    /// Purchases that are complete.
    pub bought: u64,
}

/// What a shopper does next.
enum Step {
    Join,
    Hold,
    Confirm(String),
}

impl Shopper {
    /// A buyer who takes of `seats`.
    pub fn new(house: &House, buyer: &Buyer, seats: &Seats) -> Shopper {
        let token = Some(buyer.token.as_str());
        Shopper {
            join: Template::new("POST", &house.path("/line"), token),
            holder: Holder::new(house, buyer, seats),
            token: buyer.token.clone(),
            next: Step::Join,
            key: buyer.user_id << 32,
            bought: 0,
        }
    }
}

impl Guest for Shopper {
    fn ask(&mut self, out: &mut Vec<u8>) -> bool {
        self.key += 1;
        match &self.next {
            Step::Join => self.join.push_empty(out),
            Step::Hold => return self.holder.ask(out),
            Step::Confirm(hold) => {
                let path = format!("/v1/holds/{hold}/confirm");
                let confirm = Template::new("POST", &path, Some(&self.token));
                confirm.push_keyed(out, self.key, "{}");
            }
        }
        true
    }

    fn hear(&mut self, answer: Answer<'_>) {
        let text = || String::from_utf8_lossy(answer.body).into_owned();
        assert!(answer.status < 300, "{} {}", answer.status, text());
        self.next = match &self.next {
            Step::Join => Step::Hold,
            Step::Hold => Step::Confirm(answer.text("hold_id").expect("a hold").to_owned()),
            Step::Confirm(_) => {
                self.bought += 1;
                Step::Join
            }
        };
    }
}

/// Asks once for the one seat that everybody wants.
pub struct Rival {
    template: Template,
    body: String,
    asked: bool,
    /// The status of the answer.
    pub heard: u16,
}

impl Rival {
    /// A buyer who wants seat `n`.
    pub fn new(house: &House, buyer: &Buyer, n: u32) -> Rival {
        let template = Template::new("POST", &house.path("/holds"), Some(&buyer.token));
        let body = format!("{{\"seats\":[\"{}\"]}}", seat(n));
        Rival { template, body, asked: false, heard: 0 }
    }
}

impl Guest for Rival {
    fn ask(&mut self, out: &mut Vec<u8>) -> bool {
        if !std::mem::replace(&mut self.asked, true) {
            self.template.push(out, "application/json", self.body.as_bytes());
            return true;
        }
        false
    }

    fn hear(&mut self, answer: Answer<'_>) {
        self.heard = answer.status;
    }
}

/// Sends what was written before, one request after the other.
#[derive(Default)]
pub struct Script {
    requests: std::collections::VecDeque<Vec<u8>>,
}

impl Script {
    /// `requests` shared out to `count` connections.
    pub fn crowd(requests: impl Iterator<Item = Vec<u8>>, count: usize) -> Vec<Script> {
        let mut crowd: Vec<Script> = (0..count).map(|_| Script::default()).collect();
        for (n, request) in requests.enumerate() {
            crowd[n % count].requests.push_back(request);
        }
        crowd
    }

    /// A request without a body of each of `buyers`.
    pub fn requests(method: &str, path: &str, buyers: &[Buyer]) -> Vec<Vec<u8>> {
        let request = |buyer: &Buyer| {
            let mut request = Vec::new();
            Template::new(method, path, Some(&buyer.token)).push_empty(&mut request);
            request
        };
        buyers.iter().map(request).collect()
    }
}

impl Guest for Script {
    fn ask(&mut self, out: &mut Vec<u8>) -> bool {
        self.requests.pop_front().is_some_and(|request| {
            out.extend_from_slice(&request);
            true
        })
    }

    fn hear(&mut self, answer: Answer<'_>) {
        let text = || String::from_utf8_lossy(answer.body).into_owned();
        assert!(answer.status < 300, "{} {}", answer.status, text());
    }
}
