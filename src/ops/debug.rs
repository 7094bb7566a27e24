//! Looking at stored things as they are, on a store that may be broken: no lock, no catalog, and
//! nothing is believed that can be checked.

use std::path::Path;

use serde_json::{Value, json};

use super::OpsError;
use crate::format::ids::{ChunkId, ManifestId, PackId};
use crate::format::manifest::{FileTensors, Manifest, Node, TensorLine};
use crate::store::{self, Layout, StoreError, list_named, load_manifest, name_of};
use crate::sys::io::Io;

/// Every place of a chunk in the packs.
///
/// # Errors
/// `ChunkMissing` where there is none.
pub fn chunk(io: &dyn Io, directory: &Path, id: &ChunkId) -> Result<Value, OpsError> {
    let layout = Layout::new(directory);
    let mut places = Vec::new();
    for path in list_named(io, &layout.packs())? {
        let lines = store::read_footer(io, &path).or_else(|_| store::scan(io, &path));
        for line in lines.unwrap_or_default().iter().filter(|line| line.id == *id) {
            places.push(json!({
                "pack": name_of(&path),
                "offset": line.offset,
                "record_bytes": line.record_bytes,
                "plain_bytes": line.plain_bytes,
                "codec": line.codec,
                "depth": line.depth,
            }));
        }
    }
    if places.is_empty() {
        return Err(StoreError::ChunkMissing { chunk: *id }.into());
    }
    Ok(json!({ "chunk": id, "places": places }))
}

/// The records of a pack, by its footer, or by their own heads where that is damaged.
///
/// # Errors
/// As reading the pack.
pub fn pack(io: &dyn Io, directory: &Path, id: &PackId) -> Result<Value, OpsError> {
    let path = Layout::new(directory).pack(id);
    let bytes = io.file_bytes(&path).map_err(|e| StoreError::io("open", &path, e))?;
    let (lines, footer) = match store::read_footer(io, &path) {
        Ok(lines) => (lines, Value::Null),
        Err(error) => (store::scan(io, &path)?, json!(error.to_string())),
    };
    let records: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "chunk": line.id,
                "offset": line.offset,
                "record_bytes": line.record_bytes,
                "plain_bytes": line.plain_bytes,
                "codec": line.codec,
                "depth": line.depth,
            })
        })
        .collect();
    Ok(json!({ "pack": id, "bytes": bytes, "damaged_footer": footer, "records": records }))
}

/// A manifest's metadata and entries.
///
/// # Errors
/// As [`load_manifest`].
pub fn manifest(io: &dyn Io, directory: &Path, id: &ManifestId) -> Result<Value, OpsError> {
    let manifest = load_manifest(io, &Layout::new(directory), id)?;
    let (tensors, damage) = match manifest.tensors() {
        Ok(files) => (files, Value::Null),
        Err(error) => (Vec::new(), json!(error.to_string())),
    };
    let mut entries = Vec::new();
    manifest.walk(|path, index, entry| {
        let path = String::from_utf8_lossy(path).into_owned();
        let seconds = entry.mtime.seconds;
        entries.push(match &entry.node {
            Node::Directory { .. } => json!({ "directory": path, "mtime": seconds }),
            Node::Symlink { .. } => {
                let target = String::from_utf8_lossy(manifest.target(index)).into_owned();
                json!({ "symlink": path, "target": target, "mtime": seconds })
            }
            Node::File(file) => {
                let mut line = json!({
                    "file": path,
                    "bytes": file.bytes,
                    "executable": file.executable,
                    "blake3": file.digest,
                    "chunks": chunks_of(&manifest, file),
                    "mtime": seconds,
                });
                if let Ok(place) = tensors.binary_search_by_key(&index, |of| of.file) {
                    line["format"] = json!(tensors[place].format.as_ref());
                    line["tensors"] = tensors_of(&tensors[place]);
                }
                line
            }
        });
    });
    Ok(json!({
        "manifest": id,
        "model": manifest.model,
        "version": manifest.version,
        "digest": manifest.digest,
        "metadata": manifest.metadata,
        "entries": entries,
        "damaged_tensors": damage,
    }))
}

fn tensors_of(of: &FileTensors) -> Value {
    let line = |tensor: &TensorLine| {
        json!({
            "name": tensor.name,
            "dtype": tensor.dtype.as_ref(),
            "shape": tensor.shape,
            "offset": tensor.bytes.start,
            "bytes": tensor.bytes.end - tensor.bytes.start,
            "digest": tensor.digest,
        })
    };
    of.tensors.iter().map(line).collect()
}

fn chunks_of(manifest: &Manifest, file: &crate::format::manifest::FileEntry) -> Vec<Value> {
    let chunks = manifest.chunks(file).iter();
    chunks.map(|chunk| json!({ "chunk": chunk.id, "bytes": chunk.bytes })).collect()
}
