//! The form of a log line, as text or JSON.
//!
//! A value may contain a text from outside: a problem that the cloud reports, the reason with which it closes the
//! websocket, an operator's name of a bus. Every value of every line therefore passes [`clean`], so that no text
//! from outside can end a line, forge another one, fill the disk, or show a secret.

use std::fmt::{self, Write as _};

use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, secrets};

/// The longest value in a log line, in bytes. The agent's own messages are shorter.
const MAX_VALUE: usize = 1000;

/// Formats log lines, which show no text from outside as it is; see [`clean`].
#[derive(Debug)]
pub struct LineFormat(pub LogFormat);

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut values = Values::default();
        event.record(&mut values);
        let metadata = event.metadata();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let line = Line { time: &time, level: *metadata.level(), target: metadata.target(), values: &values };
        match self.0 {
            LogFormat::Text => line.write_text(&mut writer),
            LogFormat::Json => line.write_json(&mut writer),
        }
    }
}

/// The parts of a line.
struct Line<'a> {
    time: &'a str,
    level: Level,
    target: &'a str,
    values: &'a Values,
}

impl Line<'_> {
    /// `2026-11-30T13:00:00.123456Z  INFO connector_agent::cloud: the message name=value`.
    fn write_text(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let (dim, color, end) = match writer.has_ansi_escapes() {
            true => ("\u{1b}[2m", color(self.level), "\u{1b}[0m"),
            false => ("", "", ""),
        };
        let Self { time, level, target, .. } = self;
        write!(writer, "{dim}{time}{end} {color}{level:>5}{end} {dim}{target}:{end}")?;
        for (name, value) in &self.values.0 {
            let value = match value {
                Value::String(text) => text,
                other => &other.to_string(),
            };
            match *name {
                "message" => write!(writer, " {value}")?,
                name => write!(writer, " {name}={value}")?,
            }
        }
        writer.write_char('\n')
    }

    /// One JSON object, with the values beside time, level and target.
    fn write_json(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut json = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut json);
        self.serialize(&mut serializer).map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", String::from_utf8(json).map_err(|_| fmt::Error)?)
    }

    fn serialize(&self, serializer: &mut serde_json::Serializer<&mut Vec<u8>>) -> serde_json::Result<()> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", self.time)?;
        map.serialize_entry("level", self.level.as_str())?;
        for (name, value) in &self.values.0 {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("target", self.target)?;
        map.end()
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    }
}

/// The values of an event, cleaned, the message first.
#[derive(Default)]
struct Values(Vec<(&'static str, Value)>);

impl Values {
    fn add(&mut self, field: &Field, value: Value) {
        let place = if field.name() == "message" { 0 } else { self.0.len() };
        self.0.insert(place, (field.name(), value));
    }
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, clean(&format!("{value:?}")).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, clean(value).into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

/// The text in one line, without secrets, and cut if it is very long.
#[must_use]
pub fn clean(text: &str) -> String {
    let text = secrets::redact(text);
    let end = text.floor_char_boundary(MAX_VALUE);
    let kept = text.get(..end).unwrap_or_default();
    let mut cleaned = String::with_capacity(kept.len());
    for character in kept.chars() {
        if is_deceptive(character) {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    if end < text.len() {
        // writing to a text cannot fail
        let _infallible = write!(cleaned, "… ({} more bytes)", text.len() - end);
    }
    cleaned
}

/// Whether the character can end a line, move the cursor, change the order of the characters after it, or is not seen.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(level: Level, values: &[(&'static str, Value)]) -> [String; 2] {
        let values = Values(values.iter().map(|(name, value)| (*name, value.clone())).collect());
        let line = Line { time: "2026-11-30T13:00:00Z", level, target: "connector_agent", values: &values };
        let (mut text, mut json) = (String::new(), String::new());
        line.write_text(&mut Writer::new(&mut text)).unwrap();
        line.write_json(&mut Writer::new(&mut json)).unwrap();
        [text, json]
    }

    #[test]
    fn a_line_has_time_level_target_message_and_values() {
        let values = [("message", "read the VIN".into()), ("found", true.into()), ("elapsed_ms", 12.into())];
        let [text, json] = lines(Level::INFO, &values);
        assert_eq!(
            text,
            "2026-11-30T13:00:00Z  INFO connector_agent: read the VIN found=true elapsed_ms=12\n"
        );
        let start =
            r#"{"timestamp":"2026-11-30T13:00:00Z","level":"INFO","message":"read the VIN","found":true,"#;
        assert_eq!(json, format!("{start}\"elapsed_ms\":12,\"target\":\"connector_agent\"}}\n"));
    }

    #[test]
    fn a_text_from_outside_cannot_forge_a_line() {
        let forged = "busy\n2026-11-30T13:00:00Z ERROR connector_agent: forged\r\u{1b}[2J\u{202e}\u{2028}\u{ad}\u{e0041}";
        let cleaned = clean(forged);
        assert_eq!(
            cleaned,
            r"busy\n2026-11-30T13:00:00Z ERROR connector_agent: forged\r\u{1b}[2J\u{202e}\u{2028}\u{ad}\u{e0041}"
        );
        assert_eq!(clean("ä „quoted“ – 漢字 \\ '\"'"), "ä „quoted“ – 漢字 \\ '\"'", "harmless");
    }

    #[test]
    fn a_long_text_from_outside_is_cut() {
        let cleaned = clean(&"ä".repeat(500_000));
        assert!(cleaned.ends_with("ä… (999000 more bytes)"), "{cleaned}");
        assert!(cleaned.len() < 1100);
        assert!(clean(&"\u{1}".repeat(5000)).len() < 10 * MAX_VALUE);
        assert_eq!(clean(&"x".repeat(MAX_VALUE)).len(), MAX_VALUE);
    }
}
