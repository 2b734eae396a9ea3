//! Numbers in text messages. They may also be written as strings (`"0x7E0"`).

use serde::de::{self, Deserializer, Visitor};
use std::fmt;

/// Reads an unsigned integer, written as a number or as a decimal or hexadecimal string. For
/// `deserialize_with`.
pub(super) fn number<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let value = deserializer.deserialize_any(NumberVisitor)?;
    T::try_from(value).map_err(|_| de::Error::custom(format!("the number {value} is out of range")))
}

/// Reads an unsigned integer as [`number`] does, or `None` if it is absent or null.
pub(crate) fn optional_number<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    deserializer.deserialize_option(OptionVisitor(std::marker::PhantomData))
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an unsigned integer, or a string such as \"0x7E0\" or \"2016\"")
    }

    fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<u64, E> {
        // JSON does not distinguish 6.0 from 6, and beyond 2^53 a double does not represent every integer
        let is_whole = value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value);
        if is_whole { Ok(value as u64) } else { Err(E::invalid_value(de::Unexpected::Float(value), &self)) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        let trimmed = text.trim();
        let parsed = match trimmed.strip_prefix("0x").or_else(|| trimmed.strip_prefix("0X")) {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => trimmed.parse(),
        };
        parsed.map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

struct OptionVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: TryFrom<u64>> Visitor<'de> for OptionVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an unsigned integer or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        number(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_number_may_be_written_in_every_form_of_json_and_the_protocol() {
        let read = |value: Value| number::<_, u32>(value).ok();
        for written in [json!(2016), json!(2016.0), json!("2016"), json!("0x7E0"), json!(" 0X7e0 ")] {
            assert_eq!(read(written.clone()), Some(2016), "{written}");
        }
        for wrong in [
            json!(-1),
            json!(6.5),
            json!(-6.0),
            json!(1e300),
            json!(4294967296.0),
            json!("7E0"),
            json!("0x"),
            json!(""),
            json!(null),
            json!(true),
            json!([1]),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
        assert_eq!(number::<_, u64>(json!(9_007_199_254_740_993_u64)).ok(), Some(9_007_199_254_740_993));
    }
}
