//! Live views: directories that may be bind-mounted and follow the alias.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::aliases::two_versions;
use crate::harness::{Mount, require_program, require_root, status_number};
use crate::syscalls;

/// Runs `script` in a mount namespace of its own.
pub fn run_apart(mount: &Mount, script: &str) -> crate::harness::Output {
    require_root();
    require_program("unshare", "util-linux");
    // The inner shell reads the script from the environment: no quoting twice.
    let outer = "exec unshare -m --propagation slave bash -euc \"$SCRIPT\"";
    mount.run("bash", &format!("export SCRIPT={}\n{outer}", quoted(script)))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn a_bind_mount_follows_the_alias() {
    let mount = two_versions();
    mount.retarget("churn", "prod", "v2").expect("v2 is there");
    let script = r#"
mkdir "$BASE/x" "$BASE/y"
mount --bind "$M/.live/prod" "$BASE/x"
mount --bind "$M/churn/.live" "$BASE/y"
cat "$BASE/x/churn/who" "$BASE/y/prod/who"
ln -sfn v1 "$M/churn/prod"
cat "$BASE/x/churn/who" "$BASE/y/prod/who"
ls "$BASE/x"
umount "$BASE/x" "$BASE/y"
"#;
    assert_eq!(run_apart(&mount, script).ok().stdout, "v2v2v1v1churn\n");
}

#[test]
fn what_is_open_stays_on_its_version() {
    require_program("python3", "python3");
    let mount = two_versions();
    mount.retarget("churn", "prod", "v2").expect("v2 is there");
    let script = r#"
mkdir "$BASE/x"
mount --bind "$M/.live/prod" "$BASE/x"
python3 - <<'END'
import mmap, os
x, model = os.environ["BASE"] + "/x/churn", os.environ["M"] + "/churn"
held = open(x + "/who")
mapped = mmap.mmap(os.open(x + "/copy", os.O_RDONLY), 0, prot=mmap.PROT_READ)
directory = os.open(x, os.O_RDONLY | os.O_DIRECTORY)
os.chdir(x)
os.symlink("v1", model + "/.next")
os.replace(model + "/.next", model + "/prod")
read = lambda path, **at: open(os.open(path, os.O_RDONLY, **at)).read()
assert held.read() == "v2"
assert mapped[:] == b"v2 and longer\n", mapped[:]
assert read("who", dir_fd=directory) == "v2"
assert read("who") == "v2", "the working directory stays"
assert read(x + "/who") == "v1", "the next open reads the version before"
assert read(x + "/copy") == "v1\n"
END
"#;
    run_apart(&mount, script).ok();
}

#[test]
fn a_live_view_is_there_before_the_first_promotion() {
    let mount = two_versions();
    let script = r#"
mkdir "$BASE/x"
mount --bind "$M/.live/prod" "$BASE/x"
ls -A "$BASE/x"
echo none yet
ln -s v1 "$M/churn/prod"
cat "$BASE/x/churn/who"
rm "$M/churn/prod"
ls -A "$BASE/x"
"#;
    assert_eq!(run_apart(&mount, script).ok().stdout, "none yet\nv1");
}

#[test]
fn a_container_sees_a_roll_back_without_a_restart() {
    require_root();
    require_program("podman", "podman");
    require_program("runc", "runc");
    require_program("busybox", "busybox-static");
    let mount = two_versions();
    mount.retarget("churn", "prod", "v2").expect("v2 is there");
    let rootfs = busybox_root(&mount.bench.root);
    let mut command = Command::new("podman");
    command
        .args(["--runtime", "/usr/sbin/runc", "run", "--rm", "-i", "--network=none"])
        .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "-v"])
        .arg(format!("{}:/prod:ro,rslave", mount.path(".live/prod").display()))
        .arg("--rootfs")
        .arg(&rootfs)
        .args([
            "sh",
            "-c",
            "exec 3</prod/churn/who; while read x; do cat /prod/churn/who; echo; done; cat <&3",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut container = command.spawn().expect("podman runs");
    let mut orders = container.stdin.take().expect("piped");
    let mut lines = BufReader::new(container.stdout.take().expect("piped")).lines();
    let mut ask = || {
        orders.write_all(b"look\n").expect("the container listens");
        lines.next().expect("the container answers").expect("text")
    };
    assert_eq!(ask(), "v2");
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    assert_eq!(ask(), "v1", "the next open after a roll-back");
    mount.cli(&["promote", "churn/v2", "prod"]).ok();
    assert_eq!(ask(), "v2");
    mount.cli(&["rollback", "churn", "prod"]).ok();
    assert_eq!(ask(), "v1");
    drop(orders);
    let held: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(held, ["v2"], "the file that was held open stayed on its version");
    assert_eq!(status_number(container.wait().expect("it is our child")), 0);
}

/// A root for a container that needs no image: one static busybox.
fn busybox_root(base: &Path) -> std::path::PathBuf {
    let root = base.join("rootfs");
    for name in ["bin", "proc", "sys", "dev", "tmp", "etc", "run", "prod"] {
        fs::create_dir_all(root.join(name)).expect("a directory");
    }
    let found = Command::new("sh").args(["-c", "command -v busybox"]).output().expect("sh runs");
    let busybox = String::from_utf8(found.stdout).expect("a path");
    fs::copy(busybox.trim(), root.join("bin/busybox")).expect("busybox is there");
    for name in ["sh", "cat", "echo"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
    root
}

#[test]
fn a_live_view_is_stable() {
    let mut mount = two_versions();
    for name in ["prod", "no-one.made_this", "latest"] {
        assert!(mount.path(".live").join(name).is_dir(), "{name} can be an alias");
        assert!(mount.path("churn/.live").join(name).is_dir(), "{name} can be an alias");
    }
    for name in ["v1", "draft", "snapshot", "a b", "-x"] {
        let found = fs::metadata(mount.path(".live").join(name)).expect_err("no alias");
        assert_eq!(found.raw_os_error(), Some(libc::ENOENT), "{name}");
    }
    assert!(mount.names(".live/prod").is_empty() && mount.names("churn/.live/prod").is_empty());
    let inode = |mount: &Mount, name: &str| {
        fs::metadata(mount.path(name)).unwrap_or_else(|e| panic!("{name}: {e}")).ino()
    };
    let views = [".live", ".live/prod", "churn/.live"];
    let before = views.map(|view| inode(&mount, view));
    for target in ["v1", "v2", "v1"] {
        mount.retarget("churn", "prod", target).expect("it is there");
        assert_eq!(before, views.map(|view| inode(&mount, view)));
        assert_eq!(mount.text(".live/prod/churn/who"), target);
        assert_eq!(mount.text("churn/.live/prod/who"), target);
    }
    fs::remove_file(mount.path("churn/prod")).expect("an alias can be removed");
    assert_eq!(before, views.map(|view| inode(&mount, view)), "nor without the alias");
    assert!(mount.names(".live/prod").is_empty() && mount.names("churn/.live/prod").is_empty());
    mount.restart();
    assert_eq!(before, views.map(|view| inode(&mount, view)), "nor with the daemon");
}

#[test]
fn equal_files_share_an_inode() {
    let mount = Mount::with_churn();
    // Time, mode and content of `who` and `sub/same` agree; each other differs in one of them.
    let script = r#"
set -eu
cd "$M/churn/draft"; mkdir sub
printf same > who; cp who sub/same; cp who younger; cp who run; printf diff > other
chmod 755 run
touch -d 2021-03-04 who sub/same run other; touch -d 2021-03-05 younger
cp -a . "$M/fraud/draft/"
echo one > "$M/churn/snapshot"; echo one > "$M/fraud/snapshot"
cp -p "$M/churn/v1/who" "$M/churn/draft/moved"; chmod u+w "$M/churn/draft/moved"
echo two > "$M/churn/snapshot"
"#;
    fs::create_dir(mount.path("fraud")).expect("mkdir makes a model");
    mount.run("bash", script).ok();
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    mount.retarget("churn", "qa", "v1").expect("v1 is there");
    let number = |name: &str| fs::metadata(mount.path(name)).expect("it is there").ino();
    let roots = ["churn/v1", ".live/prod/churn", "churn/.live/prod", ".live/qa/churn"];
    let mut directories: Vec<u64> = roots.iter().map(|root| number(root)).collect();
    directories.extend(roots.iter().map(|root| number(&format!("{root}/sub"))));
    let mut others = ["who", "younger", "run", "other"].map(|f| number(&format!("churn/v1/{f}")));
    others.sort_unstable();
    assert!(others.windows(2).all(|two| two[0] != two[1]), "each of them differs: {others:?}");
    let equal = ["churn/v1/sub/same", "churn/v2/moved", "fraud/v1/who", "churn/v1/who"];
    let files: Vec<u64> = (roots.iter().map(|root| format!("{root}/who")))
        .chain(equal.map(str::to_owned))
        .map(|name| number(&name))
        .collect();
    assert!(files.iter().all(|file| *file == files[0]), "one page cache for one file: {files:?}");
    directories.sort_unstable();
    directories.dedup();
    assert_eq!(directories.len(), 2 * roots.len(), "a directory inode has one dentry");
}

#[test]
fn two_models_with_one_alias_share_a_view() {
    let mount = two_versions();
    fs::create_dir(mount.path("fraud")).expect("mkdir makes a model");
    mount.seal_files("fraud", &[("who", b"fraud v1")], "one");
    mount.retarget("churn", "prod", "v2").expect("v2 is there");
    assert_eq!(mount.names(".live/prod"), ["churn"]);
    mount.retarget("fraud", "prod", "v1").expect("v1 is there");
    assert_eq!(mount.names(".live/prod"), ["churn", "fraud"]);
    assert_eq!(mount.text(".live/prod/fraud/who"), "fraud v1");
    assert_eq!(mount.text(".live/prod/churn/who"), "v2");
    let found = fs::metadata(mount.path(".live/prod/nope")).expect_err("no such model");
    assert_eq!(found.raw_os_error(), Some(libc::ENOENT));
    for (name, expected) in [(".live/prod/new", libc::EROFS), (".live/prod/churn/new", libc::EROFS)]
    {
        let made = syscalls::mkdir(&mount.path(name), 0o755);
        let allowed = [expected, libc::EPERM];
        assert!(made.is_err_and(|e| allowed.contains(&e)), "{name}: {}", syscalls::name(made));
    }
}
