//! Waits for file descriptors, for a bounded time.

use std::{os::fd::AsFd, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits until one of the descriptors is ready, a signal arrives, or the time is over. None waits without limit.
pub(crate) fn wait(descriptors: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.map(|duration| {
        Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 })
    });
    // Every caller looks at the state of the world again, so an interruption is as good as an event.
    let _ = poll(descriptors, timeout.as_ref());
}

/// Whether a write of one page would not block; waits for that at most as long as the patience.
pub(crate) fn is_writable(descriptor: &impl AsFd, patience: Duration) -> bool {
    let mut descriptors = [PollFd::new(descriptor, PollFlags::OUT)];
    wait(&mut descriptors, Some(patience));
    !descriptors[0].revents().is_empty()
}
