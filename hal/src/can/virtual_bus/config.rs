//! How a virtual bus is set up.

use crate::timer::TimerKind;

/// What kind of bus it is.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualBusConfig {
    /// The nominal bit rate of the vehicle, in bit/s.
    pub bit_rate: u32,
    /// The data phase's bit rate of the vehicle, in bit/s; present means its nodes know CAN FD.
    pub data_bit_rate: Option<u32>,
    /// The share of the bus's time, 0…1, that the vehicle's periodic messages take. Above 0 there are nodes that
    /// acknowledge, and that flag errors.
    pub load: f32,
    /// Which clock the bus goes by.
    pub timer: TimerKind,
    /// How many frames a node's transmit queue holds; sending waits when it is full.
    pub transmit_queue: usize,
    /// How many events a node keeps unread; received frames beyond it are lost, and counted.
    pub receive_queue: usize,
}

impl Default for VirtualBusConfig {
    /// 500 kbit/s, classic, silent, by the runtime's clock.
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
