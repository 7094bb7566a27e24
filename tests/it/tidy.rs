//! Rules of the source tree that rustc, rustfmt and clippy do not know.
//!
//! What STYLE.md and DESIGN.md promise and a machine can see is checked here, file by file. Each
//! rule gives lines of `place: what is wrong`, and a test shows all of them at once.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up, each with those below it that it may name: DESIGN.md, "Layers".
const MAY_USE: &[(&str, &str)] = &[
    ("sys", ""),
    ("metrics", ""),
    ("format", ""),
    ("inspect", "format"),
    ("capture", "inspect format sys"),
    ("chunker", "format"),
    ("store", "format metrics sys"),
    ("remote", "store format metrics sys"),
    ("registry", "store format sys"),
    ("governance", "registry format"),
    ("ops", "governance registry remote store chunker capture inspect format metrics sys"),
    ("present", "ops format"),
    ("fs", "present ops registry store format metrics"),
    ("fuse", "fs metrics sys"),
    ("http", "ops governance registry store format metrics"),
    ("daemon", "fuse fs http ops registry store format metrics sys"),
    (
        "cli",
        "daemon http present ops governance registry remote store capture inspect format metrics sys",
    ),
];

/// A file past this holds two things.
const FILE_LINES_MAX: usize = 800;

/// A function past this does not fit one screen.
const FUNCTION_LINES_MAX: usize = 70;

/// A source file, cut where its own tests begin.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Lines with their numbers, comments and the contents of text literals left out.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        (1..).zip(self.text.lines().map(without_comment))
    }

    /// The same, up to the module of tests at the file's end; nothing of a file that is one.
    fn code_outside_tests(&self) -> impl Iterator<Item = (usize, String)> {
        let own = if self.path.ends_with("tests.rs") { 0 } else { usize::MAX };
        self.code().take(own).take_while(|(_, line)| !line.contains("#[cfg(test)]"))
    }

    /// The folder or lone file under `src` that it belongs to; none for `lib.rs` and `main.rs`.
    fn layer(&self) -> Option<&str> {
        let first = Path::new(self.path.components().nth(1)?.as_os_str());
        let name = first.file_stem()?.to_str()?;
        (!matches!(name, "lib" | "main")).then_some(name)
    }

    fn is(&self, path: &str) -> bool {
        self.path == Path::new(path)
    }
}

/// One line of code: what is between quotes becomes empty, what follows `//` is dropped.
fn without_comment(line: &str) -> String {
    let mut code = String::new();
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            // The quote of a character literal opens nothing.
            '\'' if !quoted && characters.peek() == Some(&'"') => drop(characters.next()),
            '"' => {
                quoted = !quoted;
                code.push('"');
            }
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if quoted => {}
            other => code.push(other),
        }
    }
    code
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(Path::new(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no Rust file below `{folder}`: run from the package's root");
    found
}

fn all_sources() -> Vec<Source> {
    let mut found = sources("src");
    found.extend(sources("tests"));
    found
}

fn walk(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
    {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("Rust files are text");
            found.push(Source { path, text });
        }
    }
}

/// Fails with everything that `rule` finds in `files`.
#[track_caller]
fn check<'a>(
    files: impl IntoIterator<Item = &'a Source>,
    rule: impl Fn(&Source) -> Vec<(usize, String)>,
) {
    let mut wrong = Vec::new();
    for file in files {
        for (number, what) in rule(file) {
            wrong.push(format!("{}:{number}: {what}", file.path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Places outside tests where `needle` stands, each with the same complaint.
fn places(file: &Source, needle: &str, complaint: &str) -> Vec<(usize, String)> {
    file.code_outside_tests()
        .filter(|(_, line)| has_word(line, needle))
        .map(|(number, _)| (number, complaint.to_owned()))
        .collect()
}

/// Whether `needle` stands in `line` with no letter of a longer word before it.
fn has_word(line: &str, needle: &str) -> bool {
    let part = |c: char| c == '_' || c.is_alphanumeric();
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let ends_open = needle.chars().next_back().is_some_and(part);
        let after = line[at + needle.len()..].chars().next().is_some_and(part);
        !(before && needle.starts_with(part) || ends_open && after)
    })
}

#[test]
fn layers_look_down_only() {
    check(&sources("src"), |file| {
        let Some(layer) = file.layer() else { return Vec::new() };
        let Some((_, below)) = MAY_USE.iter().find(|(name, _)| *name == layer) else {
            return vec![(1, format!("`{layer}` has no line in MAY_USE"))];
        };
        let allowed = |used: &str| used == layer || below.split(' ').any(|name| name == used);
        let mut wrong = Vec::new();
        for (number, line) in file.code() {
            for used in crate_paths(&line).filter(|used| !allowed(used)) {
                wrong.push((number, format!("`{layer}` may not use `{used}`")));
            }
        }
        wrong
    });
}

/// First names of all paths on a line that begin at the crate. A list in braces has no first name
/// and no layer may use that: one `use` for each.
fn crate_paths(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        if end == 0 { "a list in braces" } else { &rest[..end] }
    })
}

#[test]
fn the_layers_are_listed_from_the_bottom_up() {
    for (index, (layer, below)) in MAY_USE.iter().enumerate() {
        for used in below.split(' ').filter(|used| !used.is_empty()) {
            let found = MAY_USE[..index].iter().any(|(name, _)| *name == used);
            assert!(found, "`{layer}` may use `{used}`, which is not below it");
        }
    }
}

#[test]
fn a_file_says_what_it_is_and_holds_one_thing() {
    let files = all_sources();
    check(&files, |file| {
        let mut wrong = Vec::new();
        if !file.text.starts_with("//! ") {
            wrong.push((1, "does not open with `//! `".to_owned()));
        }
        let lines = file.text.lines().count();
        if FILE_LINES_MAX < lines {
            wrong.push((lines, format!("{lines} lines, at most {FILE_LINES_MAX}")));
        }
        wrong
    });
}

#[test]
fn a_function_fits_one_screen() {
    let files = all_sources();
    check(&files, |file| {
        let mut wrong = Vec::new();
        let mut open: Option<(usize, String)> = None;
        for (number, line) in (1..).zip(file.text.lines()) {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            if begins_function(trimmed) && !trimmed.ends_with(';') {
                open = Some((number, " ".repeat(indent) + "}"));
            }
            let Some((begun, end)) = &open else { continue };
            if line == end {
                let count = number - begun + 1;
                if FUNCTION_LINES_MAX < count {
                    let what = format!("a function of {count} lines, at most {FUNCTION_LINES_MAX}");
                    wrong.push((*begun, what));
                }
                open = None;
            }
        }
        wrong
    });
}

fn begins_function(line: &str) -> bool {
    let mut words = line.split(' ').skip_while(|word| {
        word.starts_with("pub") || matches!(*word, "const" | "async" | "unsafe" | "extern" | "in")
    });
    words.next() == Some("fn")
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    check(&sources("src"), |file| places(file, ".unwrap()", "say with `expect` why it holds"));
}

#[test]
fn nothing_is_left_undone() {
    check(&sources("src"), |file| {
        let markers = [["TO", "DO"], ["FIX", "ME"]].map(|parts| parts.concat());
        let lines = (1..).zip(file.text.lines());
        let marked = |line: &str| markers.iter().any(|marker| line.contains(marker.as_str()));
        lines
            .filter(|(_, line)| marked(line) || line.contains(&["unimple", "mented!"].concat()))
            .map(|(number, _)| (number, "finish it, or make it an issue".to_owned()))
            .collect()
    });
}

#[test]
fn only_fuse_names_fuser() {
    let files = sources("src");
    let others = files.iter().filter(|file| file.layer() != Some("fuse"));
    check(others, |file| places(file, "fuser::", "only `fuse` may name fuser"));
}

#[test]
fn only_the_catalog_names_sled() {
    let files = sources("src");
    let others = files.iter().filter(|file| !file.is("src/store/catalog.rs"));
    check(others, |file| places(file, "sled::", "only `store/catalog.rs` may name sled"));
}

#[test]
fn only_the_command_line_prints() {
    let files = sources("src");
    let others = files.iter().filter(|file| !matches!(file.layer(), Some("cli") | None));
    check(others, |file| {
        let mut wrong = Vec::new();
        for needle in ["print!", "println!", "eprint!", "eprintln!", "dbg!", "stdout()", "stderr()"]
        {
            wrong.extend(places(file, needle, &format!("`{needle}`: only `cli` prints")));
        }
        wrong
    });
}

#[test]
fn the_clock_and_the_environment_stay_above() {
    let files = sources("src");
    let below = files.iter().filter(|file| !matches!(file.layer(), Some("cli" | "daemon") | None));
    check(below, |file| {
        let mut wrong = Vec::new();
        for needle in ["SystemTime::now", "Timestamp::now", "Zoned::now", "env::", "current_dir()"]
        {
            let complaint = format!("`{needle}`: take it as a value from `cli` or `daemon`");
            wrong.extend(places(file, needle, &complaint));
        }
        wrong
    });
}

#[test]
fn only_sys_is_unsafe_and_says_why_it_is_not() {
    let files = sources("src");
    check(&files, |file| {
        let mut wrong = Vec::new();
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in file.code().filter(|(_, line)| has_word(line, "unsafe")) {
            if line.contains("unsafe_code") || line.contains("unsafe_op_in_unsafe_fn") {
                continue;
            }
            if file.layer() != Some("sys") {
                wrong.push((number, "`unsafe` belongs in `sys`".to_owned()));
            }
            let above = lines[..number - 1].iter().rev().take(6);
            let explained = above.clone().any(|line| line.trim_start().starts_with("// SAFETY:"));
            if !explained && !above.clone().any(|line| line.contains("# Safety")) {
                wrong.push((number, "no `// SAFETY:` above it".to_owned()));
            }
        }
        wrong
    });
}

#[test]
fn no_test_is_switched_off() {
    let files = all_sources();
    let marker = ["#[ig", "nore"].concat();
    check(&files, |file| {
        let lines = (1..).zip(file.text.lines());
        lines
            .filter(|(_, line)| line.contains(&marker))
            .map(|(number, _)| (number, "a test that does not run proves nothing".to_owned()))
            .collect()
    });
}

#[test]
fn each_promise_to_programs_has_its_test() {
    let path = Path::new("src/fs/SEMANTICS.md");
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tests: Vec<String> = all_sources().iter().flat_map(test_names).collect();
    check(&[Source { path: path.into(), text }], |file| {
        let mut wrong = Vec::new();
        let promises = (1..).zip(file.text.lines()).filter_map(|(line, text)| {
            let (number, name) = promise(text)?;
            Some((line, number, name))
        });
        for (expected, (line, number, name)) in (1..).zip(promises) {
            if number != expected {
                wrong.push((line, format!("promise {number}, expected {expected}")));
            }
            match tests.iter().filter(|test| *test == name).count() {
                1 => {}
                0 => wrong.push((line, format!("promise {number}, `{name}`, has no test"))),
                count => wrong.push((line, format!("promise {number}, `{name}`: {count} of them"))),
            }
        }
        wrong
    });
}

/// Number and name of the promise that begins on a line: "1. `its_name`". One without a name has
/// the empty one, which no test has.
fn promise(line: &str) -> Option<(u32, &str)> {
    let (number, rest) = line.split_once(". ")?;
    let number = number.parse().ok()?;
    let name = rest.strip_prefix('`').and_then(|rest| rest.split_once('`'));
    Some((number, name.map_or("", |(name, _)| name)))
}

/// Names of the tests in a file.
fn test_names(file: &Source) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
    let marked = lines.windows(2).filter(|two| two[0] == "#[test]");
    let name = |two: &[&str]| Some(two[1].strip_prefix("fn ")?.split_once('(')?.0.to_owned());
    marked.filter_map(name).collect()
}

#[test]
fn the_checks_see_what_they_look_for() {
    let file = |path: &str, text: &str| Source { path: path.into(), text: text.to_owned() };
    let bad = file("src/store/pack.rs", "use crate::ops::x; // crate::cli\nlet a = b.unwrap();\n");
    let used: Vec<String> = bad
        .code()
        .flat_map(|(_, line)| crate_paths(&line).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(used, ["ops"], "a comment names nothing");
    assert_eq!(bad.layer(), Some("store"));
    assert_eq!(places(&bad, ".unwrap()", "no").len(), 1);
    assert_eq!(crate_paths("use crate::{a, b};").next(), Some("a list in braces"));
    assert!(places(&file("src/a.rs", "#[cfg(test)]\nx.unwrap()"), ".unwrap()", "no").is_empty());
    assert!(has_word("eprintln!(x)", "eprintln!") && !has_word("eprintln!(x)", "println!"));
    assert_eq!(without_comment("a(\"// no\", '\"') // yes"), "a(\"\", ') ");
    assert!(
        begins_function("pub(crate) const unsafe fn f() {") && !begins_function("let fn_ = 1;")
    );
    assert_eq!(file("src/main.rs", "").layer(), None);
    assert_eq!(promise("12. `mmap_works`, shared"), Some((12, "mmap_works")));
    assert_eq!(promise("25. Locks work."), Some((25, "")));
    assert_eq!(promise("Where it is so. 2. `x`"), None);
    let tests = file("tests/a.rs", "fn a() {}\n    #[test]\n    fn mmap_works() {\n// fn b() {\n");
    assert_eq!(test_names(&tests), ["mmap_works"]);
}
