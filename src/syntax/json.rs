//! JSON documents, read strictly: no repeated member at any depth, bounded size, depth and count (I-G1, I-G2).
//!
//! A member of the wrong type is an error and never "absent"; names are compared byte for byte.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroize as _;

use super::cursor::plain_length;
use crate::limits;

/// Why bytes are not an acceptable document, or a member is not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// More bytes than the document may have.
    #[error("the document is too large")]
    TooLarge,
    /// Not one JSON object of UTF-8 within the bounds on depth and count, without repeated members.
    #[error("the document is not one well-formed JSON object without repeated members")]
    Malformed,
    /// A member that must be there is not.
    #[error("the member {0:?} is missing")]
    Missing(&'static str),
    /// A member has another JSON type than its definition gives.
    #[error("the member {0:?} has the wrong JSON type")]
    WrongType(&'static str),
}

/// A JSON value whose objects have unique members.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum JsonValue {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean(bool),
    /// A number without fraction or exponent; above `i64::MAX` it is held there.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A string, after unescaping.
    String(String),
    /// An array.
    Array(Vec<JsonValue>),
    /// An object.
    Object(JsonObject),
}

/// A JSON object with unique members. `Debug` shows names only: values may be secrets.
#[derive(Clone, PartialEq, Default)]
pub struct JsonObject {
    members: BTreeMap<String, JsonValue>,
}

impl Drop for JsonValue {
    fn drop(&mut self) {
        if let Self::String(text) = self {
            text.zeroize();
        }
    }
}

impl fmt::Debug for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.members.keys()).finish()
    }
}

impl fmt::Debug for JsonValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Boolean(_) => "Boolean",
            Self::Integer(_) => "Integer",
            Self::Float(_) => "Float",
            Self::String(_) => "String(redacted)",
            Self::Array(_) => "Array",
            Self::Object(object) => return object.fmt(f),
        })
    }
}

/// How much of one document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonBounds {
    /// Most bytes.
    pub bytes: usize,
    /// Deepest nesting; more than about 120 has no effect.
    pub depth: usize,
    /// Most members and elements.
    pub nodes: usize,
}

impl JsonObject {
    /// Reads one object of at most `max_bytes` bytes, with nothing behind it but white space, within the bounds of the
    /// protocol's own documents ([`limits::JSON_DEPTH`], [`limits::JSON_NODES`]).
    ///
    /// # Errors
    /// [`JsonError::TooLarge`] or [`JsonError::Malformed`], never with the text itself.
    pub fn parse(bytes: &[u8], max_bytes: usize) -> Result<Self, JsonError> {
        let bounds = JsonBounds { bytes: max_bytes, depth: limits::JSON_DEPTH, nodes: limits::JSON_NODES };
        Self::parse_within(bytes, bounds)
    }

    /// Reads one object within other bounds: for messages that carry data of applications.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_within(bytes: &[u8], bounds: JsonBounds) -> Result<Self, JsonError> {
        if bytes.len() > bounds.bytes {
            return Err(JsonError::TooLarge);
        }
        let nodes = Cell::new(0);
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let mut value = Node { depth: 0, nodes: &nodes, bounds }
            .deserialize(&mut reader)
            .map_err(|_| JsonError::Malformed)?;
        reader.end().map_err(|_| JsonError::Malformed)?;
        match &mut value {
            JsonValue::Object(object) => Ok(core::mem::take(object)),
            _ => Err(JsonError::Malformed),
        }
    }

    /// A member of any type.
    pub fn get(&self, name: &str) -> Option<&JsonValue> {
        self.members.get(name)
    }

    /// The members' names, in order of bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// A string member, or `None` where it is absent.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] when it is anything but a string.
    pub fn string(&self, name: &'static str) -> Result<Option<&str>, JsonError> {
        match self.get(name) {
            None => Ok(None),
            Some(JsonValue::String(text)) => Ok(Some(text)),
            Some(_) => Err(JsonError::WrongType(name)),
        }
    }

    /// A string member that must be there.
    ///
    /// # Errors
    /// [`JsonError::Missing`] or [`JsonError::WrongType`].
    pub fn required_string(&self, name: &'static str) -> Result<&str, JsonError> {
        self.string(name)?.ok_or(JsonError::Missing(name))
    }

    /// An array of strings, or `None` where it is absent.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] when it is no array or has an element that is no string.
    pub fn strings(&self, name: &'static str) -> Result<Option<Vec<&str>>, JsonError> {
        match self.get(name) {
            None => Ok(None),
            Some(JsonValue::Array(elements)) => elements
                .iter()
                .map(|element| match element {
                    JsonValue::String(text) => Ok(text.as_str()),
                    _ => Err(JsonError::WrongType(name)),
                })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(JsonError::WrongType(name)),
        }
    }

    /// An integer member, or `None` where it is absent; one above `i64::MAX` is held there.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] for strings, fractions and exponents.
    pub fn integer(&self, name: &'static str) -> Result<Option<i64>, JsonError> {
        match self.get(name) {
            None => Ok(None),
            Some(JsonValue::Integer(number)) => Ok(Some(*number)),
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
            Some(JsonValue::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(JsonError::WrongType(name)),
        }
    }

    /// An object member, or `None` where it is absent.
    ///
    /// # Errors
    /// [`JsonError::WrongType`] for anything but an object.
    pub fn object(&self, name: &'static str) -> Result<Option<&Self>, JsonError> {
        match self.get(name) {
            None => Ok(None),
            Some(JsonValue::Object(object)) => Ok(Some(object)),
            Some(_) => Err(JsonError::WrongType(name)),
        }
    }

    /// Writes the object, members in order of their names' bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl serde::Serialize for JsonObject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.members)
    }
}

impl serde::Serialize for JsonValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(elements) => serializer.collect_seq(elements),
            Self::Object(object) => object.serialize(serializer),
        }
    }
}

/// Builds an object for output. It writes what it is given: an empty list is a list, not an absent member.
#[derive(Debug, Default)]
pub struct ObjectWriter {
    object: JsonObject,
}

impl ObjectWriter {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value; a later one of the same name replaces it.
    #[must_use]
    pub fn value(mut self, name: &str, value: JsonValue) -> Self {
        self.object.members.insert(name.to_string(), value);
        self
    }

    /// Adds a string.
    #[must_use]
    pub fn string(self, name: &str, text: impl Into<String>) -> Self {
        self.value(name, JsonValue::String(text.into()))
    }

    /// Adds a string if there is one.
    #[must_use]
    pub fn optional_string(self, name: &str, text: Option<impl Into<String>>) -> Self {
        match text {
            Some(text) => self.string(name, text),
            None => self,
        }
    }

    /// Adds an array of strings, empty or not.
    #[must_use]
    pub fn strings(self, name: &str, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let elements: Vec<_> = texts.into_iter().map(|text| JsonValue::String(text.into())).collect();
        self.value(name, JsonValue::Array(elements))
    }

    /// Adds an integer.
    #[must_use]
    pub fn integer(self, name: &str, number: i64) -> Self {
        self.value(name, JsonValue::Integer(number))
    }

    /// Adds a boolean.
    #[must_use]
    pub fn boolean(self, name: &str, value: bool) -> Self {
        self.value(name, JsonValue::Boolean(value))
    }

    /// The object.
    pub fn into_object(self) -> JsonObject {
        self.object
    }

    /// The object's text.
    pub fn finish(self) -> Vec<u8> {
        self.object.to_bytes()
    }
}

/// Writes an object member by member into one buffer, in the order in which they come: for an answer that holds secrets,
/// of which no second copy is to be left in memory.
pub(crate) struct ObjectText(Vec<u8>);

impl ObjectText {
    /// An object without members, whose text will be about so long.
    pub(crate) fn with_room_for(bytes: usize) -> Self {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'{');
        Self(text)
    }

    /// Begins a member; its value comes next. The name needs no escape, and stands once.
    pub(crate) fn member(&mut self, name: &'static str) -> &mut Self {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        self
    }

    /// A string.
    pub(crate) fn string(&mut self, text: &str) {
        self.words([text]);
    }

    /// A string of words with single spaces between them.
    pub(crate) fn words<'t>(&mut self, words: impl IntoIterator<Item = &'t str>) {
        self.0.push(b'"');
        for (index, word) in words.into_iter().enumerate() {
            if index > 0 {
                self.0.push(b' ');
            }
            self.escaped(word.as_bytes());
        }
        self.0.push(b'"');
    }

    /// An integer.
    pub(crate) fn integer(&mut self, number: i64) {
        if number < 0 {
            self.0.push(b'-');
        }
        self.digits(number.unsigned_abs());
    }

    /// True or false.
    pub(crate) fn boolean(&mut self, value: bool) {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn digits(&mut self, number: u64) {
        let mut digits = [b'0'; 20];
        let (mut rest, mut first) = (number, digits.len());
        for digit in digits.iter_mut().rev() {
            *digit = u8::try_from(rest % 10).map_or(b'0', |value| value.saturating_add(b'0'));
            (rest, first) = (rest / 10, first.saturating_sub(1));
            if rest == 0 {
                break;
            }
        }
        self.0.extend_from_slice(digits.get(first..).unwrap_or_default());
    }

    /// The object's text.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }

    fn escaped(&mut self, text: &[u8]) {
        const HEX: [u8; 16] = *b"0123456789abcdef";
        let mut rest = text;
        loop {
            // RFC 8259 section 7: the quotation mark, the backslash and the controls.
            let (plain, tail) = rest.split_at_checked(plain_length(rest)).unwrap_or((rest, &[]));
            self.0.extend_from_slice(plain);
            let Some((byte, tail)) = tail.split_first() else { return };
            match byte {
                b'"' | b'\\' => self.0.extend_from_slice(&[b'\\', *byte]),
                _ => {
                    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                    self.0.extend_from_slice(b"\\u00");
                    self.0.extend_from_slice(&[digit(byte >> 4), digit(byte & 0x0f)]);
                }
            }
            rest = tail;
        }
    }
}

/// Reads one value at a depth, counting values.
struct Node<'n> {
    depth: usize,
    nodes: &'n Cell<usize>,
    bounds: JsonBounds,
}

impl Node<'_> {
    fn below(&self) -> Self {
        Node { depth: self.depth.saturating_add(1), nodes: self.nodes, bounds: self.bounds }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = JsonValue;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<JsonValue, D::Error> {
        // I-G1: before the value is read.
        let count = self.nodes.get().saturating_add(1);
        self.nodes.set(count);
        if self.depth > self.bounds.depth || count > self.bounds.nodes {
            return Err(D::Error::custom("too deep or too many"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = JsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<JsonValue, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonValue, E> {
        Ok(JsonValue::Boolean(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<JsonValue, E> {
        Ok(JsonValue::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<JsonValue, E> {
        Ok(JsonValue::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<JsonValue, E> {
        Ok(JsonValue::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonValue, E> {
        Ok(JsonValue::String(text.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<JsonValue, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element_seed(self.below())? {
            elements.push(element);
        }
        Ok(JsonValue::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<JsonValue, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(self.below())?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("repeated member"));
            }
        }
        Ok(JsonValue::Object(JsonObject { members }))
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::{JsonError, JsonObject, JsonValue, ObjectText, ObjectWriter};
    use crate::limits;

    fn parse(text: &str) -> Result<JsonObject, JsonError> {
        JsonObject::parse(text.as_bytes(), limits::DOCUMENT_BYTES)
    }

    #[test]
    fn reads_members_by_type() {
        let object = parse(
            r#" {"s":"a\u00e9","l":["x","y"],"i":-3,"big":18446744073709551615,"b":true,"o":{"n":null}} "#,
        )
        .unwrap();
        assert_eq!(object.string("s"), Ok(Some("aé")));
        assert_eq!(object.strings("l").unwrap().unwrap(), ["x", "y"]);
        assert_eq!(object.integer("i"), Ok(Some(-3)));
        assert_eq!(object.integer("big"), Ok(Some(i64::MAX)));
        assert_eq!(object.boolean("b"), Ok(Some(true)));
        assert_eq!(object.object("o").unwrap().unwrap().get("n"), Some(&JsonValue::Null));
        assert_eq!(object.string("absent"), Ok(None));
        assert_eq!(object.required_string("absent"), Err(JsonError::Missing("absent")));
    }

    #[test]
    fn a_wrong_type_is_not_absence() {
        let object =
            parse(r#"{"n":null,"f":1.0,"e":1e3,"t":"true","m":["a",1],"big":99999999999999999999}"#).unwrap();
        assert_eq!(object.string("n"), Err(JsonError::WrongType("n")));
        assert_eq!(object.integer("f"), Err(JsonError::WrongType("f")));
        assert_eq!(object.integer("e"), Err(JsonError::WrongType("e")));
        assert_eq!(object.integer("big"), Err(JsonError::WrongType("big")));
        assert_eq!(object.boolean("t"), Err(JsonError::WrongType("t")));
        assert_eq!(object.strings("m"), Err(JsonError::WrongType("m")));
        assert_eq!(object.strings("t"), Err(JsonError::WrongType("t")));
        assert_eq!(object.object("m"), Err(JsonError::WrongType("m")));
    }

    #[test]
    fn names_differ_by_case() {
        assert_eq!(parse(r#"{"Issuer":"a"}"#).unwrap().string("issuer"), Ok(None));
    }

    #[test]
    fn malformed_documents_are_refused() {
        for text in [
            "",
            "[]",
            "\"a\"",
            "1",
            "null",
            "{",
            "{}x",
            "{}{}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "\u{feff}{}",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":1}",
            "{\"o\":{\"x\":1,\"x\":1}}",
            "{\"l\":[{\"x\":1,\"x\":2}]}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
        ] {
            assert_eq!(parse(text).unwrap_err(), JsonError::Malformed, "{text:?}");
        }
        assert_eq!(JsonObject::parse(b"{\"a\":\"\xff\"}", 100).unwrap_err(), JsonError::Malformed);
    }

    #[test]
    fn size_depth_and_count_are_bounded() {
        assert_eq!(JsonObject::parse(b"{}   ", 4).unwrap_err(), JsonError::TooLarge);
        assert!(JsonObject::parse(b"{}   ", 5).is_ok());
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&deep(limits::JSON_DEPTH)).is_ok());
        assert_eq!(parse(&deep(limits::JSON_DEPTH + 1)).unwrap_err(), JsonError::Malformed);
        let objects = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
        assert!(parse(&objects(limits::JSON_DEPTH)).is_ok());
        assert_eq!(parse(&objects(limits::JSON_DEPTH + 1)).unwrap_err(), JsonError::Malformed);
        assert_eq!(parse(&deep(20_000)).unwrap_err(), JsonError::Malformed);
        let wide = |n: usize| format!("{{\"a\":[{}1]}}", "1,".repeat(n));
        // The object, its array and the last element count as well.
        assert!(parse(&wide(limits::JSON_NODES - 3)).is_ok());
        assert_eq!(parse(&wide(limits::JSON_NODES - 2)).unwrap_err(), JsonError::Malformed);
        let members: Vec<_> = (0..=limits::JSON_NODES).map(|n| format!("\"{n}\":1")).collect();
        assert_eq!(parse(&format!("{{{}}}", members.join(","))).unwrap_err(), JsonError::Malformed);
    }

    #[test]
    fn values_stay_out_of_debug() {
        let shown = format!("{:?}", parse(r#"{"token":"canary","o":{"p":["canary"]}}"#).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn writes_what_it_was_given_an_empty_list_included() {
        let none: [&str; 0] = [];
        let text = ObjectWriter::new()
            .string("b", "x\"\n")
            .strings("l", ["p", "q"])
            .strings("none", none)
            .integer("a", 5)
            .boolean("t", true)
            .optional_string("absent", None::<&str>)
            .finish();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"a":5,"b":"x\"\n","l":["p","q"],"none":[],"t":true}"#
        );
    }

    proptest! {
        #[test]
        fn an_integer_is_written_in_decimal(number in prop_oneof![-200..200_i64, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]) {
            let mut text = ObjectText::with_room_for(0);
            text.member("n").integer(number);
            prop_assert_eq!(text.finish(), format!("{{\"n\":{number}}}").into_bytes());
        }

        // I-G1
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = JsonObject::parse(&bytes, 4096);
        }

        #[test]
        fn never_panics_on_nearly_json(text in "[\\[\\]{}\",:a0-9.eE\\\\u-]{0,80}") {
            let _ = JsonObject::parse(text.as_bytes(), 4096);
        }

        // I-G2
        #[test]
        fn a_repeated_member_is_found_wherever_it_stands(
            names in proptest::collection::btree_set("[a-z]{1,6}", 1..8),
            at in any::<proptest::sample::Index>(),
            depth in 0_usize..6,
        ) {
            let mut members: Vec<_> = names.iter().map(|name| format!("\"{name}\":1")).collect();
            let object = format!("{{{}}}", members.join(","));
            prop_assert!(parse(&object).is_ok());
            members.push(members[at.index(members.len())].clone());
            let doubled = format!("{{{}}}", members.join(","));
            let nested = format!("{}{doubled}{}", "{\"o\":".repeat(depth), "}".repeat(depth));
            prop_assert_eq!(parse(&nested).unwrap_err(), JsonError::Malformed);
        }

        #[test]
        fn what_is_written_is_read_back(
            strings in proptest::collection::btree_map(".{0,8}", ".{0,16}", 0..6),
        ) {
            let writer = strings.iter().fold(ObjectWriter::new(), |w, (name, value)| w.string(name, value));
            let object = writer.into_object();
            prop_assert_eq!(JsonObject::parse(&object.to_bytes(), 4096), Ok(object));
        }
    }
}
