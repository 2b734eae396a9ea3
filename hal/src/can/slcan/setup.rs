//! Setting an adapter up: detects its kind, sets the bit rates, and joins the bus.

use std::future::poll_fn;

use tokio::io::{AsyncRead, AsyncWrite};

use super::adapter_line::CLOCK;
use super::codec::{self, SlcanLine};
use super::dialogue::ANSWER_TIMEOUT;
use super::host::{AdapterBehaviour, HostState};
use super::reader::RawLine;
use super::{Slcan, values};
use crate::can::{CanError, CanSettings};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Slcan<S> {
    /// Takes the adapter off the bus, and lets it join again with these settings.
    pub(super) async fn set_up(&mut self, settings: CanSettings) -> Result<(), CanError> {
        let rate = settings.bit_rate;
        let by_number = values::bit_rate_number(rate).map(SlcanLine::SetBitRate);
        let by_timing =
            || values::bit_timing(rate).map(|registers| SlcanLine::SetBitTiming(registers.into()));
        let Some(set_bit_rate) = by_number.or_else(by_timing) else {
            return Err(self.cannot_set(rate));
        };
        let data_what = settings.data_bit_rate.map(|rate| format!("set {rate} bit/s for the data phase"));
        let data_rate = settings.data_bit_rate.map(values::data_bit_rate_number);
        if let (Some(None), Some(what)) = (data_rate, &data_what) {
            return Err(self.line.unsupported(what));
        }
        self.host = None;
        // bytes of an earlier configuration must not be sent after this one
        self.line.out.clear();
        let answers = self.line.call().await?;
        self.may_be_open = false;
        // an adapter that never answers may ignore raw bit timing and then disturb the bus
        let is_known = answers || matches!(set_bit_rate, SlcanLine::SetBitRate(_));
        if !is_known || !self.line.command(answers, set_bit_rate).await? {
            return Err(self.cannot_set(rate));
        }
        if let (Some(Some(rate)), Some(what)) = (data_rate, data_what)
            && !self.line.command(answers, SlcanLine::SetDataBitRate(rate)).await?
        {
            self.capabilities.fd = false;
            return Err(self.line.unsupported(what));
        }
        let open = if settings.listen_only { SlcanLine::Listen } else { SlcanLine::Open };
        // also if nobody waits for the rest of the set-up
        self.may_be_open = true;
        if !self.line.command(answers, open).await? {
            if settings.listen_only {
                self.capabilities.listen_only = false;
                return Err(self.line.unsupported("listen only"));
            }
            return Err(self.line.protocol("refuses to join the bus"));
        }
        let mut behaviour = AdapterBehaviour { answers, has_status: false };
        // frames may arrive from here on, also while the status flags are requested
        self.host = Some(HostState::new(settings, behaviour, self.filters.clone(), CLOCK.now()));
        behaviour.has_status = answers && !self.lacks_status && self.has_status().await?;
        self.lacks_status |= answers && !behaviour.has_status;
        if let Some(host) = &mut self.host {
            host.set_behaviour(behaviour);
        }
        poll_fn(|cx| self.line.poll_flush(cx)).await
    }

    /// Whether the adapter answers a request for its status flags. The answer is not counted: it may have flags from
    /// before the adapter joined the bus, and it clears them.
    async fn has_status(&mut self) -> Result<bool, CanError> {
        SlcanLine::ReadStatus.encode(&mut self.line.out);
        let until = CLOCK.now() + ANSWER_TIMEOUT;
        while let Some(line) = self.line.line_within(until.saturating_duration_since(CLOCK.now())).await? {
            if let RawLine::Bytes(bytes) = &line {
                match codec::decode(bytes) {
                    Ok(SlcanLine::Status(_)) => return Ok(true),
                    Ok(SlcanLine::Refused) => return Ok(false),
                    _ => {}
                }
            }
            self.handle_line(&line)?;
        }
        Ok(false)
    }

    /// Waits for the status flags of all the time in which the host has listened only: for the answer to an earlier
    /// request, then for that to a last one, each as long as an adapter may take.
    pub(super) async fn await_last_flags(&mut self) -> Result<(), CanError> {
        for is_last in [false, true] {
            let Some(host) = self.host.as_mut().filter(|host| host.reads_flags_of_others()) else { break };
            if is_last {
                host.request_status(CLOCK.now()).encode(&mut self.line.out);
            }
            while let Some(asked) = self.host.as_ref().and_then(HostState::unanswered_request) {
                let limit = (asked + ANSWER_TIMEOUT).saturating_duration_since(CLOCK.now());
                let Some(line) = self.line.line_within(limit).await? else { break };
                self.handle_line(&line)?;
            }
        }
        Ok(())
    }

    /// The error for a bit rate that cannot be set; the message lists the other bit rates of SLCAN.
    fn cannot_set(&self, rate: u32) -> CanError {
        let others = values::bit_rates().filter(|other| *other != rate);
        let others = others.map(|other| other.to_string()).collect::<Vec<_>>().join(", ");
        self.line.unsupported(format!("set {rate} bit/s; SLCAN supports {others}"))
    }
}
