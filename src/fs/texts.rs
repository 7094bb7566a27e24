//! Texts that take a while: made on threads of their own, once for all who wait for one, and kept.
//!
//! An open waits for its text for a while. What takes longer goes on for a while more, so that who opens it
//! again finds it; what nobody waits for is given up.
//! Invariant M1: whatever is opened, at most [`OPEN_BYTES_MAX`] and [`KEPT_BYTES_MAX`] of texts are in
//! memory, and those of [`RUNNING_MAX`] that are being made.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::FsError;
use super::made::MadePlace;
use super::quota::{Quota, Share, Taken};
use crate::ops::{Progress, WeighedCache, weighed_cache};

/// How long an open waits: it cannot be interrupted, not even by SIGKILL.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a text for which nobody waits any more goes on being made.
const LINGER_TIME_MAX: Duration = Duration::from_secs(30);
/// Most texts that are made at one time, in all and for one user.
const RUNNING_MAX: u64 = 16;
const RUNNING_OF_USER_MAX: u64 = 4;
/// Most opens that wait at one time: each has a thread.
const WAITING_MAX: u64 = 512;
const WAITING_OF_USER_MAX: u64 = 64;
/// Longest text.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Bytes of texts that are open, each open counted, as if none were kept.
const OPEN_BYTES_MAX: u64 = 128 << 20;
const OPEN_BYTES_OF_USER_MAX: u64 = 32 << 20;
/// Bytes of texts that are kept.
const KEPT_BYTES_MAX: u64 = 32 << 20;
/// Estimate of the texts that are kept, for sizing the table.
const KEPT_TYPICAL: usize = 256;

/// Where texts are made and kept.
pub(super) struct Texts {
    kept: WeighedCache<MadePlace, Arc<[u8]>>,
    /// Those that are being made. That of a job is taken while it is held, and what is kept is looked at.
    jobs: Mutex<HashMap<MadePlace, Arc<Job>>>,
    running: Arc<Quota>,
    waiting: Arc<Quota>,
    open: Arc<Quota>,
}

/// What is there of a text when it is opened.
pub(super) enum Begun {
    There(Arc<[u8]>),
    Awaited(Waiter),
}

/// A text that is open.
#[derive(Debug)]
pub struct OpenText {
    text: Arc<[u8]>,
    _share: Share,
}

impl OpenText {
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            kept: weighed_cache(KEPT_TYPICAL, KEPT_BYTES_MAX, |_, text| text.len() as u64),
            jobs: Mutex::default(),
            running: Quota::new(RUNNING_MAX, RUNNING_OF_USER_MAX),
            waiting: Quota::new(WAITING_MAX, WAITING_OF_USER_MAX),
            open: Quota::new(OPEN_BYTES_MAX, OPEN_BYTES_OF_USER_MAX),
        }
    }
}

impl Texts {
    /// A text that was made, where it is still kept.
    pub fn kept(&self, place: &MadePlace) -> Option<Arc<[u8]>> {
        self.kept.get(place)
    }

    /// Counts an open of a text.
    ///
    /// # Errors
    /// `TooManyOpen`.
    pub fn open(&self, uid: u32, text: Arc<[u8]>) -> Result<OpenText, FsError> {
        let share = self.open.take(uid, text.len() as u64);
        let share = share.map_err(|it| FsError::TooManyOpen { bytes: it.amount, by: it.by })?;
        Ok(OpenText { text, _share: share })
    }

    /// Finds a text, or waits for the one who makes it now, or begins to make it: `make` gives nothing where
    /// it is too long.
    ///
    /// # Errors
    /// `TooManyTexts`; `Thread` where none can be started.
    pub fn begin(
        self: &Arc<Self>,
        uid: u32,
        place: &MadePlace,
        make: impl FnOnce(&dyn Progress) -> Result<Option<Vec<u8>>, FsError> + Send + 'static,
    ) -> Result<Begun, FsError> {
        let mut jobs = self.jobs.lock();
        if let Some(text) = self.kept(place) {
            return Ok(Begun::There(text));
        }
        let share = self.waiting.take(uid, 1).map_err(|it| too_many(it, "texts are waited for"))?;
        if let Some(job) = jobs.get(place)
            && job.join()
        {
            return Ok(Begun::Awaited(Waiter { job: Arc::clone(job), uid, _share: share }));
        }
        let slot = self.running.take(uid, 1).map_err(|it| too_many(it, "texts are being made"))?;
        let job = Arc::new(Job::default());
        let (texts, of, made) = (Arc::clone(self), place.clone(), Arc::clone(&job));
        let work = move || {
            let text = catch_unwind(AssertUnwindSafe(|| make(&*made)));
            let text = text.unwrap_or(Err(FsError::Panic)).and_then(|text| short(text, &of));
            drop(slot);
            texts.finish(&of, &made, text);
        };
        thread::Builder::new().name("text".to_owned()).spawn(work).map_err(FsError::Thread)?;
        jobs.insert(place.clone(), Arc::clone(&job));
        Ok(Begun::Awaited(Waiter { job, uid, _share: share }))
    }

    fn finish(&self, place: &MadePlace, job: &Arc<Job>, made: Result<Arc<[u8]>, FsError>) {
        let mut jobs = self.jobs.lock();
        if let Ok(text) = &made {
            self.kept.insert(place.clone(), Arc::clone(text));
        }
        // One that was given up may have a successor.
        if jobs.get(place).is_some_and(|it| Arc::ptr_eq(it, job)) {
            jobs.remove(place);
        }
        drop(jobs);
        job.finish(made);
    }
}

fn too_many(taken: Taken, what: &'static str) -> FsError {
    FsError::TooManyTexts { count: taken.amount, what, by: taken.by }
}

fn short(text: Option<Vec<u8>>, place: &MadePlace) -> Result<Arc<[u8]>, FsError> {
    let text = text.filter(|text| text.len() <= TEXT_BYTES_MAX);
    let long = || FsError::LongText { bytes_max: TEXT_BYTES_MAX, command: place.command() };
    text.map(Arc::from).ok_or_else(long)
}

/// A text that is being made.
#[derive(Debug)]
struct Job {
    /// No other lock is taken while it is held.
    state: Mutex<JobState>,
    finished: Condvar,
}

#[derive(Debug)]
struct JobState {
    made: Option<Result<Arc<[u8]>, Arc<FsError>>>,
    waiters: usize,
    /// Since when nobody waits.
    left: Option<Instant>,
    given_up: bool,
}

impl Default for Job {
    /// One that somebody waits for.
    fn default() -> Self {
        let state = JobState { made: None, waiters: 1, left: None, given_up: false };
        Self { state: Mutex::new(state), finished: Condvar::new() }
    }
}

impl Job {
    /// One more waits for it; not where it was given up.
    fn join(&self) -> bool {
        let mut state = self.state.lock();
        if !state.given_up {
            state.waiters += 1;
            state.left = None;
        }
        !state.given_up
    }

    fn leave(&self) {
        let mut state = self.state.lock();
        state.waiters -= 1;
        if state.waiters == 0 {
            state.left = Some(Instant::now());
        }
    }

    fn finish(&self, made: Result<Arc<[u8]>, FsError>) {
        self.state.lock().made = Some(made.map_err(Arc::new));
        self.finished.notify_all();
    }
}

impl Progress for Job {
    fn begin(&self, _: &str, _: u64) {}

    fn advance(&self, _: u64) {}

    fn is_cancelled(&self) -> bool {
        let mut state = self.state.lock();
        state.given_up |= state.left.is_some_and(|left| LINGER_TIME_MAX <= left.elapsed());
        state.given_up
    }
}

/// Who waits for a text.
#[derive(Debug)]
pub(super) struct Waiter {
    job: Arc<Job>,
    uid: u32,
    _share: Share,
}

impl Waiter {
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The text, or why there is none; `SlowText` after some time.
    pub fn wait(&self) -> Result<Arc<[u8]>, FsError> {
        let mut state = self.job.state.lock();
        let is_making = |state: &mut JobState| state.made.is_none();
        self.job.finished.wait_while_for(&mut state, is_making, ANSWER_TIME_MAX);
        match &state.made {
            Some(Ok(text)) => Ok(Arc::clone(text)),
            Some(Err(error)) => Err(FsError::Text(Arc::clone(error))),
            None => Err(FsError::SlowText),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.job.leave();
    }
}

/// What is written into it is a text of bounded length.
struct Line(Vec<u8>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if TEXT_BYTES_MAX < self.0.len() + bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A report as one line of JSON, its members in the order of the type; nothing where that is too long.
pub(super) fn json_line(report: &impl Serialize) -> Option<Vec<u8>> {
    let mut line = Line(Vec::new());
    match serde_json::to_writer(&mut line, report) {
        Err(error) if error.is_io() => return None,
        written => written.expect("a report has text keys only"),
    }
    line.0.push(b'\n');
    Some(line.0)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::super::inspection::InspectionPlace;
    use super::super::made::Side;
    use super::*;
    use crate::format::ids::ManifestId;

    fn place(number: u64) -> MadePlace {
        let number = format!("v{number}").parse().unwrap();
        let side =
            Side { number, manifest: ManifestId::of(b""), sealed: jiff::Timestamp::UNIX_EPOCH };
        MadePlace::Inspection(InspectionPlace::new("churn".parse().unwrap(), side))
    }

    /// Begins a text that is made once something was sent.
    fn begin(texts: &Arc<Texts>, uid: u32, number: u64) -> Result<(Waiter, Sender<()>), FsError> {
        let (send, receive) = channel();
        let make = move |_: &dyn Progress| {
            receive.recv().map_err(|_| FsError::Missing)?;
            Ok(Some(number.to_string().into_bytes()))
        };
        match texts.begin(uid, &place(number), make)? {
            Begun::There(text) => panic!("{text:?} was made"),
            Begun::Awaited(waiter) => Ok((waiter, send)),
        }
    }

    #[test]
    fn a_text_is_made_once_for_all_who_wait_for_it() {
        let texts = Arc::new(Texts::default());
        let (first, send) = begin(&texts, 1, 7).unwrap();
        // That of another would fail, as nothing is sent for it.
        let others: Vec<Waiter> = (1..40).map(|uid| begin(&texts, uid, 7).unwrap().0).collect();
        send.send(()).unwrap();
        for waiter in others.into_iter().chain([first]) {
            assert_eq!(&*waiter.wait().unwrap(), b"7");
        }
        let again = texts.begin(2, &place(7), |_| panic!("it is kept")).unwrap();
        assert!(matches!(again, Begun::There(_)));
    }

    #[test]
    fn nobody_takes_all_who_make_texts_nor_waits_for_too_many() {
        let texts = Arc::new(Texts::default());
        let own = |number| begin(&texts, 1, number);
        let held: Vec<_> = (1..=RUNNING_OF_USER_MAX).map(|number| own(number).unwrap()).collect();
        let refused = own(99).unwrap_err();
        let expected = "4 texts are being made by you already: try again when one is done";
        assert_eq!(refused.to_string(), expected);
        let (other, send) = begin(&texts, 2, 99).unwrap();
        send.send(()).unwrap();
        assert_eq!(&*other.wait().unwrap(), b"99");
        let waiting: Vec<_> =
            (held.len() as u64..WAITING_OF_USER_MAX).map(|_| own(1).unwrap()).collect();
        let refused = own(1).unwrap_err();
        let expected = "64 texts are waited for by you already: try again when one is done";
        assert_eq!(refused.to_string(), expected);
        drop((held, waiting));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_given_up_after_a_while() {
        let job = Job::default();
        assert!(job.join());
        job.leave();
        assert!(!job.is_cancelled(), "somebody waits");
        job.leave();
        assert!(!job.is_cancelled(), "whoever waited may come back");
        assert!(job.join());
        job.leave();
        job.state.lock().left = Instant::now().checked_sub(LINGER_TIME_MAX);
        assert!(job.is_cancelled());
        assert!(!job.join(), "it will have no end");
    }

    #[test]
    fn texts_that_are_too_long_are_not_kept_and_open_ones_have_a_budget() {
        let texts = Arc::new(Texts::default());
        let make = |_: &dyn Progress| Ok(Some(vec![b' '; TEXT_BYTES_MAX + 1]));
        let Begun::Awaited(waiter) = texts.begin(1, &place(7), make).unwrap() else {
            panic!("it was never made")
        };
        let error = waiter.wait().unwrap_err();
        assert_eq!(error.errno_name(), "EFBIG");
        assert!(error.explanation().contains("`modelfs inspect churn/v7 --json`"), "{error}");
        assert!(texts.kept(&place(7)).is_none());
        assert!(json_line(&" ".repeat(TEXT_BYTES_MAX)).is_none());

        let text: Arc<[u8]> = vec![b' '; TEXT_BYTES_MAX].into();
        let open = |uid| texts.open(uid, Arc::clone(&text));
        let held = [open(1).unwrap(), open(1).unwrap()];
        assert_eq!(open(1).unwrap_err().errno_name(), "EAGAIN");
        assert_eq!(open(2).unwrap().as_bytes().len(), TEXT_BYTES_MAX);
        drop(held);
        open(1).unwrap();
    }
}
