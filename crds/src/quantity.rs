//! Kubernetes quantities as text.
//!
//! `k8s_openapi`'s own quantity accepts numbers in the schema but not in the type: one stored object with a bare
//! number would stop the operator from listing any. Text alone is accepted here, with the server's own pattern.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

const PATTERN: &str = r"^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";

/// A quantity such as `500m`, `2` or `20Gi`, not negative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuantityText(pub String);

impl QuantityText {
    /// The amount in thousandths; `None` when the text is no quantity or too large to count.
    pub fn milli(&self) -> Option<u128> {
        milli(&self.0)
    }
}

/// The amount of a quantity in thousandths, so that `1Gi` and `1024Mi` compare equal.
pub fn milli(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale: u128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000u128.pow(2),
        "G" => 1000 * 1000u128.pow(3),
        "T" => 1000 * 1000u128.pow(4),
        "P" => 1000 * 1000u128.pow(5),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut amount = whole.parse::<u128>().ok()?.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.chars() {
        unit /= 10;
        amount = amount.checked_add(u128::from(digit.to_digit(10)?) * unit)?;
    }
    Some(amount)
}

impl From<&str> for QuantityText {
    fn from(text: &str) -> Self {
        QuantityText(text.to_owned())
    }
}

impl From<QuantityText> for Quantity {
    fn from(text: QuantityText) -> Self {
        Quantity(text.0)
    }
}

impl fmt::Display for QuantityText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl JsonSchema for QuantityText {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 32, "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_compare_equal() {
        assert_eq!(milli("1Gi"), milli("1024Mi"));
        assert_eq!(milli("1.5Gi"), milli("1536Mi"));
        assert_eq!(milli("0.5"), milli("500m"));
        assert_ne!(milli("1G"), milli("1Gi"));
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "Gi", "1Gb", "-1", "1e3", "1.x"] {
            assert_eq!(milli(text), None, "{text}");
        }
    }
}
