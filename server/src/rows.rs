//! Where catalog and rows are, and the writer's thread: the journal's events become rows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tmomi_persist::catalog::{Catalog, OpenError};
use tmomi_persist::database::{Place, Server};
use tmomi_persist::shard::{JOURNAL_DIR, Shard};
use tmomi_persist::writer::{
    self, CatalogNames, DeadLetters, JournalSource, Source, SqlSink, Status, Writer, WriterConfig,
    WriterHandle, WriterState,
};

use crate::cli::Failure;
use crate::clock::SystemClock;
use crate::config::Settings;

/// The catalog's file in the data folder.
const CATALOG_FILE: &str = "catalog.db";

/// The file of the rows, in the data folder.
const ROWS_FILE: &str = "sales.db";
/// The folder of what could not become rows.
pub(crate) const DEAD_LETTERS_DIR: &str = "dead-letters";
/// How long the end of the process waits for the rows of what was answered. The next start writes
/// the rest.
const LAST_ROWS_WAIT: Duration = Duration::from_secs(2);
/// How long the end of the process waits for the catalog's connections.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Where the two databases are. On a server they are one.
pub(crate) struct Places {
    /// What is offered.
    pub(crate) catalog: Place,
    /// What was sold.
    pub(crate) rows: Place,
}

impl Places {
    /// As the settings say; files are in `folder`.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] if the address of the database is none.
    pub(crate) fn of(settings: &Settings, folder: &Path) -> Result<Places, Failure> {
        let url = &settings.database.0;
        if url.is_empty() {
            let (catalog, rows) = (folder.join(CATALOG_FILE), folder.join(ROWS_FILE));
            return Ok(Places { catalog: Place::File(catalog), rows: Place::File(rows) });
        }
        let server = Server::parse(url).map_err(|error| {
            Failure::Usage(format!("the setting database is not understood: {error}"))
        })?;
        Ok(Places { catalog: Place::Server(server.clone()), rows: Place::Server(server) })
    }

    /// Whether there is something to look at: a file that is not there would be made.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] with the first file that is not there.
    pub(crate) fn must_exist(&self) -> Result<(), Failure> {
        for place in [&self.catalog, &self.rows] {
            if let Place::File(path) = place
                && !path.is_file()
            {
                let path = path.display();
                return Err(Failure::Failed(format!("there is no {path}; check --data")));
            }
        }
        Ok(())
    }

    /// Opens the catalog.
    ///
    /// # Errors
    ///
    /// [`Failure`] that says where, and what is wrong.
    pub(crate) async fn open_catalog(&self) -> Result<Catalog, Failure> {
        let place = self.catalog.clone();
        Catalog::open(place).await.map_err(|error| self.failed(&error))
    }

    /// What an error of the catalog is to whoever started the process.
    pub(crate) fn failed(&self, error: &OpenError) -> Failure {
        match error {
            // These say where by themselves.
            OpenError::Refused(what) => Failure::Failed(what.clone()),
            OpenError::NoDatabase(what) => Failure::Damaged(what.clone()),
            OpenError::Newer { .. } | OpenError::Foreign(_) => {
                Failure::Damaged(format!("{}: {error}", self.catalog))
            }
            OpenError::Unavailable(_) => Failure::Failed(format!("{}: {error}", self.catalog)),
        }
    }
}

/// What a writer needs besides its log.
pub(crate) struct Output {
    /// The data folder, for what cannot become rows.
    pub(crate) data: PathBuf,
    /// Where names and prices are, and where the rows go. They may be away: then the writer waits.
    pub(crate) places: Places,
    /// How long the database takes is measured by it.
    pub(crate) clock: Arc<SystemClock>,
}

impl Output {
    /// Starts a writer behind `source`.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(crate) fn spawn(self, source: impl Source + 'static) -> io::Result<WriterHandle> {
        let sink = SqlSink::at(self.places.rows, 0);
        // By connections of its own: the server's would stand still whenever this thread does.
        let names = CatalogNames::at(self.places.catalog);
        let dead = DeadLetters::new(self.data.join(DEAD_LETTERS_DIR));
        let config = WriterConfig::default();
        writer::spawn(Writer::new(config, source, sink, names, dead, self.clock))
    }
}

/// Starts the writer behind the journal of `shard`.
///
/// # Errors
///
/// If the system gives no thread.
pub(crate) fn start(shard: &Arc<Shard>, output: Output) -> io::Result<WriterHandle> {
    let (of_source, floor) = (Arc::clone(shard), shard.journal_reader());
    let journal = output.data.join(JOURNAL_DIR);
    let source = JournalSource::new(journal, 0, move || of_source.applied())
        .on_written(move |position| floor.keep_from(position.next()));
    output.spawn(source)
}

/// Closes the catalog, and does not wait for a server that does not answer.
pub(crate) async fn close(catalog: &Catalog) {
    if tokio::time::timeout(CLOSE_WAIT, catalog.close()).await.is_err() {
        tracing::warn!("the catalog's database does not answer, its connections are left");
    }
}

/// Waits until the rows stand for everything that was answered, for 2 s at most; `false` if it gave
/// up.
pub(crate) async fn catch_up(writer: &WriterState, shard: &Shard) -> bool {
    // What ends by itself meanwhile, nobody was answered.
    let answered = shard.applied();
    let caught_up = async {
        while writer.position() < answered && writer.status() == Status::Running {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let in_time = tokio::time::timeout(LAST_ROWS_WAIT, caught_up).await.is_ok();
    let written = writer.position();
    if written < answered {
        tracing::warn!(%written, %answered, "the next start writes the rows that are missing");
    }
    in_time
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmomi_engine::OpenShowtime;
    use tmomi_engine::event::LineSettings;
    use tmomi_engine::ids::{BuyerId, Epoch, Seq, ShowtimeId, TierIndex, TimeMs};
    use tmomi_engine::layout::{Layout, LayoutSpec, SectionSpec};
    use tmomi_persist::layout_codec;
    use tmomi_persist::shard::ShardConfig;
    use tmomi_persist::writer::{
        EntryKey, House, Names, NamesError, Record, Rows, Sink, SinkError, SourceError, Stamp,
    };
    use tokio::sync::Notify;

    /// A log that has nothing for the rows.
    struct Dry;

    impl Source for Dry {
        fn seek(&mut self, _: Stamp) -> Result<(), SourceError> {
            Ok(())
        }

        fn next(&mut self) -> Result<Option<Record>, SourceError> {
            Ok(None)
        }
    }

    impl Names for Dry {
        async fn house(&mut self, _: ShowtimeId) -> Result<Arc<House>, NamesError> {
            unreachable!("there are no events");
        }
    }

    /// Rows that stand for `.0` when they are let be seen.
    struct Later(Seq, Arc<Notify>);

    impl Sink for Later {
        async fn position(&mut self) -> Result<Stamp, SinkError> {
            self.1.notified().await;
            Ok(Stamp { epoch: Epoch(1), seq: self.0 })
        }

        async fn buyers(&mut self, _: &[EntryKey]) -> Result<Vec<(EntryKey, BuyerId)>, SinkError> {
            unreachable!("there are no events");
        }

        async fn write(&mut self, _: Stamp, _: Stamp, _: &Rows) -> Result<(), SinkError> {
            unreachable!("there are no events");
        }
    }

    /// Something is decided and applied.
    async fn open_showtime(shard: &Shard) {
        let tier = TierIndex(0);
        let spec = LayoutSpec { sections: vec![SectionSpec::General { places: 1, tier }] };
        let open = OpenShowtime {
            showtime: ShowtimeId(1),
            blob: layout_codec::encode(&spec).into(),
            layout: Arc::new(Layout::build(spec).expect("a layout")),
            limit: 1,
            hold_ttl_ms: 1_000,
            line: LineSettings::default(),
            opens_at: TimeMs(0),
            closes_at: TimeMs(u64::MAX),
        };
        let mut handle = shard.engine().handle().expect("a handle");
        let (_, seq) = handle.open(shard.clock().now(), open).expect("not open yet");
        shard.wait(seq).await.expect("memory takes it");
    }

    /// Planted bug: it waits for what is applied now, which goes on rising, until it gives up.
    #[tokio::test]
    async fn the_end_waits_for_the_rows_of_what_was_answered_before_it() {
        let clock = Arc::new(SystemClock::start());
        let shard = Shard::open(ShardConfig::memory(), clock.clone()).expect("memory");
        let (answered, seen) = (shard.applied(), Arc::new(Notify::new()));
        let folder = tempfile::tempdir().expect("a folder");
        let dead = DeadLetters::new(folder.path().to_owned());
        let sink = Later(answered, Arc::clone(&seen));
        let mut writer = Writer::new(WriterConfig::default(), Dry, sink, Dry, dead, clock);
        let state = writer.state();
        let others = async {
            open_showtime(&shard).await;
            assert!(shard.applied() > answered && state.position() < answered);
            seen.notify_one();
            std::future::pending::<()>().await;
        };
        let in_time = tokio::select! {
            biased;
            in_time = catch_up(&state, &shard) => in_time,
            () = others => unreachable!("it has no end"),
            _ = writer.run() => unreachable!("nobody stops it"),
        };
        assert_eq!(state.position(), answered, "it waited for them");
        assert!(in_time, "and for nothing else");
    }
}
