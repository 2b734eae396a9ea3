//! The chain of the audit's lines: each line has the SHA-256 of the line before.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde_json::Value;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuditHash([u8; 32]);

impl AuditHash {
    /// The hash that stands for the line before the first one.
    pub const NONE: Self = Self([0; 32]);

    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
            *to = *from;
        }
        Self(hash)
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AuditHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a hash has 64 hexadecimal digits";
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong);
        }
        let mut hash = [0; 32];
        for (index, byte) in hash.iter_mut().enumerate() {
            let digits = text.get(2 * index..2 * index + 2).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong)?;
        }
        Ok(Self(hash))
    }
}

/// Why a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// The line is no entry of the audit.
    #[error("this is not a line of the audit")]
    NotAnEntry,
    /// The hash in the line is not that of the line before.
    #[error(
        "this line does not continue the line before: one of them was changed, or lines between them are missing"
    )]
    Discontinuous,
    /// The line has no end.
    #[error(
        "the line is incomplete: lines were cut off, or the agent ended while it wrote the line, which its next \
         entry will mark"
    )]
    Incomplete,
}

/// The place at which a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainBreak {
    /// The line, counted from 1.
    pub line: usize,
    /// The fault.
    pub fault: ChainFault,
}

/// A file whose lines continue the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckedAuditFile {
    /// The number of lines.
    pub lines: usize,
    /// How many of them are incomplete and marked: the agent was killed, or lost its power.
    pub torn: usize,
}

/// Checks a chain of lines in one or more files, from the oldest to the newest.
#[derive(Debug, Default)]
pub struct ChainCheck {
    /// The hash of the last line that counts; `None` before the first line.
    head: Option<AuditHash>,
    /// The head before the last line.
    before: Option<AuditHash>,
    /// The hash of the last line, whether the line counts or not.
    last: Option<AuditHash>,
    wanted: Option<AuditHash>,
    has_wanted: bool,
}

impl ChainCheck {
    /// Looks for a line with this hash, too.
    pub fn looking_for(wanted: Option<AuditHash>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// The hash of the last line.
    pub fn head(&self) -> Option<AuditHash> {
        self.head
    }

    /// Whether a line with the wanted hash was found, if one is wanted.
    pub fn has_found(&self) -> bool {
        self.wanted.is_none() || self.has_wanted
    }

    /// Checks the next file.
    ///
    /// # Errors
    ///
    /// The first line that does not continue the chain.
    pub fn check_file(&mut self, text: &[u8]) -> Result<CheckedAuditFile, ChainBreak> {
        let mut checked = CheckedAuditFile::default();
        // a line that is wrong, unless the next line marks it as torn
        let mut wrong: Option<ChainBreak> = None;
        for raw in text.split_inclusive(|byte| *byte == b'\n') {
            checked.lines += 1;
            let broken = |fault| ChainBreak { line: checked.lines, fault };
            let line = raw.strip_suffix(b"\n");
            let head = line.and_then(LineHead::read);
            let is_marker = head.is_some_and(|head| {
                head.torn.is_some()
                    && head.torn == self.last
                    && self.before.is_none_or(|before| before == head.previous)
            });
            if is_marker {
                wrong = None;
                checked.torn += 1;
                self.head = head.map(|head| head.previous);
            }
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
            self.last = Some(AuditHash::of(line.unwrap_or(raw)));
            self.before = self.head;
            match (line, head) {
                (None, _) => wrong = Some(broken(ChainFault::Incomplete)),
                (_, None) => wrong = Some(broken(ChainFault::NotAnEntry)),
                (_, Some(head)) if self.head.is_some_and(|before| before != head.previous) => {
                    wrong = Some(broken(ChainFault::Discontinuous));
                }
                _ => {
                    self.head = self.last;
                    self.has_wanted |= self.head == self.wanted;
                }
            }
        }
        wrong.map_or(Ok(checked), Err)
    }
}

/// The parts of a line that the chain consists of.
#[derive(Clone, Copy)]
struct LineHead {
    previous: AuditHash,
    /// The hash of the line before, if this line says that the line before is torn.
    torn: Option<AuditHash>,
}

impl LineHead {
    fn read(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        let text = |key| value.get(key).and_then(Value::as_str);
        let previous = text("previous")?.parse().ok()?;
        let torn = match text("entry")? {
            "torn" => Some(text("sha256")?.parse().ok()?),
            _ => None,
        };
        Some(Self { previous, torn })
    }
}

/// The end of a file that the chain continues.
#[derive(Debug, PartialEq, Eq)]
pub struct ChainEnd<'a> {
    /// The hash of the last complete line.
    pub head: Option<AuditHash>,
    /// The bytes after it, which are no complete line.
    pub torn: &'a [u8],
}

impl<'a> ChainEnd<'a> {
    /// The end of this file.
    pub fn of(text: &'a [u8]) -> Self {
        let end = text.iter().rposition(|byte| *byte == b'\n');
        let (complete, torn) = match end {
            Some(end) => (text.get(..end), text.get(end + 1..)),
            None => (None, Some(text)),
        };
        let last = complete.and_then(|complete| complete.rsplit(|byte| *byte == b'\n').next());
        Self { head: last.map(AuditHash::of), torn: torn.unwrap_or_default() }
    }
}
