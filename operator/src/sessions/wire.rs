//! WebSocket messages over a stream, for the server's side. Framing only.
//!
//! Written here, on the header of the WebSocket library, because of memory: the library keeps for each connection the
//! largest buffer that it ever needed. Thousands of runners that each sent one long answer would hold it for days. Here a
//! connection that waits holds no buffer, and a message is never given more than [`MAX_FROM_RUNNER_BYTES`].

use std::{
    future::poll_fn,
    io::{self, Cursor},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use scriptrunner_api::session::MAX_FROM_RUNNER_BYTES;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// Bytes read and written at once.
const CHUNK_BYTES: usize = 4 * 1024;
/// Longest payload of a ping, a pong or a goodbye.
const MAX_CONTROL_BYTES: usize = 125;
/// A message that has begun must be whole after this time.
const MESSAGE_TIME: Duration = Duration::from_secs(30);
/// What is said must have left after this time.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long the other side may take to hear our last words.
const FAREWELL: Duration = Duration::from_secs(2);
/// Goodbye, before the connection is closed.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A whole message.
    Text(String),
    /// Somebody asks whether we are there; the answer must carry the same bytes.
    Ping(Vec<u8>),
    /// Somebody is there.
    Pong,
    /// Goodbye.
    Close,
}

/// Why nothing more can come or go.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed without a goodbye")]
    Closed,
    #[error("what came is no WebSocket: {0}")]
    Frame(&'static str),
    #[error("a message is longer than {MAX_FROM_RUNNER_BYTES} bytes")]
    TooLong,
    #[error("a message was not whole after {MESSAGE_TIME:?}")]
    TooSlow,
    #[error("what was said was not taken for {WRITE_TIME:?}")]
    NotTaken,
}

impl Error {
    /// For the metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Io(_) | Self::Closed => "broken",
            Self::Frame(_) => "no_websocket",
            Self::TooLong => "too_long",
            Self::TooSlow => "too_slow",
            Self::NotTaken => "not_reading",
        }
    }
}

/// A frame of which not all bytes have come.
struct Begun {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// Bytes that have come.
    done: usize,
    length: usize,
}

/// Messages over a stream.
pub(super) struct Wire<S> {
    stream: S,
    /// Bytes that have come and are not looked at.
    received: Vec<u8>,
    frame: Option<Begun>,
    control: Vec<u8>,
    message: Vec<u8>,
    in_message: bool,
    /// Since when a message has begun.
    since: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// After the upgrade; `received` has come with the request already.
    pub(super) fn new(stream: S, received: Vec<u8>) -> Self {
        Self {
            stream,
            received,
            frame: None,
            control: Vec::new(),
            message: Vec::new(),
            in_message: false,
            since: None,
        }
    }

    /// Waits for what comes next. Nothing is lost if the waiting is given up.
    pub(super) async fn next(&mut self) -> Result<Incoming, Error> {
        loop {
            if let Some(incoming) = self.parse()? {
                if !self.in_message {
                    self.since = self.is_within().then(Instant::now);
                }
                return Ok(incoming);
            }
            if self.is_within() {
                let since = *self.since.get_or_insert_with(Instant::now);
                timeout_at(since + MESSAGE_TIME, self.fill()).await.map_err(|_| Error::TooSlow)??;
            } else {
                self.received = Vec::new();
                self.fill().await?;
            }
        }
    }

    /// Says a message.
    pub(super) async fn say(&mut self, message: &str) -> Result<(), Error> {
        self.write(OpCode::Data(Data::Text), message.as_bytes()).await
    }

    /// Asks whether somebody is there.
    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        self.write(OpCode::Control(Control::Ping), &[]).await
    }

    /// Answers that we are there.
    pub(super) async fn pong(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.write(OpCode::Control(Control::Pong), payload).await
    }

    /// Says goodbye and closes.
    pub(super) async fn close(mut self) -> Result<(), Error> {
        self.write(OpCode::Control(Control::Close), &NORMAL).await?;
        self.hang_up().await;
        Ok(())
    }

    /// Closes. What is under way is read, or the system would reset the connection and our last words would be lost.
    pub(super) async fn hang_up(mut self) {
        let closing = async {
            if self.stream.shutdown().await.is_ok() {
                while self.fill().await.is_ok() {
                    self.received = Vec::new();
                }
            }
        };
        // Whether the other side goes or not, this is the end.
        let _ = timeout(FAREWELL, closing).await;
    }

    /// Whether a frame or a message has begun and is not whole.
    fn is_within(&self) -> bool {
        self.in_message || self.frame.is_some() || !self.received.is_empty()
    }

    /// Reads once. The buffer lives only while there is something in it.
    async fn fill(&mut self) -> Result<(), Error> {
        let Self { stream, received, .. } = self;
        let count = poll_fn(|context| {
            let mut chunk = [0_u8; CHUNK_BYTES];
            let mut buffer = ReadBuf::new(&mut chunk);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    received.extend_from_slice(buffer.filled());
                    Poll::Ready(Ok(buffer.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        if count == 0 { Err(Error::Closed) } else { Ok(()) }
    }

    /// Looks at what has come; none if that is not enough.
    fn parse(&mut self) -> Result<Option<Incoming>, Error> {
        loop {
            if self.frame.is_none() {
                let Some(begun) = self.header()? else { return Ok(None) };
                self.frame = Some(begun);
            }
            let Some(frame) = &mut self.frame else { return Ok(None) };
            let count = (frame.length - frame.done).min(self.received.len());
            let target = match frame.opcode {
                OpCode::Data(_) => &mut self.message,
                OpCode::Control(_) => &mut self.control,
            };
            reserve(target, count, frame.length - frame.done);
            let payload = self.received.drain(..count).zip(frame.mask.iter().cycle().skip(frame.done % 4));
            target.extend(payload.map(|(byte, mask)| byte ^ mask));
            frame.done += count;
            if frame.done < frame.length {
                return Ok(None);
            }
            let Some(frame) = self.frame.take() else { return Ok(None) };
            if let Some(incoming) = self.whole(&frame)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// The header of the next frame, if all of it has come.
    fn header(&mut self) -> Result<Option<Begun>, Error> {
        let mut cursor = Cursor::new(&self.received);
        let Some((header, length)) =
            FrameHeader::parse(&mut cursor).map_err(|_| Error::Frame("a header that nobody knows"))?
        else {
            return Ok(None);
        };
        let end = usize::try_from(cursor.position()).map_err(|_| Error::TooLong)?;
        let length = usize::try_from(length).map_err(|_| Error::TooLong)?;
        let FrameHeader { is_final, rsv1, rsv2, rsv3, opcode, mask } = header;
        let Some(mask) = mask else { return Err(Error::Frame("a frame without a mask")) };
        if rsv1 || rsv2 || rsv3 {
            return Err(Error::Frame("an extension that was not agreed upon"));
        }
        match opcode {
            OpCode::Control(_) if !is_final || length > MAX_CONTROL_BYTES => {
                return Err(Error::Frame("a control frame in parts, or too long"));
            }
            OpCode::Control(_) => self.control.clear(),
            OpCode::Data(Data::Continue) if !self.in_message => {
                return Err(Error::Frame("the continuation of nothing"));
            }
            OpCode::Data(Data::Text) if self.in_message => {
                return Err(Error::Frame("a message within a message"));
            }
            OpCode::Data(Data::Binary | Data::Reserved(_)) => {
                return Err(Error::Frame("a message that is no text"));
            }
            OpCode::Data(Data::Continue | Data::Text) => {}
        }
        if matches!(opcode, OpCode::Data(_)) {
            if length > MAX_FROM_RUNNER_BYTES - self.message.len() {
                return Err(Error::TooLong);
            }
            self.in_message = true;
        }
        self.received.drain(..end);
        Ok(Some(Begun { opcode, is_final, mask, done: 0, length }))
    }

    /// What a whole frame says; none if its message goes on.
    fn whole(&mut self, frame: &Begun) -> Result<Option<Incoming>, Error> {
        match frame.opcode {
            OpCode::Data(_) if !frame.is_final => Ok(None),
            OpCode::Data(_) => {
                self.in_message = false;
                let text = String::from_utf8(std::mem::take(&mut self.message))
                    .map_err(|_| Error::Frame("a message that is no text"))?;
                Ok(Some(Incoming::Text(text)))
            }
            OpCode::Control(Control::Ping) => Ok(Some(Incoming::Ping(std::mem::take(&mut self.control)))),
            OpCode::Control(Control::Pong) => Ok(Some(Incoming::Pong)),
            OpCode::Control(Control::Close | Control::Reserved(_)) => Ok(Some(Incoming::Close)),
        }
    }

    async fn write(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), Error> {
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        let mut bytes = Vec::with_capacity(CHUNK_BYTES.min(payload.len() + 16));
        let length = u64::try_from(payload.len()).map_err(|_| Error::Frame("a message without an end"))?;
        header.format(length, &mut bytes).map_err(|_| Error::Frame("a header that nobody can write"))?;
        let (first, rest) = payload.split_at(payload.len().min(CHUNK_BYTES - bytes.len()));
        bytes.extend_from_slice(first);
        let all = async {
            self.stream.write_all(&bytes).await?;
            for chunk in rest.chunks(CHUNK_BYTES) {
                self.stream.write_all(chunk).await?;
            }
            self.stream.flush().await
        };
        timeout(WRITE_TIME, all).await.map_err(|_| Error::NotTaken)??;
        Ok(())
    }
}

/// Makes room for `count` bytes more: at most twice what is there, so that memory follows what has come and not what a
/// header promises, and never more than the frame needs.
fn reserve(target: &mut Vec<u8>, count: usize, remaining: usize) {
    if target.capacity() - target.len() < count {
        target.reserve_exact(count.max(target.len()).min(remaining.max(count)));
    }
}

#[cfg(test)]
pub(super) mod tests;
