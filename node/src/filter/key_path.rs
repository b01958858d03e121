//! Paths to values of metadata: `a.b`, `a[].b`, `a."b.c"`.

use std::fmt;

/// Longest text of a path, bytes.
pub const PATH_BYTES_MAX: usize = 1_024;
/// Most steps of a path: metadata is not nested deeper.
pub const PATH_STEPS_MAX: usize = 32;

/// Where in an object some values are. It is written as names with dots between them; `[]` after a name goes through the
/// elements of an array. A name with a dot, a bracket or a quote in it is written in quotes, in which `\"` is a quote and
/// `\\` a backslash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath {
    /// The first one is a field.
    steps: Vec<Step>,
}

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// To the value of this name in an object.
    Field(Box<str>),
    /// To each element of an array.
    Each,
}

impl KeyPath {
    /// The path of a text.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<KeyPath, String> {
        if text.len() > PATH_BYTES_MAX {
            return Err(format!("key has {} bytes, at most {PATH_BYTES_MAX} are allowed", text.len()));
        }
        let (mut steps, mut rest) = (Vec::new(), text);
        loop {
            let name = match rest.strip_prefix('"') {
                Some(quoted) => take_quoted(quoted, &mut rest)?,
                None => take_bare(rest, &mut rest)?,
            };
            steps.push(Step::Field(name.into()));
            while let Some(after) = rest.strip_prefix("[]") {
                steps.push(Step::Each);
                rest = after;
            }
            if steps.len() > PATH_STEPS_MAX {
                return Err(format!("key has more than {PATH_STEPS_MAX} steps"));
            }
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(KeyPath { steps }),
                None => return Err(unexpected(rest)),
            }
        }
    }

    /// Its steps; the first one is a field.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// A name without quotes, from the start of `text`; `rest` becomes what follows.
fn take_bare<'t>(text: &'t str, rest: &mut &'t str) -> Result<String, String> {
    let end = text.find(['.', '[', ']', '"']).unwrap_or(text.len());
    if end == 0 {
        return Err(match text.chars().next() {
            Some('.') | None => "key has an empty name; one that is really empty is written \"\"".to_owned(),
            Some(_) => unexpected(text),
        });
    }
    *rest = &text[end..];
    Ok(text[..end].to_owned())
}

/// A name in quotes, from behind the first of them.
fn take_quoted<'t>(text: &'t str, rest: &mut &'t str) -> Result<String, String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => {
                *rest = &text[at + 1..];
                return Ok(name);
            }
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => name.push(escaped),
                _ => return Err("key has a backslash that is followed by neither \" nor \\".to_owned()),
            },
            char => name.push(char),
        }
    }
    Err("key has an opening quote without a closing one".to_owned())
}

fn unexpected(rest: &str) -> String {
    let char = rest.chars().next().unwrap_or_default();
    format!("key has {char:?} where . or [] may follow; a name with it is written in quotes")
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Each => f.write_str("[]")?,
                Step::Field(name) => {
                    if index > 0 {
                        f.write_str(".")?;
                    }
                    if name.is_empty() || name.contains(['.', '[', ']', '"']) {
                        write!(f, "\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))?;
                    } else {
                        f.write_str(name)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str) -> Step {
        Step::Field(name.into())
    }

    #[test]
    fn paths_are_names_and_elements() {
        let steps = |text: &str| KeyPath::parse(text).expect("a path").steps;
        assert_eq!(steps("a"), [field("a")]);
        assert_eq!(steps("a.b"), [field("a"), field("b")]);
        assert_eq!(steps("a[].b[][]"), [field("a"), Step::Each, field("b"), Step::Each, Step::Each]);
        assert_eq!(steps(r#"a."b.c""#), [field("a"), field("b.c")]);
        assert_eq!(steps(r#""a\"\\"[]."""#), [field("a\"\\"), Step::Each, field("")]);
        assert_eq!(steps(r"a\b c"), [field(r"a\b c")]);
        for broken in
            ["", ".", "a.", ".a", "a..b", "[]", "a[", "a[0]", "a[]b", "a]", "\"a", "a\"b\"", "\"a\\b\""]
        {
            assert!(KeyPath::parse(broken).is_err(), "{broken}");
        }
        assert!(KeyPath::parse(&"a.".repeat(600)).expect_err("long").contains("1024"));
        assert!(KeyPath::parse(&format!("a{}", "[]".repeat(32))).expect_err("deep").contains("32 steps"));
    }

    proptest! {
        #[test]
        fn a_path_survives_its_text(parts in prop::collection::vec(("[a.\"\\\\\\[\\]é ]{0,4}", 0usize..3), 1..5)) {
            let steps = parts.into_iter().flat_map(|(name, each)| {
                std::iter::once(field(&name)).chain(std::iter::repeat_n(Step::Each, each))
            });
            let path = KeyPath { steps: steps.collect() };
            prop_assert_eq!(KeyPath::parse(&path.to_string()), Ok(path));
        }

        #[test]
        fn any_text_is_a_path_or_refused(text in "[a.\"\\\\\\[\\]]{0,12}") {
            if let Ok(path) = KeyPath::parse(&text) {
                prop_assert_eq!(KeyPath::parse(&path.to_string()), Ok(path));
            }
        }
    }
}
