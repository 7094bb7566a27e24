//! `.by-data`: the versions that were made from some data, for who may know of them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Mount, require_root};
use crate::syscalls::{self, User, as_user};

const STRANGER: User = User { uid: 4401, gid: 4401, groups: &[4401] };
const MEMBER: User = User { uid: 4402, gid: 4402, groups: &[4402, 4403] };
/// Of the group that only `MEMBER` has.
const GROUP: u32 = 4403;

/// The digest of data as `modelfs fingerprint` has it.
fn digest_of(mount: &Mount, text: &str) -> String {
    let file = mount.bench.write("data.csv", text);
    let output = mount.cli(&["fingerprint", "--digest", file.to_str().expect("text")]);
    output.ok().stdout.trim().to_owned()
}

/// Seals a version of `model` from data with these digests.
fn seal(mount: &Mount, model: &str, content: &str, data: &[&str]) {
    let datasets: Vec<_> =
        data.iter().map(|it| serde_json::json!({"name": it, "digest": it})).collect();
    let command = serde_json::json!({"message": content, "datasets": datasets}).to_string();
    mount.seal_files(model, &[("weights", content.as_bytes())], &command);
}

fn names(user: User, directory: &Path) -> Vec<String> {
    let entries = as_user(user, || fs::read_dir(directory).map(|it| it.collect::<Vec<_>>()));
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> =
        entries.into_iter().map(|it| name(it).into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn versions_are_found_by_their_data() {
    let mut mount = Mount::with_churn();
    fs::create_dir(mount.path("wine")).expect("a model");
    let (june, may) = (digest_of(&mount, "a\n1\n"), digest_of(&mount, "a\n2\n"));
    seal(&mount, "churn", "one", &[&june]);
    seal(&mount, "churn", "two", &[&june, &may, "md5:00", "june"]);
    seal(&mount, "wine", "three", &[&june]);
    seal(&mount, "wine", "four", &[]);
    let check = |mount: &Mount| {
        assert_eq!(mount.names(&format!(".by-data/{june}")), ["churn-v1", "churn-v2", "wine-v1"]);
        assert_eq!(mount.names(&format!(".by-data/{may}")), ["churn-v2"]);
        let mut all = [june.clone(), may.clone()];
        all.sort();
        assert_eq!(mount.names(".by-data"), all);
        mount.assert_link(&format!(".by-data/{june}/churn-v2"), "../../churn/v2");
        assert_eq!(mount.text(&format!(".by-data/{june}/wine-v1/weights")), "three");
        for missing in ["wine-v2", "churn-v3", "nobody-v1", "churn", "churn-v01"] {
            let found = fs::symlink_metadata(mount.path(format!(".by-data/{june}/{missing}")));
            assert_eq!(syscalls::errno(found).err(), Some(libc::ENOENT), "{missing}");
        }
        for missing in ["0".repeat(64), june.to_uppercase(), "june".to_owned()] {
            let found = fs::symlink_metadata(mount.path(format!(".by-data/{missing}")));
            assert_eq!(syscalls::errno(found).err(), Some(libc::ENOENT), "{missing}");
        }
    };
    check(&mount);
    let link: PathBuf = mount.path(format!(".by-data/{june}/churn-v1"));
    assert_eq!(syscalls::errno(fs::remove_file(&link)), Err(libc::EROFS));
    assert_eq!(syscalls::errno(fs::create_dir(mount.path(".by-data/x"))), Err(libc::EROFS));
    assert_eq!(syscalls::symlink("../../churn/v1", &link.with_file_name("x")), Err(libc::EROFS));
    assert!(!mount.names(".").contains(&".by-data".to_owned()));
    mount.restart();
    check(&mount);
    mount.stop();
    fs::remove_dir_all(mount.bench.store.join("catalog")).expect("a cache");
    mount.start();
    check(&mount);
}

#[test]
fn by_data_shows_nothing_of_models_that_one_may_not_enter() {
    require_root();
    let mount = Mount::with_churn();
    fs::create_dir(mount.path("pii")).expect("a model");
    let (common, secret) = (digest_of(&mount, "a\n1\n"), digest_of(&mount, "a\n2\n"));
    seal(&mount, "churn", "one", &[&common]);
    seal(&mount, "pii", "two", &[&common, &secret]);
    syscalls::chmod(&mount.path("pii"), 0o750).expect("it is ours");
    std::os::unix::fs::chown(mount.path("pii"), None, Some(GROUP)).expect("it is ours");
    let (root, of) = (mount.path(".by-data"), |digest: &str| mount.path(".by-data").join(digest));
    // Whoever looks first leaves nothing behind for those who come later.
    assert_eq!(names(MEMBER, &of(&common)), ["churn-v1", "pii-v1"]);
    assert_eq!(names(MEMBER, &of(&secret)), ["pii-v1"]);
    assert_eq!(names(MEMBER, &root).len(), 2);
    assert!(as_user(MEMBER, || fs::read_link(of(&common).join("pii-v1"))).is_ok());
    assert_eq!(names(STRANGER, &of(&common)), ["churn-v1"]);
    assert_eq!(names(STRANGER, &root), [common.as_str()]);
    for hidden in [of(&common).join("pii-v1"), of(&secret), of(&secret).join("pii-v1")] {
        let found = as_user(STRANGER, || syscalls::errno(fs::symlink_metadata(&hidden)));
        assert_eq!(found.err(), Some(libc::ENOENT), "{}", hidden.display());
    }
    syscalls::chmod(&mount.path("pii"), 0o755).expect("it is ours");
    assert_eq!(names(STRANGER, &of(&secret)), ["pii-v1"], "as soon as it may be entered");
}
