//! ISO-TP, the transport protocol of diagnostics on CAN (ISO 15765-2), as pure state machines.
//!
//! No I/O and no clock: frames and the time go in by `handle_*`, frames, events and the next deadline come out by
//! `poll_*`. After every `handle_*` or `send`, call `poll_transmit` until it gives nothing, then `poll_event` until it
//! gives nothing, then look at `poll_timeout` again.
