//! Turns signals, and what the session's thread has to say, into something that can be waited for: SIGTERM and SIGINT ask
//! the runner to stop, SIGCHLD wakes it.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    flag, low_level,
};

use crate::log;

/// Lines of another thread that wait to be logged; of more, the oldest are dropped.
const MOST_LINES: usize = 64;

/// The signals received so far. Handlers, not a blocked mask: a script would inherit the mask and never see SIGTERM.
pub(crate) struct Signals {
    terminated: Arc<AtomicBool>,
    wake: UnixStream,
    alarm: Alarm,
}

/// How another thread wakes the one that waits. It never blocks.
#[derive(Clone)]
pub(crate) struct Alarm {
    stop: Arc<AtomicBool>,
    lines: Arc<Mutex<VecDeque<String>>>,
    waker: Arc<UnixStream>,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let terminated = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The flag first, so that whoever is woken sees it.
            flag::register(signal, Arc::clone(&terminated))?;
            low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        low_level::pipe::register(SIGCHLD, waker.try_clone()?)?;
        let alarm = Alarm { stop: Arc::default(), lines: Arc::default(), waker: Arc::new(waker) };
        Ok(Self { terminated, wake, alarm })
    }

    /// Whether the runner was told to stop, by a signal or by the operator.
    pub(crate) fn stop_requested(&self) -> bool {
        self.is_terminated() || self.alarm.stop.load(Ordering::SeqCst)
    }

    /// Whether the runner was told to stop by a signal: then it is killed if it does not end.
    pub(crate) fn is_terminated(&self) -> bool {
        self.terminated.load(Ordering::SeqCst)
    }

    /// Becomes readable when a signal arrives, or another thread has something to say.
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Forgets the wake-ups so far, and logs what other threads had to say. To be called before looking at what the
    /// wake-ups announced.
    pub(crate) fn clear(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(count) if count > 0) {}
        for line in self.alarm.taken_lines() {
            log::line(&line);
        }
    }

    /// For another thread.
    pub(crate) fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }
}

impl Alarm {
    /// Ends the wait of the other thread.
    pub(crate) fn wake(&self) {
        // A full pipe wakes as well.
        let _ = (&*self.waker).write(&[0]);
    }

    /// Tells the runner to stop.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Has a line logged by the thread that waits: of two writers one could fill the pipe under the other, and block it.
    pub(crate) fn log(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MOST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
        drop(lines);
        self.wake();
    }

    fn taken_lines(&self) -> VecDeque<String> {
        std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
