//! Opening a K-line's serial device, with a pseudo-terminal in place of the UART.

use std::io::ErrorKind;

use connector_hal::kline::sim::{PtyKLine, SimLine};
use connector_hal::kline::{self, KLineError};
use connector_hal::timer::TimerKind;

fn open(device: &str) -> Result<Box<dyn kline::KLine>, ErrorKind> {
    kline::open(device).map_err(|error| match error {
        KLineError::Device { source, .. } => source.kind(),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_device_that_another_process_has_open_is_busy_and_not_absent() {
    let pty = PtyKLine::new(None, &SimLine::new(TimerKind::Precise)).unwrap();
    let device = pty.device().to_str().unwrap();
    let first = open(device).unwrap();
    assert_eq!(open(device).err(), Some(ErrorKind::ResourceBusy));
    drop(first);
    assert!(open(device).is_ok());
    assert_eq!(open("/dev/nowhere").err(), Some(ErrorKind::NotFound));
}
