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
