//! How each inode does its I/O: through us, or by the kernel straight from the disk.
//!
//! Invariant F1: an inode has one way of I/O from its first open to its last release; the kernel
//! answers EIO to all who have it open otherwise. Invariant F2: all opens that pass through share
//! one registration with the kernel. So the way is chosen when nobody has the inode open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

#[derive(Debug)]
enum Mode<I> {
    Cached { opens: u64 },
    Passthrough { opens: u64, id: Arc<I> },
}

/// The way of each inode that is open; one that is not here is idle.
///
/// `I` is the registration of a file with the kernel, undone when it is dropped.
#[derive(Debug)]
pub(super) struct Modes<I> {
    /// Held while a file is registered, so that two first opens agree; taken with no other lock.
    modes: Mutex<HashMap<u64, Mode<I>>>,
    /// Off where the kernel has none or has refused once in a way that will not change.
    enabled: AtomicBool,
}

/// Whether it makes sense to ask the kernel again after it refused a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Of this file.
    Once,
    /// Of this process or this disk.
    ForGood,
}

/// An open that can be served in no way that is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unusable;

impl<I> Modes<I> {
    pub(super) fn new() -> Self {
        Self { modes: Mutex::default(), enabled: AtomicBool::new(false) }
    }

    pub(super) fn enable(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Counts an open of `number`; the registration to use, or `None` for I/O through us.
    ///
    /// # Errors
    /// `Unusable` where the inode passes through to a file that is not `usable` any more. The kernel
    /// allows no other way until all who have it open have closed it; nothing is counted then.
    pub(super) fn open(
        &self,
        number: u64,
        register: impl FnOnce() -> Result<I, Refusal>,
        usable: impl FnOnce(&I) -> bool,
    ) -> Result<Option<Arc<I>>, Unusable> {
        let mut modes = self.modes.lock();
        match modes.get_mut(&number) {
            Some(Mode::Cached { opens }) => {
                *opens += 1;
                return Ok(None);
            }
            Some(Mode::Passthrough { opens, id }) => {
                if !usable(id) {
                    return Err(Unusable);
                }
                *opens += 1;
                return Ok(Some(Arc::clone(id)));
            }
            None => {}
        }
        let registered = if self.is_enabled() { register() } else { Err(Refusal::Once) };
        let (mode, id) = match registered {
            Ok(id) => {
                let id = Arc::new(id);
                (Mode::Passthrough { opens: 1, id: Arc::clone(&id) }, Some(id))
            }
            Err(refusal) => {
                if refusal == Refusal::ForGood {
                    self.enabled.store(false, Ordering::Relaxed);
                }
                (Mode::Cached { opens: 1 }, None)
            }
        };
        modes.insert(number, mode);
        Ok(id)
    }

    /// Counts a release of `number`; at the last one the inode is idle again.
    pub(super) fn release(&self, number: u64) {
        let mut modes = self.modes.lock();
        let Some(mode) = modes.get_mut(&number) else { return };
        let opens = match mode {
            Mode::Cached { opens } | Mode::Passthrough { opens, .. } => opens,
        };
        *opens -= 1;
        if *opens == 0 {
            let idle = modes.remove(&number);
            // Outside the lock: it may be the last close of a large file without a name.
            drop(modes);
            drop(idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Opened = Result<Option<Arc<&'static str>>, Unusable>;

    fn enabled() -> Modes<&'static str> {
        let modes = Modes::new();
        modes.enable();
        modes
    }

    /// An open whose file can be registered so.
    fn open(modes: &Modes<&'static str>, registered: Result<&'static str, Refusal>) -> Opened {
        modes.open(7, || registered, |_| true)
    }

    /// An open of an inode that has its way.
    fn open_again(modes: &Modes<&'static str>) -> Opened {
        modes.open(7, || panic!("it has a way"), |_| true)
    }

    #[test]
    fn an_inode_keeps_its_way_until_the_last_release() {
        let modes = enabled();
        assert_eq!(open(&modes, Err(Refusal::Once)), Ok(None));
        assert_eq!(open_again(&modes), Ok(None));
        modes.release(7);
        assert_eq!(open_again(&modes), Ok(None));
        modes.release(7);
        modes.release(7);
        assert_eq!(open(&modes, Ok("id")), Ok(Some(Arc::new("id"))));
    }

    #[test]
    fn all_opens_that_pass_through_share_one_registration() {
        let modes = enabled();
        let first = open(&modes, Ok("id")).unwrap().unwrap();
        let second = open_again(&modes).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        modes.release(7);
        assert_eq!(open_again(&modes), Ok(Some(Arc::new("id"))));
        modes.release(7);
        modes.release(7);
        assert_eq!(open(&modes, Ok("new")), Ok(Some(Arc::new("new"))));
    }

    #[test]
    fn a_file_that_is_not_usable_any_more_fails_further_opens_until_the_last_release() {
        let modes = enabled();
        open(&modes, Ok("id")).unwrap();
        open_again(&modes).unwrap();
        assert_eq!(modes.open(7, || panic!("it has a way"), |_| false), Err(Unusable));
        modes.release(7);
        assert_eq!(modes.open(7, || panic!("it has a way"), |_| false), Err(Unusable));
        modes.release(7);
        assert_eq!(modes.open(7, || Err(Refusal::Once), |_| false), Ok(None));
        assert_eq!(modes.open(7, || panic!("it has a way"), |_| false), Ok(None));
    }

    #[test]
    fn a_kernel_that_refuses_for_good_is_not_asked_again() {
        let modes = enabled();
        assert_eq!(open(&modes, Err(Refusal::ForGood)), Ok(None));
        assert!(!modes.is_enabled());
        assert_eq!(modes.open(8, || panic!("not again"), |_| true), Ok(None));
        let off: Modes<&str> = Modes::new();
        assert_eq!(off.open(1, || panic!("was never enabled"), |_| true), Ok(None));
    }

    #[test]
    fn a_release_that_nobody_opened_is_ignored() {
        enabled().release(7);
    }
}
