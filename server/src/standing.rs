//! Where a buyer stands in a line, as calls and streams tell it, and the token that proves it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tmomi_engine::House;
use tmomi_engine::event::LineMode;
use tmomi_engine::ids::{BuyerId, EntryId, LineNumber, ShowtimeId, TimeMs};
use tmomi_engine::state::Place;
use tmomi_persist::image::ShowtimeImage;

use crate::accounts::tokens::{ADMISSION_AUDIENCE, AdmissionClaims};
use crate::app::App;
use crate::text::When;

/// Admission tokens that are kept at most, some 400 bytes each.
const TOKENS_MAX: usize = 1 << 16;
/// One admission in the unit of a line's rate, which is admissions in 1,000 s.
const ADMISSION_MS: u64 = 1_000_000;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In the line.
    Waiting(Position),
    /// Let in.
    Admitted(Admission),
    /// The session ran out.
    Expired(LineNumber),
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The number.
    pub(crate) number: LineNumber,
    /// Waiting entries that will be admitted before; 0 is next.
    pub(crate) ahead: u32,
    /// When the turn will come, in ms from now, if that can be known.
    pub(crate) eta_ms: Option<u64>,
}

/// An admission: unlike every other of its entry by its number and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// The entry.
    pub(crate) entry: EntryId,
    /// Whose it is.
    pub(crate) buyer: BuyerId,
    /// The number.
    pub(crate) number: LineNumber,
    /// When the session ends, unless a hold is active then.
    pub(crate) until: TimeMs,
}

/// A line at one sequence number. Who has come back after being passed over is not in the log, so
/// that part is the engine's and of this moment.
#[derive(Clone, Copy)]
pub(crate) struct LineView<'a> {
    showtime: &'a ShowtimeImage,
    house: &'a House,
}

impl<'a> LineView<'a> {
    /// The line of `showtime`, which is the house's.
    pub(crate) fn new(showtime: &'a ShowtimeImage, house: &'a House) -> LineView<'a> {
        LineView { showtime, house }
    }

    /// Where the entry stands; `None` if it is not in the line and was not let in.
    pub(crate) fn standing(&self, entry: EntryId) -> Option<Standing> {
        let known = self.showtime.entry(entry)?;
        let (buyer, number) = (known.buyer, known.number);
        match known.place {
            Place::Out => None,
            Place::Waiting => Some(Standing::Waiting(self.in_order(number))),
            Place::Passed => Some(Standing::Waiting(self.passed_over(number))),
            Place::Admitted => {
                let until = known.session_until;
                Some(Standing::Admitted(Admission { entry, buyer, number, until }))
            }
            Place::Expired => Some(Standing::Expired(number)),
        }
    }

    /// Whether the entry is in the line.
    pub(crate) fn waits(&self, entry: EntryId) -> bool {
        let known = self.showtime.entry(entry);
        known.is_some_and(|known| matches!(known.place, Place::Waiting | Place::Passed))
    }

    /// The position of a number that was never passed over.
    pub(crate) fn in_order(&self, number: LineNumber) -> Position {
        let back = self.house.returned_ahead(number);
        self.position(number, self.showtime.ahead(number).saturating_add(back))
    }

    /// The position of a number that was passed over. Whoever asks is back by asking, and behind
    /// those who are back with a lower number.
    fn passed_over(&self, number: LineNumber) -> Position {
        self.position(number, self.house.returned_ahead(number))
    }

    fn position(&self, number: LineNumber, ahead: u32) -> Position {
        Position { number, ahead, eta_ms: self.eta_ms(ahead) }
    }

    /// What the rate says, as long as there are places for all who come before. When the house is
    /// full, the turn depends on when others leave, which nobody knows.
    fn eta_ms(&self, ahead: u32) -> Option<u64> {
        let line = self.showtime.settings();
        let places = line.max_active.saturating_sub(self.showtime.active());
        match line.mode {
            LineMode::Open => Some(0),
            LineMode::Paused => None,
            LineMode::Fifo if line.rate_per_1000s == 0 || ahead >= places => None,
            LineMode::Fifo => {
                Some((u64::from(ahead) + 1) * ADMISSION_MS / u64::from(line.rate_per_1000s))
            }
        }
    }
}

/// What every answer about an admitted entry says.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AdmissionBody {
    /// When the session ends, unless a hold is active then.
    pub(crate) expires_at: When,
    /// The same from now on, in ms.
    pub(crate) expires_in_ms: u64,
    /// What other shops can check.
    #[schema(value_type = String)]
    pub(crate) admission_token: Arc<str>,
}

impl AdmissionBody {
    /// An admission to `showtime` as clients see it now.
    pub(crate) fn of(app: &App, showtime: ShowtimeId, admission: Admission) -> AdmissionBody {
        AdmissionBody {
            expires_at: When(admission.until),
            expires_in_ms: admission.until.since_ms(app.now()),
            admission_token: app.admissions.token(app, showtime, admission),
        }
    }
}

/// A token, and what it is for.
type Token = (Admission, Arc<str>);

/// The tokens of those who are let in, so that asking often costs no signature.
#[derive(Debug, Default)]
pub(crate) struct Admissions {
    tokens: Mutex<HashMap<(ShowtimeId, EntryId), Token>>,
}

impl Admissions {
    /// Nobody was let in.
    pub(crate) fn new() -> Admissions {
        Admissions::default()
    }

    fn token(&self, app: &App, showtime: ShowtimeId, admission: Admission) -> Arc<str> {
        let key = (showtime, admission.entry);
        if let Some((of, token)) = self.tokens.lock().get(&key)
            && *of == admission
        {
            return Arc::clone(token);
        }
        let now = app.now();
        let keyring = app.accounts.keyring();
        let token: Arc<str> = keyring
            .sign_admission(&AdmissionClaims {
                iss: app.settings.issuer.clone(),
                aud: ADMISSION_AUDIENCE.to_owned(),
                sub: admission.buyer.to_string(),
                showtime_id: showtime.0,
                number: admission.number.0,
                iat: now.0 / 1_000,
                exp: admission.until.0 / 1_000,
            })
            .into();
        self.keep(key, admission, Arc::clone(&token), now);
        token
    }

    fn keep(&self, key: (ShowtimeId, EntryId), of: Admission, token: Arc<str>, now: TimeMs) {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= TOKENS_MAX {
            tokens.retain(|_, (admission, _)| admission.until > now);
        }
        if tokens.len() >= TOKENS_MAX {
            // More are let in than are kept: signing again is only slower.
            tokens.clear();
        }
        tokens.insert(key, (of, token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::tests::World;
    use tmomi_engine::event::LineSettings;

    const FIFO: LineSettings = LineSettings {
        mode: LineMode::Fifo,
        max_active: 2,
        rate_per_1000s: 10_000,
        grace_ms: 1_000,
        session_ms: 60_000,
    };

    fn position(world: &World, entry: EntryId) -> (u32, Option<u64>) {
        let view = LineView::new(world.showtime(), &world.house);
        match view.standing(entry) {
            Some(Standing::Waiting(position)) => (position.ahead, position.eta_ms),
            other => panic!("waiting, not {other:?}"),
        }
    }

    #[test]
    fn the_time_to_wait_is_said_only_if_there_will_be_a_place() {
        let mut world = World::new(FIFO);
        let entries: Vec<EntryId> = (1..=4).map(|buyer| world.join(buyer)).collect();
        world.pass_ms(0);
        // One of ten a second was let in at once; one place of two is left.
        assert_eq!(position(&world, entries[1]), (0, Some(100)));
        assert_eq!(position(&world, entries[2]), (1, None));
        world.set_line(LineSettings { mode: LineMode::Paused, ..FIFO });
        assert_eq!(position(&world, entries[1]), (0, None));
    }

    #[test]
    fn one_who_was_passed_over_and_is_back_is_next() {
        let mut world = World::new(LineSettings { max_active: 1, ..FIFO });
        let entries: Vec<EntryId> = (1..=3).map(|buyer| world.join(buyer)).collect();
        world.pass_ms(0);
        assert_eq!(position(&world, entries[2]).0, 1);
        world.pass_ms(2_000);
        world.house.touch(entries[2], world.now);
        world.leave(entries[0]);
        world.pass_ms(200);
        // The second gave no sign of life, the third did.
        let standing =
            |world: &World, entry| LineView::new(world.showtime(), &world.house).standing(entry);
        assert!(matches!(standing(&world, entries[2]), Some(Standing::Admitted(_))));
        let fourth = world.join(4);
        assert_eq!(position(&world, fourth).0, 0);
        world.house.touch(entries[1], world.now);
        assert_eq!(position(&world, entries[1]).0, 0);
        assert_eq!(position(&world, fourth).0, 1);
        world.leave(entries[0]);
        assert_eq!(standing(&world, entries[0]), None);
    }
}
