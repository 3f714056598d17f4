//! Stored rows beside wanted ones, in the order of their keys.

use std::fmt;

use sqlx::any::{Any, AnyRow, AnyTypeInfoKind};
use sqlx::{AnyConnection, AssertSqlSafe, Row as _, ValueRef as _};
use tmomi_engine::ids::Seq;

use super::super::rows::Stamp;
use super::super::sql::Upserts;
use super::super::tables::{KEY_COLUMNS_MAX, Table, Value};
use super::ReconcileError;
use super::past::Past;
use super::wanted::Wanted;
use crate::database::Dialect;

/// Rows that are read at a time.
const PAGE_ROWS: usize = 1_024;
/// Differences that are gathered before they are told and repaired.
const GATHERED_MAX: usize = 1_024;

/// The columns of a key; 0 for one that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([i64; KEY_COLUMNS_MAX]);

impl Key {
    const FIRST: Key = Key([i64::MIN; KEY_COLUMNS_MAX]);

    /// The key in the values of a row.
    pub(super) fn of(table: &Table, values: &[Value<'_>]) -> Key {
        let mut key = Key([0; KEY_COLUMNS_MAX]);
        for (part, value) in key.0.iter_mut().zip(&values[..table.key.len()]) {
            if let Value::Number(number) = value {
                *part = *number;
            }
        }
        key
    }

    /// As many numbers as the table's key has.
    pub(super) fn parts(&self, table: &Table) -> &[i64] {
        &self.0[..table.key.len()]
    }
}

/// A row as the database has it.
#[derive(Debug)]
pub(super) struct Stored {
    table: &'static Table,
    pub(super) key: Key,
    values: Vec<Value<'static>>,
}

impl Stored {
    fn read(table: &'static Table, row: &AnyRow) -> Result<Stored, sqlx::Error> {
        let values: Vec<_> = (0..row.len()).map(|n| value(row, n)).collect::<Result<_, _>>()?;
        Ok(Stored { table, key: Key::of(table, &values), values })
    }

    fn get(&self, column: &str) -> Option<&Value<'static>> {
        self.values.get(self.table.columns().position(|name| name == column)?)
    }

    /// The number in a column, if there is one.
    pub(super) fn number(&self, column: &str) -> Option<i64> {
        match self.get(column) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// Whether that text stands in a column.
    pub(super) fn is(&self, column: &str, text: &str) -> bool {
        matches!(self.get(column), Some(Value::Text(found)) if found == text)
    }
}

/// What stands there, of whatever type: SQLite stores anything in any column.
fn value(row: &AnyRow, column: usize) -> Result<Value<'static>, sqlx::Error> {
    let raw = row.try_get_raw(column)?;
    if raw.is_null() {
        return Ok(Value::NoText);
    }
    Ok(match raw.type_info().kind() {
        AnyTypeInfoKind::Null => Value::NoText,
        AnyTypeInfoKind::Text => Value::Text(row.try_get::<String, _>(column)?.into()),
        AnyTypeInfoKind::Blob => {
            let bytes: Vec<u8> = row.try_get(column)?;
            Value::Text(String::from_utf8_lossy(&bytes).into_owned().into())
        }
        AnyTypeInfoKind::Real | AnyTypeInfoKind::Double => {
            Value::Text(row.try_get::<f64, _>(column)?.to_string().into())
        }
        _ => Value::Number(row.try_get(column)?),
    })
}

/// A condition for the rows behind a key, and which of the key's numbers it takes in which order.
fn behind(columns: &[&str], dialect: Dialect) -> (String, Vec<usize>) {
    match dialect {
        // SQLite finds a tuple by its index, MySQL only what is said in so many words.
        Dialect::Sqlite => {
            let marks = vec!["?"; columns.len()].join(", ");
            (format!("({}) > ({marks})", columns.join(", ")), (0..columns.len()).collect())
        }
        Dialect::MySql => {
            let last = columns.len() - 1;
            let mut sql = format!("{} > ?", columns[last]);
            for name in columns[..last].iter().rev() {
                sql = format!("({name} > ? OR ({name} = ? AND {sql}))");
            }
            (sql, (0..last).flat_map(|part| [part, part]).chain([last]).collect())
        }
    }
}

/// A row that is not what it must be.
#[derive(Clone, Debug)]
pub struct Difference {
    pub(super) table: &'static Table,
    pub(super) key: Key,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Missing(Box<Wanted>),
    TooMany,
    Column { name: &'static str, found: Value<'static>, wanted: Value<'static>, is_bound: bool },
}

impl fmt::Display for Difference {
    /// `ticket 1 12 3456: state is "refunded", should be "valid"`: the table, its key without the
    /// shard, and what is wrong. Text is in quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.table.name)?;
        let parts = self.table.key.iter().zip(self.key.parts(self.table));
        let mut told = parts.filter(|(name, _)| **name != "shard");
        told.try_for_each(|(_, part)| write!(f, " {part}"))?;
        match &self.what {
            What::Missing(_) => f.write_str(": the row is missing"),
            What::TooMany => f.write_str(": there should be no such row"),
            What::Column { name, found, wanted, is_bound } => {
                let most = if *is_bound { " at most" } else { "" };
                write!(f, ": {name} is {found}, should be{most} {wanted}")
            }
        }
    }
}

/// How a table was found.
#[derive(Clone, Debug)]
pub struct TableReport {
    /// Its name.
    pub table: &'static str,
    /// Rows that were there.
    pub rows: u64,
    /// Rows that were not.
    pub missing: u64,
    /// Rows that there should not be.
    pub too_many: u64,
    /// Columns that said something else.
    pub columns: u64,
}

impl TableReport {
    /// How many differences there were.
    pub fn differences(&self) -> u64 {
        self.missing + self.too_many + self.columns
    }
}

/// Compares tables within one transaction.
pub(super) struct Merge<'a> {
    pub(super) conn: &'a mut AnyConnection,
    pub(super) shard: u32,
    pub(super) upserts: Upserts,
    /// To repair: where the log is asked for what the image does not have.
    pub(super) past: Option<&'a Past>,
    dialect: Dialect,
    position: Stamp,
    tell: &'a mut dyn FnMut(&Difference),
    gathered: Vec<Difference>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(
        conn: &'a mut AnyConnection,
        dialect: Dialect,
        shard: u32,
        position: Stamp,
        past: Option<&'a Past>,
        tell: &'a mut dyn FnMut(&Difference),
    ) -> Merge<'a> {
        let (upserts, gathered) = (Upserts::new(dialect), Vec::new());
        Merge { conn, shard, upserts, past, dialect, position, tell, gathered }
    }

    /// The event that the rows stand for.
    pub(super) fn position(&self) -> Seq {
        self.position.seq
    }

    /// Compares a table with the rows that it must have, which come in the order of their keys.
    /// Of a row that is not among them `allows` says whether it may stay.
    pub(super) async fn table(
        &mut self,
        table: &'static Table,
        wanted: impl Iterator<Item = Wanted>,
        allows: impl Fn(&Stored) -> bool,
    ) -> Result<TableReport, ReconcileError> {
        let (name, rows, missing, too_many, columns) = (table.name, 0, 0, 0, 0);
        let mut report = TableReport { table: name, rows, missing, too_many, columns };
        let mut wanted = wanted.peekable();
        let mut after = Key::FIRST;
        loop {
            let page = self.page(table, after).await?;
            for stored in &page {
                after = stored.key;
                report.rows += 1;
                while let Some(missing) = wanted.next_if(|row| row.key < stored.key) {
                    self.miss(table, missing, &mut report).await?;
                }
                match wanted.next_if(|row| row.key == stored.key) {
                    Some(wanted) => report.columns += self.compare(stored, wanted),
                    None if allows(stored) => {}
                    None => {
                        report.too_many += 1;
                        let (key, what) = (stored.key, What::TooMany);
                        self.gathered.push(Difference { table, key, what });
                    }
                }
            }
            self.settle(table).await?;
            if page.len() < PAGE_ROWS {
                break;
            }
        }
        for missing in wanted {
            self.miss(table, missing, &mut report).await?;
        }
        self.settle(table).await?;
        Ok(report)
    }

    async fn page(
        &mut self,
        table: &'static Table,
        after: Key,
    ) -> Result<Vec<Stored>, ReconcileError> {
        let (columns, order) = (table.selected(self.dialect), table.key.join(", "));
        let (condition, parts) = behind(table.key, self.dialect);
        let name = table.name;
        // Without the sign SQLite sorts the rest of a showtime for each page.
        let sql = format!(
            "SELECT {columns} FROM {name} WHERE +shard = ? AND {condition}
             ORDER BY {order} LIMIT {PAGE_ROWS}"
        );
        let query = sqlx::query::<Any>(AssertSqlSafe(sql)).bind(i64::from(self.shard));
        let query = parts.iter().fold(query, |query, part| query.bind(after.0[*part]));
        let rows = query.fetch_all(&mut *self.conn).await?;
        Ok(rows.iter().map(|row| Stored::read(table, row)).collect::<Result<_, _>>()?)
    }

    async fn miss(
        &mut self,
        table: &'static Table,
        wanted: Wanted,
        report: &mut TableReport,
    ) -> Result<(), ReconcileError> {
        report.missing += 1;
        let (key, what) = (wanted.key, What::Missing(Box::new(wanted)));
        self.gathered.push(Difference { table, key, what });
        if self.gathered.len() >= GATHERED_MAX {
            self.settle(table).await?;
        }
        Ok(())
    }

    /// Compares column by column; gives how many differ.
    fn compare(&mut self, stored: &Stored, wanted: Wanted) -> u64 {
        let (table, key) = (stored.table, stored.key);
        let before = self.gathered.len();
        let values = stored.values.iter().zip(wanted.values);
        for (name, (found, wanted_value)) in table.columns().zip(values) {
            let most = match name {
                "epoch" => Some(i64::from(self.position.epoch.0)),
                "sequence" if !wanted.is_stamped => Some(self.position.seq.0 as i64),
                _ => None,
            };
            let is_right = match most {
                Some(most) => matches!(found, Value::Number(number) if *number <= most),
                None => table.untold.contains(&name) || found.is_same(&wanted_value),
            };
            if !is_right {
                let (found, wanted, is_bound) = (found.clone(), wanted_value, most.is_some());
                let what = What::Column { name, found, wanted, is_bound };
                self.gathered.push(Difference { table, key, what });
            }
        }
        (self.gathered.len() - before) as u64
    }

    /// Tells what was gathered, and repairs it.
    async fn settle(&mut self, table: &'static Table) -> Result<(), ReconcileError> {
        let gathered = std::mem::take(&mut self.gathered);
        gathered.iter().for_each(|difference| (self.tell)(difference));
        if self.past.is_some() && !gathered.is_empty() {
            self.fix(table, gathered).await?;
        }
        Ok(())
    }
}
