//! The values that `match` compares with.

use std::sync::Arc;

use super::Number;

/// Lists up to here are read through; longer ones are searched.
const SHORT: usize = 8;

/// A set of texts, numbers and booleans.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// Ascending bytes, each once. Shared, as the numbers are: filters are copied in parts, lists may be long.
    texts: Arc<[Box<str>]>,
    /// Ascending, each once.
    numbers: Arc<[Number]>,
    /// False, true.
    bools: [bool; 2],
}

/// One value of metadata that is neither null nor holds others.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A text.
    Text(Box<str>),
    /// A number.
    Number(Number),
    /// A boolean.
    Bool(bool),
}

impl Scalar {
    /// As JSON text, in one form for equal values.
    pub fn to_json(&self) -> String {
        match self {
            Scalar::Text(text) => serde_json::Value::from(&**text).to_string(),
            Scalar::Number(Number::Integer(whole)) => whole.to_string(),
            Scalar::Number(Number::Double(value)) => serde_json::Value::from(*value).to_string(),
            Scalar::Bool(word) => word.to_string(),
        }
    }
}

impl Values {
    /// The set of some values.
    pub(super) fn new(scalars: impl IntoIterator<Item = Scalar>) -> Values {
        let (mut texts, mut numbers, mut bools) = (Vec::new(), Vec::new(), [false; 2]);
        for scalar in scalars {
            match scalar {
                Scalar::Text(text) => texts.push(text),
                Scalar::Number(number) => numbers.push(number),
                Scalar::Bool(word) => bools[usize::from(word)] = true,
            }
        }
        texts.sort_unstable();
        texts.dedup();
        numbers.sort_unstable();
        numbers.dedup();
        Values { texts: texts.into(), numbers: numbers.into(), bools }
    }

    /// Texts in it, ascending.
    pub fn texts(&self) -> &[Box<str>] {
        &self.texts
    }

    /// Numbers in it, ascending.
    pub fn numbers(&self) -> &[Number] {
        &self.numbers
    }

    /// True when this boolean is in it.
    pub fn has_bool(&self, word: bool) -> bool {
        self.bools[usize::from(word)]
    }

    /// True when this text, UTF-8, is in it.
    pub fn has_text(&self, text: &[u8]) -> bool {
        if self.texts.len() <= SHORT {
            return self.texts.iter().any(|known| known.as_bytes() == text);
        }
        self.texts.binary_search_by(|known| known.as_bytes().cmp(text)).is_ok()
    }

    /// True when this number is in it.
    pub fn has_number(&self, number: Number) -> bool {
        self.numbers.binary_search(&number).is_ok()
    }

    /// All of them: texts, numbers, booleans.
    pub(super) fn scalars(&self) -> impl Iterator<Item = Scalar> {
        let texts = self.texts.iter().cloned().map(Scalar::Text);
        let numbers = self.numbers.iter().copied().map(Scalar::Number);
        let bools = [false, true].into_iter().filter(|word| self.has_bool(*word)).map(Scalar::Bool);
        texts.chain(numbers).chain(bools)
    }
}
