//! The serial line to an adapter: whole lines in, encoded commands out.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reader::{LineReader, RawLine};
use crate::can::CanError;
use crate::timer::TimerKind;

/// The clock of the SLCAN host: its deadlines of half a second need no finer clock, and tests can pause this
/// one.
pub(super) const CLOCK: TimerKind = TimerKind::Runtime;

/// The serial line to an adapter.
pub(super) struct AdapterLine<S> {
    /// The device as the configuration names it, for errors.
    pub(super) device: String,
    stream: S,
    reader: LineReader,
    /// Encoded commands that wait to be written.
    pub(super) out: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> AdapterLine<S> {
    pub(super) fn new(device: &str, stream: S) -> Self {
        Self { device: device.to_owned(), stream, reader: LineReader::default(), out: Vec::new() }
    }

    pub(super) fn lost(&self, source: io::Error) -> CanError {
        CanError::Device { device: self.device.clone(), source }
    }

    pub(super) fn unsupported(&self, what: impl Into<String>) -> CanError {
        CanError::Unsupported { device: self.device.clone(), what: what.into() }
    }

    pub(super) fn protocol(&self, detail: impl Into<String>) -> CanError {
        CanError::Protocol { device: self.device.clone(), detail: detail.into() }
    }

    /// Writes the waiting bytes; ready once all are written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CanError>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out)) {
                Ok(0) => return Poll::Ready(Err(self.lost(io::ErrorKind::WriteZero.into()))),
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) => return Poll::Ready(Err(self.lost(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next line of the adapter.
    pub(super) fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<RawLine, CanError>> {
        loop {
            if let Some(line) = self.reader.next_line() {
                return Poll::Ready(Ok(line));
            }
            let mut bytes = [0; 4096];
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(self.lost(io::ErrorKind::UnexpectedEof.into())));
                }
                Ok(()) => self.reader.push(buffer.filled()),
                Err(error) => return Poll::Ready(Err(self.lost(error))),
            }
        }
    }

    /// The next line; `None` if none arrives within `limit`. Meanwhile the waiting bytes are written.
    pub(super) async fn line_within(&mut self, limit: Duration) -> Result<Option<RawLine>, CanError> {
        let line = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            self.poll_line(cx)
        });
        tokio::time::timeout(limit, line).await.ok().transpose()
    }
}
