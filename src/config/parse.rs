//! Turns text into a configuration, and finds everything that is wrong with the text, not only the first
//! fault.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

use super::configuration::Config;
use super::problem::ConfigProblem;

/// The result of parsing.
pub(super) struct Parsed {
    /// The configuration as far as it could be understood. Faulty values are replaced by their defaults.
    pub(super) config: Option<Config>,
    /// Everything that is wrong with the text.
    pub(super) problems: Vec<ConfigProblem>,
    /// The lines of the keys.
    pub(super) lines: KeyLines,
}

/// The lines of the keys in a file.
#[derive(Debug, Default)]
pub(super) struct KeyLines(Vec<(String, usize)>);

impl KeyLines {
    /// The line of this key, or of the innermost existing table around it, counted from 1.
    pub(super) fn of(&self, key: &str) -> Option<usize> {
        let found = self.0.iter().find(|(path, _)| path == key).map(|(_, line)| *line);
        found.or_else(|| key.rsplit_once(['.', '[']).and_then(|(table, _)| self.of(table)))
    }
}

/// Parses the text. No problem found here quotes a value that could be a secret.
pub(super) fn parse(text: &str) -> Parsed {
    let (mut document, syntax) = DeTable::parse_recoverable(text);
    let mut problems: Vec<ConfigProblem> = syntax.iter().map(|error| syntax_problem(text, error)).collect();
    problems.sort_by_key(|problem| problem.line);
    // further errors on a line may be consequences of the first
    problems.dedup_by_key(|problem| problem.line);
    let entries = entries(&document);
    let lines =
        KeyLines(entries.iter().map(|entry| (name(&entry.steps), line_at(text, entry.key.start))).collect());

    if !problems.is_empty() {
        // values that a broken document has or lacks may be consequences of the syntax error
        return Parsed { config: None, problems, lines };
    }
    for key in insert_placeholders(&mut document) {
        let line = lines.of(&key);
        problems.push(ConfigProblem::error("missing", "set it: it has no default").at_key(key).at_line(line));
    }
    let config = understand(text, document, &entries, &mut problems);
    Parsed { config, problems, lines }
}

/// Removes faulty entries from the document until the rest can be understood.
fn understand(
    text: &str,
    mut document: Spanned<DeTable<'_>>,
    entries: &[Entry],
    problems: &mut Vec<ConfigProblem>,
) -> Option<Config> {
    // Each turn removes at least one entry.
    for _ in 0..=entries.len() {
        let error = match Config::deserialize(Deserializer::from(document.clone())) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let entry = error.span().and_then(|span| culprit(entries, &span));
        let Some(entry) = entry else {
            problems.push(value_problem(&error));
            return None;
        };
        let line = Some(line_at(text, entry.key.start));
        problems.push(value_problem(&error).at_key(name(&entry.steps)).at_line(line));
        remove(document.get_mut(), &entry.steps);
        // the entry just reported must not be reported as missing too
        let _reported_already = insert_placeholders(&mut document);
    }
    None
}

/// The required keys, and placeholders with which the rest of a configuration can be checked.
const REQUIRED: [(&str, &str, &str); 3] = [
    ("connector", "uuid", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    ("cloud", "api_url", "https://missing.invalid"),
    ("cloud", "websocket_url", "wss://missing.invalid"),
];

/// Adds the missing required keys, and returns their names.
fn insert_placeholders(document: &mut Spanned<DeTable<'_>>) -> Vec<String> {
    let mut missing = Vec::new();
    for (table, key, placeholder) in REQUIRED {
        let section = document
            .get_mut()
            .entry(unplaced(table.into()))
            .or_insert_with(|| unplaced(DeValue::Table(DeTable::new())));
        insert_placeholder(section, table, key, DeValue::String(placeholder.into()), &mut missing);
    }
    if let Some(DeValue::Array(buses)) = document.get_mut().get_mut("bus").map(Spanned::get_mut) {
        for (index, bus) in buses.iter_mut().enumerate() {
            let table = format!("bus[{index}]");
            insert_placeholder(bus, &table, "kind", DeValue::String("can".into()), &mut missing);
            insert_placeholder(bus, &table, "pins", DeValue::Array(DeArray::new()), &mut missing);
            insert_placeholder(bus, &table, "device", DeValue::String("".into()), &mut missing);
        }
    }
    missing
}

/// Adds the key to the table if the table lacks it. A value that is not a table is reported elsewhere.
fn insert_placeholder<'i>(
    table: &mut Spanned<DeValue<'i>>,
    path: &str,
    key: &'static str,
    value: DeValue<'i>,
    missing: &mut Vec<String>,
) {
    if let DeValue::Table(table) = table.get_mut()
        && table.get(key).is_none()
    {
        table.insert(unplaced(key.into()), unplaced(value));
        missing.push(format!("{path}.{key}"));
    }
}

/// A value that has no place in the text.
fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(usize::MAX..usize::MAX, value)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyStep {
    Key(String),
    Index(usize),
}

/// A key and its value in the document, or an element of an array of tables.
struct Entry {
    steps: Vec<KeyStep>,
    key: Range<usize>,
    value: Range<usize>,
}

fn entries(document: &Spanned<DeTable<'_>>) -> Vec<Entry> {
    let mut found = Vec::new();
    collect_table(document.get_ref(), &[], &mut found);
    found
}

fn collect_table(table: &DeTable<'_>, parent: &[KeyStep], found: &mut Vec<Entry>) {
    for (key, value) in table.iter() {
        let steps = [parent, &[KeyStep::Key(key.get_ref().to_string())]].concat();
        match value.get_ref() {
            DeValue::Table(inner) => collect_table(inner, &steps, found),
            DeValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    if let DeValue::Table(inner) = element.get_ref() {
                        let steps = [steps.as_slice(), &[KeyStep::Index(index)]].concat();
                        collect_table(inner, &steps, found);
                        found.push(Entry { steps, key: element.span(), value: element.span() });
                    }
                }
            }
            _ => {}
        }
        found.push(Entry { steps, key: key.span(), value: value.span() });
    }
}

/// The entry at fault: the one with exactly this span, or else the innermost one around the span.
fn culprit<'a>(entries: &'a [Entry], span: &Range<usize>) -> Option<&'a Entry> {
    let exact = entries.iter().find(|entry| entry.key == *span || entry.value == *span);
    exact.or_else(|| {
        let around = |entry: &&Entry| entry.value.start <= span.start && span.end <= entry.value.end;
        entries.iter().filter(around).min_by_key(|entry| entry.value.len())
    })
}

fn remove(table: &mut DeTable<'_>, steps: &[KeyStep]) {
    match steps {
        [KeyStep::Key(key)] => {
            table.remove(key.as_str());
        }
        [KeyStep::Key(key), KeyStep::Index(index), rest @ ..] => {
            let Some(DeValue::Array(elements)) = table.get_mut(key.as_str()).map(Spanned::get_mut) else {
                return;
            };
            match elements.get_mut(*index).map(Spanned::get_mut) {
                // emptied, not removed, so that the other elements keep their index
                Some(DeValue::Table(inner)) if !rest.is_empty() => remove(inner, rest),
                _ => {
                    table.remove(key.as_str());
                }
            }
        }
        [KeyStep::Key(key), rest @ ..] => {
            if let Some(DeValue::Table(inner)) = table.get_mut(key.as_str()).map(Spanned::get_mut) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

fn name(steps: &[KeyStep]) -> String {
    let mut name = String::new();
    for step in steps {
        match step {
            KeyStep::Key(key) if name.is_empty() => name.push_str(key),
            KeyStep::Key(key) => name.extend([".", key]),
            KeyStep::Index(index) => name.push_str(&format!("[{index}]")),
        }
    }
    name
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn syntax_problem(text: &str, error: &Error) -> ConfigProblem {
    let line = error.span().map(|span| line_at(text, span.start));
    let (what, fix) = split(error.message(), "see https://toml.io for the syntax of TOML");
    ConfigProblem::error(format!("not TOML: {what}"), fix).at_line(line)
}

fn value_problem(error: &Error) -> ConfigProblem {
    let (what, fix) = split(error.message(), "correct it, or remove it for the default");
    ConfigProblem::error(what, fix)
}

/// Splits a message into problem and remedy. Serde's messages end with the expected values, those of this
/// crate with the remedy.
fn split(message: &str, otherwise: &str) -> (String, String) {
    if let Some((what, fix)) = message.split_once("; ") {
        (what.to_owned(), fix.to_owned())
    } else if let Some((what, expected)) = message.split_once(", expected ") {
        (what.to_owned(), format!("expected is {expected}"))
    } else {
        (message.to_owned(), otherwise.to_owned())
    }
}
