//! The configuration of a virtual bus.

use crate::timer::TimerKind;

/// The configuration of a virtual bus.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualBusConfig {
    /// The nominal bit rate of the vehicle, in bit/s.
    pub bit_rate: u32,
    /// The vehicle's bit rate in the data phase, in bit/s; `Some` means that its nodes use CAN FD.
    pub data_bit_rate: Option<u32>,
    /// The share of bus time that the vehicle's periodic messages take, 0…1. Above 0, their senders also
    /// acknowledge frames and flag errors.
    pub load: f32,
    /// The clock of the bus.
    pub timer: TimerKind,
    /// How many frames a node's transmit queue holds; sending waits while the queue is full.
    pub transmit_queue: usize,
    /// How many events a node keeps unread; further received frames are lost and counted.
    pub receive_queue: usize,
}

impl Default for VirtualBusConfig {
    /// Classic CAN at 500 kbit/s without background traffic, on the runtime's clock.
    fn default() -> Self {
        Self {
            bit_rate: 500_000,
            data_bit_rate: None,
            load: 0.0,
            timer: TimerKind::Runtime,
            transmit_queue: 16,
            receive_queue: 4096,
        }
    }
}
