//! A writer on a thread of its own: reading the log may wait for a disk.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::{Names, Sink, Source, Status, Writer, WriterError, WriterState};

/// A running writer. Dropped, it stops.
#[derive(Debug)]
pub struct WriterHandle {
    state: Arc<WriterState>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts `writer` on a thread.
///
/// # Errors
///
/// If the system gives no thread.
pub fn spawn<S, K, N>(mut writer: Writer<S, K, N>) -> io::Result<WriterHandle>
where
    S: Source + 'static,
    K: Sink + 'static,
    N: Names + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let state = writer.state();
    let (stop, stopped) = oneshot::channel();
    let (guard, seen) = (FailOnPanic(Arc::clone(&state)), Arc::clone(&state));
    let body = move || {
        let _guard = guard;
        runtime.block_on(async {
            tokio::select! {
                // Stopping in the middle of a batch loses only work: the batch comes again.
                _ = stopped => *seen.status.lock() = Status::Stopped,
                _ = writer.run() => {}
            }
        });
    };
    let thread = std::thread::Builder::new().name("tmomi-writer".to_owned()).spawn(body)?;
    Ok(WriterHandle { state, stop: Some(stop), thread: Some(thread) })
}

/// A panic must not look like a writer that is at work.
struct FailOnPanic(Arc<WriterState>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.status.lock() = Status::Failed(WriterError::Panicked);
        }
    }
}

impl WriterHandle {
    /// What can be seen of it.
    pub fn state(&self) -> &Arc<WriterState> {
        &self.state
    }

    /// Stops it and waits until it is gone. It blocks for as long as a statement takes.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer panicked");
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        self.end();
    }
}
