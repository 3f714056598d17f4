//! The demo show of an empty data folder: a hall of about 2,000 seats with a general-admission
//! floor, on sale now, with a line.

use std::net::SocketAddr;

use serde_json::json;
use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_persist::catalog::{CatalogError, NewShow, NewShowtime, NewUser, NewVenue, Role};
use tmomi_persist::plan::Plan;

use crate::accounts::passwords::random_text;
use crate::app::App;
use crate::cli::{Failure, say};
use crate::opening;

/// The admin of the demo, unless the settings name one.
const ADMIN_EMAIL: &str = "admin@demo.example";
/// From now to the start of the show.
const STARTS_IN_MS: u64 = 30 * 86_400_000;
/// Price of each tier, in cents.
const PRICES: [(&str, u64); 3] = [("Gold", 9_000), ("Silver", 6_000), ("Floor", 4_500)];

/// What was made.
pub(crate) struct Demo {
    showtime: u32,
    /// Address and password, made up; `None` if the settings name an admin.
    admin: Option<(&'static str, String)>,
}

impl Demo {
    /// Prints what a first visitor needs, once.
    pub(crate) fn announce(&self, address: SocketAddr) {
        say(&format!("A demo show is on sale: http://{address}/v1/showtimes/{}", self.showtime));
        if let Some((email, password)) = &self.admin {
            say(&format!("Its admin is {email}, password {password} (shown this once)"));
        }
    }
}

/// Makes the demo show and puts it on sale.
///
/// # Errors
///
/// [`Failure`] if the catalog or the log refuses.
pub(crate) async fn create(app: &App) -> Result<Demo, Failure> {
    let failed = |error: String| Failure::Failed(format!("cannot make the demo show: {error}"));
    let admin = match app.settings.admin_email.0 {
        Some(_) => None,
        None => Some((ADMIN_EMAIL, random_text())),
    };
    let hash = match &admin {
        Some((_, password)) => {
            let hash = app.accounts.passwords.hash(password.clone()).await;
            Some(hash.map_err(|problem| failed(problem.detail().to_owned()))?)
        }
        None => None,
    };
    let turn = app.opening.turn().await;
    let row = rows(app, hash.as_deref()).await.map_err(|error| failed(error.to_string()))?;
    let showtime = row.showtime_id.0;
    let opened = opening::ensure_open(app, row, &turn).await;
    opened.map_err(|problem| failed(problem.detail().to_owned()))?;
    Ok(Demo { showtime, admin })
}

async fn rows(
    app: &App,
    admin_hash: Option<&str>,
) -> Result<tmomi_persist::catalog::Showtime, CatalogError> {
    let now = app.now();
    let plan = json!({"generate": {"sections": [
        {"name": "Floor", "tier": "Floor", "places": 400},
        {"name": "Stalls", "tier": "Gold", "rows": 24, "seats_per_row": 40},
        {"name": "Balcony", "tier": "Silver", "rows": 16, "seats_per_row": 40},
    ]}});
    let seats = Plan::from_value(&plan).expect("the demo's plan is good").report().seats;
    let mut change = app.catalog.change().await?;
    if let Some(password_hash) = admin_hash {
        let new = NewUser { email: ADMIN_EMAIL, password_hash, role: Role::Admin, at: now };
        change.create_user(new).await?;
    }
    let new = NewVenue { name: "Moonlight Hall", address: Some("1 Demo Street") };
    let venue = change.create_venue(new).await?.venue_id;
    change.set_plan(venue, plan.to_string().as_bytes(), seats, now).await?;
    let show = change.create_show(NewShow {
        venue_id: venue,
        name: "달빛 콘서트 (Moonlight Concert)",
        description: Some("A show to try Tmomi out with."),
        image_url: None,
    });
    let show = show.await?.show_id;
    let terms = NewShowtime {
        starts_at: now.plus_ms(STARTS_IN_MS),
        currency: "EUR".to_owned(),
        prices: PRICES.map(|(tier, price)| (tier.to_owned(), price)).into(),
        opens_at: now,
        closes_at: None,
        limit: crate::api::organiser::terms::LIMIT,
        hold_ttl_ms: crate::api::organiser::terms::HOLD_TTL_MS,
        line: LineSettings { mode: LineMode::Fifo, ..LineSettings::default() },
    };
    let row = change.create_showtime(show, terms).await?;
    change.commit_unanswered().await?;
    Ok(row)
}
