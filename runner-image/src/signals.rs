//! Turns signals into something that can be waited for: SIGTERM and SIGINT ask the runner to stop, SIGCHLD wakes it.

use std::{
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    flag, low_level,
};

/// The signals received so far. Handlers, not a blocked mask: a script would inherit the mask and never see SIGTERM.
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Signals {
    pub(crate) fn install() -> std::io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The flag first, so that whoever is woken sees it.
            flag::register(signal, Arc::clone(&stop))?;
            low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        low_level::pipe::register(SIGCHLD, waker)?;
        Ok(Self { stop, wake })
    }

    /// Whether the runner was told to stop.
    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Becomes readable when a signal arrives.
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Forgets the wake-ups so far. To be called before looking at what they announced.
    pub(crate) fn clear(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(count) if count > 0) {}
    }
}
