//! A draft is an ordinary directory: what programs do with files works in it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use crate::harness::{Mount, noise, require_program, setting};
use crate::syscalls;

#[test]
fn files_are_written_appended_cut_and_read_back() {
    let mount = Mount::with_churn();
    let path = mount.path("churn/draft/file");
    let bytes = noise(1, 3_000_001);
    fs::write(&path, &bytes).expect("created and written");
    assert!(fs::read(&path).expect("read back") == bytes);
    let mut file = File::options().append(true).open(&path).expect("opened to append");
    file.write_all(b"tail").expect("appended");
    drop(file);
    let file = File::options().read(true).write(true).open(&path).expect("opened");
    assert_eq!(file.metadata().expect("there").len(), 3_000_005);
    file.write_all_at(b"middle", 1_500_000).expect("written in the middle");
    let mut six = [0; 6];
    file.read_exact_at(&mut six, 1_500_000).expect("read through the same descriptor");
    assert_eq!(&six, b"middle");
    file.set_len(10).expect("cut");
    file.set_len(20).expect("grown with zeros");
    file.sync_all().expect("fsync");
    drop(file);
    let mut expected = bytes[..10].to_vec();
    expected.resize(20, 0);
    assert_eq!(fs::read(&path).expect("read back"), expected);
}

#[test]
fn a_hole_reads_as_zeros() {
    let mount = Mount::with_churn();
    let path = mount.path("churn/draft/sparse");
    let mut file = File::create(&path).expect("created");
    file.seek(SeekFrom::Start(5 << 20)).expect("a file may have holes");
    file.write_all(b"end").expect("written");
    drop(file);
    let bytes = fs::read(&path).expect("read back");
    assert_eq!(bytes.len(), (5 << 20) + 3);
    assert!(bytes[..5 << 20].iter().all(|byte| *byte == 0));
    mount.seal("churn", "sparse");
    assert!(fs::read(mount.path("churn/v1/sparse")).expect("sealed") == bytes);
}

#[test]
fn mmap_works() {
    require_program("python3", "python3");
    let mount = Mount::with_churn();
    let script = r#"
import mmap, os
model = os.environ["M"] + "/churn"
with open(model + "/draft/mapped", "w+b") as file:
    file.truncate(100_000)
    with mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:5], mapped[-5:] = b"front", b"back!"
        mapped.flush()
        assert file.read(5) == b"front"
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
        private[:5] = b"mine!"
    file.seek(0)
    assert file.read(5) == b"front", "a private map is nobody else's"
    other = os.open(model + "/draft/mapped", os.O_RDONLY)
    with mmap.mmap(other, 0, prot=mmap.PROT_READ) as reading:
        assert reading[-5:] == b"back!"
    os.close(other)
with open(model + "/snapshot", "w") as control:
    control.write("mapped\n")
with open(model + "/v1/mapped", "rb") as file:
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:5] == b"front" and mapped[-5:] == b"back!" and len(mapped) == 100_000
        assert mapped[5:-5].count(0) == 99_990
    with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapped:
        assert mapped[:5] == b"front" and mapped[-5:] == b"back!"
"#;
    mount.run("python3", script).ok();
}

#[test]
fn names_are_moved_linked_and_removed() {
    let mount = Mount::with_churn();
    let script = r#"
set -eu
cd "$M/churn/draft"
mkdir -p a/b; echo 1 > a/one; echo 2 > two
mv a/one a/b/uno; [ ! -e a/one ]; [ "$(cat a/b/uno)" = 1 ]
mv two a/b/uno; [ "$(cat a/b/uno)" = 2 ]; [ ! -e two ]
mv a/b c; [ "$(cat c/uno)" = 2 ]; rmdir a
ln c/uno hard; [ "$(stat -c %h hard)" = 2 ]; echo 3 > hard; [ "$(cat c/uno)" = 3 ]
ln -s c/uno soft; [ "$(readlink soft)" = c/uno ]; [ "$(cat soft)" = 3 ]
rm hard; [ "$(stat -c %h c/uno)" = 1 ]
if rmdir c 2>/dev/null; then exit 1; fi
mkdir full; mv -T full empty; rmdir empty
find . | sort
"#;
    assert_eq!(mount.run("bash", script).ok().stdout, ".\n./c\n./c/uno\n./soft\n");
    mount.run("bash", "rm -r \"$M\"/churn/draft/*").ok();
    assert!(mount.names("churn/draft").is_empty());
}

#[test]
fn a_file_is_read_and_written_after_its_name_is_gone() {
    let mount = Mount::with_churn();
    let path = mount.path("churn/draft/gone");
    let mut file =
        File::options().read(true).write(true).create_new(true).open(&path).expect("created");
    file.write_all(b"still ").expect("written");
    fs::remove_file(&path).expect("unlinked");
    file.write_all(b"here").expect("written without a name");
    assert_eq!(file.metadata().expect("fstat without a name").nlink(), 0);
    file.set_permissions(fs::Permissions::from_mode(0o600)).expect("fchmod without a name");
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).expect("a file");
    file.read_to_string(&mut text).expect("read without a name");
    assert_eq!(text, "still here");
    assert!(mount.names("churn/draft").is_empty());
    let other = mount.path("churn/draft/other");
    fs::write(&other, "1").expect("a draft file");
    let held = File::open(&other).expect("it is there");
    fs::write(mount.path("churn/draft/new"), "2").expect("a draft file");
    fs::rename(mount.path("churn/draft/new"), &other).expect("moved over an open file");
    assert_eq!(std::io::read_to_string(held).expect("the old one"), "1");
    assert_eq!(fs::read_to_string(&other).expect("the new one"), "2");
}

#[test]
fn times_modes_and_extended_attributes_are_kept() {
    let mut mount = Mount::with_churn();
    let path = mount.path("churn/draft/file");
    fs::write(&path, "x").expect("a draft file");
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
    let file = File::options().write(true).open(&path).expect("opened");
    file.set_modified(time).expect("futimens");
    drop(file);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).expect("chmod");
    mount.restart();
    let found = fs::metadata(&path).expect("there");
    assert_eq!(found.modified().expect("a time"), time);
    assert_eq!(found.mode() & 0o7777, 0o4751);
    assert_eq!(syscalls::utimes(&mount.path("churn/draft"), Some(77)), Ok(()));
    assert_eq!(fs::metadata(mount.path("churn/draft")).expect("there").mtime(), 77);
    assert_eq!(syscalls::fsync(&mount.path("churn/draft")), Ok(()), "fsync of a directory");
}

#[test]
fn new_files_follow_umask_and_a_setgid_directory() {
    let mount = Mount::with_churn();
    let script = r#"
set -eu
cd "$M/churn/draft"
umask 027; : > file; mkdir dir
stat -c %a file dir
mkdir team; chgrp 4500 team; chmod 2775 team; umask 022; : > team/file; mkdir team/dir
stat -c '%g %a' team/file team/dir
"#;
    let shown = mount.run("bash", script).ok().stdout;
    assert_eq!(shown, "640\n750\n4500 644\n4500 2755\n");
}

#[test]
fn open_flags_mean_what_they_say() {
    let mount = Mount::with_churn();
    let path = mount.path("churn/draft/file");
    let open = |flags| syscalls::open(&path, flags, 0o644).map(drop);
    assert_eq!(open(libc::O_WRONLY), Err(libc::ENOENT));
    assert_eq!(open(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL), Ok(()));
    assert_eq!(open(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL), Err(libc::EEXIST));
    fs::write(&path, "content").expect("written");
    assert_eq!(open(libc::O_RDONLY | libc::O_DIRECTORY), Err(libc::ENOTDIR));
    assert_eq!(open(libc::O_WRONLY | libc::O_TRUNC), Ok(()));
    assert_eq!(fs::metadata(&path).expect("there").len(), 0);
    syscalls::symlink("file", &mount.path("churn/draft/link")).expect("a draft takes links");
    let through = mount.path("churn/draft/link");
    let found = syscalls::open(&through, libc::O_RDONLY | libc::O_NOFOLLOW, 0).map(drop);
    assert_eq!(found, Err(libc::ELOOP));
}

#[test]
fn a_large_directory_is_listed_whole_and_once() {
    let count = setting("MODELFS_TEST_ENTRIES", 20_000);
    let mount = Mount::with_churn();
    let script = format!("cd \"$M/churn/draft\" && seq -f e%.0f {count} | xargs touch");
    mount.run("bash", &script).ok();
    let mut names = mount.names("churn/draft");
    assert_eq!(names.len() as u64, count);
    names.dedup();
    assert_eq!(names.len() as u64, count, "no name twice");
    let shown =
        mount.run("bash", "rm -r \"$M\"/churn/draft && true; ls \"$M/churn/draft\" | wc -l");
    assert_eq!(shown.stdout.trim(), "0", "emptied, though the draft itself stays: {shown:?}");
}

#[test]
fn a_draft_lasts_over_a_restart_and_belongs_to_one_model() {
    let mut mount = Mount::with_churn();
    fs::create_dir(mount.path("fraud")).expect("mkdir makes a model");
    fs::write(mount.path("churn/draft/a"), "churn").expect("a draft file");
    fs::write(mount.path("fraud/draft/a"), "fraud").expect("a draft file");
    mount.restart();
    assert_eq!(mount.text("churn/draft/a"), "churn");
    assert_eq!(mount.text("fraud/draft/a"), "fraud");
    mount.seal("churn", "one");
    assert!(mount.names("churn/draft").is_empty());
    assert_eq!(mount.text("fraud/draft/a"), "fraud");
    let busy = fs::remove_dir(mount.path("fraud")).expect_err("its draft is not empty");
    assert_eq!(busy.raw_os_error(), Some(libc::ENOTEMPTY));
}

#[test]
fn the_directory_of_a_draft_keeps_its_inode_when_it_is_sealed() {
    let mount = Mount::with_churn();
    let script = r#"
set -eu
cd "$M/churn/draft"
before=$(stat -c %i "$M/churn/draft")
for number in 1 2; do
    echo "$number" > file
    echo seal > "$M/churn/snapshot"
    [ "$(stat -c %i "$M/churn/draft")" = "$before" ]
    [ "$(stat -c %i .)" = "$before" ]
done
"#;
    mount.run("bash", script).ok();
    assert_eq!(mount.names("churn/draft"), [""; 0]);
}

#[test]
fn programs_that_people_use_work_in_a_draft() {
    require_program("python3", "python3");
    let mount = Mount::with_churn();
    let script = r#"
set -eu
cd "$M/churn/draft"
python3 -c 'import sqlite3; c = sqlite3.connect("runs.db"); c.execute("create table t(x)"); c.execute("insert into t values (42)"); c.commit()'
python3 -c 'import sqlite3; assert list(sqlite3.connect("runs.db").execute("select x from t")) == [(42,)]'
tar -C "$FIXTURES" -cf - v1 | tar -xf -
diff -r "$FIXTURES/v1" v1
cp -a v1 v1-copy; diff -r v1 v1-copy
sed -i 's/trained/TRAINED/' v1-copy/metrics.json; grep -q TRAINED v1-copy/metrics.json
dd if=/dev/urandom of=blob bs=64k count=40 conv=fsync status=none; [ "$(stat -c %s blob)" = 2621440 ]
"#;
    mount.run("bash", script).ok();
    mount.seal("churn", "with programs");
    mount.run("bash", "diff -r \"$FIXTURES/v1\" \"$M/churn/v1/v1\"").ok();
    mount.assert_sound();
}
