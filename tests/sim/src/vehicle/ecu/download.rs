//! A download to an ECU: request, blocks, exit, check (ISO 14229-1, services 0x34, 0x36, 0x37).

use std::sync::Arc;

use super::anomalies::Anomalies;
use super::nrc::Nrc;
use connector_operator::flash::crc32;

/// Limit of the downloaded images that an ECU keeps.
const MAX_IMAGES: usize = 64;

/// The number of bytes of memory that fit a response of 4095 bytes.
const MAX_READ: usize = 4094;

/// A completed download in an ECU's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The first address.
    pub address: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// The CRC-32 of the bytes.
    pub crc32: u32,
}

/// The progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The first address.
    pub address: u64,
    /// The announced number of bytes.
    pub size: usize,
    /// The number of bytes received so far.
    pub received: usize,
}

#[derive(Debug)]
struct Transfer {
    address: u64,
    size: usize,
    data: Vec<u8>,
    /// The counter of the last accepted block; `None` before the first.
    last_counter: Option<u8>,
    /// Length and CRC-32 of the last block, which distinguish a repetition from another block with the same
    /// counter.
    last_block: (usize, u32),
}

/// An ECU's flash memory, and the transfer to it.
#[derive(Debug)]
pub(super) struct Flash {
    max_block_length: u16,
    max_memory: usize,
    erased: bool,
    transfer: Option<Transfer>,
    images: Vec<Arc<Image>>,
}

impl Flash {
    pub(super) fn new(max_block_length: u16, max_memory: usize) -> Self {
        // a block has at least a service identifier, a counter and one byte
        Self {
            max_block_length: max_block_length.max(3),
            max_memory,
            erased: false,
            transfer: None,
            images: Vec::new(),
        }
    }

    pub(super) fn images(&self) -> &[Arc<Image>] {
        &self.images
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        let transfer = self.transfer.as_ref()?;
        let Transfer { address, size, ref data, .. } = *transfer;
        Some(Progress { address, size, received: data.len() })
    }

    /// Abandons a transfer, as the end of the programming session does.
    pub(super) fn abort(&mut self) {
        self.transfer = None;
        self.erased = false;
    }

    /// `31 01 FF 00`: erases the whole memory, whatever range the request names.
    pub(super) fn erase(&mut self) {
        self.images.clear();
        self.transfer = None;
        self.erased = true;
    }

    /// `34` with data format, length format, address and size: begins a download.
    pub(super) fn request_download(&mut self, data: &[u8]) -> Result<Vec<u8>, Nrc> {
        let [format, lengths, rest @ ..] = data else { return Err(Nrc::IncorrectMessageLength) };
        if *format != 0 {
            return Err(Nrc::RequestOutOfRange);
        }
        let (address, size) = address_and_size(*lengths, rest)?;
        let end = |address: u64, size: usize| address.saturating_add(size as u64);
        let used: usize = self.images.iter().map(|image| image.data.len()).sum();
        let fits = used.checked_add(size).is_some_and(|total| total <= self.max_memory);
        if size == 0 || !fits || self.images.len() >= MAX_IMAGES {
            return Err(Nrc::RequestOutOfRange);
        }
        let written = self.images.iter().any(|image| {
            image.address < end(address, size) && address < end(image.address, image.data.len())
        });
        if !self.erased || written || self.transfer.is_some() {
            return Err(Nrc::UploadDownloadNotAccepted);
        }
        // grows with the received data: the announced size is not trusted
        self.transfer =
            Some(Transfer { address, size, data: Vec::new(), last_counter: None, last_block: (0, 0) });
        let [high, low] = self.max_block_length.to_be_bytes();
        Ok(vec![0x74, 0x20, high, low])
    }

    /// `36` with counter and bytes: adds a block.
    pub(super) fn transfer_data(&mut self, data: &[u8], anomalies: &mut Anomalies) -> Result<Vec<u8>, Nrc> {
        let transfer = self.transfer.as_mut().ok_or(Nrc::RequestSequenceError)?;
        let [counter, block @ ..] = data else { return Err(Nrc::IncorrectMessageLength) };
        if block.is_empty() || data.len() + 1 > usize::from(self.max_block_length) {
            return Err(Nrc::IncorrectMessageLength);
        }
        let fingerprint = (block.len(), crc32(block));
        if transfer.last_counter == Some(*counter) {
            // the tool missed the response: repeat it, without adding the bytes again (ISO 14229-1, 14.5.5)
            anomalies.repeated_blocks += 1;
            anomalies.repeated_blocks_that_differ += u64::from(transfer.last_block != fingerprint);
            return Ok(vec![0x76, *counter]);
        }
        if *counter != transfer.last_counter.map_or(1, |last| last.wrapping_add(1)) {
            anomalies.wrong_block_counters += 1;
            return Err(Nrc::WrongBlockSequenceCounter);
        }
        if transfer.data.len() + block.len() > transfer.size {
            return Err(Nrc::RequestOutOfRange);
        }
        transfer.data.extend_from_slice(block);
        (transfer.last_counter, transfer.last_block) = (Some(*counter), fingerprint);
        Ok(vec![0x76, *counter])
    }

    /// `37`: completes the image.
    pub(super) fn exit(&mut self, data: &[u8]) -> Result<Vec<u8>, Nrc> {
        if !data.is_empty() {
            return Err(Nrc::IncorrectMessageLength);
        }
        let complete = |transfer: &mut Transfer| transfer.data.len() == transfer.size;
        let Transfer { address, data, .. } =
            self.transfer.take_if(complete).ok_or(Nrc::RequestSequenceError)?;
        let crc32 = crc32(&data);
        self.images.push(Arc::new(Image { address, data, crc32 }));
        Ok(vec![0x77])
    }

    /// `23` with length format, address and size: reads downloaded bytes, as many as fit one response.
    pub(super) fn read(&self, data: &[u8]) -> Result<Vec<u8>, Nrc> {
        let [lengths, rest @ ..] = data else { return Err(Nrc::IncorrectMessageLength) };
        let (address, size) = address_and_size(*lengths, rest)?;
        if size == 0 || size > MAX_READ {
            return Err(Nrc::RequestOutOfRange);
        }
        let bytes = self.images.iter().find_map(|image| {
            let from = usize::try_from(address.checked_sub(image.address)?).ok()?;
            image.data.get(from..from.checked_add(size)?)
        });
        let bytes = bytes.ok_or(Nrc::RequestOutOfRange)?;
        Ok([&[0x63], bytes].concat())
    }

    /// `31 01 02 02` with a CRC-32: returns 0 if it is that of the last downloaded image, 1 otherwise.
    pub(super) fn check(&self, data: &[u8]) -> Result<u8, Nrc> {
        let crc = <[u8; 4]>::try_from(data).map_err(|_| Nrc::IncorrectMessageLength)?;
        let image = self.images.last().ok_or(Nrc::RequestSequenceError)?;
        Ok(u8::from(image.crc32 != u32::from_be_bytes(crc)))
    }
}

/// An address and a size, whose lengths are given by one byte (ISO 14229-1, H.1).
fn address_and_size(lengths: u8, rest: &[u8]) -> Result<(u64, usize), Nrc> {
    let (size_len, address_len) = (usize::from(lengths >> 4), usize::from(lengths & 0x0F));
    if !(1..=4).contains(&size_len) || !(1..=5).contains(&address_len) {
        return Err(Nrc::RequestOutOfRange);
    }
    if rest.len() != size_len + address_len {
        return Err(Nrc::IncorrectMessageLength);
    }
    let (address, size) = rest.split_at_checked(address_len).ok_or(Nrc::IncorrectMessageLength)?;
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let size = usize::try_from(number(size)).map_err(|_| Nrc::RequestOutOfRange)?;
    Ok((number(address), size))
}
