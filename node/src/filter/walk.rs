//! One walk through an object's text that visits the values of many paths.

use super::text::{Cursor, Text, Value};
use super::{KeyPath, Number, Scalar, Step};

/// Lists of names up to here are read through; longer ones are searched.
const SHORT: usize = 8;

/// Paths, merged where they begin alike. Each leaf is the end of one path and has a number.
#[derive(Clone, Debug, Default)]
pub(super) struct PathTree {
    /// By name, ascending bytes.
    fields: Vec<(Box<str>, PathTree)>,
    each: Option<Box<PathTree>>,
    leaves: Vec<u16>,
}

/// The first text, number or boolean that a path reaches in the text of an object.
pub fn first_scalar(path: &KeyPath, object: &[u8]) -> Option<Scalar> {
    let mut tree = PathTree::default();
    tree.add(path, 0);
    let mut first = None;
    tree.walk(object, &mut |_, value| {
        if first.is_none() {
            first = scalar(value);
        }
    });
    first
}

/// The text that a path reaches in the text of an object; `None` when it reaches none, another value, or several.
pub fn only_text(path: &KeyPath, object: &[u8]) -> Option<Box<str>> {
    let mut tree = PathTree::default();
    tree.add(path, 0);
    let (mut first, mut count) = (None, 0);
    tree.walk(object, &mut |_, value| {
        first = scalar(value);
        count += 1;
    });
    match first {
        Some(Scalar::Text(text)) if count == 1 => Some(text),
        _ => None,
    }
}

fn scalar(value: Value<'_>) -> Option<Scalar> {
    match value {
        Value::Bool(word) => Some(Scalar::Bool(word)),
        Value::Number(digits) => Number::parse(digits).map(Scalar::Number),
        Value::Text(text) => {
            let decoded = text.decoded()?.into_owned();
            String::from_utf8(decoded).ok().map(|text| Scalar::Text(text.into()))
        }
        Value::Null | Value::Array | Value::Object(_) => None,
    }
}

impl PathTree {
    /// Adds a path; its values are visited under the number `leaf`.
    pub(super) fn add(&mut self, path: &KeyPath, leaf: u16) {
        let mut node = self;
        for step in path.steps() {
            node = match step {
                Step::Each => node.each.get_or_insert_default(),
                Step::Field(name) => {
                    let at = match node.fields.binary_search_by(|(known, _)| known.cmp(name)) {
                        Ok(at) => at,
                        Err(at) => {
                            node.fields.insert(at, (name.clone(), PathTree::default()));
                            at
                        }
                    };
                    &mut node.fields[at].1
                }
            };
        }
        node.leaves.push(leaf);
    }

    /// Calls `visit` with leaf and value for each value that a path reaches in the text of an object. A value that is an
    /// array, where a path ends, stands for its elements, arrays among them as they are.
    pub(super) fn walk<'t>(&self, object: &'t [u8], visit: &mut impl FnMut(u16, Value<'t>)) {
        let mut cursor = Cursor::new(object);
        if cursor.pass(b'{').is_some() {
            self.fields_of(&mut cursor, visit);
        }
    }

    /// Visits inside the object whose brace was passed; whether all fields were found before its end.
    fn fields_of<'t>(&self, cursor: &mut Cursor<'t>, visit: &mut impl FnMut(u16, Value<'t>)) -> Option<bool> {
        let mut missing = self.fields.len();
        while missing > 0 {
            let Some(key) = cursor.next_key() else { return Some(false) };
            match self.field(key) {
                None => cursor.skip()?,
                Some(inside) => {
                    missing -= 1;
                    inside.value(cursor, visit)?;
                }
            }
        }
        Some(true)
    }

    fn field(&self, key: Text<'_>) -> Option<&PathTree> {
        let found = match self.fields.len() <= SHORT {
            true => self.fields.iter().position(|(name, _)| key.is(name.as_bytes()))?,
            false => self.fields.binary_search_by(|(name, _)| key.compare(name.as_bytes()).reverse()).ok()?,
        };
        Some(&self.fields[found].1)
    }

    /// Visits a value that a path led to, and passes it.
    fn value<'t>(&self, cursor: &mut Cursor<'t>, visit: &mut impl FnMut(u16, Value<'t>)) -> Option<()> {
        match cursor.peek()? {
            b'{' if !self.fields.is_empty() => {
                let mut inside = cursor.clone();
                inside.pass(b'{')?;
                if self.fields_of(&mut inside, visit)? {
                    inside.leave()?;
                }
                match self.leaves.is_empty() {
                    true => *cursor = inside,
                    false => self.leaf(cursor, visit)?,
                }
            }
            b'[' if !self.leaves.is_empty() || self.each.is_some() => {
                cursor.pass(b'[')?;
                while cursor.next_element().is_some() {
                    if let Some(each) = &self.each {
                        let mut inside = cursor.clone();
                        each.value(&mut inside, visit)?;
                        if self.leaves.is_empty() {
                            *cursor = inside;
                            continue;
                        }
                    }
                    self.leaf(cursor, visit)?;
                }
            }
            b'[' | b'{' if self.leaves.is_empty() => cursor.skip()?,
            _ => self.leaf(cursor, visit)?,
        }
        Some(())
    }

    /// Visits a value where a path ends, and passes it.
    fn leaf<'t>(&self, cursor: &mut Cursor<'t>, visit: &mut impl FnMut(u16, Value<'t>)) -> Option<()> {
        if self.leaves.is_empty() {
            return cursor.skip();
        }
        let value = cursor.value()?;
        for leaf in &self.leaves {
            visit(*leaf, value);
        }
        Some(())
    }
}
