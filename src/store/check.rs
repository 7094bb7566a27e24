//! Checking a store: every pack, by its footer or byte by byte. Reads only, repairs nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Store;
use super::error::{StoreError, with_causes};
use super::packs;
use crate::format::codec::{self, Bases};
use crate::format::config::{CONFIG_BYTES_MAX, Config};
use crate::format::ids::{ChunkId, PackId};
use crate::format::manifest::ChunkRef;
use crate::format::pack;
use crate::sys::io as durable;

/// Something in a file that is not as it must be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The file, below the store.
    pub place: String,
    pub what: String,
}

/// What a check of the packs found.
#[derive(Clone, Debug, Default)]
pub struct PackCheck {
    pub packs: u64,
    /// Plain length of every chunk that is there in good health, with all that it needs.
    pub chunks: HashMap<ChunkId, u32>,
    /// Chunks that need others: their lengths, and what they need. Empty once all packs were seen.
    against: Vec<(ChunkId, u32, Bases)>,
    pub bytes_read: u64,
    pub findings: Vec<Finding>,
}

impl Store {
    /// Reads the configuration again.
    pub fn check_config(&self) -> Option<Finding> {
        let path = self.layout.config();
        let place = self.layout.name_of(&path);
        let bytes = match durable::read_file(&*self.io, &path, CONFIG_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) => return Some(Finding { place, what: error.to_string() }),
        };
        match Config::parse(&bytes) {
            Ok(config) if config == self.config => None,
            Ok(_) => Some(Finding { place, what: "it is another than when it was opened".into() }),
            Err(error) => Some(Finding { place, what: error.to_string() }),
        }
    }

    /// Number and bytes of the packs.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn pack_totals(&self) -> Result<(u64, u64), StoreError> {
        let packs = packs::list(&*self.io, &self.layout)?;
        Ok((packs.len() as u64, packs.iter().map(|(_, bytes)| bytes).sum()))
    }

    /// The files that lie where manifests do.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn manifest_paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        packs::list_named(&*self.io, &self.layout.manifests())
    }

    /// Checks all packs; with `read_data` every byte of them. `advance` hears of bytes done.
    ///
    /// # Errors
    /// When the packs cannot be listed: a check that could not run is a failure.
    pub fn check_packs(
        &self,
        read_data: bool,
        mut advance: impl FnMut(u64),
    ) -> Result<PackCheck, StoreError> {
        let mut check = PackCheck::default();
        for path in packs::list_named(&*self.io, &self.layout.packs())? {
            let place = self.layout.name_of(&path);
            let id = packs::name_of(&path).and_then(|name| name.parse::<PackId>().ok());
            let Some(id) = id.filter(|id| self.layout.pack(id) == path) else {
                let what = "not a pack's name, or not in its directory".to_owned();
                check.findings.push(Finding { place, what });
                continue;
            };
            check.packs += 1;
            let outcome = if read_data { self.read_pack(id, &path, &mut check) } else { Ok(()) };
            let outcome = outcome.and_then(|()| {
                if !read_data {
                    self.check_footer(&path, &mut check)?;
                }
                Ok(())
            });
            if let Err(error) = outcome {
                check.findings.push(Finding { place, what: with_causes(&error) });
            }
            advance(self.io.file_bytes(&path).unwrap_or(0));
        }
        check.settle();
        Ok(check)
    }

    /// Believes the footer of a pack, but for the bases of its chunks, which only the records name.
    fn check_footer(&self, path: &Path, check: &mut PackCheck) -> Result<(), StoreError> {
        let lines = packs::read_footer(&*self.io, path)?;
        let heads =
            packs::read_heads(&*self.io, path, lines.iter().filter(|it| 0 < it.base_count))?;
        for head in heads {
            check.against.push((head.id, head.plain_bytes, head.bases));
        }
        for line in lines.iter().filter(|line| line.base_count == 0) {
            check.chunks.insert(line.id, line.plain_bytes);
        }
        Ok(())
    }

    /// Reads a pack whole: its digest, its footer, each record and each chunk.
    fn read_pack(&self, id: PackId, path: &Path, check: &mut PackCheck) -> Result<(), StoreError> {
        let failed = |e| StoreError::io("read", path, e);
        let bytes = durable::read_file(&*self.io, path, pack::PACK_BYTES_MAX).map_err(failed)?;
        check.bytes_read += bytes.len() as u64;
        let footer = packs::read_footer(&*self.io, path);
        // Where the footer is damaged its records may still be whole.
        let lines = match &footer {
            Ok(lines) => lines.clone(),
            Err(_) => packs::scan(&*self.io, path)?,
        };
        let mut wrong = Vec::new();
        for line in &lines {
            match self.check_record(&bytes, line) {
                Ok(bases) if bases.chunks.is_empty() => {
                    check.chunks.insert(line.id, line.plain_bytes);
                }
                Ok(bases) => check.against.push((line.id, line.plain_bytes, bases)),
                Err(why) => wrong.push((line.id, why)),
            }
        }
        if let Some((chunk, why)) = wrong.into_iter().next() {
            return Err(StoreError::ChunkDamaged { chunk, pack: id, why });
        }
        footer?;
        if PackId::of(&bytes) != id {
            let what = "its bytes have another digest than its name".to_owned();
            check.findings.push(Finding { place: self.layout.name_of(path), what });
        }
        Ok(())
    }

    /// Decodes one record and compares it with its name; what it was encoded against.
    fn check_record(&self, bytes: &[u8], line: &pack::FooterLine) -> Result<Bases, String> {
        let start = line.offset as usize;
        let record = bytes.get(start..start + line.record_bytes as usize);
        let record = record.ok_or("the pack ends within it")?;
        let head = pack::parse_head(record, start as u64).map_err(|e| e.to_string())?;
        let agrees = head.id == line.id
            && head.plain_bytes == line.plain_bytes
            && head.codec == line.codec
            && head.bases.depth == line.depth
            && head.bases.chunks.len() == usize::from(line.base_count)
            && head.record_bytes() == u64::from(line.record_bytes);
        if !agrees {
            return Err("its head and the footer disagree".to_owned());
        }
        let payload = &record[head.head_bytes()..];
        let base = self.read_bases(&head.bases).map_err(|e| with_causes(&e))?;
        let mut plain = vec![0; head.plain_bytes as usize];
        codec::decode(head.codec, &head.blocks, payload, &base, &mut plain)
            .map_err(|e| e.to_string())?;
        if ChunkId::of(&plain) != line.id {
            return Err("its bytes have another digest".to_owned());
        }
        Ok(head.bases)
    }
}

impl PackCheck {
    /// Counts those chunks as there whose bases are, the least deep first.
    fn settle(&mut self) {
        let mut against = std::mem::take(&mut self.against);
        against.sort_by_key(|(_, _, bases)| bases.depth);
        for (id, plain_bytes, bases) in against {
            let missing = |base: &&ChunkRef| self.chunks.get(&base.id) != Some(&base.bytes);
            match bases.chunks.iter().find(missing) {
                None => drop(self.chunks.insert(id, plain_bytes)),
                Some(base) => {
                    let what = format!("it needs chunk {}, which is in no pack", base.id);
                    self.findings.push(Finding { place: format!("chunk {id}"), what });
                }
            }
        }
    }
}
