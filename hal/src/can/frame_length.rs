//! The exact length of a frame on the wire, in bits (ISO 11898-1, 10.4 and 10.5).

use std::time::Duration;

use super::{CanFrame, CanSettings, FrameKind};
use crate::bus::bit_time;

/// The intermission between two frames, in bits.
pub(crate) const INTERMISSION_BITS: u32 = 3;
/// ACK slot, ACK delimiter and end of frame, in bits.
const TRAILER_BITS: u32 = 1 + 1 + 7;
const CRC_DELIMITER_BITS: u32 = 1;

/// The length of a frame from SOF to the end of EOF, with stuff bits and without the intermission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WireLength {
    /// Bits at the nominal bit rate.
    pub nominal_bits: u32,
    /// Bits at the data bit rate: from ESI to the CRC delimiter of an FD frame with BRS.
    pub data_bits: u32,
}

impl WireLength {
    /// The exact length of a frame; zero for an error frame, which reports an error and is never sent.
    pub fn of(frame: &CanFrame) -> Self {
        let mut bits = BitCounter::default();
        match frame.kind() {
            FrameKind::Error { .. } => Self::default(),
            FrameKind::Data | FrameKind::Remote => {
                bits.push_classic_header(frame);
                bits.push_data(frame);
                bits.push(u32::from(bits.crc), 15);
                Self { nominal_bits: bits.count + CRC_DELIMITER_BITS + TRAILER_BITS, data_bits: 0 }
            }
            FrameKind::Fd(flags) => {
                bits.push_fd_arbitration(frame);
                bits.push(u32::from(flags.bit_rate_switch), 1);
                let nominal = bits.count;
                bits.push(u32::from(flags.error_state), 1);
                bits.push(dlc(frame.len()), 4);
                bits.push_data(frame);
                // the CRC field's first fixed stuff bit replaces a stuff bit that is due at the end of the
                // data
                let dynamic = bits.count - u32::from(bits.run == 0);
                let (fast, slow) = (dynamic - nominal + fd_crc_field_bits(frame.len()), nominal);
                if flags.bit_rate_switch {
                    Self { nominal_bits: slow + TRAILER_BITS, data_bits: fast + CRC_DELIMITER_BITS }
                } else {
                    Self { nominal_bits: slow + fast + CRC_DELIMITER_BITS + TRAILER_BITS, data_bits: 0 }
                }
            }
        }
    }

    /// The duration at these bit rates.
    pub fn duration(self, settings: &CanSettings) -> Duration {
        bit_time(self.nominal_bits, settings.bit_rate)
            + bit_time(self.data_bits, settings.data_bit_rate.unwrap_or(settings.bit_rate))
    }

    /// How long the frame occupies the bus, with the intermission after it.
    pub fn occupancy(self, settings: &CanSettings) -> Duration {
        Self { nominal_bits: self.nominal_bits + INTERMISSION_BITS, ..self }.duration(settings)
    }
}

/// The length of stuff count and CRC with their fixed stuff bits: one before the first bit, and one after every fourth
/// bit. The length is the same for every CRC, so that no CRC is computed.
fn fd_crc_field_bits(len: usize) -> u32 {
    let bits = 4 + if len <= 16 { 17 } else { 21 };
    bits + 1 + bits / 4
}

/// The DLC: the code of an FD frame's length, or the length of a classic frame.
fn dlc(len: usize) -> u32 {
    match len {
        0..=8 => len as u32,
        9..=12 => 9,
        13..=16 => 10,
        17..=20 => 11,
        21..=24 => 12,
        25..=32 => 13,
        33..=48 => 14,
        _ => 15,
    }
}

/// Counts bits and their stuff bits, and computes the classic CRC of the bits.
struct BitCounter {
    count: u32,
    last: bool,
    /// How many of the last bits are equal; 0 directly after a stuff bit, which begins a run of the other
    /// value.
    run: u32,
    crc: u16,
}

impl Default for BitCounter {
    fn default() -> Self {
        // an idle bus is recessive
        Self { count: 0, last: true, run: 1, crc: 0 }
    }
}

impl BitCounter {
    fn push_classic_header(&mut self, frame: &CanFrame) {
        let remote = u32::from(frame.kind() == FrameKind::Remote);
        let id = frame.id();
        self.push(0, 1); // SOF
        if id.is_extended() {
            self.push(id.raw() >> 18, 11);
            self.push(0b11, 2); // SRR, IDE
            self.push(id.raw() & 0x3_FFFF, 18);
            self.push(remote << 2, 3); // RTR, FDF, r0
        } else {
            self.push(id.raw(), 11);
            self.push(remote << 2, 3); // RTR, IDE, FDF
        }
        self.push(dlc(frame.len()), 4);
    }

    fn push_fd_arbitration(&mut self, frame: &CanFrame) {
        let id = frame.id();
        self.push(0, 1); // SOF
        if id.is_extended() {
            self.push(id.raw() >> 18, 11);
            self.push(0b11, 2); // SRR, IDE
            self.push(id.raw() & 0x3_FFFF, 18);
            self.push(0b010, 3); // RRS, FDF, res
        } else {
            self.push(id.raw(), 11);
            self.push(0b0010, 4); // RRS, IDE, FDF, res
        }
    }

    fn push_data(&mut self, frame: &CanFrame) {
        for &byte in frame.data() {
            self.push(u32::from(byte), 8);
        }
    }

    /// Appends the low `width` bits of `value`, the highest first.
    fn push(&mut self, value: u32, width: u32) {
        for place in (0..width).rev() {
            let bit = value >> place & 1 == 1;
            let feedback = bit != (self.crc & 0x4000 != 0);
            self.crc = (self.crc << 1) & 0x7FFF ^ if feedback { 0x4599 } else { 0 };
            self.put(bit);
        }
    }

    fn put(&mut self, bit: bool) {
        let (last, run) = if self.run == 0 { (!self.last, 1) } else { (self.last, self.run) };
        self.run = if bit == last { run + 1 } else { 1 };
        self.last = bit;
        self.count += 1;
        if self.run == 5 {
            self.count += 1;
            self.run = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::can::{CanId, FdFlags};
    use proptest::prelude::*;

    fn bits(frame: &CanFrame) -> u32 {
        WireLength::of(frame).nominal_bits + INTERMISSION_BITS
    }

    /// Builds the frame as a list of bits up to the CRC and stuffs it, as the standard describes.
    fn reference(id: CanId, remote: bool, data: &[u8]) -> u32 {
        let mut text = String::from("0");
        if id.is_extended() {
            text += &format!("{:011b}11{:018b}{}00", id.raw() >> 18, id.raw() & 0x3_FFFF, u8::from(remote));
        } else {
            text += &format!("{:011b}{}00", id.raw(), u8::from(remote));
        }
        text += &format!("{:04b}", data.len());
        for byte in data.iter().filter(|_| !remote) {
            text += &format!("{byte:08b}");
        }
        let mut remainder = text.clone() + &"0".repeat(15);
        while let Some(one) = remainder.find('1').filter(|at| at + 16 <= remainder.len()) {
            let divisor = format!("{:016b}", 0xC599);
            let mixed: String = remainder[one..one + 16]
                .chars()
                .zip(divisor.chars())
                .map(|(a, b)| if a == b { '0' } else { '1' })
                .collect();
            remainder.replace_range(one..one + 16, &mixed);
        }
        text += &remainder[remainder.len() - 15..];
        let mut at = 0;
        while at + 5 <= text.len() {
            match &text[at..at + 5] {
                "00000" => text.insert(at + 5, '1'),
                "11111" => text.insert(at + 5, '0'),
                _ => {
                    at += 1;
                    continue;
                }
            }
            at += 5;
        }
        text.len() as u32 + 1 + 2 + 7 + 3
    }

    #[test]
    fn a_worst_case_frame_of_eight_bytes_takes_135_bits_and_none_takes_more() {
        // 0x078 begins with runs of five; the stuff bits of the CRC depend on the data
        let worst = (0..=0x7FF)
            .flat_map(|id| [0x3C, 0x1E, 0x0F, 0x87, 0xC3, 0xE1, 0xF0].map(|byte| (id, byte)))
            .map(|(id, byte)| bits(&CanFrame::new(CanId::standard_truncated(id), &[byte; 8]).unwrap()))
            .max();
        assert!(worst.is_some_and(|bits| (130..=135).contains(&bits)), "{worst:?}");
    }

    #[test]
    fn an_fd_frame_has_its_crc_field_and_its_rates() {
        let flags = FdFlags { bit_rate_switch: true, error_state: false };
        let frame = CanFrame::new_fd(CanId::standard_truncated(0x555), flags, &[0x55; 8]).unwrap();
        // no runs of five anywhere: SOF, 11 + RRS, IDE, FDF, res, BRS; ESI, DLC, data, 27 of CRC field,
        // delimiter
        let expected = WireLength { nominal_bits: 17 + 9, data_bits: 1 + 4 + 64 + 27 + 1 };
        assert_eq!(WireLength::of(&frame), expected);
        let frame = CanFrame::new_fd(CanId::standard_truncated(0x555), flags, &[0x55; 64]).unwrap();
        let long = WireLength::of(&frame);
        // ESI 0 and DLC 15 end with a run of four, which the data interrupts
        assert_eq!(long.data_bits, 1 + 4 + 512 + 32 + 1);
        let settings = CanSettings { bit_rate: 500_000, data_bit_rate: Some(2_000_000), listen_only: false };
        assert_eq!(long.occupancy(&settings), Duration::from_nanos(29 * 2000 + 550 * 500));
    }

    #[test]
    fn a_stuff_bit_due_at_the_end_of_fd_data_is_the_fixed_one() {
        let frame = |last| {
            let data = [0x55, 0x55, 0x55, last];
            let frame =
                CanFrame::new_fd(CanId::standard_truncated(0x555), FdFlags::default(), &data).unwrap();
            WireLength::of(&frame).nominal_bits
        };
        assert_eq!(frame(0b0101_1111), frame(0b0101_0101));
        assert_eq!(frame(0b1011_1110), frame(0b0101_0101) + 1);
    }

    proptest! {
        #[test]
        fn classic_frames_have_the_lengths_of_the_standard(
            raw in any::<u32>(), extended in any::<bool>(), remote in any::<bool>(),
            data in proptest::collection::vec(prop_oneof![Just(0), Just(0xFF), any::<u8>()], 0..=8),
        ) {
            let id = if extended { CanId::extended_truncated(raw) } else { CanId::standard_truncated(raw) };
            let frame = if remote { CanFrame::new_remote(id, data.len()) } else { CanFrame::new(id, &data) };
            prop_assert_eq!(bits(&frame.unwrap()), reference(id, remote, &data));
        }
    }
}
