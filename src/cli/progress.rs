//! Progress bars: on a terminal only, and only for what takes more than a second.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use super::table::printable;
use crate::ops::Progress;

/// What is done sooner shows nothing.
const QUIET_TIME: Duration = Duration::from_secs(1);

const TEMPLATE: &str = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {eta}";

/// A bar on standard error, cleared when dropped.
#[derive(Default)]
pub struct Bar {
    /// Guards the bar of the work under way; nothing is locked under it.
    work: Mutex<Option<Work>>,
}

struct Work {
    what: String,
    bytes_total: u64,
    bytes: u64,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Progress for Bar {
    fn begin(&self, what: &str, bytes_total: u64) {
        let mut work = self.work.lock();
        clear(work.take());
        if stderr().is_terminal() {
            let (what, begun) = (printable(what), Instant::now());
            *work = Some(Work { what, bytes_total, bytes: 0, begun, bar: None });
        }
    }

    fn advance(&self, bytes: u64) {
        let mut work = self.work.lock();
        let Some(work) = work.as_mut() else { return };
        work.bytes = work.bytes.saturating_add(bytes);
        if work.bar.is_none() && QUIET_TIME <= work.begun.elapsed() {
            let style = ProgressStyle::with_template(TEMPLATE).expect("the template is a constant");
            let bar =
                ProgressBar::with_draw_target(Some(work.bytes_total), ProgressDrawTarget::stderr());
            bar.set_style(style.progress_chars("=> "));
            bar.set_message(work.what.clone());
            work.bar = Some(bar);
        }
        if let Some(bar) = &work.bar {
            bar.set_position(work.bytes);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        clear(self.work.lock().take());
    }
}

fn clear(work: Option<Work>) {
    if let Some(bar) = work.and_then(|work| work.bar) {
        bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_one() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }
}
