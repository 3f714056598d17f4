//! Argon2id on a few threads of its own with a short queue: a flood of sign-ins is answered 503
//! and takes neither the server's threads nor its memory.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use crossbeam::channel::{Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use crate::problem::{Problem, Result};

/// What to do on a thread of the pool.
type Job = Box<dyn FnOnce() + Send>;

/// The pool. Dropped, its threads end after the jobs they have.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    jobs: Sender<Job>,
    /// What an unknown user's password is compared with, so that it takes as long.
    nobody: Arc<str>,
}

impl Passwords {
    /// Starts `threads` threads; `queue_max` passwords may wait for them.
    ///
    /// # Errors
    ///
    /// The system's, if a thread cannot be started.
    pub(crate) fn start(threads: usize, queue_max: usize) -> std::io::Result<Passwords> {
        let (jobs, queue) = bounded::<Job>(queue_max);
        for n in 0..threads {
            let queue = queue.clone();
            let thread = std::thread::Builder::new().name(format!("password-{n}"));
            thread.spawn(move || queue.iter().for_each(|job| job()))?;
        }
        let nobody = hash_now(&random_text()).map_err(std::io::Error::other)?;
        Ok(Passwords { jobs, nobody: nobody.into() })
    }

    /// The PHC string of a password, with a fresh salt.
    ///
    /// # Errors
    ///
    /// 503 `overloaded` if too many wait.
    pub(crate) async fn hash(&self, password: String) -> Result<String> {
        self.run(move || hash_now(&password)).await?.map_err(Problem::internal)
    }

    /// Whether `password` is the one that `hash` was made of; with no hash the answer is no after
    /// the same time.
    ///
    /// # Errors
    ///
    /// 503 `overloaded` if too many wait.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        let nobody = Arc::clone(&self.nobody);
        self.run(move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(&nobody);
            let parsed = PasswordHash::new(hash);
            let matches = parsed.is_ok_and(|parsed| {
                Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
            });
            known && matches
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, result) = oneshot::channel();
        // Whoever asked may have gone away meanwhile.
        let job: Job = Box::new(move || drop(done.send(work())));
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Problem::overloaded("too many passwords are being checked"),
            TrySendError::Disconnected(_) => Problem::internal("the password threads are gone"),
        })?;
        result.await.map_err(|_| Problem::internal("a password thread failed"))
    }
}

/// Hashes on the calling thread; for the start of the process.
///
/// # Errors
///
/// The library's text; a password that is too long, or no random numbers.
pub(crate) fn hash_now(password: &str) -> std::result::Result<String, String> {
    let hash: std::result::Result<PasswordHash, _> =
        Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

/// 128 random bits as text, for made-up passwords and ids.
pub(crate) fn random_text() -> String {
    use base64::Engine as _;
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_matches() {
        let pool = Passwords::start(1, 4).expect("threads");
        let hash = pool.hash("correct horse".to_owned()).await.expect("a hash");
        assert!(hash.starts_with("$argon2id$"));
        let check = |password: &str, hash| pool.verify(password.to_owned(), hash);
        assert!(check("correct horse", Some(hash.clone())).await.expect("checked"));
        assert!(!check("wrong horse", Some(hash)).await.expect("checked"));
        assert!(!check("correct horse", None).await.expect("checked"));
        assert!(!check("x", Some("damaged".to_owned())).await.expect("checked"));
    }

    #[tokio::test]
    async fn a_flood_is_refused() {
        let pool = Passwords::start(1, 1).expect("threads");
        let flood = (0..64).map(|_| pool.verify("password".to_owned(), None));
        let results = futures_util::future::join_all(flood).await;
        let refused = results.iter().filter_map(|result| result.as_ref().err());
        let refused: Vec<Code> = refused.map(Problem::code).collect();
        assert!(refused.len() >= 32 && refused.iter().all(|code| *code == Code::Overloaded));
    }
}
