//! One output stream of a program: what arrives is captured, and passed on to the pod's log without ever blocking.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, write},
    stdio,
};

use crate::{
    capture::{Capture, Captured},
    mask::{Mask, MaskedLines},
    poll,
    signals::Signals,
};

const READ_BYTES: usize = 64 * 1024;
/// A pipe that is ready for writing takes at least this much without blocking (`PIPE_BUF`).
const WRITE_BYTES: usize = 4096;
/// More than fits into a pipe, even one made larger.
const REST_BYTES: usize = 2 * 1024 * 1024;
/// How long a full log holds the program up before output is captured without being logged.
const STALL: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where a stream is passed on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlet {
    Stdout,
    Stderr,
}

pub(super) struct Stream {
    source: Option<OwnedFd>,
    capture: Capture,
    mask: Option<MaskedLines>,
    buffer: Vec<u8>,
    log: Log,
}

/// The way into the pod's log.
struct Log {
    fd: BorrowedFd<'static>,
    pending: Vec<u8>,
    written: usize,
    last_progress: Instant,
    state: LogState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LogState {
    /// Takes everything; the program waits for it.
    Flowing,
    /// Was full for too long; what does not fit at once is dropped.
    Stalled,
    /// Nobody reads it.
    Closed,
}

/// Waits for any of: a signal, output of the program, room in the log, the time; then moves what can be moved.
pub(super) fn pump(streams: &mut [Stream; 2], signals: &Signals, timeout: Option<Duration>) {
    let is_pending = streams.iter().any(Stream::is_pending);
    let timeout =
        if is_pending { Some(timeout.map_or(LOOK_AGAIN, |time| time.min(LOOK_AGAIN))) } else { timeout };
    let mut writable = [false; 2];
    {
        let wake = signals.wake_fd();
        let mut descriptors = vec![PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        let mut logs = [None; 2];
        for (stream, log) in streams.iter().zip(&mut logs) {
            if stream.is_pending() {
                *log = Some(descriptors.len());
                descriptors.push(PollFd::from_borrowed_fd(stream.log.fd, PollFlags::OUT));
            }
            if let Some(source) = stream.source.as_ref().filter(|_| stream.log.can_take()) {
                descriptors.push(PollFd::new(source, PollFlags::IN));
            }
        }
        poll::wait(&mut descriptors, timeout);
        for (is_writable, log) in writable.iter_mut().zip(logs) {
            *is_writable = log.is_some_and(|index| !descriptors[index].revents().is_empty());
        }
    }
    for (stream, is_writable) in streams.iter_mut().zip(writable) {
        stream.advance(is_writable);
    }
}

impl Stream {
    pub(super) fn new(source: OwnedFd, capture: Capture, outlet: Outlet, mask: Option<&Mask>) -> Self {
        // The other end, the program's, keeps blocking. Cannot fail on a pipe.
        let _ = fcntl_getfl(&source).and_then(|flags| fcntl_setfl(&source, flags | OFlags::NONBLOCK));
        let fd = match outlet {
            Outlet::Stdout => stdio::stdout(),
            Outlet::Stderr => stdio::stderr(),
        };
        Self {
            source: Some(source),
            capture,
            mask: mask.cloned().map(MaskedLines::new),
            buffer: vec![0; READ_BYTES],
            log: Log {
                fd,
                pending: Vec::new(),
                written: 0,
                last_progress: Instant::now(),
                state: LogState::Flowing,
            },
        }
    }

    /// Whether somebody may still write to it.
    pub(super) fn is_open(&self) -> bool {
        self.source.is_some()
    }

    /// Whether the log has not taken everything yet.
    pub(super) fn is_pending(&self) -> bool {
        !self.log.pending.is_empty()
    }

    /// Reads what is there without waiting for the log or for more, and closes the stream.
    pub(super) fn read_rest(&mut self) {
        let mut rest = REST_BYTES;
        while self.is_open() && rest > 0 {
            match self.read_some() {
                0 => break,
                count => rest = rest.saturating_sub(count),
            }
        }
        self.close();
    }

    pub(super) fn finish(self) -> Captured {
        self.capture.finish()
    }

    fn advance(&mut self, is_writable: bool) {
        self.log.advance(is_writable);
        if self.log.can_take() {
            self.read_some();
        }
    }

    /// Takes what is there, and says how much. The end of the stream closes it.
    fn read_some(&mut self) -> usize {
        let Some(source) = &self.source else { return 0 };
        match read(source, &mut *self.buffer) {
            Ok(count) if count > 0 => {
                if let Some(mask) = &mut self.mask {
                    let masked = mask.feed(&self.buffer[..count]);
                    self.capture.push(&masked);
                    self.log.offer(&masked);
                } else {
                    self.capture.push(&self.buffer[..count]);
                    self.log.offer(&self.buffer[..count]);
                }
                count
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Ok(_) | Err(_) => {
                self.close();
                0
            }
        }
    }

    fn close(&mut self) {
        self.source = None;
        if let Some(mask) = &mut self.mask {
            let rest = mask.rest();
            self.capture.push(&rest);
            self.log.offer(&rest);
        }
    }
}

impl Log {
    fn can_take(&self) -> bool {
        self.pending.is_empty() || self.state != LogState::Flowing
    }

    fn offer(&mut self, chunk: &[u8]) {
        match self.state {
            LogState::Closed => {}
            _ if chunk.is_empty() => {}
            LogState::Flowing | LogState::Stalled => {
                if self.pending.is_empty() {
                    self.last_progress = Instant::now();
                }
                self.pending.extend_from_slice(chunk);
            }
        }
    }

    fn advance(&mut self, is_writable: bool) {
        if self.pending.is_empty() {
            return;
        }
        if is_writable {
            self.write_some();
        } else if self.state == LogState::Stalled {
            self.clear();
        } else if self.last_progress.elapsed() >= STALL {
            self.state = LogState::Stalled;
            self.clear();
        }
    }

    fn write_some(&mut self) {
        let end = self.pending.len().min(self.written + WRITE_BYTES);
        match write(self.fd, &self.pending[self.written..end]) {
            Ok(count) => {
                self.written += count;
                self.last_progress = Instant::now();
                self.state = LogState::Flowing;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                self.state = LogState::Closed;
                self.clear();
            }
        }
        if self.written == self.pending.len() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.pending.clear();
        self.written = 0;
    }
}
