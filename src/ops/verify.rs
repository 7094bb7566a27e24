//! Verifying: is everything there that was ever acknowledged, and is it what it was?
//!
//! Reads only, but for hot files whose bytes are wrong: those copies are removed. A check that could not run is a failure, not a pass.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::audit::Audit;
use super::{Context, Damage, OpsError, Progress, VerifyOptions, VerifyReport, Workspace};
use crate::format::ids::{ChunkId, ManifestId};
use crate::format::manifest::Manifest;
use crate::store::hot::Checked;
use crate::store::{Finding, PackCheck, StoreError, name_of, with_causes};

impl Workspace {
    /// Checks the history, every manifest, every pack, and that each version has all its chunks.
    pub(super) fn verify(
        &self,
        context: &Context,
        options: &VerifyOptions,
        progress: &dyn Progress,
    ) -> Result<VerifyReport, OpsError> {
        self.permit_administration(context)?;
        // First: what is sealed while we look may lie in packs that we have not listed.
        let versions = self.versions()?;
        let (_, pack_bytes) = self.store.pack_totals()?;
        progress.begin("verifying", if options.read_data { pack_bytes } else { 0 });
        let packs = self.store.check_packs(options.read_data, |bytes| progress.advance(bytes))?;
        let mut damage: Vec<Damage> = packs.findings.iter().map(from_finding).collect();
        damage.extend(self.store.check_config().iter().map(from_finding));
        let mut unused = Vec::new();
        let records = self.check_history(&mut damage, &mut unused);
        let mut used = HashSet::new();
        for (manifest, references) in &versions {
            self.check_version(manifest, references, &packs, &mut used, &mut damage);
        }
        let (hot_files, hot_removed) = match options.read_data {
            true => self.check_hot(progress),
            false => (0, Vec::new()),
        };
        unused.extend(self.garbage(&versions, &packs, &used, &mut damage)?);
        Ok(VerifyReport {
            records,
            versions: versions.values().map(|references| references.len() as u64).sum(),
            manifests: versions.len() as u64,
            packs: packs.packs,
            chunks: packs.chunks.len() as u64,
            bytes_read: packs.bytes_read,
            read_data: options.read_data,
            hot_files,
            hot_removed,
            damage,
            garbage: unused,
        })
    }

    /// Hashes all hot files; how many there were, and the names of those that were wrong.
    fn check_hot(&self, progress: &dyn Progress) -> (u64, Vec<String>) {
        let (hot, layout) = (self.store.hot(), self.store.layout());
        progress.begin("verifying hot files", hot.totals().bytes);
        let mut removed = Vec::new();
        let mut files = 0;
        for digest in hot.digests() {
            let mut advance = |bytes| {
                progress.advance(bytes);
                self.may_work()
            };
            match hot.check(&digest, &mut advance) {
                Checked::Good => files += 1,
                Checked::Removed => {
                    files += 1;
                    removed.push(layout.name_of(&layout.hot_file(&digest)));
                }
                Checked::Skipped => {}
            }
        }
        (files, removed)
    }

    /// Every manifest that a version has, with the references that lead to it.
    fn versions(&self) -> Result<BTreeMap<ManifestId, Vec<String>>, OpsError> {
        let mut found: BTreeMap<ManifestId, Vec<String>> = BTreeMap::new();
        for model in self.models() {
            for version in model.body()?.versions.iter() {
                let reference = format!("{}/{}", model.name, version.number);
                found.entry(version.manifest).or_default().push(reference);
            }
        }
        Ok(found)
    }

    /// The number of records that are chained as they should be, from the files alone. What is believed
    /// without them is compared with what they add up to.
    fn check_history(&self, damage: &mut Vec<Damage>, unused: &mut Vec<String>) -> u64 {
        let mut records = 0;
        match self.audit(|_| records += 1) {
            Ok(Audit { untrue, unusable, .. }) => {
                damage.extend(untrue.iter().map(|untrue| Damage {
                    place: untrue.place.to_owned(),
                    what: untrue.words(),
                    hits: Vec::new(),
                }));
                unused.extend(unusable.map(|why| format!("the checkpoint in the catalog: {why}")));
            }
            Err(error) => {
                let seq = match &error {
                    OpsError::Store(StoreError::Diverged { seq, .. }) => *seq,
                    _ => records + 1,
                };
                let place = self.store.layout().name_of(&self.store.layout().record(seq));
                damage.push(Damage { place, what: with_causes(&error), hits: Vec::new() });
            }
        }
        records
    }

    /// Checks that a manifest is whole and that all its chunks are there with their lengths.
    fn check_version(
        &self,
        id: &ManifestId,
        references: &[String],
        packs: &PackCheck,
        used: &mut HashSet<ChunkId>,
        damage: &mut Vec<Damage>,
    ) {
        let place = self.store.layout().name_of(&self.store.layout().manifest(id));
        let hits = references.to_vec();
        // From disk, whatever the cache holds.
        let manifest = match self.store.load_manifest(id) {
            Ok(manifest) => manifest,
            Err(error) => {
                damage.push(Damage { place, what: with_causes(&error), hits });
                return;
            }
        };
        if let Err(error) = manifest.tensors() {
            let what = format!("its tensor table cannot be read: {}", with_causes(&error));
            damage.push(Damage { place: place.clone(), what, hits: Vec::new() });
        }
        let lost = lost_chunks(&manifest, &packs.chunks);
        used.extend(manifest.all_chunks().iter().map(|chunk| chunk.id));
        if let Some(first) = lost.first() {
            let what = format!("{} of its chunks cannot be read, {first} among them", lost.len());
            damage.push(Damage { place, what, hits });
        }
    }

    /// What nothing refers to: harmless, and named so that it can be understood.
    fn garbage(
        &self,
        versions: &BTreeMap<ManifestId, Vec<String>>,
        packs: &PackCheck,
        used: &HashSet<ChunkId>,
        damage: &mut Vec<Damage>,
    ) -> Result<Vec<String>, OpsError> {
        let mut garbage = Vec::new();
        for path in self.store.manifest_paths()? {
            let place = self.store.layout().name_of(&path);
            match name_of(&path).and_then(|name| name.parse::<ManifestId>().ok()) {
                Some(id) if self.store.layout().manifest(&id) != path => {
                    let what = "it is not in its directory".to_owned();
                    damage.push(Damage { place, what, hits: Vec::new() });
                }
                Some(id) if !versions.contains_key(&id) => garbage.push(place),
                Some(_) => {}
                None => {
                    let what = "not a manifest's name".to_owned();
                    damage.push(Damage { place, what, hits: Vec::new() });
                }
            }
        }
        let unused = packs.chunks.iter().filter(|(id, _)| !used.contains(*id));
        let (count, bytes) =
            unused.fold((0_u64, 0_u64), |sum, (_, b)| (sum.0 + 1, sum.1 + u64::from(*b)));
        if count != 0 {
            garbage.push(format!("{count} chunks of {bytes} bytes in the packs"));
        }
        Ok(garbage)
    }
}

/// The distinct chunks of a manifest that are not in any pack with their length.
fn lost_chunks(manifest: &Manifest, there: &HashMap<ChunkId, u32>) -> Vec<ChunkId> {
    let missing =
        |chunk: &&crate::format::manifest::ChunkRef| there.get(&chunk.id) != Some(&chunk.bytes);
    let lost: BTreeSet<ChunkId> =
        manifest.all_chunks().iter().filter(missing).map(|chunk| chunk.id).collect();
    lost.into_iter().collect()
}

fn from_finding(finding: &Finding) -> Damage {
    let Finding { place, what } = finding.clone();
    Damage { place, what, hits: Vec::new() }
}
