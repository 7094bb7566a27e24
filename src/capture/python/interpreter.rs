//! Which Python a command is going to run, as far as its words and its script tell.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::SCRIPT;

/// Bytes of a script that are looked through.
const SCRIPT_BYTES_MAX: u64 = 256 << 10;
/// Scripts that start scripts.
const DEPTH_MAX: u32 = 4;
/// Programs that run another one in an environment that they choose: they are asked through themselves.
const RUNNERS: [&str; 9] =
    ["conda", "hatch", "mamba", "micromamba", "pdm", "pipenv", "pixi", "poetry", "uv"];
const SHELLS: [&str; 6] = ["ash", "bash", "dash", "ksh", "sh", "zsh"];

/// The command that asks the interpreter of `words` what it is; `None` where no Python is seen in it.
///
/// `path` is the variable `PATH` of the command, `directory` where it is started.
pub fn question(words: &[OsString], directory: &Path, path: &OsStr) -> Option<Vec<OsString>> {
    let mut question = find(words, &Places { directory, path }, 0)?;
    question.extend(["-c", SCRIPT].map(OsString::from));
    Some(question)
}

/// Where programs are looked for.
struct Places<'a> {
    directory: &'a Path,
    path: &'a OsStr,
}

fn find(words: &[OsString], places: &Places<'_>, depth: u32) -> Option<Vec<OsString>> {
    let program = words.first()?;
    if RUNNERS.iter().any(|runner| base(program) == *runner) {
        let is_code = |word: &OsString| is_python(word) || word.as_bytes().ends_with(b".py");
        let place = words.iter().position(is_code)?;
        return Some([&words[..place], &["python".into()]].concat());
    }
    if let Some(python) = words.iter().find(|word| is_python(word)) {
        return Some(vec![python.clone()]);
    }
    if DEPTH_MAX <= depth {
        return None;
    }
    if is_shell(program) {
        return in_shell(&words[1..], places, depth);
    }
    let script = places.find(program)?;
    let text = read(&script)?;
    let first: Vec<OsString> = shebang(&text)?.split_whitespace().map(OsString::from).collect();
    let mut started = first;
    started.push(script.into());
    find(&started, places, depth + 1)
}

/// What a shell is going to start: a text behind `-c`, else a script.
fn in_shell(arguments: &[OsString], places: &Places<'_>, depth: u32) -> Option<Vec<OsString>> {
    let is_text =
        |flag: &OsString| flag.as_bytes().starts_with(b"-") && flag.as_bytes().ends_with(b"c");
    let text = match arguments.iter().position(is_text) {
        Some(flag) => arguments.get(flag + 1)?.to_string_lossy().into_owned(),
        None => {
            let script = arguments.iter().find(|word| !word.as_bytes().starts_with(b"-"))?;
            read(&places.directory.join(script))?
        }
    };
    text.lines().filter(|line| !line.trim_start().starts_with('#')).find_map(|line| {
        let words: Vec<OsString> = line
            .split(|c: char| c.is_whitespace() || ";&|()'\"`".contains(c))
            .filter(|word| !word.is_empty() && !word.contains('$'))
            .map(OsString::from)
            .collect();
        let place = words
            .iter()
            .position(|word| is_python(word) || RUNNERS.iter().any(|runner| base(word) == *runner));
        find(&words[place?..], places, depth + 1)
    })
}

impl Places<'_> {
    /// The file of a program, as a shell finds it.
    fn find(&self, program: &OsStr) -> Option<PathBuf> {
        if program.as_bytes().contains(&b'/') {
            return Some(self.directory.join(program));
        }
        let places = self.path.as_bytes().split(|byte| *byte == b':');
        let mut files =
            places.map(|place| self.directory.join(OsStr::from_bytes(place)).join(program));
        files.find(|file| {
            fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        })
    }
}

fn base(program: &OsStr) -> &str {
    Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// `python`, `python3`, `python3.11`, `pypy3`, wherever it is.
fn is_python(program: &OsStr) -> bool {
    let name = base(program);
    let rest = name.strip_prefix("python").or_else(|| name.strip_prefix("pypy"));
    rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

fn is_shell(program: &OsStr) -> bool {
    SHELLS.contains(&base(program))
}

/// What is behind `#!`; what `env` is to look for, itself.
fn shebang(text: &str) -> Option<&str> {
    let line = text.strip_prefix("#!")?.lines().next()?.trim();
    Some(match line.split_once(char::is_whitespace) {
        Some((program, rest)) if base(OsStr::new(program)) == "env" => {
            rest.trim_start().trim_start_matches("-S").trim_start()
        }
        _ => line,
    })
}

fn read(path: &Path) -> Option<String> {
    // A fifo would wait for somebody to write to it.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(SCRIPT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with programs in `bin` and scripts beside it.
    fn asked(words: &str) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("bin/torchrun", "#!/venv/bin/python3.11 -u\nimport x\n"),
            ("bin/tool", "#!/usr/bin/env -S python3 -I\n"),
            ("bin/loop", "#!/usr/bin/env loop\n"),
            ("bin/binary", "\u{7f}ELF"),
            (
                "train.sh",
                "#!/bin/sh\n# python2 is no longer used\nset -e\nexec .venv/bin/python train.py \"$@\"\n",
            ),
            ("runner.sh", "#!/bin/bash\ncd x && poetry run python train.py\n"),
            ("plain.sh", "#!/bin/sh\n./binary --python yes\n"),
        ];
        fs::create_dir(root.path().join("bin")).unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let path = root.path().join("bin");
        let mut question = question(&words, root.path(), path.as_os_str())?;
        assert_eq!(question.pop().unwrap(), SCRIPT);
        assert_eq!(question.pop().unwrap(), "-c");
        Some(question.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn the_interpreter_of_a_command_is_found() {
        let check = |words: &str, expected: Option<&str>| {
            assert_eq!(asked(words).as_deref(), expected, "{words}");
        };
        check("python train.py", Some("python"));
        check("/opt/x/bin/python3.12 -m train", Some("/opt/x/bin/python3.12"));
        check("nice -n 5 pypy3 train.py", Some("pypy3"));
        check("poetry run python train.py --x", Some("poetry run python"));
        check("uv run --with torch train.py", Some("uv run --with torch python"));
        check("torchrun --nproc 2 train.py", Some("/venv/bin/python3.11"));
        check("tool", Some("python3"));
        check("./train.sh", Some(".venv/bin/python"));
        check("sh train.sh 7", Some(".venv/bin/python"));
        check("bash -euc cd;python3", Some("python3"));
        check("./runner.sh", Some("poetry run python"));
        check("./plain.sh", None);
        check("loop", None);
        check("binary", None);
        check("no-such-program", None);
        check("uv sync", None);
        check("python-config --libs", None);
    }
}
