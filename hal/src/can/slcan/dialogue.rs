//! Commands and their answers while the adapter is off the bus.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::adapter_line::{AdapterLine, CLOCK};
use super::codec::{self, BELL, SlcanLine};
use super::reader::RawLine;
use crate::can::CanError;

/// How often to call an adapter before it counts as absent: one that restarts when opened takes up to 2 s.
const CALLS: u32 = 5;
/// How long to wait for the answer to one call: [`CALLS`] of them cover an adapter that restarts.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an adapter may take to answer a command. Adapters answer within milliseconds; the rest is for USB
/// and a busy machine.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Answers to one call are closer together than this: a quarter of [`CALL_TIMEOUT`], and far more than the 16
/// ms in which a serial adapter on USB delivers.
const QUIET: Duration = Duration::from_millis(125);
/// How long to discard the traffic of an adapter that was left on the bus, until it reads the call: as long
/// as an adapter may take to send its status behind a second of frames on a slow line.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

enum CommandAnswer {
    Done,
    Refused,
    Text,
    None,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> AdapterLine<S> {
    /// Takes the adapter off the bus and returns whether it answers commands; an error if it answers nothing.
    pub(super) async fn call(&mut self) -> Result<bool, CanError> {
        let until = CLOCK.now() + DRAIN_TIMEOUT;
        for call in 0..CALLS {
            // empty lines end a command that an earlier host may have begun
            self.out.extend_from_slice(b"\r\rC\rV\r");
            let (mut answered, mut named) = (false, false);
            // the version ends the answers to the first call; later answers, and free text, end with silence
            while let Some(line) =
                self.line_within(if answered || named { QUIET } else { CALL_TIMEOUT }).await?
            {
                if let RawLine::Bytes(bytes) = line {
                    answered |= bytes.is_empty() || bytes == [BELL];
                    named |= is_version(&bytes);
                    if call == 0 && bytes.first() == Some(&b'V') {
                        break;
                    }
                }
                if CLOCK.now() > until {
                    break;
                }
            }
            if answered || named {
                return Ok(answered);
            }
        }
        Err(self.protocol("does not answer; is it an SLCAN adapter?"))
    }

    /// Sends a command and returns whether the adapter accepted it; an adapter that never answers counts as
    /// accepting.
    pub(super) async fn command(&mut self, answers: bool, command: SlcanLine) -> Result<bool, CanError> {
        if !answers {
            command.encode(&mut self.out);
            return Ok(true);
        }
        let text = format!("{command:?}");
        let is_extension =
            matches!(command, SlcanLine::SetDataBitRate(_) | SlcanLine::SetBitTiming(_) | SlcanLine::Listen);
        match self.ask(command, ANSWER_TIMEOUT).await? {
            CommandAnswer::Refused => Ok(false),
            // some firmware ignores commands that it does not know
            CommandAnswer::None if is_extension => Ok(false),
            CommandAnswer::None => Err(self.protocol(format!("does not answer {text}"))),
            CommandAnswer::Done | CommandAnswer::Text => Ok(true),
        }
    }

    async fn ask(&mut self, command: SlcanLine, limit: Duration) -> Result<CommandAnswer, CanError> {
        command.encode(&mut self.out);
        while let Some(line) = self.line_within(limit).await? {
            let RawLine::Bytes(bytes) = line else { continue };
            match codec::decode(&bytes) {
                Ok(SlcanLine::Done) => return Ok(CommandAnswer::Done),
                Ok(SlcanLine::Refused) => return Ok(CommandAnswer::Refused),
                Ok(SlcanLine::Status(_)) => return Ok(CommandAnswer::Text),
                _ => {}
            }
        }
        Ok(CommandAnswer::None)
    }
}

/// Whether a line is `V1013`, or the free text that some firmware sends instead; fragments of frames are
/// neither.
fn is_version(line: &[u8]) -> bool {
    let Some((first, rest)) = line.split_first() else { return false };
    let is_words = rest.len() >= 3 && !rest.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'\t');
    let is_report = matches!(codec::decode(line), Ok(SlcanLine::State { .. } | SlcanLine::Errors(_)));
    codec::find_strange(line).is_none() && !is_report && (*first == b'V' || is_words)
}
