//! Which reign an event belongs to. An answer that is given again after a restart has the number
//! it had before, epoch included, so the beginnings of all reigns are kept: one line of the
//! catalog's settings, a few bytes a start.

use tmomi_engine::ids::{Epoch, Seq};
use tmomi_persist::catalog::{Catalog, CatalogError};

/// The setting of the catalog that has the beginnings.
const SETTING: &str = "epoch_starts";

/// The first event of each reign, ascending.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Epochs(Vec<(Seq, Epoch)>);

/// Whether a reign of this house is known. Then its log has events.
///
/// # Errors
///
/// The catalog's.
pub(crate) async fn has_begun(catalog: &Catalog) -> Result<bool, CatalogError> {
    let known = catalog.setting(SETTING).await?.unwrap_or_default();
    Ok(!Epochs::read(&known).0.is_empty())
}

impl Epochs {
    /// Loads the beginnings and adds the one of this process: `epoch` began with event `first`.
    /// To be called before anybody is answered.
    ///
    /// # Errors
    ///
    /// The catalog's.
    pub(crate) async fn load(
        catalog: &Catalog,
        epoch: Epoch,
        first: Seq,
    ) -> Result<Epochs, CatalogError> {
        let known = catalog.setting(SETTING).await?.unwrap_or_default();
        let mut epochs = Epochs::read(&known);
        // A start that ended between its first event and this call is not there: nobody was
        // answered in its reign. One that is not in the log any more must not be there.
        epochs.0.retain(|(seq, known)| *seq < first && *known < epoch);
        epochs.0.push((first, epoch));
        let mut change = catalog.change().await?;
        change.set_setting(SETTING, &epochs.write()).await?;
        change.commit_unanswered().await?;
        Ok(epochs)
    }

    /// The reign of an event; of one before the first known reign, that one.
    pub(crate) fn of(&self, seq: Seq) -> Epoch {
        let after = self.0.partition_point(|(first, _)| *first <= seq);
        self.0[after.saturating_sub(1)].1
    }

    fn read(text: &str) -> Epochs {
        let pair = |pair: &str| {
            let (seq, epoch) = pair.split_once(':')?;
            Some((Seq(seq.parse().ok()?), Epoch(epoch.parse().ok()?)))
        };
        Epochs(text.split_whitespace().filter_map(pair).collect())
    }

    fn write(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(seq, epoch)| format!("{seq}:{epoch}")).collect();
        pairs.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_belongs_to_the_reign_that_began_last_before_it() {
        let epochs = Epochs(vec![(Seq(1), Epoch(1)), (Seq(10), Epoch(2)), (Seq(20), Epoch(4))]);
        let of = |seq| epochs.of(Seq(seq)).0;
        assert_eq!([0, 1, 9, 10, 19, 20, 99].map(of), [1, 1, 1, 2, 2, 4, 4]);
        assert_eq!(Epochs::read(&epochs.write()), epochs);
    }

    #[tokio::test]
    async fn beginnings_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(&dir.path().join("c.db")).await.expect("a catalog");
        Epochs::load(&catalog, Epoch(1), Seq(1)).await.expect("kept");
        let epochs = Epochs::load(&catalog, Epoch(2), Seq(7)).await.expect("kept");
        assert_eq!(epochs.of(Seq(6)), Epoch(1));
        assert_eq!(epochs.of(Seq(7)), Epoch(2));
    }
}
