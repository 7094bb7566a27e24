//! `kill -9` of the daemon at random moments loses nothing that was acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::{Mount, noise, setting};
use crate::syscalls;

/// What the daemon has promised so far.
#[derive(Default)]
struct Promises {
    /// Versions by name, each with the seed of its bytes.
    versions: BTreeMap<String, u64>,
    /// Where `prod` was last seen to go, and where it was asked to go without an answer.
    prod: Option<String>,
    asked: Option<String>,
}

/// Bytes of a sealed file: a few chunks, so that a kill may fall between them.
const FILE_BYTES: usize = 700_000;

#[test]
fn nothing_acknowledged_is_lost_when_the_daemon_is_killed() {
    let rounds = setting("MODELFS_TEST_KILLS", 25);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = setting("MODELFS_TEST_SEED", since.as_secs());
    println!("MODELFS_TEST_SEED={seed}, {rounds} rounds");
    let mut mount = Mount::with_churn();
    let promises = Mutex::new(Promises::default());
    for round in 0..rounds {
        let dice = noise(seed.wrapping_add(round), 8);
        let wait_ms = u64::from(u16::from_le_bytes([dice[0], dice[1]])) % 250;
        let model = mount.path("churn");
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| work(&model, seed + (round << 20), &promises));
            std::thread::sleep(Duration::from_millis(wait_ms));
            mount.kill9();
            let ended = worker.join().expect("the worker does not panic");
            let errno = ended.raw_os_error();
            let torn = [Some(libc::ENOTCONN), Some(libc::ECONNABORTED), Some(libc::EIO)];
            assert!(torn.contains(&errno), "round {round}: the worker was stopped by {ended}");
        });
        mount.start();
        check(&mount, &mut promises.lock().expect("nobody panicked"), round);
    }
    let promises = promises.into_inner().expect("nobody panicked");
    let count = promises.versions.len();
    assert!(0 < count || rounds < 5, "no snapshot was ever acknowledged: the kills come too early");
    for (version, seed) in &promises.versions {
        let found = fs::read(mount.path("churn").join(version).join("weights")).expect(version);
        assert!(found == noise(*seed, FILE_BYTES), "{version} has other bytes than were sealed");
    }
    mount.cli(&["history", "--verify"]).ok();
    println!("{rounds} kills, {count} versions acknowledged, none lost");
}

/// Seals and retargets until the daemon goes away; the error that it ended with.
fn work(model: &Path, seed: u64, promises: &Mutex<Promises>) -> io::Error {
    for step in 0.. {
        if let Err(error) = work_step(model, seed + step, promises) {
            return error;
        }
    }
    unreachable!("the steps have no end")
}

fn work_step(model: &Path, seed: u64, promises: &Mutex<Promises>) -> io::Result<()> {
    for left in fs::read_dir(model.join("draft"))? {
        fs::remove_file(left?.path())?;
    }
    fs::write(model.join("draft/weights"), noise(seed, FILE_BYTES))?;
    fs::write(model.join("draft/seed"), seed.to_string())?;
    fs::write(model.join("snapshot"), format!("seed {seed}\n"))?;
    // The write was answered: from here on the version must be there, whatever happens.
    let version = newest(model, seed)?;
    let mut known = promises.lock().expect("nobody panicked");
    known.versions.insert(version.clone(), seed);
    known.asked = Some(version.clone());
    drop(known);
    let temporary = model.join(".next");
    let _ = fs::remove_file(&temporary);
    std::os::unix::fs::symlink(&version, &temporary)?;
    fs::rename(&temporary, model.join("prod"))?;
    let mut known = promises.lock().expect("nobody panicked");
    known.prod = Some(version);
    known.asked = None;
    Ok(())
}

/// The version that holds `seed`; the kernel may be cut off before we learn its number.
fn newest(model: &Path, seed: u64) -> io::Result<String> {
    let version = fs::read_link(model.join("latest"))?.to_string_lossy().into_owned();
    let text = fs::read_to_string(model.join(&version).join("seed"))?;
    assert_eq!(text, seed.to_string(), "`latest` is what was just sealed");
    Ok(version)
}

/// After a restart: every promise holds, and everything that is there is whole.
fn check(mount: &Mount, promises: &mut Promises, round: u64) {
    mount.assert_sound();
    let present = mount.names("churn");
    let mut numbers: Vec<u64> =
        present.iter().filter_map(|name| name.strip_prefix('v')?.parse().ok()).collect();
    numbers.sort_unstable();
    let gapless: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, gapless, "round {round}: versions without gaps");
    for version in promises.versions.keys() {
        assert!(present.contains(version), "round {round}: {version} was acknowledged and is gone");
    }
    for number in numbers {
        let version = format!("v{number}");
        let sealed = mount.path("churn").join(&version);
        let seed = fs::read_to_string(sealed.join("seed")).expect("a version is whole");
        let seed: u64 = seed.parse().expect("a number");
        let known = promises.versions.entry(version.clone()).or_insert(seed);
        assert_eq!(*known, seed, "round {round}: {version}");
    }
    let prod = fs::read_link(mount.path("churn/prod")).ok();
    let prod = prod.map(|target| target.to_string_lossy().into_owned());
    let kept = prod == promises.prod || (prod.is_some() && prod == promises.asked);
    let (acknowledged, asked) = (&promises.prod, &promises.asked);
    assert!(kept, "round {round}: prod is {prod:?}, promised {acknowledged:?}, asked {asked:?}");
    (promises.prod, promises.asked) = (prod, None);
}

#[test]
fn a_draft_survives_a_killed_daemon() {
    let mut mount = Mount::with_churn();
    let draft = mount.path("churn/draft");
    fs::create_dir(draft.join("sub")).expect("a directory");
    fs::write(draft.join("sub/weights"), "half a night of training").expect("a draft file");
    syscalls::fsync(&draft.join("sub/weights")).expect("fsync works in a draft");
    mount.kill9();
    let dead = fs::read_dir(&mount.point).expect_err("the mount is dead");
    assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
    mount.start();
    assert_eq!(mount.text("churn/draft/sub/weights"), "half a night of training");
    assert_eq!(mount.seal("churn", "after all")["version"], "v1");
    assert_eq!(mount.text("churn/v1/sub/weights"), "half a night of training");
}
