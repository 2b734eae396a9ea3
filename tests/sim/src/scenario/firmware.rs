//! The firmware that the operator flashes.

use std::sync::Arc;

use crate::vehicle::ecu::Image;

/// The address in the ECU's memory that the firmware is written to.
pub(crate) const FIRMWARE_ADDRESS: u32 = 0x0800_0000;

/// Random bytes, which resemble a program on the bus: as many stuff bits, and no two blocks alike.
pub(crate) fn generate_firmware(size: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..size).map(|_| random.u8(..)).collect()
}

/// Whether the last download in the ECU's memory is this firmware. Only the simulation offers this: a real ECU's
/// memory cannot be read.
pub(crate) fn holds_firmware(memory: &[Arc<Image>], firmware: &[u8]) -> bool {
    memory.last().is_some_and(|image| image.address == u64::from(FIRMWARE_ADDRESS) && image.data == firmware)
}
