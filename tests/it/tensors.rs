//! Files with tensors: cut where those lie, stored by planes, and found again in other files.

use std::fs;

use serde_json::Value;

use crate::harness::{Bench, noise};

/// A safetensors file: a header with `padding` spaces at its end, then one tensor.
fn safetensors(dtype: &str, element_bytes: usize, data: &[u8], padding: usize) -> Vec<u8> {
    let (count, bytes) = (data.len() / element_bytes, data.len());
    let mut header = format!(
        r#"{{"weight":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{bytes}]}}}}"#
    );
    header.push_str(&" ".repeat(padding));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// Weights as training leaves them: near zero, signs and low bits without pattern. A sum of twelve
/// uniform numbers is close enough to a normal one.
fn weights(count: usize) -> Vec<f32> {
    let noise = noise(7, count * 12);
    let weight = |bytes: &[u8]| {
        let sum: f32 = bytes.iter().map(|byte| (f32::from(*byte) + 0.5) / 256.0).sum();
        (sum - 6.0) * 0.02 * (1.0 + f32::from(bytes[0]) / 65_536.0)
    };
    noise.chunks_exact(12).map(weight).collect()
}

fn bf16(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|weight| weight.to_le_bytes()[2..].to_vec()).collect()
}

fn stored(report: &Value) -> u64 {
    report["stored_bytes"].as_u64().expect("a number")
}

#[test]
fn weights_in_bf16_take_two_thirds() {
    let bench = Bench::new();
    let data = bf16(&weights(1 << 20));
    let file = bench.write("model.safetensors", safetensors("BF16", 2, &data, 0));
    let path = file.to_str().expect("text");
    let report = bench.cli_json(&["snapshot", "m", path]);
    let share = stored(&report) as f64 / data.len() as f64;
    assert!(share < 0.68, "{share}");
    let out = bench.root.join("out");
    bench.cli(&["export", "m/v1", out.to_str().expect("text")]).ok();
    assert!(fs::read(out.join("model.safetensors")).unwrap() == fs::read(file).unwrap());
    bench.cli(&["verify", "--read-data"]).ok();
}

#[test]
fn a_longer_header_costs_little_more_than_the_header() {
    let bench = Bench::new();
    let data = noise(3, 4 << 20);
    for (name, padding) in [("short", 0), ("long", 4096)] {
        bench.write(name, safetensors("F16", 2, &data, padding));
    }
    let seal = |name: &str| {
        let path = bench.root.join(name);
        stored(&bench.cli_json(&["snapshot", "m", path.to_str().expect("text")]))
    };
    assert!(4 << 20 < seal("short"));
    let added = seal("long");
    assert!(added <= 8 << 10, "4 KiB of header added {added} bytes");
}

#[test]
fn a_header_that_lies_is_sealed_like_any_file() {
    let bench = Bench::new();
    let mut file = safetensors("F32", 4, &noise(5, 100_000), 0);
    let text = String::from_utf8_lossy(&file[8..80]).replace("100000", "999999");
    file[8..8 + text.len()].copy_from_slice(text.as_bytes());
    let path = bench.write("model.safetensors", &file);
    bench.cli(&["snapshot", "m", path.to_str().expect("text")]).ok();
    let out = bench.root.join("out");
    bench.cli(&["export", "m/v1", out.to_str().expect("text")]).ok();
    assert!(fs::read(out.join("model.safetensors")).unwrap() == file);
}

/// A safetensors file of several tensors, which lie in this order.
fn many(tensors: &[(&str, &str, &str, Vec<u8>)]) -> Vec<u8> {
    let (mut lines, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let places = format!("[{},{}]", data.len(), data.len() + bytes.len());
        lines.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{places}}}"#
        ));
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{}}}", lines.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}

#[test]
fn a_manifest_keeps_the_tensors_of_its_files() {
    let bench = Bench::new();
    let pieces: Vec<Vec<u8>> = vec![
        noise(1, 3_000_000),
        noise(2, 400),
        noise(3, 100),
        Vec::new(),
        noise(4, 1 << 20),
        noise(5, 65_534),
    ];
    let tensors = [
        ("long", "BF16", "[1500,1000]", pieces[0].clone()),
        ("bias", "F32", "[100]", pieces[1].clone()),
        ("mask", "BOOL", "[10,10]", pieces[2].clone()),
        ("none", "F64", "[0,7]", pieces[3].clone()),
        ("whole", "U8", "[1048576]", pieces[4].clone()),
        ("small", "F16", "[32767]", pieces[5].clone()),
    ];
    bench.write("files/b.safetensors", many(&tensors));
    bench.write("files/a.txt", b"no tensors");
    bench.write("files/deep/c.safetensors", many(&tensors[1..5]));
    let path = bench.root.join("files");
    bench.cli(&["snapshot", "m", path.to_str().expect("text")]).ok();
    let shown = bench.cli_json(&["debug", "manifest", "m/v1"]);
    assert_eq!(shown["damaged_tensors"], Value::Null);
    let entries = shown["entries"].as_array().unwrap();
    let entry = |name: &str| entries.iter().find(|entry| entry["file"] == name).unwrap();
    let table = |name: &str| entry(name)["tensors"].as_array().cloned();
    assert_eq!(table("a.txt"), None);
    assert_eq!(table("metadata.json"), None);
    assert_eq!(entry("b.safetensors")["format"], "safetensors");
    let found = table("b.safetensors").unwrap();
    let mut offset = u64::try_from(many(&tensors).len() - pieces.concat().len()).unwrap();
    for ((line, (name, dtype, shape, _)), bytes) in found.iter().zip(&tensors).zip(&pieces) {
        let digest = if bytes.len() <= 1 << 20 {
            blake3::hash(bytes)
        } else {
            let mut hasher = blake3::Hasher::new_derive_key("modelfs tensor v1");
            for piece in bytes.chunks(1 << 20) {
                hasher.update(blake3::hash(piece).as_bytes());
            }
            hasher.finalize()
        };
        let expected = serde_json::json!({
            "name": name,
            "dtype": dtype.to_lowercase(),
            "shape": serde_json::from_str::<Value>(shape).unwrap(),
            "offset": offset,
            "bytes": bytes.len(),
            "digest": digest.to_string(),
        });
        assert_eq!(*line, expected);
        offset += bytes.len() as u64;
    }
    assert_eq!(found.len(), tensors.len());
    let again = table("deep/c.safetensors").unwrap();
    let digests = |lines: &[Value]| lines.iter().map(|line| line["digest"].clone()).collect();
    let (again, before): (Vec<_>, Vec<_>) = (digests(&again), digests(&found[1..5]));
    assert_eq!(again, before, "the same tensor in another file");
    bench.cli(&["verify", "--read-data"]).ok();
    let text = bench.cli(&["debug", "manifest", "m/v1"]).ok();
    text.says("b.safetensors (safetensors)").says("[1500,1000]");
}
