//! Snapshots: an image at rest, so that a start need not read the log from its beginning.
//!
//! ```text
//!  0 magic      "TmomiSnp"
//!  8 version
//! 12 shard
//! 16 epoch      of the last event in it
//! 20 seq        of the last event in it; also the object's name, in 20 digits
//! 28 length     of the image
//! 36 crc32c     of the image
//! 40 crc32c     of the 40 bytes before
//! 44 image, see `image::codec`
//! ```
//!
//! They go through `object_store`: a local folder, or whatever else it knows. An object appears
//! under its name when it is complete; in a local folder it is synced, renamed, and the folder
//! synced. A snapshot never has an event that the log has not committed.

use std::future::Future;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use crc32c::crc32c;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tmomi_engine::ids::{Epoch, Seq};

use crate::frame::Checksum;
use crate::image::{Image, ImageCodecError};
use crate::wire::{self, Decode, Encode};

/// The version that this program writes and reads.
pub const SNAPSHOT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"TmomiSnp";
const HEAD_BYTES: usize = 44;
const HEAD_CHECKED_BYTES: usize = HEAD_BYTES - 4;
const SUFFIX: &str = ".snapshot";
const NAME_DIGITS: usize = 20;

/// Why snapshots cannot be listed, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store refused.
    #[error("cannot {action} snapshot {file}: {source}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// With what.
        file: String,
        /// The answer.
        source: object_store::Error,
    },
    /// The content is not what was written.
    #[error("snapshot {file} is damaged: {reason}")]
    Damaged {
        /// Which.
        file: String,
        /// What is wrong.
        reason: SnapshotDamage,
    },
    /// A newer program wrote it.
    #[error("snapshot {file} has version {version}, this program reads {SNAPSHOT_VERSION}")]
    Version {
        /// Which.
        file: String,
        /// Its version.
        version: u32,
    },
    /// It is of another shard.
    #[error("snapshot {file} belongs to shard {found}, not to shard {expected}")]
    Shard {
        /// Which.
        file: String,
        /// The shard it names.
        found: u32,
        /// The shard that was expected.
        expected: u32,
    },
}

/// What is wrong with a damaged snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotDamage {
    /// It does not begin like one.
    #[error("at byte 0: it is no snapshot")]
    Magic,
    /// The head is not what was written.
    #[error("at byte {HEAD_CHECKED_BYTES}: the checksum of the head is {computed}, not {stored}")]
    Head {
        /// As it stands there.
        stored: Checksum,
        /// As it follows from the content.
        computed: Checksum,
    },
    /// It is shorter or longer than it says.
    #[error("it has {found} bytes and should have {expected}")]
    Length {
        /// Bytes it has.
        found: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// The image is not what was written.
    #[error("from byte {HEAD_BYTES} on: the checksum is {computed}, not {stored}")]
    Body {
        /// As it stands in the head.
        stored: Checksum,
        /// As it follows from the content.
        computed: Checksum,
    },
    /// The checksums are right, but the content is no image.
    #[error("from byte {HEAD_BYTES} on: {0}")]
    Image(#[from] ImageCodecError),
    /// Name, head and image do not say the same.
    #[error("its name, its head and its image speak of different events: renamed?")]
    Misnamed,
}

/// A snapshot in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name, with its folder where that is known.
    pub file: String,
    /// The last event in it.
    pub seq: Seq,
    /// Bytes.
    pub bytes: u64,
}

/// An image as bytes, ready to be written.
pub struct Encoded {
    seq: Seq,
    epoch: Epoch,
    image: Vec<u8>,
}

impl Encoded {
    /// The snapshot of this image as it is now.
    pub fn of(image: &Image) -> Encoded {
        Encoded { seq: image.applied(), epoch: image.epoch(), image: image.encode() }
    }

    /// The last event in it.
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

#[derive(Encode, Decode)]
struct Head {
    magic: [u8; 8],
    version: u32,
    shard: u32,
    epoch: u32,
    seq: u64,
    length: u64,
    image_crc32c: u32,
    head_crc32c: u32,
}

/// The snapshots of one shard.
#[derive(Clone)]
pub struct Snapshots {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// What stands before a name in messages.
    place: String,
    shard: u32,
}

impl Snapshots {
    /// In a local folder.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`] if there is no such folder.
    pub fn local(dir: &FilePath, shard: u32) -> Result<Snapshots, SnapshotError> {
        let place = format!("{}/", dir.display());
        let failed = |source| SnapshotError::Store { action: "open", file: place.clone(), source };
        let store = LocalFileSystem::new_with_prefix(dir).map_err(failed)?.with_fsync(true);
        Ok(Snapshots { store: Arc::new(store), prefix: Path::default(), place, shard })
    }

    /// In any store, under `prefix`.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, shard: u32) -> Snapshots {
        let place = format!("{store}/{prefix}/");
        Snapshots { store, prefix, place, shard }
    }

    /// All there are, newest first. Other objects are left alone.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`].
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let listed =
            block_on(async { self.store.list(Some(&self.prefix)).try_collect::<Vec<_>>().await });
        let objects = listed.map_err(|source| self.failed("list", "", source))?;
        let info = |object: object_store::ObjectMeta| {
            let name = object.location.filename()?;
            let digits = name.strip_suffix(SUFFIX)?;
            let seq = Seq(digits.parse().ok().filter(|_| digits.len() == NAME_DIGITS)?);
            Some(SnapshotInfo { file: self.file(name), seq, bytes: object.size })
        };
        let mut snapshots: Vec<SnapshotInfo> = objects.into_iter().filter_map(info).collect();
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.seq));
        Ok(snapshots)
    }

    /// Writes a snapshot; durable when this returns.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`]; nothing appears under its name then.
    pub fn write(&self, encoded: Encoded) -> Result<SnapshotInfo, SnapshotError> {
        let Encoded { seq, epoch, image } = encoded;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let fields = Head {
            magic: MAGIC,
            version: SNAPSHOT_VERSION,
            shard: self.shard,
            epoch: epoch.0,
            seq: seq.0,
            length: image.len() as u64,
            image_crc32c: crc32c(&image),
            head_crc32c: 0,
        };
        wire::encode_into(&fields, &mut head);
        let check = crc32c(&head[..HEAD_CHECKED_BYTES]);
        head[HEAD_CHECKED_BYTES..].copy_from_slice(&check.to_le_bytes());
        let bytes = (head.len() + image.len()) as u64;
        let payload = PutPayload::from_iter([Bytes::from(head), Bytes::from(image)]);
        let name = name(seq);
        let put = block_on(self.store.put(&self.path(seq), payload));
        put.map_err(|source| self.failed("write", &name, source))?;
        Ok(SnapshotInfo { file: self.file(&name), seq, bytes })
    }

    /// Reads a snapshot and checks all of it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], which names the object and what is wrong with it.
    pub fn read(&self, snapshot: &SnapshotInfo) -> Result<Image, SnapshotError> {
        let path = self.path(snapshot.seq);
        let got = block_on(async { self.store.get(&path).await?.bytes().await });
        let bytes = got.map_err(|source| self.failed("read", &name(snapshot.seq), source))?;
        let file = || snapshot.file.clone();
        let head = match head_of(&bytes) {
            Ok(head) => head,
            Err(reason) => return Err(SnapshotError::Damaged { file: file(), reason }),
        };
        if head.version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { file: file(), version: head.version });
        }
        if head.shard != self.shard {
            let (found, expected) = (head.shard, self.shard);
            return Err(SnapshotError::Shard { file: file(), found, expected });
        }
        image_of(&head, &bytes, snapshot.seq)
            .map_err(|reason| SnapshotError::Damaged { file: file(), reason })
    }

    /// Removes all but the newest `count`, oldest first, and gives those that are left.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`].
    pub fn keep_newest(&self, count: usize) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let mut snapshots = self.list()?;
        while snapshots.len() > count {
            let Some(oldest) = snapshots.pop() else { break };
            let deleted = block_on(self.store.delete(&self.path(oldest.seq)));
            deleted.map_err(|source| self.failed("remove", &name(oldest.seq), source))?;
        }
        Ok(snapshots)
    }

    fn path(&self, seq: Seq) -> Path {
        self.prefix.clone().join(name(seq))
    }

    fn file(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    fn failed(
        &self,
        action: &'static str,
        name: &str,
        source: object_store::Error,
    ) -> SnapshotError {
        SnapshotError::Store { action, file: self.file(name), source }
    }
}

/// Removes what a crash left of writes: the store writes to `name#number` and renames. Only for
/// who writes here.
pub(crate) fn remove_unfinished(dir: &FilePath) -> std::io::Result<()> {
    let staged = format!("{SUFFIX}#");
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(&staged) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn name(seq: Seq) -> String {
    format!("{:0NAME_DIGITS$}{SUFFIX}", seq.0)
}

fn head_of(bytes: &[u8]) -> Result<Head, SnapshotDamage> {
    let (found, expected) = (bytes.len() as u64, HEAD_BYTES as u64);
    let Some(head_bytes) = bytes.get(..HEAD_BYTES) else {
        return Err(SnapshotDamage::Length { found, expected });
    };
    if head_bytes[..MAGIC.len()] != MAGIC {
        return Err(SnapshotDamage::Magic);
    }
    let head: Head = wire::decode_all(head_bytes).map_err(|_| SnapshotDamage::Magic)?;
    let stored = Checksum(head.head_crc32c);
    let computed = Checksum(crc32c(&head_bytes[..HEAD_CHECKED_BYTES]));
    if stored != computed {
        return Err(SnapshotDamage::Head { stored, computed });
    }
    Ok(head)
}

fn image_of(head: &Head, bytes: &[u8], named: Seq) -> Result<Image, SnapshotDamage> {
    let body = &bytes[HEAD_BYTES..];
    let (found, expected) = (bytes.len() as u64, head.length.saturating_add(HEAD_BYTES as u64));
    if found != expected {
        return Err(SnapshotDamage::Length { found, expected });
    }
    let (stored, computed) = (Checksum(head.image_crc32c), Checksum(crc32c(body)));
    if stored != computed {
        return Err(SnapshotDamage::Body { stored, computed });
    }
    let image = Image::decode(body)?;
    let head_says = (Seq(head.seq), Epoch(head.epoch));
    if head_says != (named, image.epoch()) || image.applied() != named {
        return Err(SnapshotDamage::Misnamed);
    }
    Ok(image)
}

fn generic(source: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "local folder", source: Box::new(source) }
}

/// Runs a store's future to its end on a thread of its own, because the caller may or may not be
/// within a runtime, and some stores need one.
fn block_on<T: Send>(
    future: impl Future<Output = Result<T, object_store::Error>> + Send,
) -> Result<T, object_store::Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(generic)?.block_on(future)
        });
        thread.join().expect("a store does not panic")
    })
}
