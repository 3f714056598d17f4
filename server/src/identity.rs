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
    /// The catalog's.
    pub(crate) async fn complete(self, catalog: &Catalog, place: &Place) -> Result<(), Failure> {
        let House::Half { name, .. } = self else { return Ok(()) };
        name_catalog(catalog, &name).await.map_err(|error| of_catalog(place, &error))
    }
}

/// Makes sure that folder and catalog are of one house; a new house gets a name.
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
    let ours = match fs::read_to_string(&file) {
        Ok(name) => Some(name.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(of_file(error)),
    };
    let theirs = catalog.setting(SETTING).await.map_err(|error| of_catalog(place, &error))?;
    let (folder, file_name) = (folder.display(), file.display());
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours == theirs => Ok(House::Whole),
        (Some(ours), Some(theirs)) => Err(Failure::Failed(format!(
            "{folder} belongs to house {ours} and {place} to house {theirs}: give the folder its \
             own database"
        ))),
        (Some(name), None) => {
            let refusal = format!(
                "{folder} belongs to house {name}, has sold, and {place} is the database of none: \
                 give the folder its own database"
            );
            Ok(House::Half { name, refusal })
        }
        // A file beside the log is the folder's.
        (None, Some(theirs)) if matches!(place, Place::File(_)) => {
            keep(&file, &theirs).map_err(of_file)?;
            Ok(House::Whole)
        }
        (None, Some(theirs)) => Err(Failure::Failed(format!(
            "{place} belongs to house {theirs}, whose data folder is not {folder}: two would sell \
             every seat twice; if this folder takes the other's place, write that name into \
             {file_name}"
        ))),
        (None, None) => {
            let name = random_text();
            // The folder first: alone it is a house that has not sold.
            keep(&file, &name).map_err(of_file)?;
            let named = name_catalog(catalog, &name).await;
            named.map_err(|error| of_catalog(place, &error))?;
            Ok(House::Whole)
        }
    }
}

fn of_catalog(place: &Place, error: &CatalogError) -> Failure {
    Failure::Failed(format!("{place}: {error}"))
}

async fn name_catalog(catalog: &Catalog, name: &str) -> Result<(), CatalogError> {
    let mut change = catalog.change().await?;
    change.set_setting(SETTING, name).await?;
    change.commit_unanswered().await
}

/// Writes the name durably.
fn keep(file: &Path, name: &str) -> io::Result<()> {
    let mut written = fs::File::create(file)?;
    writeln!(written, "{name}")?;
    written.sync_all()
}
