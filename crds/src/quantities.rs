//! Numbers that the resource writes as text: decimals, spans of time, numbers of bytes.
//! Must not accept what their CEL rules refuse: both read one grammar, so a stored object always parses.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::rules::DECIMAL;

/// A text that is no quantity of the kind expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a decimal number.
    #[error("{0:?} is not a decimal number such as \"0.5\" or \"5e-4\"")]
    Decimal(String),
    /// Not a span of time.
    #[error("{0:?} is not a span of time such as 90s, 30m or 1h30m")]
    TimeSpan(String),
    /// Not a number of bytes.
    #[error("{0:?} is not a number of bytes such as 500M or 10Gi")]
    ByteSize(String),
}

/// A decimal number that is not negative, as text, because an API object's floats do not survive every client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Decimal(String);

impl Decimal {
    /// Its value.
    pub fn value(&self) -> f64 {
        self.0.parse().expect("read with its grammar, a subset of Rust's")
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A default written in this crate.
    pub(crate) fn literal(text: &str) -> Self {
        text.parse().expect("a literal of this crate, read by a test")
    }
}

impl FromStr for Decimal {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if [whole, fraction, exponent].into_iter().all(is_digits) && exponent.len() <= 2 {
            Ok(Self(text.to_owned()))
        } else {
            Err(QuantityError::Decimal(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Decimal {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Decimal> for String {
    fn from(decimal: Decimal) -> Self {
        decimal.0
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl JsonSchema for Decimal {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('{DECIMAL}')"),
                "message": "a decimal number is digits with an optional fraction and exponent and no sign, as in \"16\", \"0.5\" or \"5e-4\"",
            }],
        })
    }
}

/// A span of time in hours, minutes and seconds, as in `90s`, `30m` or `1h30m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeSpan(String);

const TIME_SPAN: &str = "^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$";

impl TimeSpan {
    /// Its length.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(seconds(&self.0).expect("read with its grammar"))
    }

    /// A default written in this crate.
    pub(crate) fn literal(text: &str) -> Self {
        text.parse().expect("a literal of this crate, read by a test")
    }
}

/// Seconds in `text`, where each of `h`, `m` and `s` may appear once and in this order.
fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    for (unit, length, digits) in [('h', 3600, 5), ('m', 60, 6), ('s', 1, 8)] {
        if let Some((number, after)) = rest.split_once(unit) {
            let number = Some(number).filter(|number| is_digits(number) && number.len() <= digits)?;
            total += number.parse::<u64>().ok()? * length;
            rest = after;
        }
    }
    (rest.is_empty() && total > 0).then_some(total)
}

impl FromStr for TimeSpan {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        seconds(text).map(|_| Self(text.to_owned())).ok_or_else(|| QuantityError::TimeSpan(text.to_owned()))
    }
}

impl TryFrom<String> for TimeSpan {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TimeSpan> for String {
    fn from(span: TimeSpan) -> Self {
        span.0
    }
}

impl JsonSchema for TimeSpan {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TimeSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 24,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('{TIME_SPAN}') && self.matches('[1-9]')"),
                "message": "a span of time is hours, minutes and seconds and not zero, as in 90s, 30m or 1h30m",
            }],
        })
    }
}

/// A number of bytes: an integer, or one with a unit, as in `500M` (10^6) or `10Gi` (2^30).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "IntOrText", into = "IntOrText")]
pub struct ByteSize(IntOrText);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum IntOrText {
    Int(u64),
    Text(String),
}

/// At most 15 digits, so that an integer is exact in every client's numbers.
const BYTE_SIZE: &str = "^[1-9][0-9]{0,14}(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";

impl ByteSize {
    /// The number, at most `u64::MAX` where the text asks for more.
    pub fn bytes(&self) -> u64 {
        match &self.0 {
            IntOrText::Int(bytes) => *bytes,
            IntOrText::Text(text) => bytes(text).expect("read with its grammar"),
        }
    }
}

/// Bytes in `text`.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    let is_plain = is_digits(number) && number.len() <= 15 && !number.starts_with('0');
    Some(number).filter(|_| is_plain)?.parse().ok().map(|number: u64| number.saturating_mul(factor))
}

impl TryFrom<IntOrText> for ByteSize {
    type Error = QuantityError;

    fn try_from(value: IntOrText) -> Result<Self, Self::Error> {
        let text = match &value {
            IntOrText::Int(bytes) => bytes.to_string(),
            IntOrText::Text(text) => text.clone(),
        };
        bytes(&text).map(|_| Self(value)).ok_or(QuantityError::ByteSize(text))
    }
}

impl From<ByteSize> for IntOrText {
    fn from(size: ByteSize) -> Self {
        size.0
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(IntOrText::Text(text.to_owned()))
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 18,
            "x-kubernetes-validations": [{
                "rule": format!("string(self).matches('{BYTE_SIZE}')"),
                "message": "a number of bytes is a whole number above 0 with an optional unit, as in 500M or 10Gi",
            }],
        })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
