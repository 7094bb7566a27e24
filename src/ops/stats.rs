//! Sizes: how much the store, or one version, holds, in how many bytes, and what those go for.
//!
//! Invariant T1: every stored byte is counted once: a chunk in several places is divided among them,
//! and the parts of a division add up to the whole.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::show::may_read;
use super::{
    CodecStats, ContentStats, Context, DiskStats, DtypeStats, FileStats, OpsError, ShareStats,
    SharingStats, StatsOptions, StatsReport, Workspace, permit_access,
};
use crate::format::codec::Codec;
use crate::format::ids::{ChunkId, ManifestId};
use crate::format::manifest::{ChunkRef, FileTensors, Manifest, Node};
use crate::governance::Action;
use crate::registry::model::Model;
use crate::store::{Place, StoreError};

/// A version that is looked at.
struct Looked {
    /// `churn/v7`.
    reference: String,
    manifest: ManifestId,
}

/// A distinct chunk of what is looked at.
struct Found {
    plain_bytes: u32,
    place: Option<Place>,
    /// How often it occurs, and how many of those were given their share.
    uses: u64,
    shared_out: u64,
}

impl Found {
    fn stored_bytes(&self) -> u64 {
        self.place.map_or(0, |place| place.record_bytes.into())
    }

    /// The next part of its stored bytes; all parts together are all of them (T1).
    fn next_share(&mut self) -> u64 {
        let before = part(self.stored_bytes(), self.shared_out, self.uses);
        self.shared_out += 1;
        part(self.stored_bytes(), self.shared_out, self.uses) - before
    }
}

/// `count` of `of` equal parts of `bytes`, rounded down.
fn part(bytes: u64, count: u64, of: u64) -> u64 {
    let product = u128::from(bytes) * u128::from(count);
    u64::try_from(product / u128::from(of.max(1))).expect("count is at most of")
}

/// The distinct chunks of what is looked at.
type Chunks = HashMap<ChunkId, Found>;

impl Workspace {
    /// Sizes of the store, or of a version.
    pub(super) fn stats(
        &self,
        context: &Context,
        options: &StatsOptions,
    ) -> Result<StatsReport, OpsError> {
        let looked = self.looked_at(context, options)?;
        let mut chunks = Chunks::new();
        let (mut files, mut logical_bytes) = (0, 0);
        for version in &looked {
            let manifest = self.manifest(&version.manifest)?;
            for (_, entry) in manifest.entries() {
                if let Node::File(file) = &entry.node {
                    files += 1;
                    logical_bytes += file.bytes;
                }
            }
            self.count(&manifest, &mut chunks)?;
        }
        let all = totals(chunks.values());
        let contents = match options.files {
            true => Some(self.contents(&looked, options.reference.is_some(), &mut chunks)?),
            false => None,
        };
        let (disk, sharing) = match &looked[..] {
            [only] if options.reference.is_some() => {
                (None, Some(self.sharing(context, only, &chunks)?))
            }
            _ if self.permit_administration(context).is_ok() => (Some(self.disk(&chunks)?), None),
            _ => (None, None),
        };
        let versions = looked.len() as u64;
        let readable = || self.models().into_iter().filter(|it| may_read(context, it.access));
        let models = match options.reference {
            Some(_) => 1,
            None => readable().count() as u64,
        };
        let saved = |from: u64, to: u64| from.cast_signed() - to.cast_signed();
        Ok(StatsReport {
            version: options.reference.is_some().then(|| looked[0].reference.clone()),
            models,
            versions,
            files,
            logical_bytes,
            chunks: all.chunks,
            unique_bytes: all.plain_bytes,
            stored_bytes: all.stored_bytes,
            duplicates_saved_bytes: logical_bytes - all.plain_bytes,
            codecs_saved_bytes: saved(all.plain_bytes, all.stored_bytes),
            missing_chunks: chunks.values().filter(|found| found.place.is_none()).count() as u64,
            codecs: by_codec(&chunks),
            disk,
            sharing,
            contents,
        })
    }

    /// The version that is asked for, or all that the caller may read. What names the files of every model
    /// is for who owns the root.
    fn looked_at(
        &self,
        context: &Context,
        options: &StatsOptions,
    ) -> Result<Vec<Looked>, OpsError> {
        if let Some(reference) = &options.reference {
            let version = self.resolve(context, reference)?;
            let reference = format!("{}/{}", reference.model, version.version);
            return Ok(vec![Looked { reference, manifest: version.manifest }]);
        }
        if options.files {
            self.permit_administration(context)?;
        }
        let root = self.state().root_access();
        permit_access(context, root, Action::Read, "the store")?;
        self.readable_versions(context)
    }

    /// The versions of the models that the caller may read: sizes, too, say something of the others.
    fn readable_versions(&self, context: &Context) -> Result<Vec<Looked>, OpsError> {
        let mut found = Vec::new();
        let is_seen = |model: &Model| may_read(context, model.access);
        for model in self.models().into_iter().filter(is_seen) {
            for version in model.body()?.versions.iter() {
                let reference = format!("{}/{}", model.name, version.number);
                found.push(Looked { reference, manifest: version.manifest });
            }
        }
        Ok(found)
    }

    /// Adds the chunks of a version.
    fn count(&self, manifest: &Manifest, chunks: &mut Chunks) -> Result<(), StoreError> {
        for ChunkRef { id, bytes } in manifest.all_chunks() {
            if let Some(found) = chunks.get_mut(id) {
                found.uses += 1;
                continue;
            }
            let place = self.store.place(id)?;
            let found = Found { plain_bytes: *bytes, place, uses: 1, shared_out: 0 };
            chunks.insert(*id, found);
        }
        Ok(())
    }

    /// What each file and each dtype takes.
    fn contents(
        &self,
        looked: &[Looked],
        one_version: bool,
        chunks: &mut Chunks,
    ) -> Result<ContentStats, OpsError> {
        let mut files = Vec::new();
        let mut dtypes: HashMap<Option<String>, DtypeStats> = HashMap::new();
        for version in looked {
            let manifest = self.manifest(&version.manifest)?;
            let tables = manifest.tensors().map_err(|source| StoreError::ManifestUnreadable {
                manifest: version.manifest,
                source,
            })?;
            manifest.walk(|path, index, entry| {
                let Node::File(file) = &entry.node else { return };
                let path = String::from_utf8_lossy(path);
                let path = match one_version {
                    true => path.into_owned(),
                    false => format!("{}/{path}", version.reference),
                };
                let table = tables.binary_search_by_key(&index, |table| table.file);
                let table = table.ok().map(|place| &tables[place]);
                let shares = Shares::of(manifest.chunks(file), chunks);
                add_dtypes(table, &shares, &mut dtypes);
                files.push(FileStats {
                    path,
                    format: table.map(|table| table.format.to_string()),
                    tensors: table.map_or(0, |table| table.tensors.len() as u64),
                    bytes: file.bytes,
                    stored_bytes: shares.stored_before(file.bytes),
                    codecs: shares.codecs,
                });
            });
        }
        let mut dtypes: Vec<DtypeStats> = dtypes.into_values().collect();
        dtypes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.dtype.cmp(&b.dtype)));
        Ok(ContentStats { files, dtypes })
    }

    /// What a version shares with all others.
    fn sharing(
        &self,
        context: &Context,
        version: &Looked,
        chunks: &Chunks,
    ) -> Result<SharingStats, OpsError> {
        let mut shared: HashSet<ChunkId> = HashSet::new();
        for other in self.readable_versions(context)? {
            if other.manifest == version.manifest {
                continue;
            }
            let manifest = self.manifest(&other.manifest)?;
            let ids = manifest.all_chunks().iter().map(|chunk| chunk.id);
            shared.extend(ids.filter(|id| chunks.contains_key(id)));
        }
        let those = |are: bool| {
            let some = chunks.iter().filter(|(id, _)| shared.contains(id) == are);
            totals(some.map(|(_, found)| found))
        };
        let manifest_bytes = self.store.manifest_file_bytes(&version.manifest)?;
        Ok(SharingStats { own: those(false), shared: those(true), manifest_bytes })
    }

    /// What the files of the store take.
    fn disk(&self, chunks: &Chunks) -> Result<DiskStats, OpsError> {
        let usage = self.store.disk_usage()?;
        let (mut unused_chunks, mut unused_bytes) = (0, 0);
        self.store.places(|id, place| {
            if !chunks.contains_key(&id) {
                unused_chunks += 1;
                unused_bytes += u64::from(place.record_bytes);
            }
        })?;
        let state = self.state();
        Ok(DiskStats {
            packs: usage.packs,
            pack_bytes: usage.pack_bytes,
            unused_chunks,
            unused_bytes,
            manifest_bytes: usage.manifest_bytes,
            records: state.lines().count(),
            history_bytes: state.lines().bytes(),
            catalog_bytes: usage.catalog_bytes,
            hot_bytes: usage.hot_bytes,
        })
    }
}

fn totals<'a>(chunks: impl Iterator<Item = &'a Found>) -> ShareStats {
    let mut all = ShareStats::default();
    for found in chunks {
        all.chunks += 1;
        all.plain_bytes += u64::from(found.plain_bytes);
        all.stored_bytes += found.stored_bytes();
    }
    all
}

fn by_codec(chunks: &Chunks) -> Vec<CodecStats> {
    let mut codecs = Codecs::default();
    for found in chunks.values() {
        if let Some(place) = found.place {
            codecs.add(place.codec, found.plain_bytes.into(), found.stored_bytes());
        }
    }
    codecs.finish()
}

/// Sums by codec, in the order of their numbers.
#[derive(Default)]
struct Codecs(BTreeMap<u8, CodecStats>);

impl Codecs {
    fn add(&mut self, codec: Codec, plain_bytes: u64, stored_bytes: u64) {
        let none = CodecStats { codec, chunks: 0, plain_bytes: 0, stored_bytes: 0 };
        let line = self.0.entry(codec as u8).or_insert(none);
        line.chunks += 1;
        line.plain_bytes += plain_bytes;
        line.stored_bytes += stored_bytes;
    }

    fn finish(self) -> Vec<CodecStats> {
        self.0.into_values().collect()
    }
}

/// A file's chunks with its shares of their stored bytes.
struct Shares {
    /// Where each chunk starts, in the file and among its stored bytes; one more for the end.
    starts: Vec<(u64, u64)>,
    codecs: Vec<CodecStats>,
}

impl Shares {
    fn of(refs: &[ChunkRef], chunks: &mut Chunks) -> Self {
        let mut starts = Vec::with_capacity(refs.len() + 1);
        let mut codecs = Codecs::default();
        let (mut plain, mut stored) = (0, 0);
        for ChunkRef { id, bytes } in refs {
            starts.push((plain, stored));
            let found = chunks.get_mut(id).expect("all chunks were counted");
            let share = found.next_share();
            if let Some(place) = found.place {
                codecs.add(place.codec, (*bytes).into(), share);
            }
            plain += u64::from(*bytes);
            stored += share;
        }
        starts.push((plain, stored));
        Self { starts, codecs: codecs.finish() }
    }

    /// Stored bytes of what is before `offset`: differences of it add up (T1).
    fn stored_before(&self, offset: u64) -> u64 {
        let after = self.starts.partition_point(|(plain, _)| *plain <= offset);
        let (plain, stored) = self.starts[after - 1];
        let Some((plain_end, stored_end)) = self.starts.get(after) else { return stored };
        stored + part(stored_end - stored, offset - plain, plain_end - plain)
    }
}

/// Adds what the tensors of a file take, and what is between them.
fn add_dtypes(
    table: Option<&FileTensors>,
    shares: &Shares,
    dtypes: &mut HashMap<Option<String>, DtypeStats>,
) {
    let mut add = |dtype: Option<String>, tensors, bytes: std::ops::Range<u64>| {
        let none = DtypeStats { dtype: dtype.clone(), tensors: 0, bytes: 0, stored_bytes: 0 };
        let line = dtypes.entry(dtype).or_insert(none);
        line.tensors += tensors;
        line.bytes += bytes.end - bytes.start;
        line.stored_bytes += shares.stored_before(bytes.end) - shares.stored_before(bytes.start);
    };
    let mut end = 0;
    for tensor in table.into_iter().flat_map(|table| &table.tensors) {
        add(None, 0, end..tensor.bytes.start);
        add(Some(tensor.dtype.to_string()), 1, tensor.bytes.clone());
        end = tensor.bytes.end;
    }
    let (file_bytes, _) = *shares.starts.last().expect("there is one for the end");
    add(None, 0, end..file_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        for (bytes, of) in [(0, 1), (10, 3), (7, 9), (u64::MAX, 7), (1, 1)] {
            let parts = (0..of).map(|n| part(bytes, n + 1, of) - part(bytes, n, of));
            assert_eq!(parts.sum::<u64>(), bytes, "{bytes} in {of}");
        }
    }

    #[test]
    fn a_file_takes_what_its_parts_take() {
        let refs: Vec<ChunkRef> = [(1, 100), (2, 30), (1, 100), (3, 5)]
            .map(|(seed, bytes)| ChunkRef { id: ChunkId::of(&[seed]), bytes })
            .into();
        let mut chunks = Chunks::new();
        let place = |record_bytes| {
            let pack = crate::format::ids::PackId([0; 32]);
            Place {
                pack,
                offset: 0,
                record_bytes,
                plain_bytes: 0,
                codec: Codec::Zstd,
                depth: 0,
                base_count: 0,
            }
        };
        for (seed, plain_bytes, uses, stored) in [(1, 100, 3, 61), (2, 30, 1, 29)] {
            let found = Found { plain_bytes, place: Some(place(stored)), uses, shared_out: 0 };
            chunks.insert(ChunkId::of(&[seed]), found);
        }
        // In no pack.
        let lost = Found { plain_bytes: 5, place: None, uses: 1, shared_out: 0 };
        chunks.insert(ChunkId::of(&[3]), lost);
        let shares = Shares::of(&refs, &mut chunks);
        // A third of 61 is 20, the next third 20, the last 21.
        assert_eq!(shares.starts, [(0, 0), (100, 20), (130, 49), (230, 69), (235, 69)]);
        assert_eq!(chunks.get_mut(&ChunkId::of(&[1])).map(Found::next_share), Some(21));
        let check = |offset, expected| assert_eq!(shares.stored_before(offset), expected);
        check(0, 0);
        check(50, 10);
        check(100, 20);
        check(115, 34);
        check(235, 69);
        let total: u64 = shares.codecs.iter().map(|line| line.stored_bytes).sum();
        assert_eq!((total, shares.codecs[0].chunks), (69, 3));
    }
}
