//! What a command line says of a training: which script it is, and what random numbers begin with.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::git;

/// Names of settings whose value random numbers begin with, words joined by `_`.
const SEEDS: [&str; 6] =
    ["seed", "global_seed", "manual_seed", "np_seed", "random_seed", "random_state"];
/// Seeds of one command.
const SEED_COUNT_MAX: usize = 20;

/// The script, relative to `root`: the first file of the command below it that Git does not ignore.
///
/// `directory` is where the command is started.
pub fn entrypoint(words: &[String], directory: &Path, root: &Path) -> Option<String> {
    let root = root.canonicalize().ok()?;
    let mut inside = files(words, directory).filter(|file| file.starts_with(&root));
    let script = inside.find(|file| git::tree_of(file).is_some())?;
    script.strip_prefix(&root).ok()?.to_str().map(str::to_owned)
}

/// The working tree of the first file of the command that is in one.
pub fn tree(words: &[String], directory: &Path) -> Option<PathBuf> {
    files(words, directory).find_map(|file| git::tree_of(&file))
}

/// The files that words name, as the module behind `-m` does.
fn files(words: &[String], directory: &Path) -> impl Iterator<Item = PathBuf> {
    let file = |path: PathBuf| path.canonicalize().ok().filter(|path| path.is_file());
    words.iter().enumerate().filter_map(move |(index, word)| match word.as_str() {
        "-m" => {
            let module = directory.join(words.get(index + 1)?.replace('.', "/"));
            file(module.with_extension("py")).or_else(|| file(module.join("__main__.py")))
        }
        flag if flag.starts_with('-') => None,
        // Without a slash the first word is a program of the system.
        program if index == 0 && !program.contains('/') => None,
        word => file(directory.join(word)),
    })
}

/// Seeds by their names: `--seed 7`, `--random-state=7`, `trainer.seed=7`.
pub fn seeds(words: &[String]) -> Map<String, Value> {
    let mut seeds = Map::new();
    for (index, word) in words.iter().enumerate() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None if word.starts_with('-') => {
                (word.as_str(), words.get(index + 1).map(String::as_str))
            }
            None => continue,
        };
        let name = name.rsplit('.').next().unwrap_or(name).trim_start_matches(['-', '+']);
        let name = name.replace('-', "_");
        let number = value.and_then(|value| value.parse::<i64>().ok());
        if let Some(number) = number.filter(|_| SEEDS.contains(&name.as_str()))
            && seeds.len() < SEED_COUNT_MAX
        {
            seeds.insert(name, number.into());
        }
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_script_of_a_command_is_found() {
        let root = tempfile::tempdir().unwrap();
        git2::Repository::init(root.path()).unwrap();
        let programs = ["train.py", "run.sh", "venv/bin/torchrun", "venv/bin/python"];
        for name in
            programs.into_iter().chain(["sub/data.csv", "pkg/main.py", "pkg/app/__main__.py"])
        {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(root.path().join(".gitignore"), "venv\n").unwrap();
        let check = |line: &str, expected: Option<&str>| {
            let found = entrypoint(&words(line), root.path(), root.path());
            assert_eq!(found.as_deref(), expected, "{line}");
        };
        check("python -u train.py --data sub/data.csv", Some("train.py"));
        check("nice -n 5 python ./train.py", Some("train.py"));
        check("./run.sh", Some("run.sh"));
        check("venv/bin/python train.py", Some("train.py"));
        check("venv/bin/torchrun train.py", Some("train.py"));
        check("run.sh", None);
        check("python -m pkg.main", Some("pkg/main.py"));
        check("python -m pkg.app x", Some("pkg/app/__main__.py"));
        check("python -m", None);
        check("python /etc/passwd sub", None);
        let sub = root.path().join("sub");
        let found = entrypoint(&words("python ../train.py"), &sub, root.path());
        assert_eq!(found.as_deref(), Some("train.py"));
        let found = tree(&words("venv/bin/python train.py"), root.path());
        assert_eq!(found, root.path().canonicalize().ok());
        assert_eq!(tree(&words("venv/bin/python sub"), root.path()), None);
    }

    #[test]
    fn seeds_of_a_command_are_found() {
        let found =
            seeds(&words("train --seed 7 --random-state=-1 trainer.np_seed=3 --lr 1 --seed"));
        assert_eq!(Value::Object(found), json!({"seed": 7, "random_state": -1, "np_seed": 3}));
        assert!(seeds(&words("train seed 7 --seed x --reseed 1 --seeds=2 --seed=")).is_empty());
    }
}
