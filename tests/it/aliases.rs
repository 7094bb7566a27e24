//! Aliases: made and moved by every tool that people use, never half moved.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use crate::harness::{Mount, require_program, setting};
use crate::syscalls::{self, Outcome};

/// A mount in which `churn` has v1 and v2; `who` and `size` of each say which one they are of.
pub fn two_versions() -> Mount {
    let mount = Mount::with_churn();
    mount.seal_files("churn", &[("who", b"v1"), ("copy", b"v1\n")], "one");
    mount.seal_files("churn", &[("who", b"v2"), ("copy", b"v2 and longer\n")], "two");
    mount
}

#[track_caller]
fn check_script(mount: &Mount, shell: &str, script: &str, target: &str) {
    mount.run(shell, &format!("set -eu\ncd \"$M/churn\"\n{script}")).ok();
    mount.assert_link("churn/prod", target);
    assert_eq!(mount.text("churn/prod/who"), target, "{script}");
    assert_eq!(mount.text(".live/prod/churn/who"), target, "{script}");
}

#[test]
fn an_alias_is_a_relative_link_to_a_version() {
    for program in [("dash", "dash"), ("busybox", "busybox-static"), ("python3", "python3")] {
        require_program(program.0, program.1);
    }
    let mount = two_versions();
    check_script(&mount, "bash", "ln -s v1 prod", "v1");
    check_script(&mount, "bash", "ln -sfn v2 prod", "v2");
    check_script(&mount, "dash", "ln -sfn v1 prod", "v1");
    check_script(&mount, "bash", "ln -s v2 .next && mv -T .next prod", "v2");
    check_script(&mount, "busybox sh", "busybox ln -sfn v1 prod", "v1");
    check_script(&mount, "bash", "cd / && ln -sfn v2 \"$M/churn/prod\"", "v2");
    let python = "
import os
os.chdir(os.environ['M'] + '/churn')
os.symlink('v1', '.tmp-1')
os.replace('.tmp-1', 'prod')
print(os.readlink('prod'), open('prod/who').read())";
    assert_eq!(mount.run("python3", python).ok().stdout, "v1 v1\n");
    mount.cli(&["promote", "churn/v2", "prod"]).ok();
    mount.assert_link("churn/prod", "v2");
    mount.cli(&["rollback", "churn", "prod"]).ok();
    mount.assert_link("churn/prod", "v1");
    mount.cli(&["rollback", "churn", "prod", "--to", "churn/v2"]).ok();
    mount.assert_link("churn/prod", "v2");
    check_script(&mount, "bash", "ln -sfn v1 prod-2025-03-QA; ln -sfn prod-2025-03-QA prod", "v1");
    let listed = ["draft", "latest", "prod", "prod-2025-03-QA", "snapshot", "v1", "v2"];
    assert_eq!(mount.names("churn"), listed, "no temporary link is left");
    let before = SystemTime::now();
    check_script(&mount, "bash", "ln -sfn v2 prod", "v2");
    let moved = fs::symlink_metadata(mount.path("churn/prod")).expect("an alias").modified();
    let moved = moved.expect("a time");
    assert!(before <= moved && moved <= SystemTime::now(), "{before:?}, {moved:?}");
    mount.run("bash", "rm \"$M/churn/prod\"").ok();
    assert!(fs::symlink_metadata(mount.path("churn/prod")).is_err(), "rm removes it");
}

#[test]
fn a_target_is_a_version_of_the_same_model() {
    let mount = two_versions();
    fs::create_dir(mount.path("fraud")).expect("mkdir makes a model");
    mount.seal_files("fraud", &[("who", b"fraud v1")], "one");
    mount.retarget("churn", "other", "v2").expect("v2 is there");
    let point = mount.point.to_string_lossy().into_owned();
    let (absolute, abroad) = (format!("{point}/churn/v1"), format!("{point}/fraud/v1"));
    for (target, version) in [
        ("v2", "v2"),
        ("./v1", "v1"),
        ("v2/", "v2"),
        ("../churn/v1", "v1"),
        ("other", "v2"),
        (&absolute, "v1"),
    ] {
        mount.retarget("churn", "prod", target).unwrap_or_else(|e| panic!("{target}: errno {e}"));
        mount.assert_link("churn/prod", version);
    }
    for (target, errno) in [
        ("v3", libc::ENOENT),
        ("v0", libc::ENOENT),
        ("nope", libc::ENOENT),
        ("../nope/v1", libc::ENOENT),
        ("../fraud/v1", libc::EINVAL),
        (&abroad, libc::EINVAL),
        ("/etc/passwd", libc::EINVAL),
        ("..", libc::EINVAL),
        ("v1/who", libc::EINVAL),
        ("../../v1", libc::EINVAL),
        ("draft", libc::EINVAL),
    ] {
        let directly = syscalls::symlink(target, &mount.path("churn/new"));
        assert_eq!(directly, Err(errno), "{target}");
        assert_eq!(mount.retarget("churn", "prod", target), Err(errno), "{target}");
    }
    mount.assert_link("churn/prod", "v1");
    assert!(fs::symlink_metadata(mount.path("churn/new")).is_err(), "nothing was made");
    let why = mount.text("churn/.modelfs/why");
    assert!(why.contains("draft"), "{why}");
    mount.retarget("churn", "prod", "other").expect("an alias is a target");
    mount.retarget("churn", "other", "v1").expect("v1 is there");
    mount.assert_link("churn/prod", "v2");
}

#[test]
fn a_reserved_name_is_no_alias() {
    let mount = two_versions();
    for (name, errno) in [
        ("v3", libc::EPERM),
        ("v007", libc::EPERM),
        ("latest", libc::EEXIST),
        ("draft", libc::EEXIST),
        ("snapshot", libc::EEXIST),
        ("v1", libc::EEXIST),
    ] {
        let made = syscalls::symlink("v1", &mount.path("churn").join(name));
        assert_eq!(made, Err(errno), "ln -s v1 {name}");
    }
    let (temporary, alias) = (mount.path("churn/.t"), mount.path("churn/prod"));
    syscalls::symlink("v1", &temporary).expect("a temporary link");
    syscalls::symlink("v1", &alias).expect("an alias");
    for (name, errno) in [
        ("a b", libc::EINVAL),
        ("-x", libc::EINVAL),
        ("caf\u{e9}", libc::EINVAL),
        ("v3", libc::EPERM),
        ("v007", libc::EPERM),
        ("latest", libc::EPERM),
        ("snapshot", libc::EPERM),
        // The kernel puts no link in the place of a directory.
        ("draft", libc::EISDIR),
        ("v1", libc::EISDIR),
    ] {
        for from in [&temporary, &alias] {
            let moved = syscalls::rename2(from, &mount.path("churn").join(name), 0);
            assert_eq!(moved, Err(errno), "{} to {name}", from.display());
        }
    }
    mount.assert_link("churn/prod", "v1");
    mount.assert_link("churn/.t", "v1");
    // Where the kernel does not find the name taken, we are asked.
    fs::create_dir(mount.path("young")).expect("mkdir makes a model");
    let made = syscalls::symlink("v1", &mount.path("young/latest"));
    assert_eq!(made, Err(libc::EPERM), "ln -s v1 latest");
}

#[test]
fn rename_flags_are_honoured() {
    let mount = two_versions();
    let at = |name: &str| mount.path("churn").join(name);
    syscalls::symlink("v1", &at("prod")).expect("a new alias");
    syscalls::symlink("v2", &at("next")).expect("a new alias");
    let kept = syscalls::rename2(&at("next"), &at("prod"), libc::RENAME_NOREPLACE);
    assert_eq!(kept, Err(libc::EEXIST));
    let temporary = at(".t");
    syscalls::symlink("v2", &temporary).expect("a temporary link");
    let kept = syscalls::rename2(&temporary, &at("prod"), libc::RENAME_NOREPLACE);
    assert_eq!(kept, Err(libc::EEXIST));
    mount.assert_link("churn/prod", "v1");
    syscalls::rename2(&at("prod"), &at("next"), libc::RENAME_EXCHANGE).expect("both are there");
    mount.assert_link("churn/prod", "v2");
    mount.assert_link("churn/next", "v1");
    let one = syscalls::rename2(&at("prod"), &at("nothing"), libc::RENAME_EXCHANGE);
    assert_eq!(one, Err(libc::ENOENT), "both must be there");
    syscalls::rename2(&at("prod"), &at("qa"), 0).expect("an alias may get another name");
    mount.assert_link("churn/qa", "v2");
    assert!(fs::symlink_metadata(at("prod")).is_err());
    syscalls::rename2(&at("qa"), &at("next"), 0).expect("over another alias");
    mount.assert_link("churn/next", "v2");
    assert_eq!(syscalls::symlink("v1", &at("next")), Err(libc::EEXIST));
}

#[test]
fn an_alias_is_removed_by_rm_and_by_the_command() {
    let mut mount = two_versions();
    for alias in ["one", "two", "three"] {
        mount.retarget("churn", alias, "v1").expect("v1 is there");
    }
    mount.run("bash", "rm \"$M/churn/one\"").ok();
    mount.cli(&["alias", "remove", "churn", "two"]).ok();
    assert_eq!(mount.names("churn"), ["draft", "latest", "snapshot", "three", "v1", "v2"]);
    let live = mount.path(".live/one/churn/who");
    assert!(!live.exists(), "{}", live.display());
    mount.restart();
    assert_eq!(mount.names("churn"), ["draft", "latest", "snapshot", "three", "v1", "v2"]);
}

#[test]
fn latest_follows_the_newest_version() {
    let mount = Mount::with_churn();
    for version in ["v1", "v2", "v3"] {
        mount.seal_files("churn", &[("who", version.as_bytes())], version);
        mount.assert_link("churn/latest", version);
        assert_eq!(mount.text("churn/latest/who"), version);
        assert_eq!(mount.text(".live/latest/churn/who"), version);
        assert_eq!(mount.text("churn/.live/latest/who"), version);
    }
    assert_eq!(mount.retarget("churn", "latest", "v1"), Err(libc::EPERM));
    assert_eq!(syscalls::errno(fs::remove_file(mount.path("churn/latest"))), Err(libc::EPERM));
    mount.cli(&["promote", "churn/v1", "latest"]).exits(2);
    mount.assert_link("churn/latest", "v3");
}

#[test]
fn a_retarget_gives_a_fresh_link_with_the_time_of_the_retarget() {
    let mount = two_versions();
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    let before = fs::symlink_metadata(mount.path("churn/prod")).expect("an alias");
    mount.retarget("churn", "prod", "v2").expect("v2 is there");
    let after = fs::symlink_metadata(mount.path("churn/prod")).expect("an alias");
    assert_ne!(before.ino(), after.ino(), "another link, so that nothing old is cached for it");
    assert!(before.modified().expect("a time") < after.modified().expect("a time"));
}

#[test]
fn a_forgotten_n_is_refused_inside_the_version() {
    let mount = two_versions();
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    let shown = mount.run("bash", "ln -s v2 \"$M/churn/prod\"");
    assert_ne!(shown.status, 0);
    shown.says("Read-only file system");
    mount.assert_link("churn/prod", "v1");
}

/// What a reader may find: the two files of one version, and nothing else.
fn read_through(directory: &Path) -> Result<(String, String), i32> {
    let dir = syscalls::open(directory, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let read = |name: &str| {
        let mut text = String::new();
        let mut file = File::from(syscalls::open_at(&dir, name)?);
        syscalls::errno(file.read_to_string(&mut text)).map(|()| text)
    };
    Ok((read("who")?, read("copy")?))
}

/// One flip of `prod`, by one of the ways that people use; most by the quickest.
fn flip(mount: &Mount, number: u64) -> Outcome {
    let version = if number.is_multiple_of(2) { "v1" } else { "v2" };
    let model = mount.path("churn");
    match number % 100 {
        17 => {
            mount.run("bash", &format!("ln -sfn {version} \"$M/churn/prod\"")).ok();
        }
        42 => {
            let script = format!("cd \"$M/churn\"; ln -s {version} .mv; mv -T .mv prod");
            mount.run("bash", &script).ok();
        }
        77 => {
            mount.cli(&["promote", &format!("churn/{version}"), "prod"]).ok();
        }
        _ => {
            let temporary = model.join(format!("Cu{:06}", number % 1_000_000));
            syscalls::symlink(version, &temporary)?;
            syscalls::rename2(&temporary, &model.join("prod"), 0)?;
        }
    }
    let found = fs::read_link(model.join("prod")).map_err(|e| e.raw_os_error().unwrap_or(-1))?;
    assert_eq!(found, Path::new(version), "what was acknowledged is seen at once");
    Ok(())
}

#[test]
fn a_directory_opened_once_is_never_a_mix() {
    let flips = setting("MODELFS_TEST_FLIPS", 2_000);
    let mount = two_versions();
    mount.retarget("churn", "prod", "v2").expect("v2 is there");
    let ways = ["churn/prod", ".live/prod/churn", "churn/.live/prod", "churn/prod/."];
    let (done, reads, seen) =
        (AtomicBool::new(false), AtomicU64::new(0), [const { AtomicU64::new(0) }; 2]);
    std::thread::scope(|scope| {
        for way in ways {
            let directory = mount.path(way);
            let (done, reads, seen) = (&done, &reads, &seen);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let pair = read_through(&directory);
                    let pair = pair.unwrap_or_else(|e| panic!("{way}: errno {e}"));
                    match (pair.0.as_str(), pair.1.as_str()) {
                        ("v1", "v1\n") => seen[0].fetch_add(1, Ordering::Relaxed),
                        ("v2", "v2 and longer\n") => seen[1].fetch_add(1, Ordering::Relaxed),
                        mixed => panic!("{way}: a mix of two versions: {mixed:?}"),
                    };
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..flips {
                let flipped = flip(&mount, number);
                assert_eq!(flipped, Ok(()), "flip {number}: {}", syscalls::name(flipped));
            }
        }));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let [one, two] = seen.map(AtomicU64::into_inner);
    println!("{flips} flips, {} reads: {one} of v1, {two} of v2", reads.into_inner());
    assert!(0 < one && 0 < two, "the readers saw both: {one}, {two}");
    let history = mount.cli(&["history", "churn", "--verify"]).ok();
    assert!(history.stdout.contains("prod"), "{history:?}");
}
