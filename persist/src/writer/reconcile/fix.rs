//! Makes rows what they must be.

use std::collections::HashMap;

use sqlx::any::{Any, AnyArguments};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor as _};
use tmomi_engine::ids::HoldId;

use super::super::sql::bind;
use super::super::tables::{Table, Value};
use super::ReconcileError;
use super::merge::{Difference, Key, Merge, What};
use super::wanted::Wanted;

impl Merge<'_> {
    /// Repairs differences of one table.
    pub(super) async fn fix(
        &mut self,
        table: &'static Table,
        differences: Vec<Difference>,
    ) -> Result<(), ReconcileError> {
        let keyed = format!("{} = ?", table.key.join(" = ? AND "));
        let mut missing = Vec::new();
        for Difference { key, what, .. } in differences {
            match what {
                What::Missing(wanted) => missing.push(*wanted),
                What::TooMany => {
                    let sql = format!("DELETE FROM {} WHERE {keyed}", table.name);
                    let query = at(sqlx::query(AssertSqlSafe(sql)), table, key);
                    self.conn.execute(query).await?;
                }
                What::Column { name, wanted, .. } => {
                    let sql = format!("UPDATE {} SET {name} = ? WHERE {keyed}", table.name);
                    let query = bind(sqlx::query(AssertSqlSafe(sql)), wanted);
                    let query = at(query, table, key);
                    self.conn.execute(query).await?;
                }
            }
        }
        self.look_for_payments(table, &mut missing)?;
        let rows: Vec<_> = missing.into_iter().map(|wanted| wanted.values).collect();
        self.upserts.write_values(self.conn, table, &rows).await?;
        Ok(())
    }

    /// Asks the log for the payment references of orders that are put back.
    fn look_for_payments(
        &self,
        table: &Table,
        missing: &mut [Wanted],
    ) -> Result<(), ReconcileError> {
        let asked: Vec<_> = missing.iter().filter_map(|wanted| wanted.confirmed).collect();
        let Some(past) = self.past.filter(|_| !asked.is_empty()) else { return Ok(()) };
        let position = self.position();
        let known: HashMap<HoldId, String> =
            past.payment_refs(&asked).map_err(|cause| ReconcileError::Past { position, cause })?;
        let Some(column) = table.columns().position(|name| name == "payment_ref") else {
            return Ok(());
        };
        for wanted in missing {
            let order = wanted.confirmed.map(|(order, _)| order);
            if let Some(text) = order.and_then(|order| known.get(&order)) {
                wanted.values[column] = Value::Text(text.clone().into());
            }
        }
        Ok(())
    }
}

fn at<'q>(
    query: Query<'q, Any, AnyArguments>,
    table: &Table,
    key: Key,
) -> Query<'q, Any, AnyArguments> {
    key.parts(table).iter().fold(query, |query, part| query.bind(*part))
}
