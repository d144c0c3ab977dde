//! A DNS message: bytes to header, questions and records (RFC 1035 section 4, RFC 9619).
//!
//! Everything borrows from the message; nothing is allocated, and no count or length is believed beyond the bytes given. A message that is
//! damaged is read as far as it goes, and says so ([`State`]): what its first question asks for is known even if a record behind it lies.
//!
//! A compressed name may only point to a place before the one where it has been so far, so each pointer goes back and none can loop;
//! a name of more than 255 bytes ends the reading.

/// Bytes of the header.
pub const HEADER: usize = 12;
/// Longest name, as it travels (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 255;
/// Pointers of one name that are followed: as many as it can have labels.
const MOST_POINTERS: u8 = 127;
/// Questions of one message that are read. Since RFC 9619 more than one is an error.
pub const MOST_QUESTIONS: u16 = 8;

/// How a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As its counts say.
    Whole,
    /// The bytes end before what its counts say.
    Cut,
    /// It breaks the rules.
    Broken,
}

/// The header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Identification.
    pub id: u16,
    /// QR, operation, AA, TC, RD, RA, Z, AD, CD, outcome.
    pub flags: u16,
    /// Entries of each section: questions, answers, authorities, additional.
    pub counts: [u16; 4],
}

impl Header {
    /// The first twelve bytes.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes.first_chunk::<HEADER>()?;
        let word = |high, low| u16::from_be_bytes([high, low]);
        Some(Header {
            id: word(a, b),
            flags: word(c, d),
            counts: [word(e, f), word(g, h), word(i, j), word(k, l)],
        })
    }

    /// An answer, or else a query.
    pub fn is_answer(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Operation: 0 is a plain query.
    pub fn opcode(&self) -> u8 {
        (self.flags >> 11 & 15) as u8
    }

    /// Outcome.
    pub fn rcode(&self) -> u8 {
        (self.flags & 15) as u8
    }

    /// AA: from who is in charge of the name.
    pub fn is_authoritative(&self) -> bool {
        self.flags & 0x0400 != 0
    }

    /// TC: cut to what the transport carries.
    pub fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// RD: the server shall ask others.
    pub fn wants_recursion(&self) -> bool {
        self.flags & 0x0100 != 0
    }

    /// RA: it would.
    pub fn has_recursion(&self) -> bool {
        self.flags & 0x0080 != 0
    }
}

/// A name: its labels with dots between them, as they were sent. The root is empty.
#[derive(Clone, Copy)]
pub struct Name {
    text: [u8; LONGEST_NAME],
    len: u8,
    /// Bytes of its longest label.
    pub longest: u8,
    /// No label has a dot in it, so that the text is the name.
    pub is_plain: bool,
}

impl Default for Name {
    fn default() -> Self {
        Name { text: [0; LONGEST_NAME], len: 0, longest: 0, is_plain: true }
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl Name {
    /// The name that begins at a place of a message, and where what follows it begins.
    pub fn read(message: &[u8], at: usize) -> Result<(Name, usize), State> {
        let mut name = Name::default();
        let end = walk(message, at, &mut |label| name.push(label))?;
        Ok((name, end))
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The same in small letters.
    #[must_use]
    pub fn lower(&self) -> Name {
        let mut lower = *self;
        lower.text.make_ascii_lowercase();
        lower
    }

    fn push(&mut self, label: &[u8]) {
        let at = usize::from(self.len) + usize::from(self.longest > 0);
        if self.longest > 0
            && let Some(dot) = self.text.get_mut(usize::from(self.len))
        {
            *dot = b'.';
        }
        // There is room: walk has counted.
        if let Some(place) = self.text.get_mut(at..at + label.len()) {
            place.copy_from_slice(label);
            self.len = (at + label.len()) as u8;
        }
        self.longest = self.longest.max(label.len() as u8);
        self.is_plain &= !label.contains(&b'.');
    }
}

/// Goes over the labels of a name; says where what follows it begins.
fn walk(message: &[u8], at: usize, label: &mut impl FnMut(&[u8])) -> Result<usize, State> {
    let (mut at, mut lowest, mut end) = (at, at, None);
    let (mut len, mut pointers) = (1, 0);
    loop {
        let first = usize::from(*message.get(at).ok_or(State::Cut)?);
        match first {
            0 => return Ok(end.unwrap_or(at + 1)),
            1..=63 => {
                let text = message.get(at + 1..at + 1 + first).ok_or(State::Cut)?;
                len += first + 1;
                if len > LONGEST_NAME {
                    return Err(State::Broken);
                }
                label(text);
                at += 1 + first;
            }
            0xc0.. => {
                let low = usize::from(*message.get(at + 1).ok_or(State::Cut)?);
                let target = (first & 0x3f) << 8 | low;
                pointers += 1;
                if target >= lowest || pointers > MOST_POINTERS {
                    return Err(State::Broken);
                }
                end.get_or_insert(at + 2);
                (at, lowest) = (target, target);
            }
            _ => return Err(State::Broken),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Of which name.
    pub name: Name,
    /// Which type of record.
    pub kind: u16,
    /// In which class; 1 is the Internet.
    pub class: u16,
}

/// A record, of which the name and the data have not been read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    message: &'a [u8],
    name_at: usize,
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// Seconds for which it may be kept.
    pub ttl: u32,
    data_at: usize,
    /// Its data.
    pub data: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(message: &'a [u8], name_at: usize) -> Result<(Record<'a>, usize), State> {
        let at = walk(message, name_at, &mut |_| ())?;
        let head = message.get(at..).and_then(|rest| rest.first_chunk::<10>()).ok_or(State::Cut)?;
        let [k, i, c, l, t3, t2, t1, t0, high, low] = *head;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let data_at = at + 10;
        let data = message.get(data_at..data_at + len).ok_or(State::Cut)?;
        let record = Record {
            message,
            name_at,
            kind: u16::from_be_bytes([k, i]),
            class: u16::from_be_bytes([c, l]),
            ttl: u32::from_be_bytes([t3, t2, t1, t0]),
            data_at,
            data,
        };
        Ok((record, data_at + len))
    }

    /// Whose it is.
    pub fn name(&self) -> Name {
        Name::read(self.message, self.name_at).map(|(name, _)| name).unwrap_or_default()
    }

    /// A name in its data, and where in the data it ends; `None` if it reaches beyond.
    pub fn name_in_data(&self, at: usize) -> Option<(Name, usize)> {
        // What it says of itself ends with the data; where it points to may lie anywhere before.
        let message = self.message.get(..self.data_at + self.data.len())?;
        let (name, end) = Name::read(message, self.data_at + at).ok()?;
        Some((name, end - self.data_at))
    }
}

/// A message, read as far as it goes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// The header.
    pub header: Header,
    /// Its first question, if it has one that can be read.
    pub question: Option<Question>,
    /// Where the records begin, if the questions could be read.
    records_at: Option<usize>,
    /// Where its last record ends.
    pub end: usize,
    /// How it ends.
    pub state: State,
}

impl<'a> Message<'a> {
    /// Reads all of it; `None` if not even the header is there.
    pub fn read(bytes: &'a [u8]) -> Option<Message<'a>> {
        let mut message = Message::questions_of(bytes)?;
        if message.state != State::Whole {
            return Some(message);
        }
        let mut records = message.records();
        for record in records.by_ref() {
            message.end = record.data_at + record.data.len();
        }
        message.state = records.state;
        if message.header.counts[0] > 1 {
            message.state = State::Broken;
        }
        // Who cuts a message says so, and is no liar.
        if message.state == State::Cut && message.header.is_truncated() {
            message.state = State::Whole;
        }
        Some(message)
    }

    /// Reads the header and the questions. `Whole` says that these are.
    pub fn questions_of(bytes: &'a [u8]) -> Option<Message<'a>> {
        let header = Header::read(bytes)?;
        let state = State::Whole;
        let mut message = Message { bytes, header, question: None, records_at: None, end: HEADER, state };
        let mut questions = message.questions();
        let first = questions.next();
        let (mut at, mut state) = (questions.at, questions.state);
        for _ in questions.by_ref() {}
        (at, state) = (at.max(questions.at), if state == State::Whole { questions.state } else { state });
        if header.counts[0] > MOST_QUESTIONS && state == State::Whole {
            state = State::Broken;
        }
        message.question = first;
        message.records_at = (state == State::Whole).then_some(at);
        (message.end, message.state) = (at, state);
        Some(message)
    }

    /// Bytes of it that are here.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: it has a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its questions, eight at most, as far as they can be read.
    pub fn questions(&self) -> Questions<'a> {
        let left = self.header.counts[0].min(MOST_QUESTIONS);
        Questions { bytes: self.bytes, at: HEADER, left, state: State::Whole }
    }

    /// Its records, each with the number of its section from 1: answer, authority, additional.
    fn records(&self) -> Records<'a> {
        let [_, answers, authorities, additional] = self.header.counts;
        Records {
            bytes: self.bytes,
            at: self.records_at.unwrap_or(0),
            left: if self.records_at.is_some() { [answers, authorities, additional] } else { [0; 3] },
            state: State::Whole,
        }
    }

    /// Records of the answer section, as far as they can be read.
    pub fn answers(&self) -> impl Iterator<Item = Record<'a>> {
        self.records().take(self.header.counts[1].into())
    }

    /// Records of the authority section, likewise.
    pub fn authorities(&self) -> impl Iterator<Item = Record<'a>> {
        let [_, answers, authorities, _] = self.header.counts;
        self.records().skip(answers.into()).take(authorities.into())
    }
}

/// Questions of a message, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Questions<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u16,
    state: State,
}

impl Questions<'_> {
    fn read(&mut self) -> Result<Question, State> {
        let (name, at) = Name::read(self.bytes, self.at)?;
        let tail = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(State::Cut)?;
        let [k, i, c, l] = *tail;
        self.at = at + 4;
        Ok(Question { name, kind: u16::from_be_bytes([k, i]), class: u16::from_be_bytes([c, l]) })
    }
}

impl Iterator for Questions<'_> {
    type Item = Question;

    fn next(&mut self) -> Option<Question> {
        self.left = self.left.checked_sub(1)?;
        match self.read() {
            Ok(question) => Some(question),
            Err(state) => {
                (self.state, self.left) = (state, 0);
                None
            }
        }
    }
}

/// Records of a message, one after the other.
#[derive(Clone, Copy, Debug)]
struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    left: [u16; 3],
    state: State,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.state != State::Whole {
            return None;
        }
        let left = self.left.iter_mut().find(|left| **left > 0)?;
        *left -= 1;
        match Record::read(self.bytes, self.at) {
            Ok((record, at)) => {
                self.at = at;
                Some(record)
            }
            Err(state) => {
                self.state = state;
                None
            }
        }
    }
}
