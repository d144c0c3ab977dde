//! What serde says of a value, in words for the person who wrote it.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::config::Origin;

/// A value that was refused. Made by serde without a place; the innermost [`super::de::Node`] it passes adds one.
#[derive(Debug)]
pub(super) struct Error {
    pub what: String,
    pub remedy: String,
    /// The key that is missing in the table at the place.
    pub missing: Option<&'static str>,
    /// Path and origin.
    pub at: Option<Box<(String, Origin)>>,
    /// The words are the author's of a `Deserialize`; they do not name the value yet.
    pub bare: bool,
}

impl Error {
    fn new(what: String, remedy: String) -> Self {
        Error { what, remedy, missing: None, at: None, bare: false }
    }

    /// `found` is not what is wanted.
    pub fn not(found: &str, wanted: &str, remedy: &str) -> Self {
        Self::new(format!("{found} is not {wanted}"), remedy.to_owned())
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error { bare: true, ..Self::new(message.to_string(), String::new()) }
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::not(&words(found), &expected(wanted), "")
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::not(&words(found), &expected(wanted), "")
    }

    fn invalid_length(length: usize, wanted: &dyn Expected) -> Self {
        Self::new(format!("has {length} elements, not {}", expected(wanted)), String::new())
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let what = format!("{variant:?} is not one of {}", known.join(", "));
        Self::new(what, suggestion(variant, known).unwrap_or_default())
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key {field:?}"), known_here(field, known))
    }

    fn missing_field(field: &'static str) -> Self {
        Error { missing: Some(field), ..Self::new(format!("{field:?} is missing"), String::new()) }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("{field:?} is there twice"), String::new())
    }
}

/// `did you mean "mtu"?`, or the list of what is known.
pub(in crate::config) fn known_here(word: &str, known: &[&str]) -> String {
    suggestion(word, known).unwrap_or_else(|| match known {
        [] => String::new(),
        known => format!("known here: {}", known.join(", ")),
    })
}

/// `did you mean "mtu"?`, if something near is known.
pub(crate) fn suggestion(word: &str, known: &[&str]) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean {near:?}?"))
}

/// The known word that was probably meant: few letters differ, or only case and hyphens do.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    let word = plain(word);
    let distances = known.iter().map(|k| (strsim::damerau_levenshtein(&word, &plain(k)), *k));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    let letters = word.chars().count().max(near.len());
    (distance <= letters.div_ceil(3)).then_some(near)
}

/// A value as it stands in the file.
fn words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Unsigned(n) => n.to_string(),
        Unexpected::Signed(n) => n.to_string(),
        Unexpected::Float(n) => n.to_string(),
        Unexpected::Str(s) => quoted(s),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map | Unexpected::StructVariant | Unexpected::TupleVariant => "a table".into(),
        other => other.to_string(),
    }
}

/// A string in quotes, shortened if it would fill the line.
pub(in crate::config) fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What a Rust type wants, for somebody who does not know Rust.
fn expected(wanted: &dyn Expected) -> String {
    let text = wanted.to_string();
    match text.as_str() {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "usize" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        other if other.starts_with("struct ") => "a table".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        let known = ["device", "queues", "rx_descriptors", "tx_descriptors", "mtu"];
        for (word, near) in [
            ("devcie", Some("device")),
            ("Device", Some("device")),
            ("rx-descriptors", Some("rx_descriptors")),
            ("rx_descr", None),
            ("mut", Some("mtu")),
            ("vlan", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), near, "{word}");
        }
    }
}
