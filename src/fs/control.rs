//! The `snapshot` file: one write is one command, and its answer is one line of JSON.
//!
//! The work is done before the write is answered, on a thread of its own, since no shell looks at
//! the error of a close. The answer can be read through the descriptor that wrote, and by whoever
//! opens the file later.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::FsError;
use super::answer::Reader;
use super::generated::Refusals;
use crate::format::ids::TreeDigest;
use crate::format::names::{AliasName, ModelName, VersionNumber};
use crate::ops::{
    Caller, Context, NoProgress, Provenance, SnapshotOptions, SnapshotReport, Source, Workspace,
};

/// Longest command, in bytes.
pub const COMMAND_BYTES_MAX: usize = 64 << 10;
/// How long a write waits for its answer; the work goes on after that.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// Size of the control file in `stat`. No answer has it; but a file of size 0 would be empty to
/// sendfile(2), without a word to us.
pub const SIZE_BYTES: u64 = 4_096;
/// Most snapshots that run at one time.
const RUNNING_MAX: usize = 64;

/// A command as JSON has it. What is not here is refused by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    message: String,
    draft: Option<PathBuf>,
    metrics: Map<String, Value>,
    params: Map<String, Value>,
    datasets: Vec<Value>,
    labels: Map<String, Value>,
    source: Value,
    environment: Value,
    run: Value,
    interface: Value,
    parents: Vec<Value>,
    alias: Option<String>,
    #[serde(rename = "async")]
    asynchronous: bool,
}

/// When the write is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    Done,
    AtOnce,
}

/// The answer to a command that was done.
#[derive(Serialize)]
struct Success<'a> {
    ok: bool,
    version: VersionNumber,
    digest: TreeDigest,
    files: u64,
    bytes: u64,
    stored_bytes: u64,
    ms: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    existing: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
}

/// The answer to a command that was not.
#[derive(Serialize)]
struct Failed {
    ok: bool,
    errno: String,
    error: String,
}

/// The answer to a command whose work has only begun.
#[derive(Serialize)]
struct Begun<'a> {
    ok: bool,
    #[serde(rename = "async")]
    asynchronous: bool,
    model: &'a ModelName,
    progress: &'a str,
}

/// What a descriptor of the control file reads next.
#[derive(Debug, Default)]
struct Answer {
    line: Option<Arc<str>>,
    cursor: usize,
}

impl Answer {
    fn set(&mut self, line: &Arc<str>) {
        *self = Self { line: Some(Arc::clone(line)), cursor: 0 };
    }
}

/// The control file, opened.
#[derive(Debug)]
pub struct ControlHandle {
    pub model: ModelName,
    /// The record that made the model: one made anew under the name by another is not meant.
    seq: u64,
    pub opener: Caller,
    /// Guards what is read next; no other lock is taken while it is held.
    answer: Arc<Mutex<Answer>>,
}

impl ControlHandle {
    pub fn new(model: ModelName, seq: u64, opener: Caller) -> Self {
        Self { model, seq, opener, answer: Arc::default() }
    }
}

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    Done(usize),
    /// Wait for it on a thread that serves no other request.
    Pending(Pending),
}

/// A command that is being carried out.
#[derive(Debug)]
pub struct Pending {
    bytes: usize,
    done: Receiver<Result<(), FsError>>,
    answer: Arc<Mutex<Answer>>,
}

impl Pending {
    /// Blocks until the command was carried out, at most an hour; the bytes it had.
    pub fn wait(self) -> Result<usize, FsError> {
        match self.done.recv_timeout(ANSWER_TIME_MAX) {
            Ok(result) => result.map(|()| self.bytes),
            Err(RecvTimeoutError::Timeout) => {
                self.answer.lock().set(&failure_line(&FsError::Slow));
                Err(FsError::Slow)
            }
            Err(RecvTimeoutError::Disconnected) => Err(FsError::Panic),
        }
    }
}

/// Where commands are carried out and their answers kept.
pub struct Desk {
    workspace: Arc<Workspace>,
    refusals: Arc<Refusals>,
    now: fn() -> Timestamp,
    /// Guards the last answer of each model; no other lock is taken while it is held.
    last: Mutex<HashMap<ModelName, Arc<str>>>,
    running: AtomicUsize,
}

impl Desk {
    pub fn new(workspace: Arc<Workspace>, refusals: Arc<Refusals>, now: fn() -> Timestamp) -> Self {
        let (last, running) = (Mutex::default(), AtomicUsize::new(0));
        Self { workspace, refusals, now, last, running }
    }

    /// How many commands are being carried out.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// The last answer of a model.
    pub fn last(&self, model: &ModelName) -> Option<Arc<str>> {
        self.last.lock().get(model).cloned()
    }

    /// Drops the last answer of a model that is gone.
    pub fn forget(&self, model: &ModelName) {
        self.last.lock().remove(model);
    }

    /// Reads on in the answer; the bytes that fit into `out`.
    ///
    /// # Errors
    /// `Operation` for the page cache: an answer has no place in it, and sendfile(2), which would
    /// go by a size that is not true, gives an error then, after which its users read.
    pub fn read(
        &self,
        handle: &ControlHandle,
        reader: Reader,
        out: &mut [u8],
    ) -> Result<usize, FsError> {
        if reader == Reader::PageCache {
            return Err(FsError::Operation);
        }
        self.check(handle)?;
        let last = || self.last(&handle.model);
        let mut answer = handle.answer.lock();
        if answer.line.is_none() {
            answer.line = last();
        }
        let Some(line) = &answer.line else { return Ok(0) };
        let rest = &line.as_bytes()[answer.cursor..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        answer.cursor += count;
        Ok(count)
    }

    /// Takes one command and begins to carry it out.
    pub fn submit(
        self: &Arc<Self>,
        handle: &ControlHandle,
        context: Context,
        command: &[u8],
    ) -> Result<Written, FsError> {
        self.check(handle)?;
        let parsed = parse(&handle.model, command);
        let begun = parsed.and_then(|(options, when)| {
            let slot = self.take_slot()?;
            let (sender, done) = mpsc::channel();
            let answer = match when {
                When::Done => Some(Arc::clone(&handle.answer)),
                When::AtOnce => {
                    // Before the work begins, which has the last word.
                    let (model, progress) = (&handle.model, ".modelfs/status.json");
                    let line = line(&Begun { ok: true, asynchronous: true, model, progress });
                    self.publish(model, &line, Some(&handle.answer));
                    None
                }
            };
            let work = move || {
                let result = slot.desk.carry_out(&context, &options, answer.as_deref());
                drop(slot);
                // Nobody listens to an asynchronous command, nor after an hour.
                drop(sender.send(result));
            };
            let name = format!("seal {}", handle.model);
            thread::Builder::new().name(name).spawn(work).map_err(FsError::Thread)?;
            Ok((when, done))
        });
        match begun {
            Ok((When::Done, done)) => {
                let answer = Arc::clone(&handle.answer);
                Ok(Written::Pending(Pending { bytes: command.len(), done, answer }))
            }
            Ok((When::AtOnce, _)) => Ok(Written::Done(command.len())),
            Err(error) => {
                self.publish(&handle.model, &failure_line(&error), Some(&handle.answer));
                Err(error)
            }
        }
    }

    fn carry_out(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        answer: Option<&Mutex<Answer>>,
    ) -> Result<(), FsError> {
        let work = || self.workspace.snapshot(context, options, &NoProgress);
        let result = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result.map_err(FsError::Ops),
            Err(_panic) => Err(FsError::Panic),
        };
        let line = match &result {
            Ok(report) => success_line(report),
            Err(error) => failure_line(error),
        };
        self.publish(&options.model, &line, answer);
        if let Err(error) = &result {
            if answer.is_none() {
                // Nobody waits for this one; the others are logged where they are answered.
                log::info!("snapshot: {} {}", error.errno_name(), error.explanation());
            }
            self.refusals.keep(Some(options.model.clone()), (self.now)(), error);
        }
        result.map(drop)
    }

    /// ESTALE for a handle of a model that is gone.
    fn check(&self, handle: &ControlHandle) -> Result<(), FsError> {
        let seq = self.workspace.state().model(&handle.model).map(|model| model.seq);
        if seq == Some(handle.seq) { Ok(()) } else { Err(FsError::Stale) }
    }

    fn publish(&self, model: &ModelName, line: &Arc<str>, answer: Option<&Mutex<Answer>>) {
        self.last.lock().insert(model.clone(), Arc::clone(line));
        if let Some(answer) = answer {
            answer.lock().set(line);
        }
    }

    fn take_slot(self: &Arc<Self>) -> Result<Slot, FsError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst);
        let slot = Slot { desk: Arc::clone(self) };
        if RUNNING_MAX <= running {
            return Err(FsError::TooManySnapshots { running });
        }
        Ok(slot)
    }
}

/// One of the commands that run; given back when dropped.
struct Slot {
    desk: Arc<Desk>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.desk.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Parses a command: a plain message, or an object of JSON.
fn parse(model: &ModelName, command: &[u8]) -> Result<(SnapshotOptions, When), FsError> {
    if COMMAND_BYTES_MAX < command.len() {
        let reason = format!("has {} bytes: expected at most {COMMAND_BYTES_MAX}", command.len());
        return Err(malformed(reason));
    }
    let command = command.strip_suffix(b"\n").unwrap_or(command);
    let text = std::str::from_utf8(command)
        .map_err(|error| malformed(format!("is not UTF-8: {error}")))?;
    let fields = if text.starts_with('{') {
        serde_json::from_str(text)
            .map_err(|error| malformed(format!("is not an object of known fields: {error}")))?
    } else {
        Fields { message: text.to_owned(), ..Fields::default() }
    };
    let sub = fields.draft.map(|path| check_draft_path(&path)).transpose()?;
    let alias: Option<AliasName> = match fields.alias {
        Some(alias) => Some(alias.parse()?),
        None => None,
    };
    let provenance = Provenance {
        source: fields.source,
        environment: fields.environment,
        run: fields.run,
        interface: fields.interface,
        parents: fields.parents,
    };
    let map = |fields: Map<String, Value>| fields.into_iter().collect::<BTreeMap<_, _>>();
    let options = SnapshotOptions {
        model: model.clone(),
        source: Source::Draft { sub },
        message: fields.message,
        metrics: map(fields.metrics),
        params: map(fields.params),
        labels: map(fields.labels),
        datasets: fields.datasets,
        provenance: Box::new(provenance),
        captured: Map::new(),
        alias,
    };
    Ok((options, if fields.asynchronous { When::AtOnce } else { When::Done }))
}

/// A directory below the draft, without a way out of it.
fn check_draft_path(path: &Path) -> Result<PathBuf, FsError> {
    let inside = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let plain = path.components().filter(|part| matches!(part, Component::Normal(_)));
    let plain: PathBuf = plain.collect();
    if plain.as_os_str().is_empty() || !path.components().all(|part| inside(&part)) {
        return Err(FsError::Malformed {
            what: format!("the `draft` of the command, `{}`,", path.display()),
            reason: "is not a directory of the draft".to_owned(),
            advice: "give its path from `draft`, or leave it out to seal all",
        });
    }
    Ok(plain)
}

fn malformed(reason: String) -> FsError {
    FsError::Malformed {
        what: "the command for a snapshot".to_owned(),
        reason,
        advice: "write a message, or an object like {\"message\":\"first\",\"alias\":\"prod\"}",
    }
}

fn success_line(report: &SnapshotReport) -> Arc<str> {
    line(&Success {
        ok: true,
        version: report.version,
        digest: report.digest,
        files: report.files,
        bytes: report.bytes,
        stored_bytes: report.stored_bytes,
        ms: report.ms,
        existing: report.existing,
        notes: &report.notes,
    })
}

fn failure_line(error: &FsError) -> Arc<str> {
    line(&Failed { ok: false, errno: error.errno_name(), error: error.explanation() })
}

fn line(answer: &impl Serialize) -> Arc<str> {
    let mut line = serde_json::to_string(answer).expect("our answers have text keys only");
    line.push('\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(command: &[u8]) -> Result<(SnapshotOptions, When), FsError> {
        parse(&"churn".parse().unwrap(), command)
    }

    #[test]
    fn a_plain_text_is_the_message_without_its_last_newline() {
        for (command, message) in
            [("first\n", "first"), ("two\nlines\n\n", "two\nlines\n"), ("", ""), ("\n", "")]
        {
            let (options, when) = parsed(command.as_bytes()).unwrap();
            assert_eq!((options.message.as_str(), when), (message, When::Done));
            assert_eq!(options.source, Source::Draft { sub: None });
        }
    }

    #[test]
    fn an_object_gives_all_that_a_snapshot_can_have() {
        let command = json!({
            "message": "m", "draft": "./a/b/", "metrics": {"auc": 0.9}, "params": {"depth": 3},
            "datasets": [{"name": "d"}], "labels": {"team": "x"}, "alias": "prod", "async": true,
            "source": {"commit": "ab"}, "environment": {"python": "3.11"}, "run": {"exit_code": 0},
            "interface": {"inputs": []}, "parents": ["base/v1"],
        });
        let (options, when) = parsed(command.to_string().as_bytes()).unwrap();
        assert_eq!(when, When::AtOnce);
        assert_eq!(options.source, Source::Draft { sub: Some("a/b".into()) });
        assert_eq!(options.metrics["auc"], json!(0.9));
        assert_eq!(options.params["depth"], json!(3));
        assert_eq!(options.datasets, [json!({"name": "d"})]);
        assert_eq!(options.labels["team"], json!("x"));
        assert_eq!(options.alias.unwrap().as_str(), "prod");
        let Provenance { source, environment, run, interface, parents } = *options.provenance;
        assert_eq!((&source["commit"], &environment["python"]), (&json!("ab"), &json!("3.11")));
        assert_eq!((&run["exit_code"], &interface["inputs"]), (&json!(0), &json!([])));
        assert_eq!(parents, [json!("base/v1")]);
    }

    #[test]
    fn a_wrong_command_does_nothing_and_says_why() {
        let long = vec![b'x'; COMMAND_BYTES_MAX + 1];
        for (command, why) in [
            (&b"{\"message\":\"x\""[..], "EOF"),
            (b"{\"messages\":\"x\"}", "messages"),
            (b"{\"metrics\":[1]}", "invalid type"),
            (b"{\"draft\":\"../x\"}", "not a directory of the draft"),
            (b"{\"draft\":\"/etc\"}", "not a directory of the draft"),
            (b"{\"draft\":\"\"}", "not a directory of the draft"),
            (b"{\"alias\":\"a/b\"}", "the name of an alias"),
            (b"\xff", "UTF-8"),
            (&long, "65537 bytes"),
        ] {
            let error = parsed(command).unwrap_err();
            assert_eq!(error.errno(), nix::errno::Errno::EINVAL, "{error}");
            assert!(error.explanation().contains(why), "{why}: {error}");
        }
        let error = parsed(b"{\"alias\":\"latest\"}").unwrap_err();
        assert_eq!(error.errno(), nix::errno::Errno::EPERM);
    }

    #[test]
    fn an_answer_is_one_line_in_the_documented_order() {
        let report = SnapshotReport {
            model: "churn".parse().unwrap(),
            version: VersionNumber::FIRST,
            digest: TreeDigest::of(b""),
            files: 3,
            bytes: 5,
            stored_bytes: 4,
            ms: 1,
            existing: false,
            notes: Vec::new(),
        };
        let digest = TreeDigest::of(b"");
        let expected = format!(
            "{{\"ok\":true,\"version\":\"v1\",\"digest\":\"{digest}\",\"files\":3,\"bytes\":5,\
             \"stored_bytes\":4,\"ms\":1}}\n"
        );
        assert_eq!(&*success_line(&report), expected);
        let failed = failure_line(&FsError::Slow);
        assert!(
            failed.starts_with("{\"ok\":false,\"errno\":\"ETIMEDOUT\",\"error\":\""),
            "{failed}"
        );
        assert_eq!(failed.matches('\n').count(), 1);
    }
}
