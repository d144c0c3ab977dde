//! The path of a value, as people write it: `stage[2].rules[0].port`.

use std::fmt;

/// One step below another path. Lives on the stack while the tree is walked; text is made only for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    /// Where reading began.
    Root(&'a str),
    /// An entry of a table.
    Key(&'a Path<'a>, &'a str),
    /// An element of a list.
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// Appends an entry's name; one that is not a plain word is quoted as in TOML. A path that ends in a name in quotes
    /// (`stage[2] "acl"`) is set off by a colon.
    pub(crate) fn push_key(path: &mut String, key: &str) {
        match path.chars().next_back() {
            None => {}
            Some('"') => path.push_str(": "),
            Some(_) => path.push('.'),
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !key.is_empty() && key.bytes().all(plain) {
            path.push_str(key);
        } else {
            path.push_str(&format!("{key:?}"));
        }
    }

    /// Appends an element's number.
    pub(crate) fn push_index(path: &mut String, index: usize) {
        path.push_str(&format!("[{index}]"));
    }

    fn write(&self, text: &mut String) {
        match self {
            Path::Root(place) => text.push_str(place),
            Path::Key(parent, key) => {
                parent.write(text);
                Self::push_key(text, key);
            }
            Path::Index(parent, index) => {
                parent.write(text);
                Self::push_index(text, *index);
            }
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}
