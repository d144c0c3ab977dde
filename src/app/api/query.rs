//! What stands behind the question mark: `filter=port%3D443&limit=10`.

use std::borrow::Cow;

use crate::mgmt::admin::filter::Filter;
use crate::mgmt::control::Refusal;

/// Names in a query, at most.
const MOST: usize = 16;

/// Values by their names. Whoever answers takes those that he knows; what is left then is a mistake.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads one.
    pub fn read(text: &'a str) -> Result<Self, Refusal> {
        let pairs: Vec<_> = form_urlencoded::parse(text.as_bytes()).take(MOST + 1).collect();
        if pairs.len() > MOST {
            return Err(Refusal::new("bad-request", format!("a query has at most {MOST} names")));
        }
        for (n, (name, _)) in pairs.iter().enumerate() {
            if pairs.iter().take(n).any(|(other, _)| other == name) {
                return Err(Refusal::new("bad-request", format!("{name:?} is there twice")));
            }
        }
        Ok(Query(pairs))
    }

    /// A value, which stays.
    pub fn peek(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    /// Takes a value.
    pub fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes a number within these bounds.
    pub fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let wrong = || {
            Refusal::new("bad-request", format!("{name}: {text:?} is not a number from {least} to {most}"))
        };
        number.map(Some).ok_or_else(wrong)
    }

    /// Takes one of these words; the first if there is none.
    pub fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Refusal> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        known.map(Some).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Refusal::new("bad-request", format!("{name}: {text:?} is not one of {}", words.join(", ")))
        })
    }

    /// Takes the filter, which may have these terms.
    pub fn filter(&mut self, terms: &[&'static str]) -> Result<Filter, Refusal> {
        let text = self.take("filter").unwrap_or_default();
        Filter::parse(&text, terms)
            .map_err(|wrong| Refusal::at(format!("filter: {}", wrong.what), wrong.at, wrong.len))
    }

    /// There should be nothing else.
    pub fn done(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::new("bad-request", format!("{name:?} is not known here"))),
        }
    }
}
