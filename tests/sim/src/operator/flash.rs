//! Programming an ECU: the sequence of services, the blocks chained so that the round trip is paid once.

use std::time::Duration;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use tokio::time::Instant;

use super::client::{Channel, Exchange, ExchangeError, Item, Timing, Wait, failure};
use crate::vehicle::ecu::{crc32, toy_key};

/// PDUs that may wait on a channel of the connector (relay protocol, section 4).
const CHAIN_PDUS: usize = 64;
/// Bytes that may.
const CHAIN_BYTES: usize = 512 * 1024;
/// The security level that programming wants.
const LEVEL: u8 = 1;
/// A block at least has a service identifier, a counter and a byte.
const SHORTEST_BLOCK: usize = 3;
/// What a block takes on a slow bus, at the least, in bytes a second.
const SLOWEST: u32 = 1000;

/// What is to be programmed.
#[derive(Debug, Clone, Copy)]
pub struct Firmware<'a> {
    /// Where it goes in the ECU's memory.
    pub address: u32,
    /// The bytes.
    pub data: &'a [u8],
}

/// What programming is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Opening the programming session.
    Session,
    /// Unlocking.
    Security,
    /// Erasing the memory.
    Erase,
    /// Asking for the download.
    Download,
    /// Transferring blocks: this many bytes are confirmed by the ECU.
    Transfer {
        /// How many bytes.
        confirmed: usize,
    },
    /// Ending the transfer.
    Exit,
    /// Having the ECU check its memory.
    Check,
    /// Going back to the default session.
    Default,
}

impl Step {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "opening the programming session",
            Self::Security => "unlocking the ECU",
            Self::Erase => "erasing the memory",
            Self::Download => "requesting the download",
            Self::Transfer { .. } => "transferring the firmware",
            Self::Exit => "ending the transfer",
            Self::Check => "checking the memory",
            Self::Default => "going back to the default session",
        }
    }

    /// Whether the ECU is without valid firmware when it fails here.
    pub fn leaves_ecu_without_firmware(self) -> bool {
        !matches!(self, Self::Session | Self::Security | Self::Default)
    }
}

/// What it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlashReport {
    /// Bytes programmed.
    pub bytes: usize,
    /// Blocks that they went in.
    pub blocks: usize,
    /// How long a block's PDU was, at most.
    pub block_length: usize,
    /// How long erasing took.
    pub erasing: Duration,
    /// From the first block sent to the last one confirmed.
    pub transferring: Duration,
    /// All of it.
    pub total: Duration,
}

/// Why an ECU was not programmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlashError {
    /// A step failed.
    #[error("{} failed", step.name())]
    Step {
        /// Which.
        step: Step,
        /// Why.
        source: ExchangeError,
    },
    /// The ECU's response makes no sense.
    #[error("{} failed: the ECU answered {response:02X?}", step.name())]
    Response {
        /// To what.
        step: Step,
        /// What came.
        response: Vec<u8>,
    },
    /// The memory does not contain what was transferred.
    #[error("the ECU's memory is not what was transferred")]
    Checksum,
    /// Nothing to program, or more than a length can say.
    #[error("a firmware of {0} bytes cannot be programmed")]
    Size(usize),
}

/// Programs an ECU on this channel, whose keep-alive should be on. `report` hears of every step, and of every block
/// that the ECU has confirmed. When it fails, the ECU is asked to go back to its default session.
pub async fn flash(
    channel: &Channel,
    firmware: Firmware<'_>,
    timing: &Timing,
    report: &mut (dyn FnMut(Step) + Send),
) -> Result<FlashReport, FlashError> {
    let result = Flasher { channel, timing, report }.run(firmware).await;
    if let Err(error) = &result
        && !matches!(error, FlashError::Step { source: ExchangeError::Closed(_), .. })
    {
        // it may not answer any more; that it was not programmed is what counts
        let patience = Timing { allowance: Duration::from_secs(2), busy_retries: 0, ..*timing };
        if let Err(error) = channel.request(&[0x10, 0x01], &patience).await {
            tracing::debug!(%error, "the ECU does not go back to the default session");
        }
    }
    result
}

struct Flasher<'a> {
    channel: &'a Channel,
    timing: &'a Timing,
    report: &'a mut (dyn FnMut(Step) + Send),
}

impl Flasher<'_> {
    async fn run(&mut self, firmware: Firmware<'_>) -> Result<FlashReport, FlashError> {
        let start = Instant::now();
        let size = u32::try_from(firmware.data.len()).ok().filter(|size| *size > 0);
        let size = size.ok_or(FlashError::Size(firmware.data.len()))?;
        self.request(Step::Session, &[0x10, 0x02]).await?;
        self.unlock().await?;

        let erasing = Instant::now();
        let erased = self.request(Step::Erase, &[0x31, 0x01, 0xFF, 0x00]).await?;
        if erased.get(4).is_some_and(|status| *status != 0) {
            return Err(FlashError::Response { step: Step::Erase, response: erased });
        }
        let erasing = erasing.elapsed();

        let mut request = vec![0x34, 0x00, 0x44];
        request.extend(firmware.address.to_be_bytes());
        request.extend(size.to_be_bytes());
        let granted = self.request(Step::Download, &request).await?;
        let block_length =
            block_length(&granted).ok_or(FlashError::Response { step: Step::Download, response: granted })?;

        let transferring = Instant::now();
        let blocks = self.transfer(firmware.data, block_length).await?;
        let transferring = transferring.elapsed();
        self.request(Step::Exit, &[0x37]).await?;

        let mut check = vec![0x31, 0x01, 0x02, 0x02];
        check.extend(crc32(firmware.data).to_be_bytes());
        let checked = self.request(Step::Check, &check).await?;
        if checked.get(4) != Some(&0) {
            return Err(FlashError::Checksum);
        }
        self.request(Step::Default, &[0x10, 0x01]).await?;
        let (bytes, total) = (firmware.data.len(), start.elapsed());
        Ok(FlashReport { bytes, blocks, block_length, erasing, transferring, total })
    }

    async fn request(&mut self, step: Step, pdu: &[u8]) -> Result<Vec<u8>, FlashError> {
        (self.report)(step);
        let response = self.channel.request(pdu, self.timing).await;
        response.map(|response| response.data).map_err(|source| FlashError::Step { step, source })
    }

    async fn unlock(&mut self) -> Result<(), FlashError> {
        let step = Step::Security;
        let response = self.request(step, &[0x27, LEVEL]).await?;
        let seed = match response.as_slice() {
            [0x67, LEVEL, seed @ ..] => <[u8; 4]>::try_from(seed).ok(),
            _ => None,
        };
        let Some(seed) = seed else { return Err(FlashError::Response { step, response }) };
        if seed == [0; 4] {
            return Ok(());
        }
        let mut key = vec![0x27, LEVEL + 1];
        key.extend(toy_key(LEVEL, seed));
        self.request(step, &key).await.map(drop)
    }

    /// Sends all blocks, as many ahead as may wait on the connector; gives their number.
    async fn transfer(&mut self, data: &[u8], block_length: usize) -> Result<usize, FlashError> {
        let failed =
            |confirmed| move |source| FlashError::Step { step: Step::Transfer { confirmed }, source };
        (self.report)(Step::Transfer { confirmed: 0 });
        self.channel.discard_received();
        let blocks: Vec<&[u8]> = data.chunks(block_length - 2).collect();
        let limit = self.timing.p2
            + self.timing.allowance
            + Duration::from_secs(1) * u32::try_from(block_length).unwrap_or(u32::MAX) / SLOWEST;
        let mut wait = Wait::new(self.channel, limit);
        let (mut sent, mut answered, mut waiting, mut confirmed) = (0, 0, 0, 0);
        while let Some(due) = blocks.get(answered) {
            while let Some(block) = blocks.get(sent)
                && sent - answered < CHAIN_PDUS
                && waiting + block.len() + 2 <= CHAIN_BYTES
            {
                let pdu = [&[0x36, counter(sent)], *block].concat();
                let flags = PduFlags { chained: true, confirm: false };
                self.channel.send(&pdu, flags).await.map_err(failed(confirmed))?;
                waiting += pdu.len();
                sent += 1;
            }
            let step = Step::Transfer { confirmed };
            let Some(received) = wait.recv().await.map_err(failed(confirmed))? else {
                let source = ExchangeError::NoResponse { after: wait.limit };
                return Err(FlashError::Step { step, source });
            };
            match received.item {
                Item::Pdu { data, .. } => match Exchange::of(0x36, &data) {
                    Exchange::Positive if data.get(1) == Some(&counter(answered)) => {
                        waiting -= due.len() + 2;
                        confirmed += due.len();
                        answered += 1;
                        (self.report)(Step::Transfer { confirmed });
                        wait.restart(limit);
                    }
                    Exchange::Positive => return Err(FlashError::Response { step, response: data }),
                    Exchange::Pending => wait.restart(limit + self.timing.p2_star),
                    Exchange::Negative(code) => {
                        let source = ExchangeError::Negative { service: 0x36, code };
                        return Err(FlashError::Step { step, source });
                    }
                    Exchange::Unrelated => {}
                },
                // the next TesterPresent comes in 2 s, and the session lasts 5
                Item::Event { code: EventCode::KeepAliveFailed, .. } => {}
                item => failure(&item).map_or(Ok(()), Err).map_err(failed(confirmed))?,
            }
        }
        Ok(blocks.len())
    }
}

/// The counter of a block: from 1, and after 255 from 0.
fn counter(block: usize) -> u8 {
    (block + 1) as u8
}

/// The longest block that the positive response to `34` allows, as far as it goes over the relay.
fn block_length(response: &[u8]) -> Option<usize> {
    let [0x74, format, length @ ..] = response else { return None };
    let length = length.get(..usize::from(format >> 4))?;
    let longest =
        length.iter().fold(0_usize, |longest, byte| longest.saturating_mul(256) + usize::from(*byte));
    let longest = longest.min(CHAIN_BYTES / 2);
    (longest >= SHORTEST_BLOCK).then_some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_length_is_read_in_any_width_and_nonsense_refused() {
        assert_eq!(block_length(&[0x74, 0x20, 0x0F, 0xFF]), Some(4095));
        assert_eq!(block_length(&[0x74, 0x10, 0x82]), Some(130));
        assert_eq!(block_length(&[0x74, 0x40, 0, 0, 0x10, 0]), Some(4096));
        assert_eq!(block_length(&[0x74, 0xF0]), None);
        assert_eq!(block_length(&[0x74, 0x20, 0, 2]), None);
        assert_eq!(block_length(&[0x74, 0x40, 0xFF, 0xFF, 0xFF, 0xFF]), Some(CHAIN_BYTES / 2));
        assert_eq!(block_length(&[0x7F, 0x34, 0x70]), None);
    }

    #[test]
    fn counters_begin_at_one_and_wrap_to_zero() {
        assert_eq!((counter(0), counter(254), counter(255), counter(256)), (1, 255, 0, 1));
    }
}
