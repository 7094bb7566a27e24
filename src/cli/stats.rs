//! `modelfs stats` as text for people.

use super::table::{Align, Table, bytes, count, pairs};
use crate::format::codec::Codec;
use crate::ops::{
    CodecStats, ContentStats, DiskStats, DtypeStats, FileStats, ShareStats, SharingStats,
    StatsReport,
};

const COLUMN: Align = Align::Right;

/// The sizes, from what the files hold to what is stored.
pub fn text(report: &StatsReport) -> String {
    let mut lines = match &report.version {
        Some(version) => vec![("version", version.clone())],
        None => {
            vec![("models", report.models.to_string()), ("versions", report.versions.to_string())]
        }
    };
    lines.push(("files", report.files.to_string()));
    lines.push(("chunks", format!("{} distinct", report.chunks)));
    if report.missing_chunks != 0 {
        let lost = count(report.missing_chunks, "chunk");
        lines.push(("missing", format!("{lost} in no pack that is known: see `modelfs verify`")));
    }
    let mut text = pairs(&lines);
    let mut add = |part: String| {
        text.push('\n');
        text += &part;
    };
    add(savings(report));
    add(codecs(report));
    if let Some(sharing) = &report.sharing {
        add(shared(sharing));
    }
    if let Some(disk) = &report.disk {
        add(on_disk(disk, report.logical_bytes));
    }
    if let Some(ContentStats { files, dtypes }) = &report.contents {
        add(dtype_table(dtypes));
        add(file_table(files));
    }
    text
}

/// From the bytes of the files to those of their chunks in the packs.
fn savings(report: &StatsReport) -> String {
    let logical = report.logical_bytes;
    let mut table = Table::new(&[("", Align::Left), ("SIZE", COLUMN), ("OF FILES", COLUMN)]);
    let duplicates = report.duplicates_saved_bytes;
    let lost = report.codecs_saved_bytes < 0;
    let codecs = report.codecs_saved_bytes.unsigned_abs();
    let sign = if lost { '+' } else { '-' };
    let signed = |sign, size: u64| match size {
        0 => ("0 B".to_owned(), percent(0, logical)),
        size => (format!("{sign}{}", bytes(size)), format!("{sign}{}", percent(size, logical))),
    };
    let stored = report.stored_bytes;
    for (what, (size, share)) in [
        ("files hold", (bytes(logical), percent(logical, logical))),
        ("saved by duplicates", signed('-', duplicates)),
        (if lost { "spent on codecs" } else { "saved by codecs" }, signed(sign, codecs)),
        ("stored", (bytes(stored), percent(stored, logical))),
    ] {
        table.row([what.to_owned(), size, share]);
    }
    table.render()
}

fn codecs(report: &StatsReport) -> String {
    let mut table = Table::new(&[
        ("CODEC", Align::Left),
        ("CHUNKS", COLUMN),
        ("PLAIN", COLUMN),
        ("STORED", COLUMN),
        ("OF PLAIN", COLUMN),
    ]);
    let mut row = |name: String, chunks: u64, plain: u64, stored: u64| {
        let of = percent(stored, plain);
        table.row([name, chunks.to_string(), bytes(plain), bytes(stored), of]);
    };
    for CodecStats { codec, chunks, plain_bytes, stored_bytes } in &report.codecs {
        row(name(*codec), *chunks, *plain_bytes, *stored_bytes);
    }
    row("all".to_owned(), report.chunks, report.unique_bytes, report.stored_bytes);
    table.render()
}

/// As in JSON.
fn name(codec: Codec) -> String {
    let value = serde_json::to_value(codec).expect("a codec is a word");
    value.as_str().unwrap_or_default().to_owned()
}

fn shared(sharing: &SharingStats) -> String {
    let SharingStats { own, shared, manifest_bytes } = sharing;
    let mut table = Table::new(&[
        ("CHUNKS THAT ARE", Align::Left),
        ("CHUNKS", COLUMN),
        ("PLAIN", COLUMN),
        ("STORED", COLUMN),
    ]);
    for (what, share) in [("only in this version", own), ("in others too", shared)] {
        let ShareStats { chunks, plain_bytes, stored_bytes } = share;
        table.row([what.into(), chunks.to_string(), bytes(*plain_bytes), bytes(*stored_bytes)]);
    }
    table.render() + &format!("\nmanifest  {}\n", bytes(*manifest_bytes))
}

fn on_disk(disk: &DiskStats, logical: u64) -> String {
    let mut table = Table::new(&[
        ("ON DISK", Align::Left),
        ("SIZE", COLUMN),
        ("OF FILES", COLUMN),
        ("", Align::Left),
    ]);
    let unused = match disk.unused_chunks {
        0 => String::new(),
        chunks => format!(", {} in {} unused", bytes(disk.unused_bytes), count(chunks, "chunk")),
    };
    let kept = disk.pack_bytes + disk.manifest_bytes + disk.history_bytes;
    for (what, size, note) in [
        ("packs", disk.pack_bytes, count(disk.packs, "pack") + &unused),
        ("manifests", disk.manifest_bytes, String::new()),
        ("history", disk.history_bytes, count(disk.records, "record")),
        ("all that must be kept", kept, String::new()),
        ("catalog", disk.catalog_bytes, "made anew when deleted".to_owned()),
        ("hot files", disk.hot_bytes, String::new()),
    ] {
        table.row([what.to_owned(), bytes(size), percent(size, logical), note]);
    }
    table.render()
}

fn dtype_table(dtypes: &[DtypeStats]) -> String {
    let mut table = Table::new(&[
        ("DTYPE", Align::Left),
        ("TENSORS", COLUMN),
        ("SIZE", COLUMN),
        ("STORED", COLUMN),
        ("OF SIZE", COLUMN),
    ]);
    for DtypeStats { dtype, tensors, bytes: size, stored_bytes } in dtypes {
        let count = if dtype.is_some() { tensors.to_string() } else { String::new() };
        let dtype = dtype.clone().unwrap_or_else(|| "no tensor".to_owned());
        table.row([
            dtype,
            count,
            bytes(*size),
            bytes(*stored_bytes),
            percent(*stored_bytes, *size),
        ]);
    }
    table.render()
}

fn file_table(files: &[FileStats]) -> String {
    let mut table = Table::new(&[
        ("SIZE", COLUMN),
        ("STORED", COLUMN),
        ("OF SIZE", COLUMN),
        ("FORMAT", Align::Left),
        ("TENSORS", COLUMN),
        ("CODECS", Align::Left),
        ("FILE", Align::Left),
    ]);
    for file in files {
        let tensors = if file.format.is_some() { file.tensors.to_string() } else { String::new() };
        table.row([
            bytes(file.bytes),
            bytes(file.stored_bytes),
            percent(file.stored_bytes, file.bytes),
            file.format.clone().unwrap_or_default(),
            tensors,
            mix(file),
            file.path.clone(),
        ]);
    }
    table.render()
}

/// How much of a file each codec has: `planes 97 %, zstd 3 %`.
fn mix(file: &FileStats) -> String {
    let mut codecs: Vec<&CodecStats> = file.codecs.iter().collect();
    codecs.sort_by_key(|line| std::cmp::Reverse(line.plain_bytes));
    let part = |line: &&CodecStats| {
        if codecs.len() == 1 {
            return name(line.codec);
        }
        let share = ratio(line.plain_bytes, file.bytes);
        format!("{} {share:.0} %", name(line.codec))
    };
    codecs.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// `12.3 %`, nothing where there is no whole.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { String::new() } else { format!("{:.1} %", ratio(part, whole)) }
}

// For a display of a few digits: what a float cannot hold of a u64 is not among them.
#[allow(clippy::cast_precision_loss)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64 * 100.0
}
