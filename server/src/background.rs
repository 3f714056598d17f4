//! What is done once in a while.

use std::time::Duration;

use tmomi_engine::ids::TimeMs;
use tmomi_persist::catalog::{Catalog, CatalogError};

use crate::accounts::keys;
use crate::app::AppState;
use crate::opening;

/// How often what may be missing is looked for, and limits at rest are forgotten.
const OFTEN: Duration = Duration::from_secs(5);
/// Rounds of [`OFTEN`] between two of the rest: an hour.
const ROUNDS_PER_HOUR: u64 = 3_600 / OFTEN.as_secs();

/// Runs until the server stops.
pub(crate) async fn run(app: AppState) {
    let stopped = app.stop.stopped();
    let rounds = async {
        for round in 1_u64.. {
            tokio::time::sleep(OFTEN).await;
            app.limits.sweep();
            opening::complete(&app).await;
            if round.is_multiple_of(ROUNDS_PER_HOUR) {
                hourly(&app).await;
            }
        }
    };
    tokio::select! {
        () = stopped => {}
        () = rounds => {}
    }
}

async fn hourly(app: &AppState) {
    let now = app.clock.now();
    match keys::load(&app.catalog, now).await {
        Ok(keyring) => app.accounts.set_keyring(keyring),
        Err(error) => tracing::error!(%error, "the signing keys stay as they are"),
    }
    if let Err(error) = forget(&app.catalog, now).await {
        tracing::warn!(%error, "what the catalog need not remember stays for another hour");
    }
}

async fn forget(catalog: &Catalog, now: TimeMs) -> Result<(), CatalogError> {
    let mut change = catalog.change().await?;
    let tokens = change.forget_tokens(now).await?;
    let answers = change.forget_answers(now).await?;
    change.commit_unanswered().await?;
    tracing::debug!(tokens, answers, "forgot what has expired");
    Ok(())
}
