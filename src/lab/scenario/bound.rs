//! Bounds of a figure, and what an answer should say.

use std::fmt;

/// The least and the most that a figure may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    least: i64,
    most: i64,
}

const REMEDY: &str = "write 5, \"<= 5\", \">= 5\", \"< 5\", \"> 5\" or \"2..5\"";

impl Bound {
    /// Nothing else.
    pub fn exactly(n: i64) -> Bound {
        Bound { least: n, most: n }
    }

    /// Of a number, or of text.
    pub fn of(value: &toml::Value) -> Result<Bound, String> {
        match value {
            toml::Value::Integer(n) => Ok(Bound::exactly(*n)),
            toml::Value::String(text) => {
                Bound::read(text).ok_or_else(|| format!("{text:?} is no bound: {REMEDY}"))
            }
            other => Err(format!("{other} is no bound: {REMEDY}")),
        }
    }

    fn read(text: &str) -> Option<Bound> {
        let number = |text: &str| text.trim().replace('_', "").parse::<i64>().ok();
        let text = text.trim();
        if let Some((least, most)) = text.split_once("..") {
            let (least, most) = (number(least)?, number(most)?);
            return (least <= most).then_some(Bound { least, most });
        }
        let from = |least| Bound { least, most: i64::MAX };
        let to = |most| Bound { least: i64::MIN, most };
        match text {
            _ if text.starts_with("<=") => number(&text[2..]).map(to),
            _ if text.starts_with(">=") => number(&text[2..]).map(from),
            _ if text.starts_with('<') => number(&text[1..])?.checked_sub(1).map(to),
            _ if text.starts_with('>') => number(&text[1..])?.checked_add(1).map(from),
            _ => number(text).map(Bound::exactly),
        }
    }

    /// Is that within?
    pub fn holds(&self, n: i64) -> bool {
        (self.least..=self.most).contains(&n)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.most) {
            (least, most) if least == most => write!(f, "= {least}"),
            (i64::MIN, most) => write!(f, "<= {most}"),
            (least, i64::MAX) => write!(f, ">= {least}"),
            (least, most) => write!(f, "{least}..{most}"),
        }
    }
}

/// What should stand in an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// A number within bounds.
    Number(Bound),
    /// This word, or truth value.
    Word(String),
    /// Any other than this word.
    Other(String),
}

impl Wanted {
    /// A text is a bound if it can be read as one; `!word` is anything but the word.
    pub fn of(value: &toml::Value) -> Result<Wanted, String> {
        match value {
            toml::Value::Boolean(b) => Ok(Wanted::Word(b.to_string())),
            toml::Value::String(text) => Ok(match (Bound::read(text), text.strip_prefix('!')) {
                (Some(bound), _) => Wanted::Number(bound),
                (None, Some(word)) => Wanted::Other(word.to_owned()),
                (None, None) => Wanted::Word(text.clone()),
            }),
            other => Bound::of(other).map(Wanted::Number),
        }
    }

    /// Is it what is wanted?
    pub fn holds(&self, value: &serde_json::Value) -> bool {
        let word = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match self {
            Wanted::Number(bound) => value.as_i64().is_some_and(|n| bound.holds(n)),
            Wanted::Word(wanted) => *wanted == word,
            Wanted::Other(unwanted) => *unwanted != word,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Number(bound) => write!(f, "{bound}"),
            Wanted::Word(word) => write!(f, "{word:?}"),
            Wanted::Other(word) => write!(f, "not {word:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_written() {
        let holds = |text: &str| -> Vec<i64> {
            let bound = Bound::of(&toml::Value::String(text.into())).unwrap();
            (3..8).filter(|n| bound.holds(*n)).collect()
        };
        assert_eq!(holds("5"), [5]);
        assert_eq!(holds("<= 5"), [3, 4, 5]);
        assert_eq!(holds("<5"), [3, 4]);
        assert_eq!(holds(">= 5"), [5, 6, 7]);
        assert!(holds("> 1_000").is_empty());
        assert_eq!(holds("4..6"), [4, 5, 6]);
        assert_eq!(Bound::of(&toml::Value::Integer(5)).unwrap(), Bound::exactly(5));
        for wrong in ["", "x", "<", "6..4", "=5", "5%", "1.5", "> 9223372036854775807"] {
            assert!(Bound::of(&toml::Value::String(wrong.into())).is_err(), "{wrong}");
        }
        assert!(Bound::of(&toml::Value::Boolean(true)).is_err());
        for (text, shown) in [("5", "= 5"), ("<5", "<= 4"), ("> 5", ">= 6"), ("2..5", "2..5")] {
            assert_eq!(Bound::of(&toml::Value::String(text.into())).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn answers_are_compared() {
        use serde_json::json;

        let wanted = |text: &str| Wanted::of(&toml::Value::String(text.into())).unwrap();
        assert!(
            wanted("unhealthy").holds(&json!("unhealthy")) && !wanted("unhealthy").holds(&json!("healthy"))
        );
        assert!(
            wanted("!healthy").holds(&json!("unhealthy")) && !wanted("!healthy").holds(&json!("healthy"))
        );
        assert!(
            wanted(">= 2").holds(&json!(2))
                && !wanted(">= 2").holds(&json!(1))
                && !wanted(">= 2").holds(&json!("2"))
        );
        let truth = Wanted::of(&toml::Value::Boolean(true)).unwrap();
        assert!(truth.holds(&json!(true)) && !truth.holds(&json!(false)));
        assert!(Wanted::of(&toml::Value::Float(1.5)).is_err());
    }
}
