//! The block headers that the phone knows, in files of their own: `headers`, and `checkpoint` with the block before the first.
//!
//! They are public, and lost ones come again from the host. What is read back is checked anew.

use std::io;
use std::sync::{Mutex, PoisonError};

use longhand_spv::{Checkpoint, Headers, Params, StoredChange};

use super::{CHECKPOINT_NAME, HEADERS_NAME, Storage, Vault};

/// The length of `headers` in bytes, which is written in this process alone; `None` before it is read or made.
#[derive(Default)]
pub(super) struct HeaderFile {
    bytes: Mutex<Option<u64>>,
}

impl Vault {
    /// The headers that were kept last, or the latest checkpoint alone.
    pub(crate) fn headers(&self) -> Headers {
        let params = Params::of(self.secrets().network);
        let mut length = self.header_file.lock();
        *length = None;
        match read(&*self.storage, &params) {
            Ok(Some((headers, bytes))) => {
                *length = Some(bytes);
                return headers;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the stored headers cannot be used: the host sends them again");
            }
        }
        Headers::new(params.clone(), Checkpoint::latest(&params))
    }

    /// Keeps the changes that `take` gives, of headers that begin at `checkpoint`. `take` is called when no other call writes. False when they
    /// could not be written, or follow others that are missing: the file is then to be replaced ([`Vault::replace_headers`]).
    pub(crate) fn keep_headers(
        &self,
        checkpoint: &Checkpoint,
        take: impl FnOnce() -> Vec<StoredChange>,
    ) -> bool {
        let mut length = self.header_file.lock();
        take().iter().all(|change| {
            let written = write(&*self.storage, checkpoint, *length, change);
            if let Err(error) = &written {
                tracing::warn!(%error, "block headers were not stored");
            }
            *length = written.as_ref().ok().copied().or(*length);
            written.is_ok()
        })
    }

    /// Writes all headers anew. Without them the host sends them again after a restart.
    pub(crate) fn replace_headers(&self, headers: &Headers) {
        let mut length = self.header_file.lock();
        let stored = headers.stored();
        let written = replace(&*self.storage, headers.checkpoint(), &stored);
        match written {
            Ok(()) => *length = Some(stored.len() as u64),
            Err(error) => tracing::warn!(%error, "block headers were not stored"),
        }
    }
}

impl HeaderFile {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The headers, and the length of their file in bytes.
fn read(storage: &dyn Storage, params: &Params) -> io::Result<Option<(Headers, u64)>> {
    let Some(bytes) = storage.read(HEADERS_NAME)? else {
        return Ok(None);
    };
    let checkpoint = storage.read(CHECKPOINT_NAME)?;
    let checkpoint = checkpoint.and_then(|bytes| Checkpoint::decode(params, &bytes));
    let damaged = || io::Error::other("the file `checkpoint` is missing or damaged");
    let checkpoint = checkpoint.ok_or_else(damaged)?;
    let restored = Headers::from_stored(params.clone(), checkpoint, &bytes);
    let restored = restored.map_err(io::Error::other)?;
    let mut length = bytes.len() as u64;
    if let Some(repair) = restored.repair {
        length = change(storage, length, &repair)?;
    }
    Ok(Some((restored.headers, length)))
}

/// Returns the length of the file after it.
fn write(
    storage: &dyn Storage,
    checkpoint: &Checkpoint,
    length: Option<u64>,
    it: &StoredChange,
) -> io::Result<u64> {
    let length = match length {
        Some(length) => length,
        None => {
            let params = Params::of(checkpoint.network());
            let empty = Headers::new(params, checkpoint.clone()).stored();
            replace(storage, checkpoint, &empty)?;
            empty.len() as u64
        }
    };
    // Some are missing, since an earlier write has failed: nothing can follow them.
    if it.keep_bytes > length {
        let missing = "earlier ones could not be written";
        return Err(io::Error::other(missing));
    }
    change(storage, length, it)
}

fn replace(storage: &dyn Storage, checkpoint: &Checkpoint, headers: &[u8]) -> io::Result<()> {
    storage.replace(CHECKPOINT_NAME, &checkpoint.encode())?;
    Ok(storage.replace(HEADERS_NAME, headers)?)
}

fn change(storage: &dyn Storage, length: u64, change: &StoredChange) -> io::Result<u64> {
    let StoredChange { keep_bytes, append } = change;
    // A reorganisation takes headers off the end.
    if *keep_bytes < length {
        storage.cut(HEADERS_NAME, *keep_bytes)?;
    }
    storage.append(HEADERS_NAME, *keep_bytes, append)?;
    Ok(keep_bytes.saturating_add(append.len() as u64))
}
