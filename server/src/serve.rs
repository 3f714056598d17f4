//! `tmomi serve`: the order in which everything starts, and the order in which it ends.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tmomi_engine::EngineConfig;
use tmomi_engine::ids::Seq;
use tmomi_persist::catalog::{CatalogError, NewUser, Noun, Role};
use tmomi_persist::follower::SnapshotConfig;
use tmomi_persist::journal::JournalConfig;
use tmomi_persist::recovery::RecoveryError;
use tmomi_persist::shard::{
    Admit, JOURNAL_DIR, LogConfig, OpenError, SNAPSHOT_DIR, Shard, ShardConfig,
};
use tmomi_persist::snapshot::SnapshotError;
use tmomi_persist::writer::WriterHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::accounts::passwords::Passwords;
use crate::accounts::{Accounts, keys};
use crate::api;
use crate::api::batch::KnownBuyers;
use crate::app::{App, AppState, min_seq_places};
use crate::cli::{Failure, say};
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::epochs::{self, Epochs};
use crate::front::Front;
use crate::halls::Halls;
use crate::handles::{HANDLES_MAX, Handles};
use crate::idempotency::InProgress;
use crate::kafka::{KafkaUse, Stream};
use crate::limits::Limits;
use crate::listener::{ConnectionLimits, Listener};
use crate::metrics::Metrics;
use crate::opening::Opening;
use crate::rows::{Output, Places};
use crate::stop::Stop;
use crate::{background, demo, identity, kafka, opening, ringing, rows};

/// Connections of the listener for whoever runs the server.
const INSIDE_CONNECTIONS_MAX: u32 = 64;
/// How long tasks that nobody waits for may take at the end.
const TASKS_GRACE: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
///
/// [`Failure`] that says what could not be started or ended, where, and what to do.
pub(crate) fn serve(settings: Settings) -> Result<(), Failure> {
    raise_handle_limit();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if settings.threads > 0 {
        runtime.worker_threads(settings.threads as usize);
    }
    runtime.enable_all().on_thread_park(ringing::about_to_sleep);
    let runtime = runtime.build();
    let runtime = runtime.map_err(|error| failed("start threads", "the machine", error))?;
    // Data that ends with the process stands in a folder that ends with it.
    let passing = settings.memory.is_on().then(PassingFolder::make).transpose()?;
    let folder = passing.as_ref().map_or(settings.data.clone(), |passing| passing.0.clone());
    let running = runtime.block_on(Running::start(settings, &folder))?;
    let (app, writer, stream) = runtime.block_on(running.until_stopped())?;
    let (catalog, shard) = (app.catalog.clone(), Arc::clone(&app.shard));
    // The writer reads the journal and the catalog, so it ends before them.
    if let Some(writer) = &writer {
        runtime.block_on(rows::catch_up(writer.state(), &shard));
    }
    drop(writer);
    // So does the publisher, and it keeps its place in the topic.
    if let Some(stream) = stream {
        runtime.block_on(stream.end(&shard));
    }
    runtime.block_on(rows::close(&catalog));
    drop(app);
    runtime.shutdown_timeout(TASKS_GRACE);
    close(shard)?;
    say("stopped");
    Ok(())
}

/// What runs.
struct Running {
    app: AppState,
    writer: Option<WriterHandle>,
    stream: Option<Stream>,
    listener: Listener,
    inside: Option<Listener>,
    signals: Signals,
}

impl Running {
    async fn start(settings: Settings, folder: &Path) -> Result<Running, Failure> {
        let signals = Signals::listen()?;
        // First what fails without having touched anything.
        check_admin(&settings)?;
        let limits = ConnectionLimits {
            total: settings.connections_max,
            per_address: settings.rate_limits.is_on().then_some(settings.address_connections_max),
        };
        let listener = listen(settings.listen, limits)?;
        let inside = settings.metrics_listen.0.map(|address| {
            let limits = ConnectionLimits { total: INSIDE_CONNECTIONS_MAX, per_address: None };
            listen(address, limits)
        });
        let inside = inside.transpose()?;
        let fresh = is_fresh(folder)?;
        let (app, writer, stream) = build(settings, folder).await?;
        set_admin(&app).await?;
        let count = opening::open_all(&app).await;
        match count {
            Ok(count) => tracing::info!(showtimes = count, "on sale"),
            Err(problem) => {
                tracing::error!(detail = problem.detail(), "showtimes are not on sale yet")
            }
        }
        let address = listener.address().map_err(|error| failed("listen", "there", error))?;
        say(&format!("Tmomi serves http://{address}"));
        if fresh && app.settings.demo.is_on() {
            demo::create(&app).await?.announce(address);
        }
        Ok(Running { app, writer, stream, listener, inside, signals })
    }

    /// Serves, and lets running requests and streams end in time after a signal. Gives what is to
    /// be closed then.
    async fn until_stopped(self) -> Result<Parts, Failure> {
        let Running { app, writer, stream, listener, inside, mut signals } = self;
        let stop = app.stop.clone();
        let grace = Duration::from_secs(app.settings.shutdown_s.into());
        let front = Arc::new(Front::new(Arc::clone(&app), api::router(Arc::clone(&app))));
        let main = tokio::spawn(listener.run(front, stop.clone(), grace));
        let inside = inside.map(|listener| {
            let router = api::inside_router(Arc::clone(&app));
            let front = Arc::new(Front::new(Arc::clone(&app), router));
            tokio::spawn(listener.run(front, stop.clone(), grace))
        });
        let background = tokio::spawn(background::run(Arc::clone(&app)));
        signals.next().await;
        tracing::info!("stopping: no new requests, running ones end");
        stop.stop();
        tokio::spawn(async move {
            signals.next().await;
            tracing::warn!("stopping at once, after a second signal");
            std::process::exit(1);
        });
        for task in [Some(main), inside, Some(background)].into_iter().flatten() {
            task.await.map_err(|error| failed("end in order", "a task of the server", error))?;
        }
        Ok((app, writer, stream))
    }
}

/// What is put together at the start and taken apart at the end.
type Parts = (AppState, Option<WriterHandle>, Option<Stream>);

/// Opens what is on the disk and puts the parts together.
async fn build(settings: Settings, folder: &Path) -> Result<Parts, Failure> {
    let places = Places::of(&settings, folder)?;
    let clock = Arc::new(SystemClock::start());
    let metrics = Arc::new(Metrics::new());
    // First what may refuse: whoever opens the shard of a topic ends the reign of its owner.
    let catalog = places.open_catalog().await?;
    let house = identity::check(folder, &catalog, &places.catalog).await?;
    let keyring = keys::load(&catalog, clock.now()).await;
    let keyring = keyring.map_err(|error| failed("load the signing keys", "the catalog", error))?;
    let has_begun = epochs::has_begun(&catalog).await.map_err(catalog_failed)?;
    let admit = admit(house.admit(), has_begun && !settings.memory.is_on());
    if has_begun && settings.kafka != KafkaUse::Log {
        must_have_log(folder)?;
    }
    let shard = open_shard(&settings, folder, &clock, &metrics, admit)?;
    house.complete(&catalog, &places.catalog).await?;
    let epochs =
        Epochs::load(&catalog, shard.epoch(), shard.first()).await.map_err(catalog_failed)?;
    let no_thread = |error| failed("start threads", "the machine", error);
    // Both read the journal: each is known to the shard before either lets any of it go.
    let stream = kafka::start_stream(&settings, folder, &shard, &clock, &metrics);
    let stream = stream.map_err(no_thread)?;
    let output = Output { data: folder.to_owned(), places, clock: Arc::clone(&clock) };
    let writer = start_writer(&settings, &shard, output).map_err(no_thread)?;
    let passwords =
        Passwords::start(settings.hash_threads as usize, settings.hash_queue_max as usize)
            .map_err(no_thread)?;
    let app = App {
        handles: Handles::new(shard.engine().clone()),
        accounts: Accounts::new(keyring, passwords),
        limits: Arc::new(Limits::new(&settings)),
        writer: writer.as_ref().map(|writer| Arc::clone(writer.state())),
        stream: stream.as_ref().map(Stream::state),
        opening: Opening::default(),
        halls: Halls::default(),
        in_progress: InProgress::new(),
        min_seq_waits: min_seq_places(),
        buyers: KnownBuyers::default(),
        admissions: crate::standing::Admissions::new(),
        streams: crate::streams::Streams::new(),
        stop: Stop::new(),
        settings,
        clock,
        catalog,
        shard,
        epochs,
        metrics,
    };
    Ok((Arc::new(app), writer, stream))
}

/// Starts the writer of rows behind the log, unless another process has it, or nothing is kept.
fn start_writer(
    settings: &Settings,
    shard: &Arc<Shard>,
    output: Output,
) -> io::Result<Option<WriterHandle>> {
    if settings.memory.is_on() || !settings.writer.is_on() {
        return Ok(None);
    }
    let started = match settings.kafka {
        KafkaUse::Log => kafka::start_writer(settings, output),
        KafkaUse::Off | KafkaUse::Stream => rows::start(shard, output),
    };
    started.map(Some)
}

fn open_shard(
    settings: &Settings,
    folder: &Path,
    clock: &Arc<SystemClock>,
    metrics: &Arc<Metrics>,
    admit: Admit,
) -> Result<Arc<Shard>, Failure> {
    let mut config = if settings.memory.is_on() {
        ShardConfig::memory()
    } else if let Some(log) = kafka::log(settings, folder) {
        no_journal_beside(&folder.join(JOURNAL_DIR))?;
        ShardConfig::new(log)
    } else {
        ShardConfig::new(LogConfig::Journal {
            dir: folder.to_owned(),
            journal: JournalConfig {
                segment_bytes: settings.segment_bytes,
                ..JournalConfig::default()
            },
            snapshots: None,
            snapshot: SnapshotConfig::default(),
        })
    };
    config.node = settings.node;
    config.admit = admit;
    config.engine =
        EngineConfig { ring_slots: settings.ring_slots as usize, handles_max: HANDLES_MAX };
    let counted = Arc::clone(metrics);
    config.commit_hook = Box::new(move |sample| counted.committed(sample));
    let clock = Arc::clone(clock);
    let shard = Shard::open(config, clock)
        .map_err(|error| shard_failed(&error, folder, settings.kafka == KafkaUse::Log))?;
    let (replayed, snapshot) = shard.replayed();
    let from = snapshot.map_or(0, |snapshot| snapshot.seq.0);
    tracing::info!(epoch = shard.epoch().0, from, replayed, "the log is read");
    Ok(Arc::new(shard))
}

/// A house that has begun has events: without them every seat would be sold once more.
fn admit(mut of_house: Admit, has_begun: bool) -> Admit {
    Box::new(move |image| {
        if has_begun && image.applied() == Seq(0) {
            return Err(no_log("the topic is empty"));
        }
        of_house(image)
    })
}

/// The same of a folder, before anything is made in it.
fn must_have_log(folder: &Path) -> Result<(), Failure> {
    let journal = folder.join(JOURNAL_DIR);
    if has_files(&journal)? || has_files(&folder.join(SNAPSHOT_DIR))? {
        return Ok(());
    }
    Err(Failure::Failed(no_log(&format!("there is no {}", journal.display()))))
}

fn no_log(what: &str) -> String {
    format!(
        "this house has sold, its log would tell what, and {what}: check kafka, kafka_topic and \
         data; if the log is lost and every seat is to be sold anew, say so in the catalog: DELETE \
         FROM settings WHERE name = 'epoch_starts'"
    )
}

/// A topic that is the log knows nothing of a journal in the folder: what only that one has would
/// be sold again.
fn no_journal_beside(journal: &Path) -> Result<(), Failure> {
    if !has_files(journal)? {
        return Ok(());
    }
    let journal = journal.display();
    Err(Failure::Failed(format!(
        "with kafka = log the topic is the log, and {journal} is a log, too: run the house with \
         kafka = stream until tmomi_stream_lag_events is 0, stop it, and move {journal} out of the \
         folder"
    )))
}

fn has_files(folder: &Path) -> Result<bool, Failure> {
    match std::fs::read_dir(folder) {
        Ok(mut files) => Ok(files.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("read", &folder.display().to_string(), error)),
    }
}

fn shard_failed(error: &OpenError, folder: &Path, is_topic: bool) -> Failure {
    let folder = folder.display();
    if let OpenError::Recovery(cause) = error
        && let Some(hint) = kafka::failure_hint(cause)
    {
        return Failure::Failed(hint);
    }
    match error {
        OpenError::Refused(why) => Failure::Failed(why.clone()),
        OpenError::Recovery(RecoveryError::Journal(error)) => {
            crate::inspect::journal_failure(error)
        }
        OpenError::Recovery(RecoveryError::Snapshot(
            error @ (SnapshotError::Damaged { .. } | SnapshotError::Shard { .. }),
        )) => Failure::Damaged(format!(
            "{error}; what damaged it may have damaged more, so nothing was touched: if it may \
             begin with the snapshot before it, or none, move this file out of its folder"
        )),
        OpenError::Recovery(error) => Failure::Damaged(format!(
            "{error}; the data folder {folder} is not touched: restore it from a copy"
        )),
        error @ OpenError::Log(_) if is_topic => Failure::Failed(format!(
            "{error}; are all replicas of the topic there, and may this user write?"
        )),
        error => Failure::Failed(format!("{error}; is there room in {folder}, and is it ours?")),
    }
}

/// Closes the shard once nobody else has it.
fn close(shard: Arc<Shard>) -> Result<(), Failure> {
    match Arc::try_unwrap(shard) {
        Ok(shard) => shard.close().map_err(|error| {
            Failure::Failed(format!("{error}; nobody was told of what is not committed"))
        }),
        // Whoever still has it ends with the process; the journal is as after a crash.
        Err(_) => {
            tracing::warn!("a task did not end, so there is no last snapshot");
            Ok(())
        }
    }
}

/// Whether the admin of the settings can be one.
fn check_admin(settings: &Settings) -> Result<(), Failure> {
    let Some(email) = &settings.admin_email.0 else { return Ok(()) };
    crate::api::accounts::check_account(email, &settings.admin_password.0).map_err(|problem| {
        Failure::Usage(format!("the admin's email and password: {}", problem.detail()))
    })
}

/// Creates or updates the admin of the settings. One who is right already keeps his sessions.
async fn set_admin(app: &App) -> Result<(), Failure> {
    let Some(email) = &app.settings.admin_email.0 else { return Ok(()) };
    let password = app.settings.admin_password.0.clone();
    let known = match app.catalog.user_by_email(email).await {
        Ok(user) => Some(user),
        Err(CatalogError::NotFound(Noun::User)) => None,
        Err(error) => return Err(catalog_failed(error)),
    };
    let problem = |problem: crate::problem::Problem| Failure::Failed(problem.detail().to_owned());
    if let Some(user) = &known
        && user.role == Role::Admin
    {
        let hash = Some(user.password_hash.clone());
        if app.accounts.passwords.verify(password.clone(), hash).await.map_err(problem)? {
            return Ok(());
        }
    }
    let hash = app.accounts.passwords.hash(password).await.map_err(problem)?;
    let done: Result<(), CatalogError> = async {
        let mut change = app.catalog.change().await?;
        match known {
            Some(user) => change.set_credentials(user.user_id, &hash, Role::Admin).await?,
            None => {
                let (role, at) = (Role::Admin, app.clock.now());
                change.create_user(NewUser { email, password_hash: &hash, role, at }).await?;
            }
        }
        change.commit_unanswered().await
    }
    .await;
    done.map_err(catalog_failed)
}

/// A folder for data that ends with the process.
struct PassingFolder(PathBuf);

impl PassingFolder {
    fn make() -> Result<PassingFolder, Failure> {
        let name = format!("tmomi-{}", crate::accounts::passwords::random_text());
        let path = std::env::temp_dir().join(name);
        make_folder(&path)?;
        Ok(PassingFolder(path))
    }
}

impl Drop for PassingFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "cannot remove the folder");
        }
    }
}

/// Makes the data folder if it is not there. Only its owner may read it: it has the keys that
/// sign tokens.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).map_err(|error| {
        let folder = folder.display().to_string();
        failed("make the data folder", &folder, error)
    })
}

/// Whether nothing has been sold from this folder yet. Makes it if it is not there.
fn is_fresh(folder: &Path) -> Result<bool, Failure> {
    make_folder(folder)?;
    let shown = folder.display().to_string();
    let mut entries =
        std::fs::read_dir(folder).map_err(|error| failed("read the data folder", &shown, error))?;
    Ok(entries.next().is_none())
}

fn listen(address: SocketAddr, limits: ConnectionLimits) -> Result<Listener, Failure> {
    Listener::bind(address, limits).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "another process has it; stop that one or use --listen",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; use --listen",
            _ => "check --listen",
        };
        Failure::Failed(format!("cannot listen on {address}: {error}; {hint}"))
    })
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Whoever sends them is heard from now on.
    pub(crate) fn listen() -> Result<Signals, Failure> {
        let signal =
            |kind| signal(kind).map_err(|error| failed("listen for signals", "the system", error));
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A connection is a file handle, and the usual limit of 1,024 is none for a crowd.
fn raise_handle_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(?current, %error, "the limit of file handles stays as it is");
    }
}

fn catalog_failed(error: CatalogError) -> Failure {
    Failure::Failed(error.to_string())
}

fn failed(what: &str, place: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("cannot {what} ({place}): {error}"))
}
