//! Reads any bytes as lines of SLCAN.

use connector_hal::can::slcan::codec::{SlcanLine, decode};

/// Writing and reading a line again gives the same line.
pub(super) fn drive(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\r') {
        let Ok(read) = decode(line) else { continue };
        if matches!(read, SlcanLine::Other(_)) {
            continue;
        }
        let mut written = Vec::new();
        read.encode(&mut written);
        let end = usize::from(written.last() == Some(&b'\r'));
        assert_eq!(decode(&written[..written.len() - end]).as_ref(), Ok(&read));
    }
}
