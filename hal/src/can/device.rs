//! CAN devices by name, as configuration and command line write them.

use std::fmt;
use std::str::FromStr;

use super::slcan::{DEFAULT_BAUD, Slcan};
use super::socketcan::SocketCan;
use super::{CanBus, CanError};

/// The longest name of a network interface (IFNAMSIZ without the terminating zero).
const MAX_INTERFACE_NAME: usize = 15;

/// A CAN device: `can0` or `socketcan:can0`, `slcan:/dev/ttyACM0` or `slcan:/dev/ttyACM0@1000000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CanDevice {
    /// A network interface.
    SocketCan {
        /// The interface's name.
        interface: String,
    },
    /// An SLCAN adapter on a serial device.
    Slcan {
        /// The path of the serial device.
        path: String,
        /// The baud rate of the serial line; USB devices and pseudo-terminals ignore it.
        baud: u32,
    },
}

impl FromStr for CanDevice {
    type Err = CanError;

    fn from_str(name: &str) -> Result<Self, CanError> {
        let wrong = || CanError::Name(name.to_owned());
        if let Some(rest) = name.strip_prefix("slcan:") {
            let (path, baud) = match rest.rsplit_once('@') {
                Some((path, baud)) => (path, baud.parse().map_err(|_| wrong())?),
                None => (rest, DEFAULT_BAUD),
            };
            if path.is_empty() || baud == 0 {
                return Err(wrong());
            }
            return Ok(Self::Slcan { path: path.to_owned(), baud });
        }
        let interface = name.strip_prefix("socketcan:").unwrap_or(name);
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
        if interface.is_empty()
            || interface.len() > MAX_INTERFACE_NAME
            || interface.starts_with('.')
            || !interface.bytes().all(allowed)
        {
            return Err(wrong());
        }
        Ok(Self::SocketCan { interface: interface.to_owned() })
    }
}

/// Prints the shortest name of the device.
impl fmt::Display for CanDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SocketCan { interface } => f.write_str(interface),
            Self::Slcan { path, baud } if *baud == DEFAULT_BAUD && !path.contains('@') => {
                write!(f, "slcan:{path}")
            }
            Self::Slcan { path, baud } => write!(f, "slcan:{path}@{baud}"),
        }
    }
}

/// Opens a CAN device by name, within a tokio runtime. Until it is configured, the device is off the bus, or
/// as the system set it up. Errors: an invalid name, a missing device, no permission.
pub fn open(name: &str) -> Result<Box<dyn CanBus>, CanError> {
    match name.parse()? {
        CanDevice::Slcan { path, baud } => Ok(Box::new(Slcan::open(name, &path, baud)?)),
        CanDevice::SocketCan { interface } => Ok(Box::new(SocketCan::open(name, &interface)?)),
    }
}

/// Opens a CAN device by name, as [`open`] does, without blocking the runtime's thread, and after everything that was
/// begun on the device has ended.
pub async fn open_in_turn(name: &str) -> Result<Box<dyn CanBus>, CanError> {
    match name.parse()? {
        CanDevice::Slcan { path, baud } => Ok(Box::new(Slcan::open(name, &path, baud)?)),
        CanDevice::SocketCan { interface } => Ok(Box::new(SocketCan::open_in_turn(name, &interface).await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_and_print_one_way() {
        for (name, printed) in [
            ("can0", "can0"),
            ("socketcan:vcan0", "vcan0"),
            ("slcan:/dev/ttyACM0", "slcan:/dev/ttyACM0"),
            ("slcan:/dev/ttyACM0@115200", "slcan:/dev/ttyACM0"),
            ("slcan:/dev/ttyUSB0@1000000", "slcan:/dev/ttyUSB0@1000000"),
            ("slcan:/tmp/a@b@9600", "slcan:/tmp/a@b@9600"),
        ] {
            let device: CanDevice = name.parse().unwrap();
            assert_eq!(device.to_string(), printed);
            assert_eq!(printed.parse::<CanDevice>().unwrap(), device);
        }
    }

    #[test]
    fn a_text_that_names_no_device_is_refused() {
        for name in
            ["", "slcan:", "slcan:@9600", "slcan:/dev/ttyACM0@fast", "slcan:/dev/ttyACM0@0", "/dev/ttyACM0"]
                .into_iter()
                .chain(["pcan:1", "a name", "averylongnameindeed", "..", "socketcan:"])
        {
            assert!(matches!(name.parse::<CanDevice>(), Err(CanError::Name(_))), "{name}");
        }
    }

    #[test]
    fn an_error_names_an_absent_device_as_it_was_configured() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        for name in ["slcan:/dev/nowhere@9600", "socketcan:nocan9"] {
            let error = open(name).err().unwrap();
            assert!(matches!(error, CanError::Device { .. }), "{error}");
            assert!(error.to_string().starts_with(&format!("CAN device {name}: ")), "{error}");
        }
    }
}
