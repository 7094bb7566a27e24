//! Reading sealed files that are decoded, in every order, with next to no room to keep blocks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::{Bench, Mount, noise};

const READERS: usize = 16;
/// Reads of each reader.
const READS: usize = 200;

/// bf16 numbers near 1, which planes make smaller, as a safetensors file.
fn model(seed: u64, count: usize) -> Vec<u8> {
    let bytes = 2 * count;
    let header =
        format!(r#"{{"w":{{"dtype":"BF16","shape":[{count}],"data_offsets":[0,{bytes}]}}}}"#);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    let numbers = noise(seed, bytes);
    file.extend(numbers.chunks_exact(2).flat_map(|two| [two[0], 0x3f ^ two[1] & 1]));
    file
}

/// The `step`-th read of a file: in one of several orders, with odd lengths.
fn place(reader: usize, step: usize, file_bytes: usize) -> (usize, usize) {
    let count = 1 + (step * 7_919 + reader * 31_337) % 300_000;
    let from = match reader % 5 {
        // On and on, again from the start at the end.
        0 => step * 150_000 % file_bytes,
        // Backward.
        1 => file_bytes - 1 - step * 90_001 % file_bytes,
        // With skips.
        2 => step * 700_000 % file_bytes,
        // Two streams in turn.
        3 => ((step % 2) * file_bytes / 2 + step / 2 * 131_072) % file_bytes,
        _ => (step * 104_729 * 4_099 + reader) % file_bytes,
    };
    (from, count)
}

#[test]
fn every_order_of_reads_gives_the_bytes_that_were_sealed() {
    let mut mount = Mount::on(Bench::new());
    // No hot files: all is decoded. Room for two blocks, where a read may want ten.
    mount.set_options(&["--hot-bytes", "0", "--cache-bytes", "300000"]);
    mount.restart();
    std::fs::create_dir(mount.path("m")).expect("mkdir makes a model");
    let first = model(1, 4_000_000);
    // Most stays: the second version is stored as what changed.
    let mut second = first.clone();
    second.iter_mut().skip(1_000).step_by(64).for_each(|byte| *byte ^= 1);
    let text: Vec<u8> = (0..400_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    mount.seal_files("m", &[("w.safetensors", &first), ("text", &text)], "first");
    mount.seal_files("m", &[("w.safetensors", &second), ("text", &text)], "second");
    let files = [("v1/w.safetensors", &first), ("v2/w.safetensors", &second), ("v1/text", &text)];
    let compared = AtomicUsize::new(0);
    thread::scope(|scope| {
        for reader in 0..READERS {
            let (mount, compared) = (&mount, &compared);
            let (name, expected) = files[reader % files.len()];
            scope.spawn(move || {
                let path = mount.path("m").join(name);
                let file = File::open(&path).expect("a sealed file");
                for step in 0..READS {
                    if step % 10 == 0 {
                        // Else the kernel's cache soon answers for us.
                        crate::syscalls::drop_pages(&file);
                    }
                    let (from, count) = place(reader, step, expected.len());
                    let end = (from + count).min(expected.len());
                    let mut out = vec![0; end - from];
                    file.read_exact_at(&mut out, from as u64).expect("all of it is there");
                    assert!(out == expected[from..end], "{name}: other bytes at {from}");
                    compared.fetch_add(out.len(), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(100 << 20 < compared.into_inner(), "most reads were long");
    mount.assert_sound();
}

#[test]
fn a_file_is_read_with_no_room_at_all() {
    let mut mount = Mount::on(Bench::new());
    mount.set_options(&["--hot-bytes", "0", "--cache-bytes", "0"]);
    mount.restart();
    std::fs::create_dir(mount.path("m")).expect("mkdir makes a model");
    let bytes = model(2, 3_000_000);
    mount.seal_files("m", &[("w.safetensors", &bytes)], "first");
    let found = std::fs::read(mount.path("m/v1/w.safetensors")).expect("it is there");
    assert!(found == bytes, "other bytes");
}
