//! Names and prices of seats, which no event carries.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use tmomi_engine::ids::ShowtimeId;
use tmomi_engine::layout::Layout;

use crate::catalog::{Catalog, CatalogError, PlanId};
use crate::database::Place;
use crate::plan::Plan;

/// What rows need to know of a showtime.
#[derive(Debug)]
pub struct House {
    /// Names the seats.
    pub plan: Arc<Plan>,
    /// Numbers the seats, as the engine that sold them did.
    pub layout: Arc<Layout>,
    /// Name and price of each tier, by its number.
    pub prices: Vec<(Arc<str>, u64)>,
    /// What prices are in.
    pub currency: Arc<str>,
}

/// Why a showtime has no names.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// Ask again later.
    #[error("{0}")]
    Away(String),
    /// There are none, or they cannot be read. Asking again does not help.
    #[error("{0}")]
    Missing(String),
}

/// Finds names and prices.
pub trait Names: Send {
    /// The names and present prices of a showtime. The prices of what has been sold do not
    /// change.
    fn house(
        &mut self,
        showtime: ShowtimeId,
    ) -> impl Future<Output = Result<Arc<House>, NamesError>> + Send;
}

/// Plans kept at most; beyond it all are forgotten and read again as they are needed.
const PLANS_KEPT: usize = 64;

/// Names from the catalog. Plans never change, so they are read once; prices are read anew
/// every time.
#[derive(Debug)]
pub struct CatalogNames {
    place: Option<Place>,
    /// `None` until it was opened.
    catalog: Option<Catalog>,
    plans: HashMap<PlanId, (Arc<Plan>, Arc<Layout>)>,
}

impl CatalogNames {
    /// Names from `catalog`.
    pub fn new(catalog: Catalog) -> CatalogNames {
        CatalogNames { place: None, catalog: Some(catalog), plans: HashMap::new() }
    }

    /// Names from the catalog at `place`, which is opened when it is needed first.
    pub fn at(place: Place) -> CatalogNames {
        CatalogNames { place: Some(place), catalog: None, plans: HashMap::new() }
    }

    async fn catalog(&mut self) -> Result<Catalog, NamesError> {
        if let (None, Some(place)) = (&self.catalog, &self.place) {
            let opened = Catalog::open(place.clone()).await;
            self.catalog = Some(opened.map_err(|error| NamesError::Away(error.to_string()))?);
        }
        Ok(self.catalog.clone().expect("it is opened"))
    }

    async fn plan(&mut self, id: PlanId) -> Result<(Arc<Plan>, Arc<Layout>), NamesError> {
        if let Some(plan) = self.plans.get(&id) {
            return Ok(plan.clone());
        }
        let body = self.catalog().await?.plan(id).await.map_err(refuse)?.body;
        let plan = Plan::from_json(&body).map_err(|e| NamesError::Missing(e.to_string()))?;
        let layout = Layout::build(plan.spec()).map_err(|e| NamesError::Missing(e.to_string()))?;
        if self.plans.len() == PLANS_KEPT {
            self.plans.clear();
        }
        let plan = (Arc::new(plan), Arc::new(layout));
        self.plans.insert(id, plan.clone());
        Ok(plan)
    }
}

impl Names for CatalogNames {
    async fn house(&mut self, showtime: ShowtimeId) -> Result<Arc<House>, NamesError> {
        let terms = self.catalog().await?.showtime_ever(showtime).await.map_err(refuse)?;
        let (plan, layout) = self.plan(terms.plan_id).await?;
        let priced = |tier: &str| match terms.terms.prices.get(tier) {
            Some(price) => Ok((Arc::from(tier), *price)),
            None => Err(NamesError::Missing(format!("showtime {showtime} has no price of {tier}"))),
        };
        let prices = plan.tiers().iter().map(|tier| priced(tier)).collect::<Result<_, _>>()?;
        let currency = terms.terms.currency.into();
        Ok(Arc::new(House { plan, layout, prices, currency }))
    }
}

fn refuse(error: CatalogError) -> NamesError {
    match error {
        CatalogError::Unavailable(_) => NamesError::Away(error.to_string()),
        other => NamesError::Missing(other.to_string()),
    }
}
