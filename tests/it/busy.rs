//! A draft that somebody still writes is not sealed, and the refusal names what is open.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use crate::harness::{Bench, Mount, fixtures, noise, require_program};

fn check_shell(shell: &str) {
    let mount = Mount::with_churn();
    mount.fill_draft("v1");
    let script = r#"
exec 4>>"$M/churn/draft/weights.onnx"
echo "too early" > "$M/churn/snapshot"
echo "status=$?"
cat "$M/churn/snapshot"
"#;
    let shown = mount.run(shell, script).ok();
    let (status, answer) = shown.stdout.split_once('\n').expect("two lines");
    assert_eq!(status, "status=1", "{shown:?}");
    assert!(answer.contains("\"ok\":false") && answer.contains("\"errno\":\"EBUSY\""), "{answer}");
    assert!(answer.contains("weights.onnx"), "the file is named: {answer}");
    assert!(!answer.contains("params.json"), "and only that one: {answer}");
    assert_eq!(mount.names("churn"), ["draft", "snapshot"], "nothing was sealed");
    for name in ["weights.onnx", "params.json", "metrics.json"] {
        let kept = fs::read(mount.path("churn/draft").join(name)).expect("still there");
        assert_eq!(kept, fs::read(fixtures().join("v1").join(name)).expect("a fixture"), "{name}");
    }
    mount.run(shell, r#"echo "now" > "$M/churn/snapshot""#).ok();
    assert_eq!(mount.answer("churn")["version"], "v1");
}

#[test]
fn a_file_open_for_writing_holds_a_seal_up_in_bash() {
    check_shell("bash");
}

#[test]
fn a_file_open_for_writing_holds_a_seal_up_in_dash() {
    require_program("dash", "dash");
    check_shell("dash");
}

#[test]
fn a_file_open_for_writing_holds_a_seal_up_in_busybox() {
    require_program("busybox", "busybox-static");
    check_shell("busybox sh");
}

#[test]
fn a_file_open_for_reading_holds_nothing_up() {
    let mount = Mount::with_churn();
    let path = mount.path("churn/draft/weights");
    fs::write(&path, "w").expect("a draft file");
    let held = File::open(&path).expect("it is there");
    assert_eq!(mount.seal("churn", "one")["version"], "v1");
    drop(held);
    assert_eq!(mount.text("churn/v1/weights"), "w");
}

#[test]
fn a_writable_map_holds_a_seal_up_after_its_descriptor_is_closed() {
    require_program("python3", "python3");
    let mount = Mount::with_churn();
    let script = r#"
import errno, mmap, os
model = os.environ["M"] + "/churn"
fd = os.open(model + "/draft/mapped", os.O_RDWR | os.O_CREAT)
os.write(fd, b"x" * 8192)
held = mmap.mmap(fd, 8192)
os.close(fd)
held[0:5] = b"first"
control = os.open(model + "/snapshot", os.O_WRONLY)
try:
    os.write(control, b"too early\n")
    raise SystemExit("it was sealed")
except OSError as error:
    assert error.errno == errno.EBUSY, error
assert "mapped" in open(model + "/snapshot").read()
held[0:6] = b"second"
held.close()
os.write(control, b"now\n")
assert open(model + "/v1/mapped", "rb").read(6) == b"second"
"#;
    mount.run("python3", script).ok();
    mount.assert_sound();
}

#[test]
fn only_what_is_sealed_has_to_be_quiet() {
    let mount = Mount::with_churn();
    let draft = mount.path("churn/draft");
    for name in ["done", "training"] {
        fs::create_dir(draft.join(name)).expect("a directory");
        fs::write(draft.join(name).join("weights"), name).expect("a draft file");
    }
    let mut open = File::options().append(true).open(draft.join("training/weights")).expect("open");
    let (errno, _) = mount.refused("churn", b"{\"message\": \"x\", \"draft\": \"training\"}");
    assert_eq!(errno, libc::EBUSY);
    assert_eq!(mount.refused("churn", b"all of it\n").0, libc::EBUSY);
    let answer = mount.seal("churn", r#"{"message": "x", "draft": "done"}"#);
    assert_eq!(answer["version"], "v1");
    assert_eq!(mount.text("churn/v1/weights"), "done");
    open.write_all(b" goes on").expect("the writer was not disturbed");
    drop(open);
    mount.seal("churn", r#"{"message": "x", "draft": "training"}"#);
    assert_eq!(mount.text("churn/v2/weights"), "training goes on");
}

#[test]
fn a_command_line_says_busy_with_its_exit_status() {
    let mount = Mount::with_churn();
    let path = mount.path("churn/draft/weights");
    let held = File::create(&path).expect("a draft file");
    mount.cli(&["snapshot", "churn", "-m", "too early"]).exits(5).says("weights");
    drop(held);
    fs::write(&path, "w").expect("a draft file");
    mount.cli(&["snapshot", "churn", "-m", "now"]).ok().says("v1");
}

#[test]
fn a_writer_that_comes_late_ends_a_snapshot_with_its_reason_and_no_daemon() {
    let bench = Bench::new();
    let path = bench.write("weights", noise(1, 16 << 20));
    let source = path.to_str().expect("text");
    let is_held_up = || {
        let late = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        late.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    };
    for number in 0..20 {
        let message = format!("try {number}");
        let snapshot = ["snapshot", "churn", source, "-m", &message];
        let (sealed, came_late) = thread::scope(|scope| {
            let sealing = scope.spawn(|| bench.cli(&snapshot));
            let mut came_late = false;
            while !came_late && !sealing.is_finished() {
                thread::sleep(Duration::from_millis(1));
                came_late = is_held_up();
            }
            (sealing.join().expect("no panic"), came_late)
        });
        if came_late {
            sealed.exits(5).says("weights").says("changed");
            return;
        }
    }
    panic!("no writer came while the file was read");
}
