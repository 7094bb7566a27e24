//! Names with `*` in them: `churn*`, `prod-*`, `*`.

use std::fmt;

/// Which names a part of a policy is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern that `text` is.
    ///
    /// # Errors
    /// What is wrong with it: characters that no name has.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
        if text.is_empty() || !text.bytes().all(known) {
            return Err(format!("`{text}` matches no name: expected A-Z a-z 0-9 . _ - and `*`"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether `name` is meant. A `*` stands for any characters, also none.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        // Greedy with one place to come back to: linear for one star, at most quadratic.
        let (mut at, mut from, mut star) = (0, 0, None);
        while from < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, from));
                    at += 1;
                }
                Some(byte) if *byte == name[from] => {
                    at += 1;
                    from += 1;
                }
                _ => match &mut star {
                    None => return false,
                    Some((place, taken)) => {
                        *taken += 1;
                        (at, from) = (*place + 1, *taken);
                    }
                },
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        };
        check("prod", "prod", true);
        check("prod", "prod-eu", false);
        check("prod-*", "prod-eu", true);
        check("prod-*", "prod", false);
        check("*", "", true);
        check("*a*b", "xaxxb", true);
        check("*a*b", "xaxxbc", false);
        check("a**b", "ab", true);
        let many = "*a".repeat(60);
        check(&many, &"b".repeat(128), false);
        for bad in ["", "a b", "é", "a/b", "prod?"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
