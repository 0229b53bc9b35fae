//! Forms, JSON, base64url and HTTP Basic: what is accepted is read the same by a second reader, means one thing
//! only, and survives being written and read again.

use std::collections::BTreeSet;

use mcp_authz::limits;
use mcp_authz::secret::ClientSecret;
use mcp_authz::syntax::flat::FlatObject;
use mcp_authz::syntax::json::{JsonError, JsonObject, JsonValue};
use mcp_authz::syntax::{base64url as base64, basic as http_basic, form as urlencoded};
use urlencoded::{Form, FormError};

/// An accepted form has unique names within bounds, agrees with the WHATWG reader and is refused once a name is
/// repeated (I-G1, I-G2).
pub fn form(data: &[u8]) {
    component(data);
    let Ok(form) = Form::parse(data) else { return };
    let names: Vec<&str> = form.names().collect();
    assert!(
        data.len() <= limits::FORM_BYTES && names.len() <= limits::FORM_PARAMETERS,
        "a bound is not kept"
    );
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name stands twice");

    let second: Vec<(String, String)> = url::form_urlencoded::parse(data).into_owned().collect();
    assert_eq!(
        names,
        second.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        "two readings of names"
    );
    for (name, value) in &second {
        assert!(form.has_name(name));
        assert_eq!(form.get(name), Some(value.as_str()).filter(|value| !value.is_empty()), "two readings");
    }

    let written = urlencoded::encode(second.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if written.len() <= limits::FORM_BYTES {
        let again = Form::parse(written.as_bytes()).expect("our own spelling is refused");
        assert!(again.names().eq(form.names()) && names.iter().all(|name| again.get(name) == form.get(name)));
    }
    for name in names {
        let repeated = [data, b"&", urlencoded::encode_component(name).as_bytes(), b"=x"].concat();
        let error = Form::parse(&repeated).expect_err("a repeated name is accepted");
        assert!(matches!(error, FormError::Duplicate | FormError::TooLarge), "{error:?}");
    }
}

fn component(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let written = urlencoded::encode_component(text);
    assert!(
        written.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'&' | b'=' | b':' | b'#'))
    );
    assert_eq!(urlencoded::decode_component(&written).as_deref(), Ok(text), "encoding loses something");
}

/// An accepted document is what a second reader reads, has no repeated member at any depth, and is within bounds
/// (I-G1, I-G2).
pub fn json(data: &[u8]) {
    if data.len() > 1 {
        assert_eq!(JsonObject::parse(data, data.len() - 1), Err(JsonError::TooLarge));
    }
    let whole = JsonObject::parse(data, limits::DOCUMENT_BYTES);
    // I-G2: the reader of tokens accepts what the reader of documents accepts, and reads the same.
    let flat = FlatObject::parse(data, limits::DOCUMENT_BYTES);
    assert_eq!(flat.as_ref().err(), whole.as_ref().err(), "two readers disagree");
    let (Ok(object), Ok(flat)) = (whole, flat) else { return };
    assert_eq!(flat.names().collect::<BTreeSet<_>>(), object.names().collect());
    for name in ["iss", "sub", "aud", "exp", "scope", "a", "s", "i", "l", ""] {
        assert_eq!(flat.has(name), object.get(name).is_some());
        assert_eq!(flat.string(name), object.string(name));
        assert_eq!(flat.integer(name), object.integer(name));
        let strings = flat.strings(name).map(|found| found.map(|found| found.iter().collect::<Vec<_>>()));
        assert_eq!(strings, object.strings(name));
    }
    assert!(data.len() <= limits::DOCUMENT_BYTES);
    let second: serde_json::Value = serde_json::from_slice(data).expect("only the core accepts it");
    let mut members = 0;
    let mut exact = true;
    same_object(&object, &second, 0, &mut members, &mut exact);
    // Each member has one colon outside strings: a member that was dropped or merged would leave one over.
    assert_eq!(members, colons_outside_strings(data), "a member is lost");
    typed(&object);
    if exact {
        let written = object.to_bytes();
        assert_eq!(JsonObject::parse(&written, written.len()), Ok(object), "writing loses something");
    }
}

fn same_object(
    object: &JsonObject,
    second: &serde_json::Value,
    depth: usize,
    members: &mut usize,
    exact: &mut bool,
) {
    let second = second.as_object().expect("no object to the second reader");
    assert_eq!(object.names().collect::<BTreeSet<_>>(), second.keys().map(String::as_str).collect());
    *members += second.len();
    for (name, value) in second {
        same_value(object.get(name).expect("a member is lost"), value, depth + 1, members, exact);
    }
}

fn same_value(
    value: &JsonValue,
    second: &serde_json::Value,
    depth: usize,
    members: &mut usize,
    exact: &mut bool,
) {
    assert!(depth <= limits::JSON_DEPTH, "too deep");
    match value {
        JsonValue::Null => assert!(second.is_null()),
        JsonValue::Boolean(value) => assert_eq!(second.as_bool(), Some(*value)),
        JsonValue::Integer(i64::MAX) => assert!(second.as_u64() >= Some(i64::MAX.unsigned_abs())),
        JsonValue::Integer(number) => assert_eq!(second.as_i64(), Some(*number)),
        JsonValue::Float(number) => {
            assert!(second.is_f64() && number.is_finite());
            // Fractions may change in the last digit when written; the core reads none of them.
            *exact = false;
        }
        JsonValue::String(text) => assert_eq!(second.as_str(), Some(text.as_str())),
        JsonValue::Array(elements) => {
            let second = second.as_array().expect("no array to the second reader");
            assert_eq!(elements.len(), second.len());
            for (element, other) in elements.iter().zip(second) {
                same_value(element, other, depth + 1, members, exact);
            }
        }
        JsonValue::Object(object) => same_object(object, second, depth, members, exact),
        _ => panic!("a kind of value this oracle does not know"),
    }
}

fn colons_outside_strings(data: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in data {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b':') => count += 1,
            _ => {}
        }
    }
    count
}

/// At most one reading by type succeeds, and only for a member that is there.
fn typed(object: &JsonObject) {
    for name in ["", "a", "aud", "exp", "iss", "issuer", "resource", "scope", "access_token", "expires_in"] {
        let found = [
            object.string(name).map(|value| value.is_some()),
            object.strings(name).map(|value| value.is_some()),
            object.integer(name).map(|value| value.is_some()),
            object.boolean(name).map(|value| value.is_some()),
            object.object(name).map(|value| value.is_some()),
        ];
        match object.get(name) {
            None => assert!(found.iter().all(|found| *found == Ok(false)), "absence is an error or a value"),
            Some(_) => {
                assert!(
                    found.iter().filter(|found| **found == Ok(true)).count() <= 1,
                    "a value has two types"
                );
                assert!(!found.contains(&Ok(false)), "a wrong type passes for absence");
            }
        }
    }
}

/// Every byte string has exactly one accepted spelling (I-A6, I-T11).
pub fn base64url(data: &[u8]) {
    let written = base64::encode(data);
    assert!(written.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    assert_eq!(base64::decode(&written).as_deref(), Ok(data));
    if let Ok(text) = core::str::from_utf8(data) {
        assert_eq!(base64::decode(text).ok(), decode_by_bits(text.as_bytes()), "two readings");
        if let Ok(bytes) = base64::decode(text) {
            assert_eq!(base64::encode(&bytes), text, "two spellings of the same bytes");
        }
    }
}

/// base64url as its definition has it, bit by bit.
fn decode_by_bits(text: &[u8]) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for character in text {
        let digit = ALPHABET.iter().position(|known| known == character)?;
        bits = (bits << 6) | u32::try_from(digit).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    (held < 6 && bits == 0).then_some(bytes)
}

/// What is read from an `Authorization` field can be written and is read the same again; any pair of identifier
/// and secret survives (OAuth 2.1 section 2.4.1).
pub fn basic(data: &[u8]) {
    if let Ok((id, secret)) = http_basic::decode(data) {
        assert!(http_basic::is_basic(data) && data.len() <= limits::FIELD_BYTES && !id.is_empty());
        basic_survives(&id, &secret);
    }
    if let Ok(text) = core::str::from_utf8(data)
        && let Some((id, secret)) = text.split_once('\n')
        && let Ok(secret) = ClientSecret::new(secret)
        && !id.is_empty()
    {
        basic_survives(id, &secret);
    }
}

fn basic_survives(id: &str, secret: &ClientSecret) {
    let field = http_basic::encode(id, secret);
    assert!(field.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "unfit for a field");
    if field.len() <= limits::FIELD_BYTES {
        let (again, secret_again) =
            http_basic::decode(field.as_bytes()).expect("our own spelling is refused");
        assert_eq!(again, id);
        assert_eq!(secret_again.expose(), secret.expose());
    }
}
