//! Making hot files: by moving one that was sealed, or by writing a copy of what is stored.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::table::{Belief, Claim};
use super::{HOT_FILE_BYTES_MIN, Hot, stamp_of};
use crate::format::hot::Stamp;
use crate::format::ids::{BlobDigest, ManifestId};
use crate::sys::at;
use crate::sys::identity;
use crate::sys::io as durable;
use crate::sys::lease::{self, Lease};

/// Mode of a hot file: nobody writes it, and only who runs the daemon reads it from here.
const HOT_FILE_MODE: u32 = 0o400;

/// What became of a sealed file that could have been moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adopted {
    Moved,
    /// It is where it was, for this reason.
    Left(&'static str),
}

/// What comes of wanting a hot file.
#[derive(Debug)]
pub enum Begun<'a> {
    /// There is one already.
    Present,
    /// For this reason there will be none.
    Refused(&'static str),
    Write(NewHotFile<'a>),
}

/// A copy that is being written; dropped before `finish`, it leaves nothing behind.
pub struct NewHotFile<'a> {
    room: Room<'a>,
    digest: BlobDigest,
    version: ManifestId,
    temporary: PathBuf,
    file: File,
    hasher: Box<blake3::Hasher>,
    written: u64,
}

/// Room that is kept for a file until it is charged itself.
struct Room<'a> {
    hot: &'a Hot,
    bytes: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.hot.table.lock().release(self.bytes);
    }
}

impl std::fmt::Debug for NewHotFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewHotFile").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Drop for NewHotFile<'_> {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name; else it is removed now or at a start.
        let _ = self.room.hot.io.remove_file(&self.temporary);
    }
}

impl NewHotFile<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        durable::write_all(&*self.room.hot.io, &self.file, bytes)
    }

    /// Gives the copy its name, if it has the digest that it should have (W2).
    ///
    /// # Errors
    /// `InvalidData` for other bytes; else those of the calls. Nothing has the name then.
    pub fn finish(self) -> io::Result<()> {
        let hot = self.room.hot;
        if BlobDigest(*self.hasher.finalize().as_bytes()) != self.digest {
            let why = "what was written has another digest";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        at::change_mode(&self.file, HOT_FILE_MODE)?;
        // Before the index speaks of it (W3). A failure costs this copy only.
        hot.io.sync_file(&self.file)?;
        hot.name(&self.temporary, &self.digest)?;
        let status = at::status(&self.file)?;
        let stamp = stamp_of(&status);
        {
            let mut table = hot.table.lock();
            let belief = Belief::Good { stamp, durable: true };
            table.put(self.digest, self.written, status.blocks * 512, belief);
            table.touch(&self.digest, &self.version);
        }
        hot.note(&self.digest, &stamp);
        Ok(())
    }
}

impl Hot {
    /// Begins a copy of a blob of `bytes`.
    ///
    /// # Errors
    /// Those of making room and of `open(2)`.
    pub fn begin(&self, digest: BlobDigest, bytes: u64, claim: &Claim) -> io::Result<Begun<'_>> {
        if self.is_there(&digest, bytes, claim) {
            return Ok(Begun::Present);
        }
        let room = match self.make_room(bytes, claim)? {
            Ok(room) => room,
            Err(reason) => return Ok(Begun::Refused(reason)),
        };
        let temporary = durable::temporary_path(&self.layout.temporary());
        let file = self.io.create(&temporary)?;
        let (hasher, written) = (Box::new(blake3::Hasher::new()), 0);
        let version = claim.version;
        Ok(Begun::Write(NewHotFile { room, digest, version, temporary, file, hasher, written }))
    }

    /// Moves a sealed file here, without a copy. `sealed` is the stamp that it had while it was
    /// hashed under a lease: as long as it has that, its bytes are those that were hashed (W2).
    ///
    /// The caller sees to it that nobody can reach the file any more but by read-only descriptors.
    ///
    /// # Errors
    /// Those of the calls; the file may then be gone, or be where it was.
    pub fn adopt(
        &self,
        from: &Path,
        digest: &BlobDigest,
        sealed: &Stamp,
        claim: &Claim,
    ) -> io::Result<Adopted> {
        if self.is_there(digest, sealed.bytes, claim) {
            return Ok(Adopted::Left("there is one already"));
        }
        if !self.is_on || sealed.bytes < HOT_FILE_BYTES_MIN {
            return Ok(Adopted::Left("too small"));
        }
        let file = self.io.open(from)?;
        let Lease::Held(lease) = lease::take(&file)? else {
            return Ok(Adopted::Left("somebody may have it open for writing"));
        };
        let status = at::status(&file)?;
        if stamp_of(&status) != *sealed || status.nlink != 1 {
            return Ok(Adopted::Left("it is not as it was sealed, or has another name"));
        }
        let allocated = status.blocks * 512;
        let room = match self.make_room(status.size.max(allocated), claim)? {
            Ok(room) => room,
            Err(reason) => return Ok(Adopted::Left(reason)),
        };
        let own = (identity::own_uid(), identity::own_gid());
        if (status.uid, status.gid) != own {
            at::change_owner(&file, Some(own.0), Some(own.1))?;
        }
        // What an access list gives goes with the mode's group bits; no attribute matters here.
        at::change_mode(&file, HOT_FILE_MODE)?;
        self.name(from, digest)?;
        // Without a look at it nothing is known of it.
        let looked = at::status(&file).and_then(|after| Ok((after, lease.holds()?)));
        let (after, is_held) = looked.inspect_err(|_| self.drop_file(digest))?;
        let same = after.size == status.size && after.mtime == status.mtime && after.nlink == 1;
        let stamp = stamp_of(&after);
        let belief = match is_held && same {
            true => Belief::Good { stamp, durable: false },
            false => Belief::Unknown,
        };
        let mut table = self.table.lock();
        table.put(*digest, after.size, allocated, belief);
        table.touch(digest, &claim.version);
        drop(table);
        // Only now, when the file itself is charged (W1).
        drop(room);
        Ok(Adopted::Moved)
    }

    /// Whether there is a hot file that can be used, or will be once it was hashed.
    fn is_there(&self, digest: &BlobDigest, bytes: u64, claim: &Claim) -> bool {
        matches!(self.find(digest, bytes, &claim.version), super::Found::Ready(_))
    }

    /// Removes what has to go for `bytes` more, and keeps them free; or says why not.
    fn make_room(&self, bytes: u64, claim: &Claim) -> io::Result<Result<Room<'_>, &'static str>> {
        if !self.is_on {
            return Ok(Err("hot files are off"));
        }
        let _one_at_a_time = self.room.lock();
        let Some(victims) = self.table.lock().victims(bytes, claim) else {
            return Ok(Err("there is no room for it within the limit"));
        };
        for digest in victims {
            let path = self.layout.hot_file(&digest);
            match self.io.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => drop(self.table.lock().remove(&digest)),
            }
        }
        self.table.lock().reserve(bytes);
        Ok(Ok(Room { hot: self, bytes }))
    }

    /// Gives a complete file its name; makes the directory where somebody removed it.
    fn name(&self, from: &Path, digest: &BlobDigest) -> io::Result<()> {
        let path = self.layout.hot_file(digest);
        match self.io.rename(from, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.io.create_directory(&self.layout.hot())?;
                self.index.lock().file = None;
                self.io.rename(from, &path)
            }
            done => done,
        }
    }
}
