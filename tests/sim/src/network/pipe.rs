//! One direction of a connection: delivers bytes later, in order.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::conditions::{Conditions, Direction};

/// Limit of the bytes in flight in one direction. Beyond it the pipe stops reading, and the sender has to
/// wait.
const IN_FLIGHT: usize = 4 << 20;
/// Size of one read, in bytes.
const READ: usize = 16 * 1024;
/// The number of pieces per second in which bytes are delivered when bandwidth is limited.
const PIECES: u32 = 100;

/// How a direction ended.
pub(super) enum PipeEnd {
    /// The sender closed its direction, and all its bytes have arrived.
    Finished,
    /// A peer broke the connection.
    Broken,
}

struct InFlight {
    arrives_at: Instant,
    bytes: Bytes,
}

/// One direction of a connection.
pub(super) struct Pipe<R, W> {
    reader: R,
    writer: W,
    conditions: Conditions,
    direction: Direction,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// When the limited bandwidth has room for the next piece.
    free_at: Instant,
    at_end: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pipe<R, W> {
    pub(super) fn new(reader: R, writer: W, conditions: Conditions, direction: Direction) -> Self {
        Self {
            reader,
            writer,
            conditions,
            direction,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            free_at: Instant::now(),
            at_end: false,
        }
    }

    pub(super) async fn drive(mut self) -> PipeEnd {
        let mut weather = self.conditions.weather();
        let mut buffer = vec![0; READ];
        loop {
            let now = *weather.borrow_and_update();
            let Some(next) = self.in_flight.front() else {
                if self.at_end {
                    // the peer may have closed the connection already
                    let _ = self.writer.shutdown().await;
                    return PipeEnd::Finished;
                }
                match self.reader.read(&mut buffer).await {
                    Ok(read) => self.enqueue(buffer.get(..read).unwrap_or_default(), weather.borrow().delay),
                    Err(_) => return PipeEnd::Broken,
                }
                continue;
            };
            let due = next.arrives_at.max(self.free_at).max(now.stalled_until.unwrap_or(next.arrives_at));
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => {
                    if self.deliver(now.bytes_per_second).await.is_err() {
                        return PipeEnd::Broken;
                    }
                }
                // the sender's half lives as long as this pipe
                _ = weather.changed() => {}
                read = self.reader.read(&mut buffer), if !self.at_end && self.in_flight_bytes < IN_FLIGHT => {
                    match read {
                        Ok(read) => self.enqueue(buffer.get(..read).unwrap_or_default(), now.delay),
                        Err(_) => return PipeEnd::Broken,
                    }
                }
            }
        }
    }

    fn enqueue(&mut self, bytes: &[u8], delay: Duration) {
        if bytes.is_empty() {
            self.at_end = true;
            return;
        }
        let earliest = self.in_flight.back().map(|last| last.arrives_at);
        let arrives_at = (Instant::now() + delay).max(earliest.unwrap_or_else(Instant::now));
        self.in_flight_bytes += bytes.len();
        self.in_flight.push_back(InFlight { arrives_at, bytes: Bytes::copy_from_slice(bytes) });
    }

    /// Delivers the first piece in flight, or as much of it as the bandwidth allows.
    async fn deliver(&mut self, bytes_per_second: Option<u32>) -> std::io::Result<()> {
        let Some(next) = self.in_flight.front_mut() else { return Ok(()) };
        let mut len = next.bytes.len();
        if let Some(rate) = bytes_per_second {
            let piece = (rate / PIECES).max(1) as usize;
            len = len.min(piece);
            let takes = Duration::from_secs(1).mul_f64(len as f64 / f64::from(rate.max(1)));
            self.free_at = self.free_at.max(Instant::now()) + takes;
        }
        let len = self.conditions.allowed(self.direction, len);
        let piece = next.bytes.slice(..len);
        self.writer.write_all(&piece).await?;
        self.writer.flush().await?;
        next.bytes.advance(len);
        self.in_flight_bytes -= len;
        if next.bytes.is_empty() {
            self.in_flight.pop_front();
        }
        if self.conditions.spend(self.direction, len) {
            // the connection is being cut: deliver no further byte
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}
