//! JSON text, read from front to back without a tree.
//!
//! The text is what [`Metadata`](crate::document::Metadata) stores: one object, well-formed unless a disk or a peer is
//! broken. Of a text that is not, some prefix is read; nothing panics.

use std::borrow::Cow;

/// A place in a text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
}

/// A value, not looked into.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'t> {
    Null,
    Bool(bool),
    /// Its digits.
    Number(&'t [u8]),
    Text(Text<'t>),
    Array,
    /// With its braces.
    Object(&'t [u8]),
}

/// A text as it is written, without the quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'t> {
    written: &'t [u8],
    has_escapes: bool,
}

impl<'t> Text<'t> {
    /// What it means, UTF-8. `None` when it is broken.
    pub(super) fn decoded(self) -> Option<Cow<'t, [u8]>> {
        if !self.has_escapes {
            return Some(Cow::Borrowed(self.written));
        }
        let quoted = [b"\"", self.written, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).ok().map(|text| Cow::Owned(text.into_bytes()))
    }

    /// True when it means this.
    pub(super) fn is(self, text: &[u8]) -> bool {
        if !self.has_escapes {
            return self.written == text;
        }
        self.decoded().is_some_and(|decoded| *decoded == *text)
    }

    /// How it stands to a text, by bytes.
    pub(super) fn compare(self, text: &[u8]) -> std::cmp::Ordering {
        match self.decoded() {
            Some(decoded) => (*decoded).cmp(text),
            None => self.written.cmp(text),
        }
    }
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t [u8]) -> Cursor<'t> {
        Cursor { text, at: 0 }
    }

    /// The next byte that is no white space; stays before it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    /// Passes `byte`, when it is the next.
    pub(super) fn pass(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// In an object: passes the next key and its colon; `None` at the end, which is passed, too.
    pub(super) fn next_key(&mut self) -> Option<Text<'t>> {
        if self.peek()? == b',' {
            self.at += 1;
        }
        if self.peek()? == b'}' {
            self.at += 1;
            return None;
        }
        let key = self.string()?;
        self.pass(b':')?;
        Some(key)
    }

    /// In an array: stays before the next element; `None` at the end, which is passed.
    pub(super) fn next_element(&mut self) -> Option<()> {
        if self.peek()? == b',' {
            self.at += 1;
        }
        if self.peek()? == b']' {
            self.at += 1;
            return None;
        }
        Some(())
    }

    /// Passes a value and says what it is.
    pub(super) fn value(&mut self) -> Option<Value<'t>> {
        Some(match self.peek()? {
            b'"' => Value::Text(self.string()?),
            b'{' => {
                let start = self.at;
                self.skip_container()?;
                Value::Object(&self.text[start..self.at])
            }
            b'[' => {
                self.skip_container()?;
                Value::Array
            }
            b'n' => self.word(Value::Null),
            b't' => self.word(Value::Bool(true)),
            b'f' => self.word(Value::Bool(false)),
            _ => {
                let start = self.at;
                self.skip_word();
                // A step at least: broken text must not hold anybody up.
                if self.at == start {
                    return None;
                }
                Value::Number(&self.text[start..self.at])
            }
        })
    }

    /// Passes a value.
    pub(super) fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'{' | b'[' => self.skip_container(),
            _ => {
                let start = self.at;
                self.skip_word();
                (self.at > start).then_some(())
            }
        }
    }

    /// Passes what is left of the object or array that the cursor is in.
    pub(super) fn leave(&mut self) -> Option<()> {
        let mut depth = 1;
        while depth > 0 {
            self.at += self.text[self.at..].iter().position(|byte| is_structure(*byte))?;
            match self.text[self.at] {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                _ => depth -= 1,
            }
            self.at += 1;
        }
        Some(())
    }

    fn skip_container(&mut self) -> Option<()> {
        self.at += 1;
        self.leave()
    }

    fn word(&mut self, value: Value<'t>) -> Value<'t> {
        self.skip_word();
        value
    }

    fn skip_word(&mut self) {
        let ends =
            |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | b':' | b'"');
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }

    /// Passes a string.
    fn string(&mut self) -> Option<Text<'t>> {
        self.pass(b'"')?;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.at += end_of_plain(&self.text[self.at..])?;
            if self.text[self.at] == b'"' {
                break;
            }
            has_escapes = true;
            // The text may end with a backslash.
            self.at = (self.at + 2).min(self.text.len());
        }
        let written = &self.text[start..self.at];
        self.at += 1;
        Some(Text { written, has_escapes })
    }
}

/// Bytes before the first quote or backslash. Texts are short: eight bytes a step cost less than the call of a wider search.
#[inline]
fn end_of_plain(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The top bit of each zero byte, and perhaps of some behind it (Warren, Hacker's Delight, 2nd ed., 6-1).
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let (words, _) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found =
            zeros(word ^ u64::from_ne_bytes([b'"'; 8])) | zeros(word ^ u64::from_ne_bytes([b'\\'; 8]));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let first = words.len() * 8;
    text[first..].iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|at| first + at)
}

/// True for what begins or ends a string, an object or an array.
fn is_structure(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_read_in_order() {
        let mut cursor = Cursor::new(br#" {"a" : [1, {"x":"]}\""}, "b"] ,"c\n":-1.5e3,"d":null} "#);
        cursor.pass(b'{').expect("an object");
        assert!(cursor.next_key().expect("a").is(b"a"));
        cursor.clone().skip().expect("skipped");
        cursor.pass(b'[').expect("an array");
        assert!(matches!(cursor.next_element().and_then(|()| cursor.value()), Some(Value::Number(b"1"))));
        let object = cursor.next_element().and_then(|()| cursor.value());
        assert!(matches!(object, Some(Value::Object(br#"{"x":"]}\""}"#))));
        let text = cursor.next_element().and_then(|()| cursor.value());
        assert!(matches!(text, Some(Value::Text(text)) if text.is(b"b")));
        assert_eq!(cursor.next_element(), None);
        let key = cursor.next_key().expect("c");
        assert!(key.is(b"c\n") && !key.is(br"c\n"));
        assert!(matches!(cursor.value(), Some(Value::Number(b"-1.5e3"))));
        assert!(cursor.next_key().expect("d").is(b"d"));
        assert!(matches!(cursor.value(), Some(Value::Null)));
        assert!(cursor.next_key().is_none());
        assert_eq!(cursor.peek(), None);
    }

    #[test]
    fn a_text_that_ends_within_an_escape_is_read_to_its_end() {
        let mut cursor = Cursor::new(br#"{"a":"b\"#);
        cursor.pass(b'{').expect("an object");
        cursor.next_key().expect("a");
        assert!(cursor.value().is_none() && cursor.skip().is_none() && cursor.leave().is_none());
    }

    #[test]
    fn what_is_left_of_a_container_is_passed() {
        let mut cursor = Cursor::new(br#"{"a":[1,["]"],{}],"b":{"c":2}}"#);
        cursor.pass(b'{').expect("an object");
        cursor.next_key().expect("a");
        cursor.pass(b'[').expect("an array");
        cursor.leave().expect("left");
        assert!(cursor.next_key().expect("b").is(b"b"));
        cursor.leave().expect("left");
        assert_eq!(cursor.peek(), None);
    }

    proptest! {
        #[test]
        fn the_end_of_a_plain_text_is_found(text in "[a!#\\[\\]\"\\\\\u{80}]{0,30}") {
            let expected = text.bytes().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(end_of_plain(text.as_bytes()), expected);
        }

        #[test]
        fn no_text_holds_the_cursor_up(text in "[\\[\\]{}\",:\\\\ a1]{0,24}") {
            let mut cursor = Cursor::new(text.as_bytes());
            let steps = (0..100).map_while(|_| cursor.value()).count();
            prop_assert!(steps <= text.len());
            let mut cursor = Cursor::new(text.as_bytes());
            cursor.pass(b'{');
            let steps = (0..100).map_while(|_| cursor.next_key().and_then(|_| cursor.skip())).count();
            prop_assert!(steps <= text.len());
        }
    }
}
