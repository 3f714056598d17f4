//! Which house a data folder and a database belong to. What is sold stands in the folder's log,
//! what is offered in the database: a folder with the database of another house would sell its
//! seats once more.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use tmomi_persist::catalog::{Catalog, CatalogError};
use tmomi_persist::database::Place;
use tmomi_persist::shard::Admit;

use crate::accounts::passwords::random_text;
use crate::cli::Failure;

/// The setting of the catalog, and the file of the folder, that have the house's name.
const SETTING: &str = "house";
const FILE: &str = "house";

/// What folder and catalog say before the log is read.
pub(crate) enum House {
    /// They are of one house.
    Whole,
    /// The folder is of house `name` and the catalog of none: a start ended between the two, or it
    /// is the catalog of something else, as [`admit`](Self::admit) finds out.
    Half { name: String, refusal: String },
}

impl House {
    /// What the log must be for a reign to begin.
    pub(crate) fn admit(&self) -> Admit {
        match self {
            House::Whole => Box::new(|_| Ok(())),
            House::Half { refusal, .. } => {
                let refusal = refusal.clone();
                Box::new(move |image| match image.showtimes().len() {
                    0 => Ok(()),
                    _ => Err(refusal.clone()),
                })
            }
        }
    }

    /// The reign has begun: names the catalog, if it is not yet.
    ///
    /// # Errors
    ///
    /// The catalog's, and if it has got another name meanwhile.
    pub(crate) async fn complete(self, catalog: &Catalog, place: &Place) -> Result<(), Failure> {
        let House::Half { name, .. } = self else { return Ok(()) };
        let named = async {
            let mut change = catalog.change().await?;
            if let Some(other) = change.setting(SETTING).await? {
                return Ok(Some(other));
            }
            change.set_setting(SETTING, &name).await?;
            change.commit_unanswered().await?;
            Ok(None)
        };
        match named.await.map_err(|error| of_catalog(place, &error))? {
            Some(other) if other != name => Err(Failure::Failed(format!(
                "{place} has become the database of house {other} while house {name} began there: \
                 give it its own database"
            ))),
            _ => Ok(()),
        }
    }
}

/// Makes sure that folder and catalog are of one house; a new house gets a name. Of two starts at
/// once one is the first: both are looked at in one change of the catalog.
///
/// # Errors
///
/// [`Failure`] that says what belongs where.
pub(crate) async fn check(
    folder: &Path,
    catalog: &Catalog,
    place: &Place,
) -> Result<House, Failure> {
    let file = folder.join(FILE);
    let of_file = |error: io::Error| Failure::Failed(format!("{}: {error}", file.display()));
    let of_catalog = |error: CatalogError| of_catalog(place, &error);
    let mut change = catalog.change().await.map_err(of_catalog)?;
    let theirs = change.setting(SETTING).await.map_err(of_catalog)?;
    let ours = read(&file).map_err(of_file)?;
    let file_name = file.display();
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            one_house(folder, &ours, place, &theirs)?;
            Ok(House::Whole)
        }
        (Some(name), None) => {
            let refusal = format!(
                "{} belongs to house {name}, has sold, and {place} is the database of none: give \
                 the folder its own database",
                folder.display()
            );
            Ok(House::Half { name, refusal })
        }
        // A file beside the log is the folder's.
        (None, Some(theirs)) if matches!(place, Place::File(_)) => {
            keep(folder, &theirs).map_err(of_file)?;
            Ok(House::Whole)
        }
        (None, Some(theirs)) => Err(Failure::Failed(format!(
            "{place} belongs to house {theirs}, whose data folder is not {}: two would sell every \
             seat twice; if this folder takes the other's place, write that name into {file_name}",
            folder.display()
        ))),
        (None, None) => {
            let name = random_text();
            // The folder first: alone it is a house that has not sold.
            keep(folder, &name).map_err(of_file)?;
            change.set_setting(SETTING, &name).await.map_err(of_catalog)?;
            change.commit_unanswered().await.map_err(of_catalog)?;
            Ok(House::Whole)
        }
    }
}

/// Makes sure that rows are written where they belong: a folder with a name has the database of
/// that house. A writer behind a topic may have a folder without one.
///
/// # Errors
///
/// [`Failure`] that says what belongs where.
pub(crate) async fn check_rows(
    folder: &Path,
    catalog: &Catalog,
    place: &Place,
) -> Result<(), Failure> {
    let file = folder.join(FILE);
    let ours = read(&file);
    let ours = ours.map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
    let theirs = catalog.setting(SETTING).await.map_err(|error| of_catalog(place, &error))?;
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => one_house(folder, &ours, place, &theirs),
        _ => Ok(()),
    }
}

fn one_house(folder: &Path, ours: &str, place: &Place, theirs: &str) -> Result<(), Failure> {
    if ours == theirs {
        return Ok(());
    }
    let folder = folder.display();
    Err(Failure::Failed(format!(
        "{folder} belongs to house {ours} and {place} to house {theirs}: give the folder its own \
         database"
    )))
}

fn of_catalog(place: &Place, error: &CatalogError) -> Failure {
    Failure::Failed(format!("{place}: {error}"))
}

/// The name in the folder; an empty file has none.
fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the name durably, all of it or nothing.
fn keep(folder: &Path, name: &str) -> io::Result<()> {
    let (file, beside) = (folder.join(FILE), folder.join(FILE).with_extension("part"));
    let mut written = fs::File::create(&beside)?;
    writeln!(written, "{name}")?;
    written.sync_all()?;
    fs::rename(&beside, &file)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// R1: two starts with one database and a folder each. Planted bug: who is the first is looked
    /// at before the change that says it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_name_that_is_being_given_is_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("catalog.db");
        let place = Place::File(path.clone());
        let catalog = Catalog::open(&path).await.expect("a catalog");
        let mut first = catalog.change().await.expect("its turn");
        let (folder, other) = (dir.path().to_owned(), Catalog::open(&path).await.expect("one"));
        let second = tokio::spawn(async move { check(&folder, &other, &place).await.map(drop) });
        // A second that does not wait has given a name by then.
        tokio::time::sleep(Duration::from_millis(300)).await;
        first.set_setting(SETTING, "the first").await.expect("it is set");
        first.commit_unanswered().await.expect("it is done");
        assert!(second.await.expect("it ends").is_ok());
        let name = catalog.setting(SETTING).await.expect("it answers");
        assert_eq!(name.as_deref(), Some("the first"));
        assert_eq!(read(&dir.path().join(FILE)).expect("a file"), name);
    }

    /// Planted bug: an empty file is a name.
    #[tokio::test]
    async fn an_empty_file_is_no_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("catalog.db");
        let catalog = Catalog::open(&path).await.expect("a catalog");
        fs::write(dir.path().join(FILE), "").expect("we own it");
        let place = Place::File(path);
        assert!(check(dir.path(), &catalog, &place).await.is_ok());
        let name = catalog.setting(SETTING).await.expect("it answers").expect("a name");
        assert!(name.len() > 8, "{name}");
        assert_eq!(read(&dir.path().join(FILE)).expect("a file"), Some(name));
        assert!(check_rows(dir.path(), &catalog, &place).await.is_ok());
        keep(dir.path(), "another").expect("we own it");
        assert!(check_rows(dir.path(), &catalog, &place).await.is_err());
    }
}
