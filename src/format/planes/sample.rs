//! What a sample of bytes tells of how to store all of them.

/// Bytes that a sample has at least, where there are as many, and at most.
const SAMPLE_BYTES_MIN: usize = 2 << 10;
const SAMPLE_BYTES_MAX: usize = 8 << 10;
/// Bytes that a sample takes from one place; it takes them from places evenly apart.
const RUN_BYTES: usize = 256;

/// How often each byte comes, and how often it comes again.
pub(super) struct Sample {
    /// Order-0 entropy, bits a byte, corrected for the sample's size: what Huffman can reach.
    pub entropy: f32,
    /// How many of the 256 bytes come at all.
    pub distinct: usize,
    /// Whether so many words repeat the word before them that matches pay.
    pub repeats: bool,
}

impl Sample {
    pub fn of(bytes: &[u8]) -> Self {
        // Four tables: an increment need not wait for the one before it on the same count.
        let mut tables = [[0_u32; 256]; 4];
        let (mut words, mut repeats) = (0_usize, 0_usize);
        let sample_bytes = (bytes.len() / 8).clamp(SAMPLE_BYTES_MIN, SAMPLE_BYTES_MAX);
        for run in runs(bytes, sample_bytes) {
            let (quads, rest) = run.as_chunks::<4>();
            for quad in quads {
                for (table, byte) in tables.iter_mut().zip(quad) {
                    table[usize::from(*byte)] += 1;
                }
            }
            for byte in rest {
                tables[0][usize::from(*byte)] += 1;
            }
            let (run, _) = run.as_chunks::<8>();
            words += run.len();
            repeats += run.windows(2).filter(|pair| pair[0] == pair[1]).count();
        }
        let [a, b, c, d] = &tables;
        let counts: [u32; 256] = std::array::from_fn(|byte| a[byte] + b[byte] + c[byte] + d[byte]);
        let distinct = counts.iter().filter(|count| 0 < **count).count();
        Self { entropy: entropy(&counts, distinct), distinct, repeats: words < 8 * repeats }
    }
}

/// Runs of `bytes`, about `sample_bytes` of them in all; everything, where there is no more.
///
/// Each run starts at a multiple of 8, and all but the last are as long. There is one in each of as
/// many equal pieces, at a place that differs from piece to piece: rows of tensors have round
/// lengths, and a sample in step with them would see only one kind of row.
pub(super) fn runs(bytes: &[u8], sample_bytes: usize) -> impl Iterator<Item = &[u8]> {
    let stride = (bytes.len() * RUN_BYTES / sample_bytes).max(RUN_BYTES).next_multiple_of(8);
    bytes.chunks(stride).enumerate().map(|(index, piece)| {
        let room = piece.len().saturating_sub(RUN_BYTES);
        // Multiples of the golden ratio, modulo 1, lie apart from one another.
        let start = room * (index * 40_503 % 65_536) / 65_536 / 8 * 8;
        &piece[start..piece.len().min(start + RUN_BYTES)]
    })
}

/// Bits a byte, with the correction of Miller and Madow for few bytes.
fn entropy(counts: &[u32; 256], distinct: usize) -> f32 {
    let total = counts.iter().sum::<u32>().max(1) as f32;
    let bits = |count: &u32| *count as f32 * (*count as f32).log2();
    let sum: f32 = counts.iter().filter(|count| 0 < **count).map(bits).sum();
    let correction = distinct.saturating_sub(1) as f32 / (2.0 * std::f32::consts::LN_2 * total);
    (total.log2() - sum / total + correction).clamp(0.0, 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_alternating_rows_sees_both_kinds() {
        for row_bytes in [256, 1024, 2048, 4096, 8192] {
            let rows = |row: usize| [row as u8 % 2; 8192][..row_bytes].to_vec();
            let bytes: Vec<u8> = (0..(64 << 10) / row_bytes).flat_map(rows).collect();
            let sample = Sample::of(&bytes);
            assert!((0.8..=1.01).contains(&sample.entropy), "{row_bytes}: {}", sample.entropy);
            assert!(sample.repeats);
        }
    }

    #[test]
    fn a_sample_of_noise_finds_nothing() {
        for len in [1000, 2 << 10, 8 << 10, 64 << 10, 128 << 10] {
            let mut noise = vec![0; len];
            blake3::Hasher::new().finalize_xof().fill(&mut noise);
            let sample = Sample::of(&noise);
            assert!(7.9 < sample.entropy && !sample.repeats, "{len}: {}", sample.entropy);
        }
    }

    #[test]
    fn a_sample_of_little_or_nothing_is_no_number_out_of_range() {
        for len in 0..600 {
            let sample = Sample::of(&vec![3; len]);
            assert!((0.0..=0.01).contains(&sample.entropy), "{len}: {}", sample.entropy);
        }
    }
}
