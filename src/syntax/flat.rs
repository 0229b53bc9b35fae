//! One JSON object read in one pass without copying it: the members at its top are borrowed, what lies deeper is
//! checked and left.
//!
//! The rules are those of [`json`](super::json), and both readers accept the same texts (I-G1, I-G2). This one is for
//! documents that are read on every request: claims sets, the headers of signed tokens and an authorization server's records.
//! It reads the forms that their members have; escapes, fractions and objects within are left to the reader of whole documents'
//! library.

use alloc::borrow::Cow;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::cursor::{Cursor, NotJson, Token};
use super::json::JsonError;
use crate::erased::Erased;
use crate::limits;

/// Text as it stands in the document, or where its unescaped form stands among those of the object.
#[derive(Debug, Clone, Copy)]
enum Text<'a> {
    Plain(&'a str),
    Unescaped(usize),
}

impl Text<'_> {
    fn among<'o>(&'o self, unescaped: &'o [Erased<String>]) -> &'o str {
        match self {
            Self::Plain(text) => text,
            Self::Unescaped(at) => unescaped.get(*at).map(|text| text.as_str()).unwrap_or_default(),
        }
    }
}

/// Members kept without an allocation. Access tokens have about ten claims.
const MEMBERS: usize = 16;

/// Elements of arrays kept without an allocation: audiences, mostly one.
const ELEMENTS: usize = 4;

/// An object whose members can be read by name and type. `Debug` shows names only: values may be personal.
pub struct FlatObject<'a> {
    members: Few<(Text<'a>, Value<'a>), MEMBERS>,
    /// Of the first members' names, in their order: names that differ are told apart without looking at them.
    marks: [u32; MEMBERS],
    seen: Seen,
    elements: Few<Text<'a>, ELEMENTS>,
    /// Names and strings that have escapes, without them. A stored record may hold what a client keeps to itself.
    unescaped: Vec<Erased<String>>,
}

/// The length of a name with its first, middle and last byte.
#[inline]
fn mark(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let byte = |found: Option<&u8>| u32::from(found.copied().unwrap_or_default());
    let length = u32::from(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    length | byte(bytes.first()) << 8 | byte(bytes.get(bytes.len() / 2)) << 16 | byte(bytes.last()) << 24
}

/// The names that were read, a bit for the mark of each: a bit that is free belongs to a new name.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// Which word, and which bit in it.
    #[inline(always)]
    fn place(mark: u32) -> (usize, u64) {
        // Every bit of the mark counts in the highest of the product; the factor is 2^32 over the golden ratio.
        let [place, ..] = mark.wrapping_mul(0x9e37_79b1).to_be_bytes();
        (usize::from(place >> 6), 1_u64.wrapping_shl(u32::from(place)))
    }

    /// Notes a name, and says whether it could be one that was noted.
    #[inline(always)]
    fn note(&mut self, mark: u32) -> bool {
        let noted = self.has(mark);
        let (word, bit) = Self::place(mark);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
        noted
    }

    /// Whether a name could be one that was noted.
    #[inline(always)]
    fn has(&self, mark: u32) -> bool {
        let (word, bit) = Self::place(mark);
        self.0.get(word).is_none_or(|word| word & bit != 0)
    }
}

/// What is kept of a member.
#[derive(Clone, Copy)]
enum Value<'a> {
    Text(Text<'a>),
    Integer(i64),
    Boolean(bool),
    /// An array of strings alone: where it begins among the elements, and how many it has.
    Texts(usize, usize),
    /// Anything else, of which only its presence counts.
    Other,
}

/// A value of a claim that is one string or several.
#[derive(Clone, Copy)]
pub struct Strings<'o> {
    alone: Option<&'o str>,
    head: &'o [Option<Text<'o>>],
    spill: &'o [Text<'o>],
    unescaped: &'o [Erased<String>],
}

impl fmt::Debug for Strings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strings").finish_non_exhaustive()
    }
}

impl<'o> Strings<'o> {
    /// Each of them, in order.
    pub fn iter(self) -> impl Iterator<Item = &'o str> + Clone {
        let listed = self.head.iter().flatten().chain(self.spill).map(move |text| text.among(self.unescaped));
        self.alone.into_iter().chain(listed)
    }
}

impl<'a> FlatObject<'a> {
    /// Reads one object of at most `max_bytes` bytes, with nothing behind it but white space.
    ///
    /// # Errors
    /// [`JsonError::TooLarge`] or [`JsonError::Malformed`], never with the text itself.
    pub fn parse(bytes: &'a [u8], max_bytes: usize) -> Result<Self, JsonError> {
        let mut object = Self::empty();
        object.fill(bytes, max_bytes)?;
        Ok(object)
    }

    /// An object without members, to be filled where it stands.
    pub(crate) fn empty() -> Self {
        Self {
            members: Few::new(),
            marks: [0; MEMBERS],
            seen: Seen::default(),
            elements: Few::new(),
            unescaped: Vec::new(),
        }
    }

    /// As [`FlatObject::parse`], into an empty one.
    pub(crate) fn fill(&mut self, bytes: &'a [u8], max_bytes: usize) -> Result<(), JsonError> {
        if bytes.len() > max_bytes {
            return Err(JsonError::TooLarge);
        }
        // Checked once for all of its strings.
        let text = core::str::from_utf8(bytes).map_err(|_| JsonError::Malformed)?;
        self.read(text).map_err(|NotJson| JsonError::Malformed)
    }

    fn read(&mut self, text: &'a str) -> Result<(), NotJson> {
        let nodes = Cell::new(0);
        let place = Place { depth: 0, nodes: &nodes };
        place.enter()?;
        let mut cursor = Cursor::new(text);
        cursor.expect(b'{')?;
        let mut maybe_repeated = false;
        if !cursor.take(b'}') {
            loop {
                let name = self.name(&mut cursor)?;
                cursor.expect(b':')?;
                let value = self.value(&mut cursor, place.below())?;
                let mark = mark(name.among(&self.unescaped));
                maybe_repeated |= self.seen.note(mark);
                if let Some(free) = self.marks.get_mut(self.members.len()) {
                    *free = mark;
                }
                self.members.push((name, value));
                if cursor.take(b'}') {
                    break;
                }
                cursor.expect(b',')?;
            }
        }
        // I-G2
        if maybe_repeated && repeated(self.names(), self.members.len()) {
            return Err(NotJson);
        }
        if cursor.is_at_end() { Ok(()) } else { Err(NotJson) }
    }

    #[inline(always)]
    fn name(&mut self, cursor: &mut Cursor<'a>) -> Result<Text<'a>, NotJson> {
        match cursor.value()? {
            Token::Plain(text) => Ok(Text::Plain(text)),
            Token::Unread(text) => Ok(self.keep(read_alone(text, Name)?)),
            Token::Integer(_) | Token::Array => Err(NotJson),
        }
    }

    /// Inlined: a value that is handed back through memory costs as much as it took to read.
    #[inline(always)]
    fn value(&mut self, cursor: &mut Cursor<'a>, place: Place<'_>) -> Result<Value<'a>, NotJson> {
        let token = cursor.value()?;
        place.enter()?;
        Ok(match token {
            Token::Plain(text) => Value::Text(Text::Plain(text)),
            Token::Integer(number) => Value::Integer(number),
            Token::Array => self.array(cursor, place.below())?,
            Token::Unread(text) => match read_alone(text, Nested(place))? {
                Kept::Text(text) => Value::Text(self.keep(text)),
                Kept::Integer(number) => Value::Integer(number),
                Kept::Boolean(value) => Value::Boolean(value),
                Kept::Nothing => Value::Other,
            },
        })
    }

    /// The elements of an array. Those of an array within it are checked alike; then it has not strings alone.
    #[inline(never)]
    fn array(&mut self, cursor: &mut Cursor<'a>, place: Place<'_>) -> Result<Value<'a>, NotJson> {
        let first = self.elements.len();
        let mut texts_alone = true;
        if !cursor.take(b']') {
            loop {
                match self.value(cursor, place)? {
                    Value::Text(text) => self.elements.push(text),
                    _ => texts_alone = false,
                }
                if cursor.take(b']') {
                    break;
                }
                cursor.expect(b',')?;
            }
        }
        let count = self.elements.len().saturating_sub(first);
        Ok(if texts_alone { Value::Texts(first, count) } else { Value::Other })
    }

    /// Keeps text that is not the document's own.
    fn keep(&mut self, text: Cow<'a, str>) -> Text<'a> {
        match text {
            Cow::Borrowed(text) => Text::Plain(text),
            Cow::Owned(text) => {
                let at = self.unescaped.len();
                self.unescaped.push(Erased::new(text));
                Text::Unescaped(at)
            }
        }
    }

    /// The members' names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.members.iter().map(|(name, _)| name.among(&self.unescaped))
    }

    /// Inlined, so that names known when this is compiled are compared without a call.
    #[inline(always)]
    fn get(&self, name: &str) -> Option<&Value<'a>> {
        let mark = mark(name);
        // Most claims that are asked for are not there.
        if !self.seen.has(mark) {
            return None;
        }
        let mut from = 0;
        while let Some(at) = self.marked(mark, from) {
            match self.members.head.get(at) {
                Some(Some((known, value))) if known.among(&self.unescaped) == name => return Some(value),
                _ => from = at.saturating_add(1),
            }
        }
        if self.members.spill.is_empty() { None } else { self.spilled(name) }
    }

    fn marked(&self, mark: u32, from: usize) -> Option<usize> {
        let rest = self.marks.get(from..self.members.used)?;
        rest.iter().position(|known| *known == mark).map(|at| at.saturating_add(from))
    }

    #[cold]
    fn spilled(&self, name: &str) -> Option<&Value<'a>> {
        let mut spilled = self.members.spill.iter();
        spilled.find(|(known, _)| known.among(&self.unescaped) == name).map(|(_, value)| value)
    }

    /// Whether there is a member of that name, of any type.
    #[inline(always)]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A string member, or `None` where it is absent.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] when it is anything but a string.
    #[inline(always)]
    pub fn string(&self, name: &'static str) -> Result<Option<&str>, JsonError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.among(&self.unescaped))),
            Some(_) => Err(JsonError::WrongType(name)),
        }
    }

    /// A string member that must be there.
    ///
    /// # Errors
    /// [`JsonError::Missing`] or [`JsonError::WrongType`].
    #[inline(always)]
    pub fn required_string(&self, name: &'static str) -> Result<&str, JsonError> {
        self.string(name)?.ok_or(JsonError::Missing(name))
    }

    /// A string member that can be kept longer than the object, or `None` where it is absent.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] when it is anything but a string.
    pub fn kept_string(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, JsonError> {
        let text = match self.get(name) {
            None => return Ok(None),
            Some(Value::Text(text)) => *text,
            Some(_) => return Err(JsonError::WrongType(name)),
        };
        Ok(Some(match text {
            Text::Plain(text) => Cow::Borrowed(text),
            Text::Unescaped(_) => Cow::Owned(text.among(&self.unescaped).to_string()),
        }))
    }

    /// An integer member, or `None` where it is absent; one above `i64::MAX` is held there.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] for strings, fractions and exponents.
    #[inline(always)]
    pub fn integer(&self, name: &'static str) -> Result<Option<i64>, JsonError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(*number)),
            Some(_) => Err(JsonError::WrongType(name)),
        }
    }

    /// A boolean member, or `None` where it is absent.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] for anything but `true` and `false`.
    pub fn boolean(&self, name: &'static str) -> Result<Option<bool>, JsonError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(JsonError::WrongType(name)),
        }
    }

    /// An array of strings, or `None` where it is absent.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] when it is no array or has an element that is no string.
    #[inline(always)]
    pub fn strings(&self, name: &'static str) -> Result<Option<Strings<'_>>, JsonError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Texts(first, count)) => {
                let (head, spill) = self.elements.range(*first, *count);
                Ok(Some(Strings { alone: None, head, spill, unescaped: &self.unescaped }))
            }
            Some(_) => Err(JsonError::WrongType(name)),
        }
    }

    /// One string, or an array of strings: the shape of `aud`.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] for anything else.
    #[inline(always)]
    pub fn one_or_more(&self, name: &'static str) -> Result<Option<Strings<'_>>, JsonError> {
        match self.get(name) {
            Some(Value::Text(text)) => {
                let alone = Some(text.among(&self.unescaped));
                Ok(Some(Strings { alone, head: &[], spill: &[], unescaped: &[] }))
            }
            _ => self.strings(name),
        }
    }
}

impl fmt::Debug for FlatObject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A list whose first elements need no allocation.
struct Few<T, const N: usize> {
    head: [Option<T>; N],
    used: usize,
    spill: Vec<T>,
}

impl<T: Copy, const N: usize> Few<T, N> {
    fn new() -> Self {
        Self { head: [None; N], used: 0, spill: Vec::new() }
    }

    fn len(&self) -> usize {
        self.used.saturating_add(self.spill.len())
    }

    fn push(&mut self, value: T) {
        match self.head.get_mut(self.used) {
            Some(free) => {
                *free = Some(value);
                self.used = self.used.saturating_add(1);
            }
            None => self.spill.push(value),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.head.iter().take(self.used).flatten().chain(&self.spill)
    }

    /// That many elements from there on, in the two parts they may lie in.
    fn range(&self, first: usize, count: usize) -> (&[Option<T>], &[T]) {
        let end = first.saturating_add(count);
        let head = self.head.get(first.min(N)..end.min(N)).unwrap_or_default();
        let spill = self.spill.get(first.saturating_sub(N)..end.saturating_sub(N)).unwrap_or_default();
        (head, spill)
    }
}

/// Whether a name stands twice. Few names are compared with one another, many are sorted first (I-G1).
fn repeated<'n>(names: impl Iterator<Item = &'n str> + Clone, count: usize) -> bool {
    if count <= MEMBERS {
        let mut rest = names;
        while let Some(name) = rest.next() {
            if rest.clone().any(|other| other == name) {
                return true;
            }
        }
        return false;
    }
    let mut sorted: Vec<&str> = names.collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
}

/// Where in the document a value stands.
#[derive(Clone, Copy)]
struct Place<'n> {
    depth: usize,
    nodes: &'n Cell<usize>,
}

impl Place<'_> {
    fn below(self) -> Self {
        Self { depth: self.depth.saturating_add(1), nodes: self.nodes }
    }

    /// I-G1: counted before the value is read.
    fn enter(self) -> Result<(), NotJson> {
        let count = self.nodes.get().saturating_add(1);
        self.nodes.set(count);
        if self.depth > limits::JSON_DEPTH || count > limits::JSON_NODES {
            return Err(NotJson);
        }
        Ok(())
    }
}

/// Reads one whole value that is not of the plain forms.
fn read_alone<'a, S: DeserializeSeed<'a>>(text: &'a str, seed: S) -> Result<S::Value, NotJson> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut reader).map_err(|_| NotJson)?;
    reader.end().map_err(|_| NotJson)?;
    Ok(value)
}

/// A member's name.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_string()))
    }
}

/// What a value is to who reads the members at the top.
enum Kept<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Boolean(bool),
    Nothing,
}

/// A value that has been entered: it is checked, and kept if it is a string, an integer or a boolean.
struct Nested<'n>(Place<'n>);

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = Kept<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = Kept<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Kept::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Kept::Boolean(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Kept::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Kept::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Kept::Nothing)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Kept::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Kept::Text(Cow::Owned(text.to_string())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        while access.next_element_seed(Below(self.0))?.is_some() {}
        Ok(Kept::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut names: Vec<Cow<'de, str>> = Vec::new();
        while let Some(name) = access.next_key_seed(Name)? {
            names.push(name);
            access.next_value_seed(Below(self.0))?;
        }
        // I-G2: at any depth.
        if repeated(names.iter().map(Cow::as_ref), names.len()) {
            Err(A::Error::custom("repeated member"))
        } else {
            Ok(Kept::Nothing)
        }
    }
}

/// A value within another, which is entered before it is read.
struct Below<'n>(Place<'n>);

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let place = self.0.below();
        // I-G1
        place.enter().map_err(|NotJson| D::Error::custom("too deep or too many"))?;
        Nested(place).deserialize(deserializer).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::super::json::JsonObject;
    use super::*;

    fn parse(text: &str) -> Result<FlatObject<'_>, JsonError> {
        FlatObject::parse(text.as_bytes(), limits::DOCUMENT_BYTES)
    }

    #[test]
    fn members_are_read_by_type_and_a_wrong_type_is_not_absence() {
        let object = parse(
            r#" {"s":"a\u00e9","l":["x","y\/"],"i":-3,"big":18446744073709551615,"f":1.0,"n":null,"o":{"n":1},"m":["a",1],"e":[]} "#,
        )
        .unwrap();
        assert_eq!(object.string("s"), Ok(Some("aé")));
        assert_eq!(object.strings("l").unwrap().unwrap().iter().collect::<Vec<_>>(), ["x", "y/"]);
        assert_eq!(object.strings("e").unwrap().unwrap().iter().count(), 0);
        assert_eq!(object.integer("i"), Ok(Some(-3)));
        assert_eq!(object.integer("big"), Ok(Some(i64::MAX)));
        assert_eq!(object.string("absent"), Ok(None));
        assert_eq!(object.required_string("absent"), Err(JsonError::Missing("absent")));
        assert_eq!(object.one_or_more("s").unwrap().unwrap().iter().collect::<Vec<_>>(), ["aé"]);
        assert!(object.has("n") && object.has("o") && !object.has("a"));
        for name in ["f", "n", "o", "m"] {
            assert!(object.string(name).is_err() && object.integer(name).is_err(), "{name}");
            assert!(object.strings(name).is_err() && object.one_or_more(name).is_err(), "{name}");
        }
    }

    #[test]
    fn members_and_elements_beyond_the_first_few_are_all_there() {
        let members: Vec<_> = (0..40).map(|n| format!("\"m{n:02}\":[\"a{n}\",\"b{n}\"]")).collect();
        let text = format!("{{{}}}", members.join(","));
        let object = parse(&text).unwrap();
        for (name, n) in [("m00", 0), ("m01", 1), ("m02", 2), ("m15", 15), ("m16", 16), ("m39", 39)] {
            let read: Vec<_> = object.strings(name).unwrap().unwrap().iter().map(String::from).collect();
            assert_eq!(read, [format!("a{n}"), format!("b{n}")]);
        }
        let twice = format!("{{{},\"m05\":1}}", members.join(","));
        assert_eq!(parse(&twice).unwrap_err(), JsonError::Malformed);
    }

    // I-G2
    #[test]
    fn where_a_value_ends_is_the_same_for_both_readers() {
        let values = [
            r#""""#,
            r#""\\""#,
            r#""\\\\""#,
            r#""x\\\"y""#,
            r#""\"""#,
            r#""\u0022""#,
            r#""\ud83d\ude00""#,
            r#""\ud83d""#,
            r#""\x""#,
            r#""\"#,
            r#"""#,
            r#""a"b""#,
            "\"\u{e9}\"",
            "\"\u{1}\"",
            "\"\u{7f}\"",
            "1.5",
            "1.5.5",
            "1e1e1",
            "1-1",
            "1+",
            "-",
            "-0",
            "01",
            "0x1",
            "+1",
            "12345678901234567890",
            "1e999",
            "null",
            "nul",
            "nullx",
            "truefalse",
            "tru\u{e9}",
            "TRUE",
            "NaN",
            r#"{"k":"}"}"#,
            r#"{"k":"\"}"}"#,
            r#"{"k":"\\"}"#,
            r#"{"k":[1,"]"]}"#,
            "{]",
            "[}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[[]]",
            r#"[["b"],"c"]"#,
            r#"["\"","]"]"#,
            r#"[{"k":1,"k":1}]"#,
            "{\"k\"}",
            "{1:1}",
            "",
        ];
        for value in values {
            for text in [
                format!("{{\"a\":{value}}}"),
                format!("{{\"a\":{value},\"b\":1}}"),
                format!("{{ {value} : 1 }}"),
                format!("{{\"a\":1,{value}:1}}"),
            ] {
                let flat = parse(&text);
                let whole = JsonObject::parse(text.as_bytes(), limits::DOCUMENT_BYTES);
                assert_eq!(flat.is_ok(), whole.is_ok(), "{text}");
                let (Ok(flat), Ok(whole)) = (flat, whole) else { continue };
                assert_eq!(flat.string("a"), whole.string("a"), "{text}");
                assert_eq!(flat.integer("a"), whole.integer("a"), "{text}");
                let mut names: Vec<_> = flat.names().collect();
                names.sort_unstable();
                assert_eq!(names, whole.names().collect::<Vec<_>>(), "{text}");
            }
        }
    }

    // I-G1
    // I-G2
    #[test]
    fn nothing_but_white_space_stands_behind_the_object() {
        assert!(parse("{}").is_ok() && parse(" {} \n").is_ok());
        for text in ["{}x", "{}{}", "{},", "{}]", "{} null"] {
            assert_eq!(parse(text).map(|_| ()), Err(JsonError::Malformed), "{text}");
        }
    }

    #[test]
    fn size_depth_and_count_are_bounded_as_for_whole_documents() {
        let both = |text: &str| {
            let (flat, whole) =
                (parse(text).map(|_| ()), JsonObject::parse(text.as_bytes(), limits::DOCUMENT_BYTES));
            assert_eq!(flat, whole.map(|_| ()));
            flat
        };
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(both(&deep(limits::JSON_DEPTH)).is_ok());
        assert_eq!(both(&deep(limits::JSON_DEPTH + 1)), Err(JsonError::Malformed));
        let objects = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
        assert!(both(&objects(limits::JSON_DEPTH)).is_ok());
        assert_eq!(both(&objects(limits::JSON_DEPTH + 1)), Err(JsonError::Malformed));
        let wide = |n: usize| format!("{{\"a\":[{}1]}}", "1,".repeat(n));
        assert!(both(&wide(limits::JSON_NODES - 3)).is_ok());
        assert_eq!(both(&wide(limits::JSON_NODES - 2)), Err(JsonError::Malformed));
        let members: Vec<_> = (0..=limits::JSON_NODES).map(|n| format!("\"{n}\":1")).collect();
        assert_eq!(both(&format!("{{{}}}", members.join(","))), Err(JsonError::Malformed));
        assert_eq!(FlatObject::parse(b"{}   ", 4).unwrap_err(), JsonError::TooLarge);
        assert!(FlatObject::parse(b"{}   ", 5).is_ok());
    }

    #[test]
    fn values_stay_out_of_debug() {
        let shown = format!("{:?}", parse(r#"{"sub":"canary","o":{"p":["canary"]}}"#).unwrap());
        assert!(shown.contains("sub") && !shown.contains("canary"), "{shown}");
    }

    proptest! {
        // I-G1, I-G2: what the reader of whole documents refuses, this one refuses, and the other way round.
        #[test]
        fn both_readers_accept_the_same_texts(text in "(\\{|\\[|\\}|\\]|\"[ab]?\"|:|,|1|null|\\\\u0061|-0|1e9|\"\\\\u0061\"| ){0,14}") {
            prop_assert_eq!(
                parse(&text).map(|_| ()),
                JsonObject::parse(text.as_bytes(), limits::DOCUMENT_BYTES).map(|_| ())
            );
        }

        #[test]
        fn both_readers_say_the_same(
            members in proptest::collection::vec(("[ab]{1,2}", "(1|-1|1\\.5|\"x\"|\"\\\\u0078\"|null|true|\\[\\]|\\[\"y\",\"z\"\\]|\\[\"y\",1\\]|\\{\"a\":1\\}|\\{\"a\":1,\"a\":2\\})"), 0..20),
        ) {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let text = format!("{{{}}}", members.join(","));
            let (flat, whole) = (parse(&text), JsonObject::parse(text.as_bytes(), limits::DOCUMENT_BYTES));
            prop_assert_eq!(flat.is_ok(), whole.is_ok());
            let (Ok(flat), Ok(whole)) = (flat, whole) else { return Ok(()) };
            for name in ["a", "b", "aa", "ab", "ba", "bb"] {
                prop_assert_eq!(flat.has(name), whole.get(name).is_some());
                prop_assert_eq!(flat.string(name), whole.string(name));
                prop_assert_eq!(flat.integer(name), whole.integer(name));
                prop_assert_eq!(flat.boolean(name), whole.boolean(name));
                let strings = flat.strings(name).map(|found| found.map(|found| found.iter().collect::<Vec<_>>()));
                prop_assert_eq!(strings, whole.strings(name));
            }
        }
    }
}
