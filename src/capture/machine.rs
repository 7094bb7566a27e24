//! The machine that a training runs on: operating system, processors, accelerators, as the kernel tells them.
//!
//! All of it is files to read: no program is started, and a machine that hides some of them is told by the
//! others.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Bytes of a file of the kernel's that are looked at: of many processors the first ones tell.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Accelerators that are told of.
const GPU_COUNT_MAX: usize = 64;
/// What the kernel calls AMD.
const AMD: &str = "0x1002";

/// The members `os`, `cpu` and `gpu` of `environment`, as far as they can be told.
///
/// `root` is where the file system begins: `/` but in tests.
pub fn describe(root: &Path) -> Map<String, Value> {
    let told = [("os", os(root)), ("cpu", cpu(root)), ("gpu", gpus(root))];
    let told = told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    told.collect()
}

/// Such as `Debian GNU/Linux 12 (bookworm), Linux 6.18.0`.
fn os(root: &Path) -> Option<Value> {
    let release = ["etc/os-release", "usr/lib/os-release"].map(|name| text(&root.join(name)));
    let name = release.iter().flatten().find_map(|text| {
        let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(name.trim_matches(['"', '\'']).to_owned())
    });
    let kernel = line(&root.join("proc/sys/kernel/osrelease")).map(|it| format!("Linux {it}"));
    let told: Vec<String> = name.into_iter().chain(kernel).collect();
    (!told.is_empty()).then(|| json!(told.join(", ")))
}

fn cpu(root: &Path) -> Option<Value> {
    let info = text(&root.join("proc/cpuinfo"))?;
    let memory = text(&root.join("proc/meminfo")).unwrap_or_default();
    let kibibytes = field(&memory, "MemTotal").and_then(|it| it.split(' ').next()?.parse().ok());
    let processors = info.lines().filter(|line| key(line) == Some("processor")).count();
    let mut cpu = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        value.map(|value| cpu.insert(name.to_owned(), value));
    };
    put("model", field(&info, "model name").map(Value::from));
    put("architecture", line(&root.join("proc/sys/kernel/arch")).map(Value::from));
    put("processors", (0 < processors).then(|| json!(processors)));
    put("memory_bytes", kibibytes.map(|it: u64| json!(it.saturating_mul(1 << 10))));
    Some(Value::Object(cpu))
}

fn gpus(root: &Path) -> Option<Value> {
    let mut gpus = nvidia(root);
    gpus.extend(amd(root));
    gpus.truncate(GPU_COUNT_MAX);
    (!gpus.is_empty()).then_some(Value::Array(gpus))
}

/// What NVIDIA's driver tells in `/proc`.
fn nvidia(root: &Path) -> Vec<Value> {
    let driver = root.join("proc/driver/nvidia");
    let version = text(&driver.join("version")).as_deref().and_then(driver_version);
    let told = entries(&driver.join("gpus")).into_iter().filter_map(|place| {
        let info = text(&place.join("information"))?;
        let mut gpu = json!({ "model": field(&info, "Model")? });
        if let Some(version) = &version {
            gpu["driver"] = json!(version);
        }
        Some(gpu)
    });
    told.collect()
}

/// The first word that is numbers with dots between them.
fn driver_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    text.split_whitespace().find(is_version).map(str::to_owned)
}

/// What AMD's driver tells in `/sys`.
fn amd(root: &Path) -> Vec<Value> {
    let cards = entries(&root.join("sys/class/drm")).into_iter();
    // `card0` is a card, `card0-DP-1` a socket of it.
    let is_card = |place: &PathBuf| {
        let digits = place.file_name().and_then(|it| it.to_str()?.strip_prefix("card"));
        digits.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let told = cards.filter(is_card).filter_map(|card| {
        let device = card.join("device");
        line(&device.join("vendor")).filter(|vendor| vendor == AMD)?;
        let model = line(&device.join("product_name")).filter(|name| !name.is_empty());
        let number = || Some(format!("AMD {}", line(&device.join("device"))?));
        let mut gpu = json!({ "model": model.or_else(number)? });
        let memory = line(&device.join("mem_info_vram_total"));
        if let Some(bytes) = memory.and_then(|it| it.parse::<u64>().ok()) {
            gpu["memory_bytes"] = json!(bytes);
        }
        Some(gpu)
    });
    told.collect()
}

/// What stands behind `name` and a colon, on the first line that begins so.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| key(line) == Some(name))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn key(line: &str) -> Option<&str> {
    line.split_once(':').map(|(name, _)| name.trim())
}

/// A file of one line.
fn line(path: &Path) -> Option<String> {
    text(path).map(|text| text.trim().to_owned()).filter(|text| !text.contains('\n'))
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is in a directory, sorted by name.
fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    let listed = fs::read_dir(directory).into_iter().flatten().flatten();
    listed.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files below a directory of their own.
    fn machine(files: &[(&str, &str)]) -> Value {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Value::Object(describe(root.path()))
    }

    #[test]
    fn a_machine_is_told_by_its_files() {
        let found = machine(&[
            ("etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            ("proc/sys/kernel/osrelease", "6.18.0\n"),
            ("proc/sys/kernel/arch", "x86_64\n"),
            (
                "proc/cpuinfo",
                "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: B\n",
            ),
            ("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n"),
            (
                "proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu\nGCC 12",
            ),
            (
                "proc/driver/nvidia/gpus/0000:01/information",
                "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 7\n",
            ),
            ("sys/class/drm/card1/device/vendor", "0x1002\n"),
            ("sys/class/drm/card1/device/device", "0x740f\n"),
            ("sys/class/drm/card1/device/mem_info_vram_total", "68702699520\n"),
            ("sys/class/drm/card1-DP-1/device/vendor", "0x1002\n"),
            ("sys/class/drm/card0/device/vendor", "0x1a03\n"),
        ]);
        let expected = json!({
            "os": "Debian GNU/Linux 12 (bookworm), Linux 6.18.0",
            "cpu": {"model": "A CPU @ 2 GHz", "architecture": "x86_64", "processors": 2,
                    "memory_bytes": 16_777_216},
            "gpu": [{"model": "NVIDIA H100 80GB HBM3", "driver": "550.54.14"},
                    {"model": "AMD 0x740f", "memory_bytes": 68_702_699_520_u64}],
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_machine_that_tells_nothing_has_no_members() {
        assert_eq!(machine(&[]), json!({}));
        let found = machine(&[("proc/cpuinfo", "\u{0}: :\n:::"), ("etc/os-release", "x")]);
        assert_eq!(found, json!({"cpu": {}}));
    }

    #[test]
    fn this_machine_says_something() {
        let found = Value::Object(describe(Path::new("/")));
        assert!(found["os"].as_str().unwrap().contains("Linux"), "{found}");
        assert!(found["cpu"]["processors"].as_u64().unwrap() > 0, "{found}");
    }
}
