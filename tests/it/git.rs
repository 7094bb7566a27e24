//! The state of a working tree as `git` itself says it, and clean check-outs of commits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use modelfs::capture::git::{self, GitError, SourceState, Watched};

use crate::harness::{Bench, Output, bounded, require_program};

/// A repository with a history that `git` made.
pub struct Repository {
    pub path: PathBuf,
}

impl Repository {
    pub fn new(path: PathBuf) -> Self {
        require_program("git", "git");
        fs::create_dir_all(&path).expect("a directory");
        let repository = Self { path };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// What `git` prints, no settings but ours in force.
    #[track_caller]
    pub fn git(&self, args: &[&str]) -> String {
        let mut command = plain_git(&self.path);
        Output::of(command.args(args)).ok().stdout
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().expect("below the repository")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }

    /// Commits all that is there; the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }
}

fn plain_git(directory: &Path) -> Command {
    let mut command = bounded("git");
    command
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "Ann")
            .env(format!("GIT_{who}_EMAIL"), "ann@example.org");
    }
    command
}

fn state(repository: &Repository) -> SourceState {
    git::state(&repository.path).expect("it can be read").expect("it is a repository")
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_clean_tree_is_its_commit() {
    let bench = Bench::new();
    let repository = Repository::new(bench.root.join("repo"));
    repository.write("train.py", "print(1)\n");
    repository.write(".gitignore", "*.log\n");
    let commit = repository.commit("first");
    repository.write("deep/ignored.log", "x");
    repository.git(&[
        "remote",
        "add",
        "origin",
        "https://ann:secret@example.org/team/repo.git?x=1",
    ]);
    let found = git::state(&repository.path.join("deep")).expect("readable").expect("a repository");
    let expected = SourceState {
        vcs: "git".to_owned(),
        remote: Some("https://example.org/team/repo.git".to_owned()),
        commit: Some(commit),
        branch: Some("main".to_owned()),
        root: found.root.clone(),
        ..SourceState::default()
    };
    assert_eq!(found, expected);
    assert_eq!(found.root.canonicalize().unwrap(), repository.path.canonicalize().unwrap());
    repository.git(&["checkout", "--quiet", "--detach"]);
    assert_eq!(state(&repository).branch, None);
}

#[test]
fn the_digest_of_changes_is_that_of_what_git_prints() {
    let bench = Bench::new();
    let repository = Repository::new(bench.root.join("repo"));
    repository.write("train.py", "import os\n\n\ndef f():\n    return 1\n\n\nprint(f())\n");
    repository.write("gone.txt", "one\ntwo\n");
    repository.write("moved.txt", "some text that stays\n".repeat(9));
    repository.write("tool.sh", "#!/bin/sh\n");
    repository.commit("first");
    let check = |what: &str| {
        let printed = repository.git(&["diff", "--binary", "--full-index", "--no-renames", "HEAD"]);
        assert!(!printed.is_empty(), "{what}");
        let found = state(&repository);
        assert!(found.dirty && found.notes.is_empty(), "{what}: {found:?}");
        assert_eq!(found.dirty_patch_sha256, Some(sha256(&printed)), "{what}:\n{printed}");
    };
    repository.write("train.py", "import os\n\n\ndef f():\n    return 2\n\n\nprint(f())");
    check("a line changed, and no newline at the end");
    repository.write("new.py", "print('new')\n");
    repository.git(&["add", "new.py"]);
    check("a new file that is staged");
    fs::remove_file(repository.path.join("gone.txt")).expect("it is there");
    check("a file removed");
    repository.git(&["mv", "moved.txt", "elsewhere.txt"]);
    check("a file renamed");
    repository.git(&["update-index", "--chmod=+x", "tool.sh"]);
    fs::set_permissions(
        repository.path.join("tool.sh"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("it is ours");
    check("a file made executable");
    for name in ["umläut.txt", "a \"quoted\" name.txt", "with a space.txt"] {
        repository.write(name, "x\n");
        repository.git(&["add", "--all"]);
        check(name);
    }
}

#[test]
fn a_submodule_tells_of_its_commit_and_says_where_it_differs() {
    let bench = Bench::new();
    let part = Repository::new(bench.root.join("part"));
    part.write("part.py", "x = 1\n");
    part.commit("first");
    let repository = Repository::new(bench.root.join("repo"));
    let from = part.path.to_str().expect("text");
    repository.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", from]);
    repository.commit("first");
    let inner = Repository { path: repository.path.join("part") };
    assert!(!state(&repository).dirty);
    let diff = "diff --binary --full-index --no-renames --ignore-submodules=dirty HEAD".split(' ');
    let printed = || repository.git(&diff.clone().collect::<Vec<_>>());
    inner.write("new.py", "x = 2\n");
    let note = ["the submodule `part` has changes of its own, in no digest"];
    for name in ["new.py", "part.py"] {
        inner.write(name, "x = 2\n");
        let found = state(&repository);
        assert_eq!(
            (found.dirty, &found.dirty_patch_sha256, &found.notes[..]),
            (true, &None, &note.map(str::to_owned)[..])
        );
        assert_eq!(printed(), "");
    }
    repository.write(".gitignore", "*.log\n");
    repository.git(&["add", ".gitignore"]);
    let found = state(&repository);
    assert_eq!((found.dirty_patch_sha256, found.notes.len()), (Some(sha256(&printed())), 1));
    inner.commit("second");
    let found = state(&repository);
    assert_eq!((found.dirty_patch_sha256, found.notes.len()), (Some(sha256(&printed())), 0));
}

#[test]
fn files_that_git_does_not_know_are_told_by_a_digest_of_sha256sum() {
    let bench = Bench::new();
    let repository = Repository::new(bench.root.join("repo"));
    repository.write(".gitignore", "*.log\n");
    repository.commit("first");
    for name in ["b.py", "a.py", "deep/c.py", "x.log"] {
        repository.write(name, format!("print('{name}')\n"));
    }
    let found = state(&repository);
    assert_eq!((found.dirty, found.untracked, found.dirty_patch_sha256), (true, Some(3), None));
    let list = "git ls-files --others --exclude-standard | LC_ALL=C sort | xargs sha256sum";
    let mut command = bounded("sh");
    let printed = Output::of(command.args(["-c", list]).current_dir(&repository.path)).ok().stdout;
    assert_eq!(found.untracked_sha256, Some(sha256(&printed)), "{printed}");
}

#[test]
fn where_there_is_no_repository_or_no_commit_it_says_so() {
    let bench = Bench::new();
    assert!(git::state(&bench.root).expect("readable").is_none());
    let repository = Repository::new(bench.root.join("repo"));
    repository.write("train.py", "print(1)\n");
    let found = state(&repository);
    assert_eq!((found.commit, found.branch.as_deref(), found.dirty), (None, Some("main"), true));
    let error = Watched::open(&bench.root.join("none")).err().expect("nothing is there");
    assert!(matches!(error, GitError::Missing { .. }), "{error:?}");
    let watched = Watched::open(&repository.path).expect("a repository");
    let error = watched.tip("main").expect_err("there is no commit");
    assert!(matches!(error, GitError::NoCommit { .. }), "{error:?}");
}

#[test]
fn a_commit_is_checked_out_clean_whatever_the_tree_holds() {
    let bench = Bench::new();
    let repository = Repository::new(bench.root.join("repo"));
    repository.write("train.sh", "#!/bin/sh\necho one\n");
    fs::set_permissions(
        repository.path.join("train.sh"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("it is ours");
    std::os::unix::fs::symlink("train.sh", repository.path.join("link")).expect("a link");
    let first = repository.commit("first");
    repository.write("deep/data.csv", "a,b\n");
    let second = repository.commit("second");
    repository.write("train.sh", "dirty");
    repository.write("left.over", "x");
    let watched = Watched::open(&repository.path).expect("a repository");
    let tip = watched.tip("main").expect("a commit");
    assert_eq!(
        (tip.id.to_string(), tip.subject.as_str(), tip.author.as_str()),
        (second, "second", "Ann")
    );
    let first = first.parse().expect("a commit");
    let since = watched.since(|it| it == first, tip.id).expect("readable").expect("an ancestor");
    assert_eq!(since, std::slice::from_ref(&tip));
    assert_eq!(watched.since(|it| it == tip.id, first).expect("readable"), None, "rewritten");
    for (commit, files) in [(first, 2), (tip.id, 3)] {
        let to = bench.root.join(commit.short());
        watched.check_out(commit, &to, 1 << 20).expect("there is room");
        let clean = Repository { path: to };
        assert_eq!(clean.git(&["rev-parse", "HEAD"]).trim(), commit.to_string());
        assert_eq!(clean.git(&["status", "--porcelain"]), "");
        assert_eq!(clean.git(&["ls-files"]).lines().count(), files);
        assert_eq!(
            Output::of(&mut bounded(clean.path.join("train.sh").to_str().unwrap())).ok().stdout,
            "one\n"
        );
        assert_eq!(fs::read_link(clean.path.join("link")).expect("a link"), Path::new("train.sh"));
    }
    let error = watched.check_out(tip.id, &bench.root.join("small"), 10).expect_err("too large");
    assert!(error.to_string().contains("bytes, at most 10"), "{error}");
    assert!(!bench.root.join("small").exists());
}

#[test]
fn a_commit_of_a_shallow_clone_is_checked_out_as_one() {
    let bench = Bench::new();
    let whole = Repository::new(bench.root.join("whole"));
    whole.write("train.sh", "one\n");
    whole.commit("first");
    whole.write("train.sh", "two\n");
    let second = whole.commit("second");
    let from = format!("file://{}", whole.path.display());
    whole.git(&["clone", "--quiet", "--depth", "1", &from, "../shallow"]);
    let watched = Watched::open(&bench.root.join("shallow")).expect("a repository");
    let tip = watched.tip("main").expect("a commit");
    let clean = Repository { path: bench.root.join("clean") };
    watched.check_out(tip.id, &clean.path, 1 << 20).expect("there is room");
    assert_eq!(clean.git(&["log", "--format=%H"]).trim(), second);
    assert_eq!(clean.git(&["status", "--porcelain"]), "");
}
