//! Checking a store: every pack, by its footer or byte by byte. Reads only, repairs nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Store;
use super::error::StoreError;
use super::packs;
use crate::format::codec;
use crate::format::config::{CONFIG_BYTES_MAX, Config};
use crate::format::ids::{ChunkId, PackId};
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
    /// Plain length of every chunk that is there in good health.
    pub chunks: HashMap<ChunkId, u32>,
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

    /// Bytes of all manifests.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn manifest_bytes(&self) -> Result<u64, StoreError> {
        let paths = self.manifest_paths()?;
        let bytes =
            |path: &PathBuf| self.io.file_bytes(path).map_err(|e| StoreError::io("stat", path, e));
        paths.iter().map(bytes).sum()
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
        Ok(check)
    }

    /// Believes the footer of a pack.
    fn check_footer(&self, path: &Path, check: &mut PackCheck) -> Result<(), StoreError> {
        for line in packs::read_footer(&*self.io, path)? {
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
            match check_record(&bytes, line) {
                Ok(()) => {
                    check.chunks.insert(line.id, line.plain_bytes);
                }
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
}

/// Decodes one record and compares it with its name.
fn check_record(bytes: &[u8], line: &pack::FooterLine) -> Result<(), String> {
    let start = line.offset as usize;
    let record = bytes.get(start..start + line.record_bytes as usize);
    let record = record.ok_or("the pack ends within it")?;
    let head = pack::parse_head(record, start as u64).map_err(|e| e.to_string())?;
    let agrees = head.id == line.id
        && head.plain_bytes == line.plain_bytes
        && head.codec == line.codec
        && head.record_bytes() == u64::from(line.record_bytes);
    if !agrees {
        return Err("its head and the footer disagree".to_owned());
    }
    let payload = &record[head.head_bytes()..];
    let plain = codec::decode(head.codec, &head.blocks, payload, head.plain_bytes as usize)
        .map_err(|e| e.to_string())?;
    if ChunkId::of(&plain) != line.id {
        return Err("its bytes have another digest".to_owned());
    }
    Ok(())
}

/// An error and what is behind it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
