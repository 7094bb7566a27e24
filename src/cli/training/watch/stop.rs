//! Being told to end: what runs is ended, what waits wakes up. Told once more, all ends at once.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::cli::config::WATCH_VARIABLE;
use crate::cli::failure::{exit_code, of_io};
use crate::ops::{Failure, FailureKind};
use crate::sys::child::Interrupt;
use crate::sys::process::{self, EndSignals};

/// Whether this program was told to end, and what is to be ended then.
#[derive(Default)]
pub struct Stop {
    /// Nothing is locked under it.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_asked: bool,
    running: Option<Interrupt>,
    /// What is marked with it ends with this program.
    mark: Option<String>,
}

impl Stop {
    /// Listens for the signals that ask a process to end. To be called before another thread is started.
    ///
    /// # Errors
    /// Where signals cannot be held back.
    pub fn listen() -> Result<Arc<Self>, Failure> {
        let signals = EndSignals::hold();
        let signals = signals.map_err(|error| of_io("cannot hold signals back", &error))?;
        let stop = Arc::new(Self::default());
        let told = Arc::clone(&stop);
        thread::spawn(move || {
            while signals.wait().is_ok() {
                let mut state = told.state.lock();
                if state.is_asked {
                    end_at_once(state.mark.as_deref());
                }
                state.is_asked = true;
                if let Some(running) = &state.running {
                    running.interrupt();
                }
                told.changed.notify_all();
            }
        });
        Ok(stop)
    }

    /// What is marked so ends with this program, however soon that ends.
    pub fn set_mark(&self, mark: String) {
        self.state.lock().mark = Some(mark);
    }

    pub fn is_asked(&self) -> bool {
        self.state.lock().is_asked
    }

    /// Has this command ended too, from now on until the next call.
    pub fn set_running(&self, running: Option<Interrupt>) {
        let mut state = self.state.lock();
        if let Some(running) = running.as_ref().filter(|_| state.is_asked) {
            running.interrupt();
        }
        state.running = running;
    }

    /// Waits so long, or until it is asked to end; whether it was.
    pub fn pause(&self, time: Duration) -> bool {
        let limit = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.is_asked {
            if self.changed.wait_until(&mut state, limit).timed_out() {
                break;
            }
        }
        state.is_asked
    }
}

/// Ends this program wherever it is. That loses no more than `kill -9` does: nothing that was acknowledged.
fn end_at_once(mark: Option<&str>) -> ! {
    // What is left is ended by the next start.
    mark.into_iter().for_each(|mark| drop(process::kill_marked(WATCH_VARIABLE, mark)));
    std::process::exit(i32::from(exit_code(FailureKind::CouldNot)));
}
