//! The VIN by K-line, from vehicles whose CAN buses and DoIP networks deliver none.

mod attempts;
mod pieces;
mod reader;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use connector_hal::kline::{KLine, KLineError, KLineEvent};
use connector_hal::timer::{Deadline, TimerKind};

pub(crate) use self::reader::KlineReader;
use super::report::{Candidate, VinReport};

/// A line to ask, and its bit rates.
pub struct LineToAsk {
    /// The line.
    pub line: Box<dyn KLine>,
    /// The bit rates, the likeliest first, in bit/s.
    pub bit_rates: Vec<u32>,
}

/// The result of asking a line.
pub struct LineReading {
    /// The line's device.
    pub device: String,
    /// The VINs, in the order in which they came.
    pub candidates: Vec<Candidate>,
    /// Whether the line was left alone, because another tester uses it.
    pub is_in_use: bool,
    /// The error that ended reading early.
    pub error: Option<KLineError>,
}

/// Reads the VIN on these lines one after the other, until one delivers it. The report's time includes
/// `elapsed`. `None` without lines.
pub async fn read(
    lines: Vec<LineToAsk>,
    budget: Duration,
    elapsed: Duration,
    timer: TimerKind,
) -> Option<(VinReport, Vec<LineReading>)> {
    let since = timer.now();
    let mut readings = Vec::new();
    for line in lines {
        let reading = read_line(line, budget, timer).await;
        if let Some(error) = &reading.error {
            tracing::warn!(%error, "cannot read the VIN by K-line");
        }
        if reading.is_in_use {
            tracing::warn!(device = %reading.device, "the VIN is not read: the line is in use by another tester");
        }
        let has_vin = !reading.candidates.is_empty();
        readings.push(reading);
        if has_vin {
            break;
        }
    }
    let candidates: Vec<_> = readings.iter().map(|reading| reading.candidates.clone()).collect();
    let elapsed = elapsed + timer.now().saturating_duration_since(since);
    (!readings.is_empty()).then(|| (VinReport::from_buses(&candidates, elapsed), readings))
}

/// Reads the VIN on a line.
pub async fn read_line(asked: LineToAsk, budget: Duration, timer: TimerKind) -> LineReading {
    let LineToAsk { mut line, bit_rates } = asked;
    let device = line.device().to_owned();
    let mut driver = LineDriver {
        reader: KlineReader::new(&bit_rates, timer.now() + budget, timer.now()),
        bit_rate: None,
        refused: None,
        deadline: Deadline::new(timer),
        timer,
    };
    let driven = poll_fn(|cx| driver.poll(line.as_mut(), cx)).await;
    // a line that accepted one of the bit rates was asked
    let error = driven.err().or(driver.refused.take_if(|_| driver.bit_rate.is_none()));
    let (candidates, is_in_use) = (driver.reader.candidates().to_vec(), driver.reader.is_in_use());
    LineReading { device, candidates, is_in_use, error }
}

/// The shell around a [`KlineReader`].
struct LineDriver {
    reader: KlineReader,
    /// The bit rate that the line is set to, in bit/s.
    bit_rate: Option<u32>,
    /// The error for the last bit rate that the line does not support.
    refused: Option<KLineError>,
    deadline: Deadline,
    timer: TimerKind,
}

impl LineDriver {
    fn poll(&mut self, line: &mut dyn KLine, cx: &mut Context<'_>) -> Poll<Result<(), KLineError>> {
        loop {
            if self.reader.is_finished() {
                return Poll::Ready(Ok(()));
            }
            if !self.set_bit_rate(line)? {
                continue;
            }
            while let Some(signal) = self.reader.poll_transmit() {
                line.transmit(signal)?;
            }
            match line.poll_event(cx) {
                Poll::Ready(Ok(KLineEvent::Received { byte, at })) => self.reader.handle_byte(at, byte),
                Poll::Ready(Ok(KLineEvent::Sent { at })) => self.reader.handle_sent(at),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.deadline.set(self.reader.poll_timeout());
                    if self.deadline.poll_expired(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.reader.handle_timeout(self.timer.now());
                }
            }
        }
    }

    /// Sets the line to the reader's bit rate; false if the line does not support that bit rate.
    fn set_bit_rate(&mut self, line: &mut dyn KLine) -> Result<bool, KLineError> {
        let bit_rate = self.reader.bit_rate();
        if self.bit_rate == Some(bit_rate) {
            return Ok(true);
        }
        match line.set_bit_rate(bit_rate) {
            Ok(()) => {
                self.bit_rate = Some(bit_rate);
                Ok(true)
            }
            Err(error @ KLineError::Unsupported { .. }) => {
                tracing::debug!(%error, "the VIN is not asked for at this bit rate");
                self.refused = Some(error);
                self.reader.handle_refused(self.timer.now());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
