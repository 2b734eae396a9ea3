//! Opens the serial port of an adapter.

use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;

use serialport::TTYPort;
use tokio_serial::{SerialPortBuilderExt as _, SerialStream};

/// Opens a serial port at a baud rate.
pub(super) fn open(path: &str, baud: u32) -> io::Result<SerialStream> {
    tokio_serial::new(path, baud).open_native_async().or_else(|error| match error.kind() {
        // the library reports ENOSYS as `Unknown`
        tokio_serial::ErrorKind::Unknown => open_as_it_is(path, error.into()),
        _ => Err(error.into()),
    })
}

/// Opens a device whose speed cannot be set, because QEMU's user-mode emulation has no `TCGETS2`. USB devices
/// and pseudo-terminals ignore the speed. The failed attempt has already switched the device to raw mode.
fn open_as_it_is(path: &str, error: io::Error) -> io::Result<SerialStream> {
    let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !rustix::termios::isatty(&file) {
        return Err(error);
    }
    // SAFETY: the descriptor is open, and `into_raw_fd` gave up its ownership.
    #[allow(unsafe_code, reason = "TTYPort has no safe constructor from a descriptor")]
    let port = unsafe { TTYPort::from_raw_fd(file.into_raw_fd()) };
    Ok(SerialStream::try_from(port)?)
}
