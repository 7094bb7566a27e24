//! Which Python a command is going to run, as far as its words and its script tell.
//!
//! Nothing of the command is run to learn that, only an interpreter, and of programs that choose one those
//! that are told to `run` it. What is behind anything else, which may start it on another machine, in a
//! container or with other variables, is not known: no answer is better than that of another Python.

use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{SCRIPT, shell};

/// Bytes of a script that are looked through.
const SCRIPT_BYTES_MAX: u64 = 256 << 10;
/// Files that are looked at, scripts and programs, for one question.
const FILE_COUNT_MAX: u32 = 1_000;
/// Programs that start programs, scripts among them.
const DEPTH_MAX: u32 = 8;
/// Programs that run another one in an environment that they choose, where their verb is [`RUN`].
const RUNNERS: [&str; 9] =
    ["conda", "hatch", "mamba", "micromamba", "pdm", "pipenv", "pixi", "poetry", "uv"];
const RUN: &str = "run";
/// Their flags that have a value in the next word.
const RUNNER_FLAGS: [&str; 34] = [
    "--cache-dir",
    "--config-file",
    "--cwd",
    "--default-index",
    "--directory",
    "--env",
    "--env-file",
    "--environment",
    "--extra",
    "--extra-index-url",
    "--find-links",
    "--group",
    "--index",
    "--index-strategy",
    "--index-url",
    "--link-mode",
    "--manifest-path",
    "--name",
    "--package",
    "--prefix",
    "--prerelease",
    "--project",
    "--python",
    "--resolution",
    "--root-prefix",
    "--with",
    "--with-editable",
    "--with-requirements",
    "-C",
    "-e",
    "-f",
    "-n",
    "-p",
    "-r",
];
/// Programs that start the one behind them on this machine, as it is.
const STARTERS: [&str; 17] = [
    "chrt", "command", "env", "exec", "flock", "ionice", "nice", "nohup", "numactl", "setsid",
    "stdbuf", "strace", "taskset", "time", "timeout", "unbuffer", "xvfb-run",
];
const SHELLS: [&str; 6] = ["ash", "bash", "dash", "ksh", "sh", "zsh"];
/// Commands of a shell after which programs may be others.
const PATH_CHANGERS: [&str; 8] =
    ["deactivate", "eval", "ml", "module", "pyenv", "spack", "use", "workon"];
/// How scripts write the directory that they are in, without quotes.
const OWN_FOLDERS: [&str; 4] =
    ["$(dirname $0)", "$(dirname -- $0)", "$(dirname ${BASH_SOURCE[0]})", "${0%/*}"];
/// Modules that make an environment ready for what is run in it.
const PREPARERS: [&str; 4] = ["ensurepip", "pip", "venv", "virtualenv"];
/// Signs of words whose meaning a shell makes.
const EXPANDED: [char; 7] = ['$', '`', '*', '?', '[', '{', '~'];

/// A command that has an interpreter say what it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// The first is an absolute path.
    pub words: Vec<OsString>,
    /// Where it is to be asked.
    pub directory: PathBuf,
}

/// The question to the interpreter of `words`; `None` where none is seen in it.
///
/// `path` is the variable `PATH` of the command, `directory` where it is started.
pub fn question(words: &[OsString], directory: &Path, path: &OsStr) -> Option<Question> {
    let files = Cell::new(FILE_COUNT_MAX);
    let place = Place {
        start: directory,
        directory: Some(directory.to_owned()),
        path: Some(path.into()),
        files: &files,
    };
    let mut question = find(words, &place, 0)?;
    question.words.extend(["-c", SCRIPT].map(OsString::from));
    Some(question)
}

/// Where a command is started; what a script made of it may be unknown.
#[derive(Clone)]
struct Place<'a> {
    /// Where all began.
    start: &'a Path,
    directory: Option<PathBuf>,
    path: Option<Cow<'a, OsStr>>,
    /// That may be looked at, still.
    files: &'a Cell<u32>,
}

fn find(words: &[OsString], place: &Place<'_>, depth: u32) -> Option<Question> {
    let (program, rest) = words.split_first().filter(|_| depth < DEPTH_MAX)?;
    let name = base(program);
    if is_python(program) {
        let program = place.find(program)?.into_os_string();
        // What it is does not depend on where it is asked.
        let directory = place.directory.as_deref().unwrap_or(place.start).to_owned();
        Some(Question { words: vec![program], directory })
    } else if RUNNERS.contains(&name) {
        through_runner(words, place)
    } else if STARTERS.contains(&name) {
        let place = place.with_variables(rest);
        let next = rest.iter().position(|word| place.is_start(word))?;
        find(&rest[next..], &place, depth + 1)
    } else if SHELLS.contains(&name) {
        in_shell(rest, place, depth + 1)
    } else {
        let file = place.find(program)?;
        let text = place.read(&file, "#!")?;
        let mut started: Vec<OsString> = shebang(&text)?.map(OsString::from).collect();
        started.push(file.into());
        find(&started, place, depth + 1)
    }
}

/// The Python that `conda run -n x python train.py` and its like choose.
fn through_runner(words: &[OsString], place: &Place<'_>) -> Option<Question> {
    let verb = after_flags(words, 1);
    if words.get(verb)? != RUN {
        return None;
    }
    let code = after_flags(words, verb + 1);
    let rest = words.get(code..)?;
    let is_code = |word: &OsString| is_python(word) || word.as_bytes().ends_with(b".py");
    // A script that says itself what it needs has an environment of its own.
    let has_own = |word: &OsString| {
        let text = place.file(word).and_then(|file| place.read(&file, ""));
        text.is_some_and(|text| text.lines().any(|line| line.trim_end() == "# /// script"))
    };
    if !rest.iter().any(is_code) || has_own(&rest[0]) {
        return None;
    }
    let python = if is_python(&rest[0]) { rest[0].clone() } else { "python".into() };
    let runner = place.find(&words[0])?.into_os_string();
    let words = [&[runner], &words[1..code], &[python]].concat();
    Some(Question { words, directory: place.directory.clone()? })
}

/// The place of the first word from `at` on that is neither a flag nor the value of one.
fn after_flags(words: &[OsString], mut at: usize) -> usize {
    while let Some(word) = words.get(at).filter(|word| word.as_bytes().starts_with(b"-")) {
        at += 1 + usize::from(RUNNER_FLAGS.iter().any(|flag| word == flag));
    }
    at
}

/// What a shell is going to start: a text behind `-c`, else a script.
fn in_shell(arguments: &[OsString], place: &Place<'_>, depth: u32) -> Option<Question> {
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (first, rest) = word.as_bytes().split_first()?;
        let is_short = !rest.starts_with(b"-");
        match first {
            b'-' if is_short && rest.contains(&b'c') => {
                let text = words.find(|word| !word.as_bytes().starts_with(b"-"))?;
                return in_text(&text.to_string_lossy(), None, place, depth);
            }
            b'-' | b'+' => {
                // `-o pipefail`, `--rcfile x`
                if is_short && rest.ends_with(b"o") || rest.ends_with(b"file") {
                    words.next();
                }
            }
            _ => {
                let script = place.file(word)?;
                return in_text(&place.read(&script, "")?, script.parent(), place, depth);
            }
        }
    }
    None
}

/// The first Python that the commands of a script start. That of a program found by its name alone, such as
/// `torchrun`, counts where there is no other: it may be a tool that gets the data.
fn in_text(text: &str, folder: Option<&Path>, place: &Place<'_>, depth: u32) -> Option<Question> {
    let (mut place, mut launched) = (place.clone(), None);
    let found = shell::commands(text).iter().find_map(|command| {
        place = place.with_variables(command);
        let is_variable = |word: &&String| word.contains('=') && !word.starts_with('-');
        let words: Vec<&str> = command.iter().skip_while(is_variable).map(String::as_str).collect();
        match *words.first()? {
            "cd" => place.directory = place.below(words.get(1), folder),
            "." | "source" => place.path = place.path_after(words.get(1)),
            _ if changes_path(&words) => place.path = None,
            _ if prepares(&words) => {}
            _ => {
                // What a shell makes of a word, and all behind it, is not known.
                let plain = words.iter().take_while(|word| !word.contains(EXPANDED));
                let plain: Vec<OsString> = plain.map(OsString::from).collect();
                let found = find(&plain, &place, depth);
                if !is_launcher(words[0]) {
                    return found;
                }
                launched = launched.take().or(found);
            }
        }
        None
    });
    found.or(launched)
}

/// Whether a program is one that a Python stands behind, if any.
fn is_launcher(program: &str) -> bool {
    let known = [&RUNNERS[..], &STARTERS, &SHELLS].concat();
    !program.contains('/') && !known.contains(&program) && !is_python(&program.into())
}

/// Whether programs may be others after this command of a shell.
fn changes_path(words: &[&str]) -> bool {
    let activates = RUNNERS.contains(&base(words[0].as_ref())) && words.contains(&"activate");
    activates || PATH_CHANGERS.contains(&words[0])
}

/// Whether a command is about an interpreter, and runs nothing in it: `python -m venv`.
fn prepares(words: &[&str]) -> bool {
    let is_about = |word: &&str| PREPARERS.contains(word) || matches!(*word, "--version" | "-V");
    words.iter().skip(1).take(2).any(is_about)
}

impl<'a> Place<'a> {
    /// The file of a name, where it is known which one that is.
    fn file(&self, name: impl AsRef<Path>) -> Option<PathBuf> {
        match &self.directory {
            Some(directory) => Some(directory.join(name)),
            None => Some(name.as_ref().to_owned()).filter(|name| name.is_absolute()),
        }
    }

    /// The file of a program, as a shell finds it.
    fn find(&self, program: &OsStr) -> Option<PathBuf> {
        let is_program = |file: &PathBuf| {
            fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        };
        if program.as_bytes().contains(&b'/') {
            return self.file(program).filter(is_program);
        }
        let mut places = self.path.as_ref()?.as_bytes().split(|byte| *byte == b':');
        places.find_map(|place| {
            self.file(Path::new(OsStr::from_bytes(place)).join(program)).filter(is_program)
        })
    }

    /// Whether a word is what a starter starts, and no flag, value or variable of its own.
    fn is_start(&self, word: &OsString) -> bool {
        let bytes = word.as_bytes();
        !bytes.starts_with(b"-")
            && !bytes.contains(&b'=')
            && (is_python(word) || self.find(word).is_some())
    }

    /// The place where a command has other variables.
    fn with_variables(&self, words: &[impl AsRef<OsStr>]) -> Self {
        let is_path = |word: &OsStr| word.as_bytes().starts_with(b"PATH=");
        let path = self.path.clone().filter(|_| !words.iter().any(|word| is_path(word.as_ref())));
        Self { path, ..self.clone() }
    }

    /// The directory after `cd`; scripts like to go to their own `folder`.
    fn below(&self, to: Option<&&str>, folder: Option<&Path>) -> Option<PathBuf> {
        let to = *to?;
        let own = OWN_FOLDERS.iter().find_map(|own| to.strip_prefix(own));
        let (from, to) = match own {
            Some(rest) => (folder, rest.trim_start_matches('/')),
            None => (self.directory.as_deref(), to),
        };
        let is_known = !to.contains(EXPANDED) && to != "-";
        is_known.then(|| from.map(|from| from.join(to))).flatten()
    }

    /// `PATH` after a file was read into the shell: known where that is of a virtual environment.
    fn path_after(&self, file: Option<&&str>) -> Option<Cow<'a, OsStr>> {
        let file =
            self.file(file?).filter(|file| file.ends_with("bin/activate") && file.is_file())?;
        let mut path = file.parent()?.as_os_str().to_owned();
        path.push(":");
        path.push(self.path.as_ref()?);
        Some(path.into())
    }

    /// The text of a file that begins so.
    fn read(&self, path: &Path, begin: &str) -> Option<String> {
        self.files.set(self.files.get().checked_sub(1)?);
        // A fifo would wait for somebody to write to it.
        if !fs::metadata(path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        let file = File::open(path).ok()?;
        (&file).take(begin.len() as u64).read_to_end(&mut bytes).ok()?;
        if bytes != begin.as_bytes() {
            return None;
        }
        file.take(SCRIPT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn base(program: &OsStr) -> &str {
    Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// `python`, `python3`, `python3.11`, `pypy3`, wherever it is.
fn is_python(program: &OsString) -> bool {
    let name = base(program);
    let rest = name.strip_prefix("python").or_else(|| name.strip_prefix("pypy"));
    rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// The words behind `#!`.
fn shebang(text: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(text.strip_prefix("#!")?.lines().next()?.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAUNCHERS: [(&str, &str); 7] = [
        ("bin/torchrun", "#!ROOT/venv/bin/python3.11 -u\nimport x\n"),
        ("bin/long", "#!/bin/sh\n'''exec' ROOT/venv/bin/python3.11 \"$0\" \"$@\"\n' '''\n"),
        ("bin/tool", "#!/usr/bin/env -S python3 -I\n"),
        ("bin/loop", "#!/usr/bin/env loop\n"),
        ("twice.sh", "#!/bin/sh\n./twice.sh\n./twice.sh\n./twice.sh\n./twice.sh\n./twice.sh\n"),
        ("venv/bin/activate", "# PATH=...\n"),
        ("own.py", "# /// script\n# dependencies = [\"torch\"]\n# ///\n"),
    ];
    const SCRIPTS: [(&str, &str); 16] = [
        ("activated", ". venv/bin/activate\npip install x\npython3.11 train.py"),
        ("conda", "conda activate churn\npython train.py"),
        ("create", "if ! x; then conda create -y -n churn python pip; fi"),
        ("document", "cat <<EOF\npython x.py\nEOF\necho python x.py"),
        ("made", "x || conda create -y -n churn python\nconda run -n churn python x.py"),
        ("away", "cd \"$X\"\nvenv/bin/python3.11 train.py"),
        ("away_and_found", "cd \"$X\"\npoetry run python x.py\npython train.py"),
        ("path", "export PATH=$HOME/bin:$PATH\npython train.py"),
        ("plain", "./binary --python python"),
        ("prepared", "python3 -m venv venv\npython3 -m pip install x\nvenv/bin/python3.11 x.py"),
        ("runner", "cd sub && poetry run python train.py"),
        ("sub/home", "cd \"$(dirname \"$0\")/../sub\"\n../venv/bin/python3.11 train.py"),
        ("fetched", "tool pull\ntorchrun x.py || exec python x.py"),
        ("launched", "cd sub\ntorchrun x.py"),
        ("train", "# python2 is no longer used\nset -e\nexec venv/bin/python3.11 x.py \"$@\""),
        ("variable", "conda run -n $ENV python train.py\n$PYTHON x.py"),
    ];
    const PROGRAMS: &str = "conda nice poetry pypy3 python python3 ssh timeout uv x";

    /// A directory with programs and scripts.
    fn place() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text.replace("ROOT", root.path().to_str().unwrap())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        LAUNCHERS.iter().for_each(|(name, text)| write(name, text));
        let script = |(name, text): &(&str, &str)| {
            write(&format!("{name}.sh"), &format!("#!/bin/sh\n{text}\n"));
        };
        SCRIPTS.iter().for_each(script);
        PROGRAMS.split(' ').for_each(|name| write(&format!("bin/{name}"), "\u{7f}ELF"));
        write("venv/bin/python3.11", "\u{7f}ELF");
        root
    }

    /// Where the question to these words is asked, and its own words.
    #[track_caller]
    fn check(words: &str, expected: Option<&str>) {
        let root = place();
        let path = root.path().join("bin");
        let started: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let asked = question(&started, root.path(), path.as_os_str()).map(|mut asked| {
            assert_eq!(asked.words.split_off(asked.words.len() - 2), ["-c", SCRIPT]);
            let told = asked.words.join(OsStr::new(" ")).into_string().unwrap();
            let at = asked.directory.strip_prefix(root.path()).unwrap().to_str().unwrap();
            format!("{at}: {told}").replace(&format!("{}/", root.path().display()), "")
        });
        assert_eq!(asked.as_deref(), expected, "{words}");
    }

    #[test]
    fn the_interpreter_of_a_command_is_found() {
        check("python train.py", Some(": bin/python"));
        check("venv/bin/python3.11 -m train", Some(": venv/bin/python3.11"));
        check("nice -n 5 pypy3 train.py", Some(": bin/pypy3"));
        check("env -u X A=python timeout -s KILL 9 python x.py", Some(": bin/python"));
        check("torchrun --nproc 2 train.py", Some(": venv/bin/python3.11"));
        check("long", Some(": venv/bin/python3.11"));
        check("tool", Some(": bin/python3"));
        check("./train.sh", Some(": venv/bin/python3.11"));
        check("sh train.sh 7", Some(": venv/bin/python3.11"));
        check("bash --norc -eo pipefail train.sh", Some(": venv/bin/python3.11"));
        check("bash -euc x;python3", Some(": bin/python3"));
        let none = "./plain.sh loop twice.sh ./twice.sh x no-such-program python2 python-config";
        none.split(' ').for_each(|words| check(words, None));
    }

    #[test]
    fn a_runner_is_asked_where_it_is_told_to_run() {
        check("poetry run python train.py --x", Some(": bin/poetry run python"));
        check("uv run --with torch -- train.py", Some(": bin/uv run --with torch -- python"));
        check("uv run --with python train.py", Some(": bin/uv run --with python python"));
        check("conda run -n a python3 x", Some(": bin/conda run -n a python3"));
        check("poetry run torchrun train.py", Some(": bin/poetry run python"));
        check("poetry run ./clean.sh python", Some(": bin/poetry run python"));
        for none in ["uv sync", "uv run", "conda create -n x python", "conda run -n x ./x"] {
            check(none, None);
        }
        check("uv run own.py", None);
        check("uv pip install run python", None);
    }

    #[test]
    fn lines_of_a_script_are_not_run_out_of_context() {
        check("./create.sh", None);
        check("./made.sh", Some(": bin/conda run -n churn python"));
        check("./variable.sh", None);
        check("./runner.sh", Some("sub: bin/poetry run python"));
        check("./activated.sh", Some(": venv/bin/python3.11"));
        check("./prepared.sh", Some(": venv/bin/python3.11"));
        check("sub/home.sh", Some("sub/../sub: sub/../sub/../venv/bin/python3.11"));
        check("./fetched.sh", Some(": bin/python"));
        check("./launched.sh", Some("sub: venv/bin/python3.11"));
        check("./away_and_found.sh", Some(": bin/python"));
        for none in ["./conda.sh", "./path.sh", "./away.sh", "./document.sh"] {
            check(none, None);
        }
    }

    #[test]
    fn what_runs_elsewhere_is_not_asked_here() {
        for program in ["ssh host", "docker run x", "srun", "sudo", "nice -n 5 ssh host"] {
            check(&format!("{program} python train.py"), None);
        }
        check("env PATH=/x python train.py", None);
    }
}
