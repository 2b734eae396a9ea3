//! Splits the bytes of a serial line into SLCAN lines.

use super::codec::{BELL, CR, MAX_LINE};

/// A received line without its terminator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RawLine {
    /// The bytes before a CR, or a lone BEL.
    Bytes(Vec<u8>),
    /// A line beyond the limit, which was dropped.
    TooLong,
}

/// Splits bytes into lines. Memory is bounded: bytes of an overlong line are dropped immediately.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    unread: Vec<u8>,
    position: usize,
    line: Vec<u8>,
    overlong: bool,
}

impl LineReader {
    /// Adds received bytes. Before, call [`LineReader::next_line`] until it returns `None`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.unread.drain(..self.position);
        self.position = 0;
        self.unread.extend_from_slice(bytes);
    }

    /// The next complete line.
    pub(super) fn next_line(&mut self) -> Option<RawLine> {
        while let Some(&byte) = self.unread.get(self.position) {
            self.position += 1;
            match byte {
                CR | BELL if std::mem::take(&mut self.overlong) => {
                    self.line.clear();
                    return Some(RawLine::TooLong);
                }
                CR => return Some(RawLine::Bytes(std::mem::take(&mut self.line))),
                BELL => {
                    // BEL abandons a line that was begun before
                    self.line.clear();
                    return Some(RawLine::Bytes(vec![BELL]));
                }
                // some adapters end lines with CR LF
                b'\n' => {}
                _ if self.line.len() >= MAX_LINE => self.overlong = true,
                _ => self.line.push(byte),
            }
        }
        self.unread.clear();
        self.position = 0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(reader: &mut LineReader, bytes: &[u8]) -> Vec<String> {
        reader.push(bytes);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line() {
            lines.push(match line {
                RawLine::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                RawLine::TooLong => "too long".to_owned(),
            });
        }
        lines
    }

    #[test]
    fn lines_are_read_whole_however_they_are_split() {
        let mut reader = LineReader::default();
        let all = b"t1000\r\rz\r\n\x07V1013\r";
        let whole = lines(&mut reader, all);
        assert_eq!(whole, ["t1000", "", "z", "\x07", "V1013"]);
        let bytewise: Vec<String> = all.iter().flat_map(|byte| lines(&mut reader, &[*byte])).collect();
        assert_eq!(bytewise, whole);
    }

    #[test]
    fn an_endless_line_is_dropped_and_the_next_one_read() {
        let mut reader = LineReader::default();
        for _ in 0..1000 {
            assert!(lines(&mut reader, &[b'x'; 1000]).is_empty());
        }
        assert!(reader.line.len() + reader.unread.len() <= MAX_LINE);
        assert_eq!(lines(&mut reader, b"\rz\r"), ["too long", "z"]);
    }
}
