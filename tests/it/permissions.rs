//! Who may see, seal and retarget: the model's owner, group and mode decide, at every door.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::harness::{Mount, require_root};
use crate::syscalls::{self, User, as_user};

/// Owner of the model.
pub const OWNER: User = User { uid: 4001, gid: 4001, groups: &[4001] };
/// A member of the model's group, by a supplementary group.
pub const MEMBER: User = User { uid: 4002, gid: 4002, groups: &[4002, 4500] };
/// Neither.
pub const STRANGER: User = User { uid: 4003, gid: 4003, groups: &[4003] };
/// An ordinary user with an account, which fusermount3 asks for.
const NOBODY: User = User { uid: 65534, gid: 65534, groups: &[65534] };
pub const GROUP: u32 = 4500;

/// `churn` with v1 and v2 and `prod` at v1, of OWNER and GROUP, with `mode`.
pub fn mount_with_mode(mode: u32) -> Mount {
    require_root();
    let mount = Mount::with_churn();
    mount.seal_files("churn", &[("who", b"v1")], "one");
    mount.seal_files("churn", &[("who", b"v2")], "two");
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    let churn = mount.path("churn");
    syscalls::lchown(&churn, OWNER.uid, GROUP).expect("root may");
    syscalls::chmod(&churn, mode).expect("root may");
    mount
}

/// What `user` gets from each way in: list, read, read live, write the draft, seal, retarget.
pub fn attempt(mount: &Mount, user: User) -> [syscalls::Outcome; 6] {
    let churn = mount.path("churn");
    let live = mount.path(".live/prod/churn/who");
    as_user(user, || {
        [
            syscalls::errno(fs::read_dir(&churn).map(Iterator::count)),
            syscalls::errno(fs::read(churn.join("v1/who"))),
            syscalls::errno(fs::read(&live)),
            syscalls::errno(fs::write(churn.join("draft/new"), "n")),
            syscalls::errno(fs::write(churn.join("snapshot"), "by a user\n")),
            mount.retarget("churn", "prod", "v2"),
        ]
    })
}

pub const DENIED: syscalls::Outcome = Err(libc::EACCES);

#[test]
fn a_stranger_sees_nothing_of_a_model_of_another_group() {
    let mount = mount_with_mode(0o750);
    assert_eq!(attempt(&mount, STRANGER), [DENIED; 6]);
    mount.assert_link("churn/prod", "v1");
    assert!(mount.names("churn/draft").is_empty());
}

#[test]
fn a_member_of_the_group_reads_and_does_not_write() {
    let mount = mount_with_mode(0o750);
    let found = attempt(&mount, MEMBER);
    assert_eq!(found, [Ok(()), Ok(()), Ok(()), DENIED, DENIED, DENIED]);
    syscalls::chmod(&mount.path("churn"), 0o770).expect("root may");
    assert_eq!(attempt(&mount, MEMBER), [Ok(()); 6], "until the mode says so");
    mount.assert_link("churn/prod", "v2");
    let history = mount.text("churn/.modelfs/history.jsonl");
    assert!(history.contains("\"uid\":4002"), "the history says who: {history}");
}

#[test]
fn the_owner_does_everything_without_being_root() {
    let mount = mount_with_mode(0o700);
    assert_eq!(attempt(&mount, OWNER), [Ok(()); 6]);
    mount.assert_link("churn/prod", "v2");
    assert_eq!(mount.text("churn/v3/new"), "n");
    let made = as_user(OWNER, || fs::write(mount.path("churn/draft/mine"), "x"));
    made.expect("the draft is the owner's");
    let found = fs::metadata(mount.path("churn/draft/mine")).expect("just made");
    assert_eq!((found.uid(), found.gid()), (OWNER.uid, OWNER.gid), "new files are the caller's");
    let chmod = as_user(OWNER, || syscalls::chmod(&mount.path("churn"), 0o755));
    assert_eq!(chmod, Ok(()), "the owner may open the model to others");
    let chmod = as_user(STRANGER, || syscalls::chmod(&mount.path("churn"), 0o777));
    assert_eq!(chmod, Err(libc::EPERM));
    assert!(as_user(STRANGER, || fs::read(mount.path("churn/v1/who"))).is_ok());
}

#[test]
fn the_command_line_is_held_to_the_same_permissions() {
    let mount = mount_with_mode(0o750);
    let bench = &mount.bench;
    for args in [
        &["show", "churn/v1"][..],
        &["list", "churn"],
        &["snapshot", "churn"],
        &["promote", "churn/v2", "prod"],
        &["rollback", "churn", "prod", "--to", "churn/v2"],
        &["alias", "remove", "churn", "prod"],
        &["history", "churn"],
        &["stats", "churn"],
    ] {
        bench.cli_as(STRANGER, args).exits(3).says("churn");
    }
    bench.cli_as(STRANGER, &["stats"]).ok();
    bench.cli_as(STRANGER, &["stats", "--files"]).exits(3).says("the store");
    bench.cli_as(MEMBER, &["show", "churn/v1"]).ok();
    let refused = bench.cli_as(MEMBER, &["promote", "churn/v2", "prod"]).exits(3);
    assert!(refused.stderr.contains("churn") && refused.stderr.contains("write"), "{refused:?}");
    mount.assert_link("churn/prod", "v1");
    bench.cli_as(OWNER, &["promote", "churn/v2", "prod"]).ok();
    mount.assert_link("churn/prod", "v2");
}

#[test]
fn a_list_shows_only_what_one_may_see() {
    let mount = mount_with_mode(0o750);
    fs::create_dir(mount.path("open")).expect("mkdir makes a model");
    syscalls::chmod(&mount.path("open"), 0o755).expect("root may");
    let listed = mount.bench.cli_as(STRANGER, &["list"]).ok().stdout;
    assert!(listed.contains("open") && !listed.contains("v2"), "{listed}");
    let listed = mount.bench.cli_as(OWNER, &["list"]).ok().stdout;
    assert!(listed.contains("open") && listed.contains("churn"), "{listed}");
}

#[test]
fn the_command_line_gets_no_further_than_the_root_lets_in() {
    let mount = mount_with_mode(0o755);
    let (bench, show) = (&mount.bench, &["show", "churn/v1"][..]);
    bench.cli_as(STRANGER, show).ok();
    syscalls::chmod(&mount.point, 0o711).expect("root may");
    bench.cli_as(STRANGER, show).ok();
    bench.cli_as(STRANGER, &["list"]).exits(3);
    syscalls::chmod(&mount.point, 0o700).expect("root may");
    assert_eq!(attempt(&mount, STRANGER)[1], DENIED);
    bench.cli_as(STRANGER, show).exits(3).says("the store");
    bench.cli_as(OWNER, &["promote", "churn/v2", "prod"]).exits(3);
    mount.assert_link("churn/prod", "v1");
}

#[test]
fn a_command_does_not_read_for_a_user_what_the_user_may_not_read() {
    let mount = mount_with_mode(0o770);
    let secret = mount.bench.write("secret/key", "for root only");
    let directory = secret.parent().expect("a directory");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let directory = directory.to_str().expect("text");
    let shown = mount.bench.cli_as(OWNER, &["snapshot", "churn", directory]);
    assert_ne!(shown.status, 0, "{shown:?}");
    assert_eq!(mount.names("churn"), ["draft", "latest", "prod", "snapshot", "v1", "v2"]);
    let out = mount.bench.root.join("not-yours");
    let shown = mount.bench.cli_as(OWNER, &["export", "churn/v1", out.to_str().expect("text")]);
    assert_ne!(shown.status, 0, "the user may not write there: {shown:?}");
    assert!(!out.exists());
}

#[test]
fn a_user_exports_from_a_store_that_is_closed_to_users() {
    let mut mount = mount_with_mode(0o750);
    // With nothing of the store open or cached.
    mount.restart();
    let out = mount.bench.root.join("out");
    fs::create_dir(&out).expect("a directory");
    syscalls::lchown(&out, MEMBER.uid, MEMBER.gid).expect("root may");
    let goal = out.join("one");
    let goal = goal.to_str().expect("text");
    mount.bench.cli_as(MEMBER, &["export", "churn/v1", goal]).ok();
    assert_eq!(fs::read_to_string(out.join("one/who")).expect("exported"), "v1");
    let found = fs::metadata(out.join("one/who")).expect("exported");
    assert_eq!((found.uid(), found.gid()), (MEMBER.uid, MEMBER.gid));
    mount.bench.cli_as(STRANGER, &["export", "churn/v1", "/tmp/never"]).exits(3);
}

#[test]
fn owner_group_and_mode_are_kept_over_a_restart() {
    let mut mount = mount_with_mode(0o2750);
    let of = |mount: &Mount, name: &str| {
        let found = fs::metadata(mount.path(name)).expect("it is there");
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    syscalls::chmod(&mount.point, 0o711).expect("root may");
    let before = (of(&mount, "churn"), of(&mount, ""));
    assert_eq!(before.0, (OWNER.uid, GROUP, 0o2750));
    assert_eq!(before.1.2, 0o711);
    mount.restart();
    assert_eq!((of(&mount, "churn"), of(&mount, "")), before);
    mount.kill9();
    mount.start();
    assert_eq!((of(&mount, "churn"), of(&mount, "")), before);
    assert_eq!(of(&mount, "churn/draft").0, OWNER.uid, "the draft is the model's");
    assert_eq!(of(&mount, "churn/snapshot"), (OWNER.uid, GROUP, 0o640));
}

#[test]
fn only_who_may_write_the_root_makes_models() {
    let mount = mount_with_mode(0o755);
    let made = as_user(STRANGER, || syscalls::mkdir(&mount.path("mine"), 0o755));
    assert_eq!(made, DENIED);
    syscalls::chmod(&mount.point, 0o1777).expect("root may");
    let made = as_user(STRANGER, || syscalls::mkdir(&mount.path("mine"), 0o750));
    assert_eq!(made, Ok(()));
    let found = fs::metadata(mount.path("mine")).expect("just made");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (4003, 4003, 0o750));
    assert_eq!(as_user(MEMBER, || syscalls::errno(fs::read_dir(mount.path("mine")))), DENIED);
}

#[test]
fn a_handle_of_a_removed_model_does_not_reach_the_one_made_anew() {
    let mount = mount_with_mode(0o755);
    syscalls::chmod(&mount.point, 0o1777).expect("root may");
    let trap = mount.path("trap");
    let (mut control, history) = as_user(STRANGER, || {
        syscalls::mkdir(&trap, 0o755).expect("it may");
        let control = fs::File::options().read(true).write(true).open(trap.join("snapshot"));
        let history = fs::File::open(trap.join(".modelfs/history.jsonl"));
        fs::remove_dir(&trap).expect("its own, and empty");
        (control.expect("its own"), history.expect("its own"))
    });
    as_user(OWNER, || {
        syscalls::mkdir(&trap, 0o700).expect("the name is free");
        fs::write(trap.join("draft/secret"), "s").expect("its own");
    });
    assert!(control.write_all(b"mine\n").is_err(), "it sealed a draft of another");
    let mut text = String::new();
    let read = (&history).read_to_string(&mut text);
    assert!(read.is_err() && text.is_empty(), "{read:?}: {text}");
    assert_eq!(mount.names("trap"), ["draft", "snapshot"]);
}

#[test]
fn a_store_is_closed_to_others() {
    let mount = mount_with_mode(0o755);
    for name in ["packs", "manifests", "history", "draft", "catalog"] {
        let found = as_user(STRANGER, || fs::read_dir(mount.bench.store.join(name)).map(drop));
        let errno = found.expect_err(name).raw_os_error();
        assert_eq!(errno, Some(libc::EACCES), "{name}");
    }
    let mode = fs::metadata(mount.bench.store.join("modelfs.json")).expect("there").mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn without_allow_other_the_mount_is_for_its_user_alone() {
    let mut mount = mount_with_mode(0o755);
    mount.stop();
    mount.set_options(&[]);
    mount.start();
    assert_eq!(attempt(&mount, STRANGER)[0], DENIED);
    assert_eq!(mount.text("churn/v1/who"), "v1");
    let socket = fs::metadata(mount.bench.store.join("daemon.sock")).expect("there").mode();
    assert_eq!(socket & 0o777, 0o600);
}

#[test]
fn an_ordinary_user_mounts_with_fusermount() {
    require_root();
    crate::harness::require_program("fusermount3", "fuse3");
    let bench = crate::harness::Bench::new();
    let script = r#"
set -eu
mkdir "$HOME/models"
"$MODELFS" --store "$HOME/store" mount "$HOME/models" --background
mkdir "$HOME/models/churn"
echo data > "$HOME/models/churn/draft/weights"
echo "mine" > "$HOME/models/churn/snapshot"
ln -s v1 "$HOME/models/churn/prod"
cat "$HOME/models/churn/prod/weights"
stat -c %u "$HOME/models/churn/v1/weights"
"$MODELFS" --store "$HOME/store" umount "$HOME/models"
"$MODELFS" --store "$HOME/store" list churn | grep -c prod
"#;
    let home = bench.root.join("home");
    fs::create_dir(&home).expect("a directory");
    syscalls::lchown(&home, NOBODY.uid, NOBODY.gid).expect("root may");
    // Some machines keep /dev/fuse from users: in a mount namespace of its own it is open to all.
    let open_device = r#"
set -eu
mknod "$DEVICE" c 10 229
chmod 666 "$DEVICE"
mount --bind "$DEVICE" /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --groups=65534 bash -c "$SCRIPT"
"#;
    let mut command = crate::harness::bounded("unshare");
    command.args(["-m", "bash", "-c", open_device]).env("SCRIPT", script);
    command.env("DEVICE", bench.root.join("fuse"));
    command.env("HOME", &home).env("MODELFS", bench.shared_binary());
    let shown = crate::harness::Output::of(command.current_dir("/")).ok();
    assert!(shown.stdout.contains("data\n65534\n"), "{shown:?}");
}
