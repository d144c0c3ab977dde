//! A serde deserializer over `config::Value` that keeps path and origin.
//!
//! Job: hand values to `Deserialize` implementations; turn what they refuse into [`Problem`]s with the place. It assumes
//! that trees are not deeper than the TOML parser allows. It promises that no unknown key of a struct goes
//! unnoticed, that a value given as text by the environment or `--set` is read as whatever the setting wants, and that
//! a value once refused is left out in later passes ([`super::read`]).

use std::cell::RefCell;
use std::collections::BTreeSet;

use config::{Value, ValueKind};
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Error, known_here, quoted};
use super::{MOST, Path};
use crate::config::source::{in_reading_order, origin_of, reread};
use crate::config::{Origin, Problem};

/// What several passes over the same value remember.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    also: &'a [&'a str],
    problems: RefCell<Vec<Problem>>,
    /// Paths of values that were refused, and of unknown keys that were reported.
    refused: RefCell<BTreeSet<String>>,
}

impl<'a> Pass<'a> {
    pub fn new(also: &'a [&'a str]) -> Self {
        Pass { also, problems: RefCell::default(), refused: RefCell::default() }
    }

    /// Records a refused value, to be left out from now on. False if nothing is left to read.
    pub fn refuse(&self, error: Error, root: &Value, root_place: &str) -> bool {
        let (place, origin) = error.at.map_or_else(|| (root_place.to_owned(), origin_of(root)), |at| *at);
        // A key that is missing because it was refused has been reported.
        let known = error.missing.is_some_and(|key| {
            let mut path = place.clone();
            Path::push_key(&mut path, key);
            self.refused.borrow().contains(&path)
        });
        let more = place != root_place && self.refused.borrow_mut().insert(place.clone());
        if !known {
            let problem = Problem { origin, place, what: error.what, remedy: error.remedy };
            self.problems.borrow_mut().push(problem);
        }
        more
    }

    /// True when there are so many problems that more would not help.
    pub fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MOST
    }

    /// All problems in reading order.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = in_reading_order(self.problems.into_inner());
        if problems.len() >= MOST {
            let what = "too many mistakes to go on".to_owned();
            let (origin, place) = (Origin::Default, String::new());
            problems.push(Problem { origin, place, what, remedy: "mend those above first".to_owned() });
        }
        problems
    }

    fn is_refused(&self, path: &Path<'_>) -> bool {
        let refused = self.refused.borrow();
        !refused.is_empty() && refused.contains(&path.to_string())
    }

    fn unknown(&self, path: &Path<'_>, key: &str, value: &Value, fields: &[&str]) {
        let new = self.refused.borrow_mut().insert(path.to_string());
        if new && self.problems.borrow().len() < MOST {
            let known: Vec<&str> = fields.iter().chain(self.also).copied().collect();
            let remedy = known_here(key, &known);
            let what = "unknown key".to_owned();
            let problem = Problem { origin: origin_of(value), place: path.to_string(), what, remedy };
            self.problems.borrow_mut().push(problem);
        }
    }
}

/// One value at its path.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    value: &'a Value,
    path: Path<'a>,
    pass: &'a Pass<'a>,
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value, place: &'a str, pass: &'a Pass<'a>) -> Self {
        Node { value, path: Path::Root(place), pass }
    }

    /// Adds the place to an error that has none.
    fn at<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|mut error| {
            if error.at.is_none() {
                if error.bare
                    && let ValueKind::String(text) = &self.value.kind
                {
                    error.what = format!("{}: {}", quoted(text), error.what);
                }
                error.at = Some(Box::new((self.path.to_string(), origin_of(self.value))));
            }
            error
        })
    }

    fn not(&self, wanted: &str, remedy: &str) -> Error {
        let found = match &self.value.kind {
            ValueKind::Nil => "nothing".into(),
            ValueKind::Table(_) => "a table".into(),
            ValueKind::Array(_) => "a list".into(),
            ValueKind::String(text) => quoted(text),
            other => other.to_string(),
        };
        Error::not(&found, wanted, remedy)
    }

    fn entries(&self, fields: Option<&[&str]>) -> Entries<'_, 'a> {
        let mut entries: Vec<(&'a String, &'a Value)> = match &self.value.kind {
            ValueKind::Table(table) => table.iter().collect(),
            _ => Vec::new(),
        };
        entries.retain(|(key, value)| {
            let path = Path::Key(&self.path, key);
            let known = fields.is_none_or(|fields| fields.contains(&key.as_str()));
            if !known {
                self.pass.unknown(&path, key, value, fields.unwrap_or(&[]));
            }
            known && !self.pass.is_refused(&path)
        });
        entries.sort_unstable_by_key(|(key, _)| *key);
        Entries { node: self, entries: entries.into_iter(), value: None }
    }

    /// A scalar as its own type says.
    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Error> {
        match &self.value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(b) => visitor.visit_bool(*b),
            ValueKind::I64(n) => visitor.visit_i64(*n),
            ValueKind::U64(n) => visitor.visit_u64(*n),
            ValueKind::I128(n) => visitor.visit_i128(*n),
            ValueKind::U128(n) => visitor.visit_u128(*n),
            ValueKind::Float(n) => visitor.visit_f64(*n),
            ValueKind::String(text) => visitor.visit_string(text.clone()),
            ValueKind::Array(list) => {
                visitor.visit_seq(Elements { node: self, elements: list.iter().enumerate() })
            }
            ValueKind::Table(_) => visitor.visit_map(self.entries(None)),
        }
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match reread(self.value) {
            Some(value) => {
                let node = Node { value: &value, ..self };
                node.at(node.visit(visitor))
            }
            None => self.at(self.visit(visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.at(match &self.value.kind {
            ValueKind::String(text) => visitor.visit_string(text.clone()),
            ValueKind::Array(_) | ValueKind::Table(_) => Err(self.not("a string", "")),
            _ => Err(self.not("a string", "put it in quotes")),
        })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value.kind {
            ValueKind::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.at(match &self.value.kind {
            ValueKind::Array(_) => self.visit(visitor),
            _ => Err(self.not("a list", "write it as [...]")),
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.at(match &self.value.kind {
            ValueKind::Table(_) => self.visit(visitor),
            _ => Err(self.not("a table", "")),
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.at(match &self.value.kind {
            ValueKind::Table(_) => visitor.visit_map(self.entries(Some(fields))),
            _ => Err(self.not("a table", "")),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.at(match &self.value.kind {
            ValueKind::String(text) => {
                let name: StringDeserializer<Error> = text.clone().into_deserializer();
                visitor.visit_enum(name)
            }
            ValueKind::Table(_) => visitor.visit_enum(MapAccessDeserializer::new(self.entries(None))),
            _ => Err(self.not(&format!("one of {}", variants.join(", ")), "")),
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

/// The entries of a table, in the order of their keys.
struct Entries<'n, 'a> {
    node: &'n Node<'a>,
    entries: std::vec::IntoIter<(&'a String, &'a Value)>,
    value: Option<(&'a String, &'a Value)>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.value = self.entries.next();
        let Some((key, value)) = self.value else { return Ok(None) };
        let name: StringDeserializer<Error> = key.clone().into_deserializer();
        let node = Node { value, path: Path::Key(&self.node.path, key), pass: self.node.pass };
        node.at(seed.deserialize(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((key, value)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let node = Node { value, path: Path::Key(&self.node.path, key), pass: self.node.pass };
        node.at(seed.deserialize(node))
    }
}

/// The elements of a list.
struct Elements<'n, 'a> {
    node: &'n Node<'a>,
    elements: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        for (index, value) in self.elements.by_ref() {
            let path = Path::Index(&self.node.path, index);
            if !self.node.pass.is_refused(&path) {
                let node = Node { value, path, pass: self.node.pass };
                return node.at(seed.deserialize(node)).map(Some);
            }
        }
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len())
    }
}
