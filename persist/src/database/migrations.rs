//! The tables, in steps that are taken once each.
//!
//! They are written once, as SQLite reads them. What MySQL and MariaDB need besides stands in
//! their executable comments, `/*! ... */`, which SQLite passes over; and two phrases that only
//! SQLite knows are put into their words.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migrator};

use super::{Dialect, OpenError};

/// Which tables a file has. A server has all of them in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What is offered.
    Catalog,
    /// What was sold.
    Sales,
}

struct Step {
    version: i64,
    part: Part,
    name: &'static str,
    sql: &'static str,
}

const STEPS: [Step; 2] = [
    Step {
        version: 1,
        part: Part::Catalog,
        name: "catalog",
        sql: include_str!("../../migrations/0001_catalog.sql"),
    },
    Step {
        version: 2,
        part: Part::Sales,
        name: "sales",
        sql: include_str!("../../migrations/0002_sales.sql"),
    },
];

/// What SQLite says, and what MySQL says for it.
const PHRASES: [(&str, &str); 2] = [
    ("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT NOT NULL PRIMARY KEY AUTO_INCREMENT"),
    (" WITHOUT ROWID", ""),
];

/// The steps of `part`, or of both on a server.
pub(super) fn of(part: Part, dialect: Dialect) -> Migrator {
    let steps = STEPS.iter().filter(|step| dialect == Dialect::MySql || step.part == part);
    let migrations = steps.map(|step| {
        let sql = match dialect {
            Dialect::Sqlite => step.sql.to_owned(),
            Dialect::MySql => in_mysql(step.sql),
        };
        let sql = sqlx::AssertSqlSafe(sql).into_sql_str();
        let kind = sqlx::migrate::MigrationType::Simple;
        sqlx::migrate::Migration::new(step.version, step.name.into(), kind, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

fn in_mysql(sql: &str) -> String {
    PHRASES.iter().fold(sql.to_owned(), |sql, (lite, my)| sql.replace(lite, my))
}

/// The names of all tables.
pub(super) fn tables() -> Vec<&'static str> {
    let names = STEPS.iter().flat_map(|step| step.sql.split("CREATE TABLE ").skip(1));
    names.filter_map(|rest| rest.split_whitespace().next()).collect()
}

/// What a database's format says about it, given the steps that it was to take.
pub(super) fn refuse(error: MigrateError, known: &Migrator) -> OpenError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            OpenError::Unavailable(error)
        }
        MigrateError::VersionMissing(found) => {
            let known = known.iter().map(|migration| migration.version).max().unwrap_or(0);
            OpenError::Newer { found, known }
        }
        // MySQL does not undo half a step.
        MigrateError::Dirty(version) => OpenError::Refused(format!(
            "the tables of format {version} were made by halves, as the process ended then; if \
             nothing else is in the database, drop it, create it again, and start again"
        )),
        other => OpenError::Foreign(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_a_server_says_its_engine_and_collation() {
        for step in &STEPS {
            let sql = in_mysql(step.sql);
            let (tables, said) = (sql.matches("CREATE TABLE").count(), "COLLATE = utf8mb4_bin");
            assert_eq!(sql.matches(said).count(), tables, "{}", step.name);
            assert!(!sql.contains("AUTOINCREMENT"), "{}", step.name);
        }
        assert!(tables().contains(&"users") && tables().contains(&"line_entry"));
    }
}
