//! K-line devices by name, as configuration and command line write them.

use super::line::{KLine, KLineError};
use super::serial::SerialKLine;
use crate::future::BoxFuture;

/// The prefix that distinguishes a K-line device from a CAN device on the command line and in reports.
pub const DEVICE_PREFIX: &str = "kline:";

/// The path of a device that is named by its path, with or without the prefix `kline:`.
pub fn device_path(name: &str) -> Result<&str, KLineError> {
    let path = name.strip_prefix(DEVICE_PREFIX).unwrap_or(name);
    let is_path = path.contains('/') && !path.starts_with("slcan:") && !path.starts_with("socketcan:");
    if is_path { Ok(path) } else { Err(KLineError::Name(name.to_owned())) }
}

/// Opens a K-line by the name of its device, within a tokio runtime. Errors: an invalid name, a missing
/// device, no permission.
pub fn open(name: &str) -> Result<Box<dyn KLine>, KLineError> {
    Ok(Box::new(SerialKLine::open(name, device_path(name)?)?))
}

/// A future that opens a K-line.
pub type OpeningKLine = BoxFuture<'static, Result<Box<dyn KLine>, KLineError>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_its_path_with_or_without_the_kind() {
        assert_eq!(device_path("kline:/dev/ttyUSB0").unwrap(), "/dev/ttyUSB0");
        assert_eq!(device_path("/dev/ttyS1").unwrap(), "/dev/ttyS1");
        for wrong in ["", "kline:", "can0", "slcan:/dev/ttyACM0"] {
            assert!(matches!(device_path(wrong), Err(KLineError::Name(_))), "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_error_names_an_absent_device_as_it_was_configured() {
        let error = open("kline:/dev/nowhere").err().unwrap();
        assert!(error.to_string().starts_with("K-line device kline:/dev/nowhere: "), "{error}");
    }
}
