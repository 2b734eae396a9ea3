//! Programming an ECU: the sequence of services, with chained blocks, so that the round trip is paid once.

mod crc32;
mod toy_key;

use std::time::Duration;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use tokio::time::Instant;

use crate::client::{Channel, ExchangeError, Item, ResponseKind, Timing, Wait, failure};

pub use crc32::crc32;
pub use toy_key::toy_key;

/// How many PDUs may wait on a channel of the connector (relay protocol, section 4).
const CHAIN_PDUS: usize = 64;
/// How many bytes may wait on a channel of the connector.
const CHAIN_BYTES: usize = 512 * 1024;
/// The security level for programming.
const LEVEL: u8 = 1;
/// TransferData, the service that carries a block.
const TRANSFER_DATA: u8 = 0x36;
/// The length of a block's service identifier and counter.
const BLOCK_HEADER: usize = 2;
/// The shortest block: its header and one byte.
const SHORTEST_BLOCK: usize = BLOCK_HEADER + 1;
/// The transfer rate of a slow bus, in bytes per second: ISO-TP at 20 kbit/s is a little faster. A block gets
/// this additional time.
const SLOWEST: u32 = 1000;

/// A firmware to program.
#[derive(Debug, Clone, Copy)]
pub struct Firmware<'a> {
    /// The address in the ECU's memory.
    pub address: u32,
    /// The bytes of the firmware.
    pub data: &'a [u8],
}

/// A step of programming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Opening the programming session.
    Session,
    /// Unlocking the ECU.
    Security,
    /// Erasing the memory.
    Erase,
    /// Requesting the download.
    Download,
    /// Transferring blocks.
    Transfer {
        /// The number of bytes that the ECU confirmed.
        confirmed: usize,
    },
    /// Ending the transfer.
    Exit,
    /// Requesting that the ECU checks its memory.
    Check,
    /// Returning to the default session.
    Default,
}

impl Step {
    /// The name of the step, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "opening the programming session",
            Self::Security => "unlocking the ECU",
            Self::Erase => "erasing the memory",
            Self::Download => "requesting the download",
            Self::Transfer { .. } => "transferring the firmware",
            Self::Exit => "ending the transfer",
            Self::Check => "checking the memory",
            Self::Default => "returning to the default session",
        }
    }

    /// Whether the ECU is without valid firmware if this step fails.
    pub fn leaves_ecu_without_firmware(self) -> bool {
        !matches!(self, Self::Session | Self::Security | Self::Default)
    }
}

/// The result of programming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlashReport {
    /// The number of bytes programmed.
    pub bytes: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// The length of the longest block's PDU.
    pub block_length: usize,
    /// How long erasing took.
    pub erasing: Duration,
    /// The time from the first block sent to the last one confirmed.
    pub transferring: Duration,
    /// The time for everything.
    pub total: Duration,
}

/// Why programming an ECU failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlashError {
    /// A step failed.
    #[error("{} failed", step.name())]
    Step {
        /// The step.
        step: Step,
        /// The error that caused this.
        source: ExchangeError,
    },
    /// The ECU's response is not valid.
    #[error("{} failed: the ECU answered {response:02X?}", step.name())]
    Response {
        /// The step.
        step: Step,
        /// The response.
        response: Vec<u8>,
    },
    /// The memory does not contain the transferred firmware.
    #[error("the ECU's memory differs from the transferred firmware")]
    Checksum,
    /// The firmware is empty, or longer than its length field can express.
    #[error("a firmware of {0} bytes cannot be programmed")]
    Size(usize),
}

/// Programs an ECU on this channel, whose keep-alive should be on. `report` receives every step, and a step
/// for every confirmed block. On failure, requests that the ECU returns to its default session.
///
/// # Errors
///
/// The step that failed, and the cause.
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
        // the ECU may not answer any more, and the first error is the one to report
        let patience = Timing { allowance: Duration::from_secs(2), busy_retries: 0, ..*timing };
        if let Err(error) = channel.request(&[0x10, 0x01], &patience).await {
            tracing::debug!(%error, "the ECU does not return to the default session");
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

    /// Transfers all blocks, and returns their number.
    async fn transfer(&mut self, data: &[u8], block_length: usize) -> Result<usize, FlashError> {
        self.channel.discard_received();
        let limit = self.timing.p2
            + self.timing.allowance
            + Duration::from_secs(1) * u32::try_from(block_length).unwrap_or(u32::MAX) / SLOWEST;
        let mut transfer = Transfer {
            channel: self.channel,
            blocks: data.chunks(block_length - BLOCK_HEADER).collect(),
            sent: 0,
            answered: 0,
            queued_bytes: 0,
            confirmed: 0,
        };
        (self.report)(transfer.step());
        let mut wait = Wait::new(self.channel, limit);
        while transfer.answered < transfer.blocks.len() {
            transfer.send_ahead().await?;
            let received = wait.recv().await.map_err(|source| transfer.failed(source))?;
            let Some(received) = received else {
                return Err(transfer.failed(ExchangeError::NoResponse { after: wait.limit }));
            };
            match transfer.handle(received.item)? {
                Some(ResponseKind::Positive) => {
                    (self.report)(transfer.step());
                    wait.restart(limit);
                }
                Some(ResponseKind::Pending) => wait.restart(limit + self.timing.p2_star),
                _ => {}
            }
        }
        Ok(transfer.blocks.len())
    }
}

/// The transfer of all blocks. The connector chains the blocks, so that the round trip is paid once.
struct Transfer<'a> {
    channel: &'a Channel,
    blocks: Vec<&'a [u8]>,
    /// The number of blocks sent.
    sent: usize,
    /// The number of blocks that the ECU answered.
    answered: usize,
    /// The size of the blocks sent and not answered, as PDUs.
    queued_bytes: usize,
    /// The number of firmware bytes that the ECU confirmed.
    confirmed: usize,
}

impl Transfer<'_> {
    fn step(&self) -> Step {
        Step::Transfer { confirmed: self.confirmed }
    }

    fn failed(&self, source: ExchangeError) -> FlashError {
        FlashError::Step { step: self.step(), source }
    }

    /// Sends as many blocks ahead as may wait on the connector.
    async fn send_ahead(&mut self) -> Result<(), FlashError> {
        while let Some(block) = self.blocks.get(self.sent)
            && self.sent - self.answered < CHAIN_PDUS
            && self.queued_bytes + block.len() + BLOCK_HEADER <= CHAIN_BYTES
        {
            let pdu = [&[TRANSFER_DATA, counter(self.sent)], *block].concat();
            let flags = PduFlags { chained: true, confirm: false };
            self.channel.send(&pdu, flags).await.map_err(|source| self.failed(source))?;
            self.queued_bytes += pdu.len();
            self.sent += 1;
        }
        Ok(())
    }

    /// Handles an item of the channel; returns the kind of response, if the item is one.
    fn handle(&mut self, item: Item) -> Result<Option<ResponseKind>, FlashError> {
        let data = match item {
            Item::Pdu { data, .. } => data,
            // the next TesterPresent comes in 2 s, and the session lasts 5 s
            Item::Event { code: EventCode::KeepAliveFailed, .. } => return Ok(None),
            item => {
                return failure(&item).map_or(Ok(None), |source| Err(self.failed(source)));
            }
        };
        let kind = ResponseKind::of(TRANSFER_DATA, &data);
        match kind {
            ResponseKind::Positive if data.get(1) == Some(&counter(self.answered)) => {
                let block = self.blocks.get(self.answered).map_or(0, |block| block.len());
                self.queued_bytes -= block + BLOCK_HEADER;
                self.confirmed += block;
                self.answered += 1;
            }
            ResponseKind::Positive => {
                return Err(FlashError::Response { step: self.step(), response: data });
            }
            ResponseKind::Negative(code) => {
                return Err(self.failed(ExchangeError::Negative { service: TRANSFER_DATA, code }));
            }
            ResponseKind::Pending | ResponseKind::Unrelated => {}
        }
        Ok(Some(kind))
    }
}

/// The counter of a block: starts at 1, and continues with 0 after 255.
fn counter(block: usize) -> u8 {
    (block + 1) as u8
}

/// The longest block that the positive response to `34` allows, limited to what the relay carries.
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
    fn the_block_length_is_read_in_any_width_and_invalid_ones_are_refused() {
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
