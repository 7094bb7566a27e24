//! What the codecs make of Gaussian weights: size and speed on one thread, beside plain zstd.
//!
//! `cargo bench --bench codec`. Each figure is the best of several rounds, all in one run, for
//! seconds of a shared machine mean little.

use std::hint::black_box;
use std::time::{Duration, Instant};

use modelfs::format::codec::{self, Elements};

const CHUNK_BYTES: usize = 1 << 20;
const PLAIN_BYTES: usize = 16 * CHUNK_BYTES;
const ROUNDS: usize = 7;
/// Standard deviation of the weights.
const SIGMA: f64 = 0.02;

/// A name, the hint, and how a weight becomes bytes.
type Row = (&'static str, Elements, fn(f64, &mut Vec<u8>));

const ROWS: [Row; 10] = [
    ("bf16", Elements::Bf16, |w, out| out.extend(bf16(w as f32).to_le_bytes())),
    ("fp16", Elements::F16, |w, out| out.extend(fp16(w).to_le_bytes())),
    ("fp32", Elements::F32, |w, out| out.extend((w as f32).to_le_bytes())),
    ("fp64", Elements::F64, |w, out| out.extend(w.to_le_bytes())),
    ("int8", Elements::I8, |w, out| out.push((w / SIGMA * 30.0) as i8 as u8)),
    ("bf16 in fp32", Elements::F32, |w, out| {
        out.extend((u32::from(bf16(w as f32)) << 16).to_le_bytes());
    }),
    ("sparse fp32", Elements::F32, |w, out| {
        let kept = if w < 1.5 * SIGMA { 0.0 } else { w as f32 };
        out.extend(kept.to_le_bytes());
    }),
    ("bf16, guessed", Elements::Mixed, |w, out| out.extend(bf16(w as f32).to_le_bytes())),
    ("fp32, guessed", Elements::Mixed, |w, out| out.extend((w as f32).to_le_bytes())),
    ("fp32, unknown", Elements::Unknown, |w, out| out.extend((w as f32).to_le_bytes())),
];

fn main() {
    println!("{:<14} {:^23}  {:^23}", "", "ours", "zstd -3");
    let columns = format!("{:>7} {:>7} {:>7}", "%", "encode", "decode");
    println!("{:<14} {columns}  {columns}    (MB/s)", "");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (name, elements, number) in ROWS {
        let mut plain = Vec::with_capacity(PLAIN_BYTES);
        while plain.len() < PLAIN_BYTES {
            number(random.gaussian() * SIGMA, &mut plain);
        }
        println!("{name:<14} {}  {}", ours(&plain, elements), zstd(&plain));
    }
}

/// Size in percent, MB/s of encoding and of decoding.
fn row(plain: &[u8], stored: usize, encode: Duration, decode: Duration) -> String {
    let speed = |time: Duration| plain.len() as f64 / 1e6 / time.as_secs_f64();
    let percent = 100.0 * stored as f64 / plain.len() as f64;
    format!("{percent:>7.2} {:>7.0} {:>7.0}", speed(encode), speed(decode))
}

fn ours(plain: &[u8], elements: Elements) -> String {
    let (mut encode, mut decode) = (Duration::MAX, Duration::MAX);
    let mut back = vec![0; codec::BLOCK_BYTES];
    let chunks: Vec<_> =
        plain.chunks(CHUNK_BYTES).map(|chunk| codec::encode(chunk, elements)).collect();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for chunk in plain.chunks(CHUNK_BYTES) {
            black_box(codec::encode(chunk, elements));
        }
        encode = encode.min(start.elapsed());
        let start = Instant::now();
        for chunk in &chunks {
            let mut at = 0;
            for block in &chunk.blocks {
                let next = at + block.stored_bytes as usize;
                codec::decode_block(chunk.codec, block, &chunk.payload[at..next], &[], &mut back)
                    .expect("the block was just encoded");
                at = next;
                black_box(&back);
            }
        }
        decode = decode.min(start.elapsed());
    }
    let stored = chunks.iter().map(|chunk| chunk.payload.len()).sum();
    row(plain, stored, encode, decode)
}

fn zstd(plain: &[u8]) -> String {
    let (mut encode, mut decode) = (Duration::MAX, Duration::MAX);
    let mut compressor = zstd::bulk::Compressor::new(3).expect("a valid level");
    let mut decompressor = zstd::bulk::Decompressor::new().expect("memory");
    let mut back = vec![0; codec::BLOCK_BYTES];
    let blocks: Vec<_> = plain
        .chunks(codec::BLOCK_BYTES)
        .map(|block| compressor.compress(block).expect("room for the bound"))
        .collect();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for block in plain.chunks(codec::BLOCK_BYTES) {
            black_box(compressor.compress(block).expect("room for the bound"));
        }
        encode = encode.min(start.elapsed());
        let start = Instant::now();
        for block in &blocks {
            decompressor.decompress_to_buffer(block, &mut back[..]).expect("just compressed");
            black_box(&back);
        }
        decode = decode.min(start.elapsed());
    }
    row(plain, blocks.iter().map(Vec::len).sum(), encode, decode)
}

/// Nearest bf16.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Nearest fp16 of a value of less than 1.
fn fp16(value: f64) -> u16 {
    let sign = u16::from(value < 0.0) << 15;
    let magnitude = value.abs();
    // Below 2^-14 the steps are 2^-24; above, 1024 steps to each power of two.
    let exponent = (magnitude.log2().floor() as i32).clamp(-14, 15);
    let steps = (magnitude * 2.0_f64.powi(10 - exponent)).round() as i32;
    let bits = if steps < 1024 { steps } else { (exponent + 15) * 1024 + steps - 1024 };
    sign | bits as u16
}

/// xorshift64*: the same weights in every run.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        (bits as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
