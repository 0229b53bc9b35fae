//! What another server could read in another way than this one: the encoding of a body, and members whose names are
//! near to those that decide. It is refused, so that what was authorized here is what is done behind (I-G2).

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use mcp_authz::syntax::json::JsonObject;

use super::scopes::UnreadableOperation;

/// The members of a message that say what it is.
const OF_A_MESSAGE: [&str; 4] = ["jsonrpc", "id", "method", "params"];

/// The members of its parameters that say what it is about.
const OF_PARAMETERS: [&str; 2] = ["name", "uri"];

/// Whether the fields leave one way to read the body: UTF-8, as it stands.
pub(super) fn as_it_stands(fields: &HeaderMap) -> Result<(), UnreadableOperation> {
    let mut types = fields.get_all(CONTENT_TYPE).iter();
    let one_type = match (types.next(), types.next()) {
        (None, _) => true,
        (Some(written), None) => written.to_str().is_ok_and(names_no_charset_but_utf_8),
        _ => false,
    };
    if !one_type {
        return Err(UnreadableOperation::ContentType);
    }
    let mut encodings = fields.get_all(CONTENT_ENCODING).iter();
    if !encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(UnreadableOperation::ContentEncoding);
    }
    Ok(())
}

/// Whether a body says it is a form, in whichever of its Content-Type fields.
pub(super) fn is_form(fields: &HeaderMap) -> bool {
    let form = b"application/x-www-form-urlencoded";
    fields.get_all(CONTENT_TYPE).iter().any(|written| {
        let written = written.as_bytes().trim_ascii_start();
        written.get(..form.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(form))
    })
}

/// Wherever the word stands in the field, what follows it is `=utf-8`, quoted or not, and nothing more: however broken the
/// rest is, no reader finds another charset in it.
fn names_no_charset_but_utf_8(field: &str) -> bool {
    let field = field.to_ascii_lowercase();
    field.split("charset").skip(1).all(|after| {
        let rest = after.strip_prefix("=\"utf-8\"").or_else(|| after.strip_prefix("=utf-8"));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([';', ' ', '\t']))
    })
}

/// Whether a message and its parameters have no member that a reader who folds case takes for another one (Go does, and
/// takes the last).
pub(super) fn no_near_names(message: &JsonObject) -> Result<(), UnreadableOperation> {
    let near = |object: &JsonObject, names: &[&str]| {
        object.names().any(|written| !names.contains(&written) && names.contains(&folded(written).as_str()))
    };
    let near_parameters =
        message.object("params").ok().flatten().is_some_and(|parameters| near(parameters, &OF_PARAMETERS));
    if near(message, &OF_A_MESSAGE) || near_parameters {
        return Err(UnreadableOperation::NearName);
    }
    Ok(())
}

/// The name in lower case, with the letters outside ASCII that are another case of one inside.
fn folded(name: &str) -> String {
    let one = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        letter => letter.to_ascii_lowercase(),
    };
    name.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    fn fields(of: &[(HeaderName, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    // D46, I-G2
    #[test]
    fn a_body_in_another_charset_is_not_read() {
        let read = |written: &[&str]| {
            let of: Vec<_> = written.iter().map(|value| (CONTENT_TYPE, *value)).collect();
            let mut map = HeaderMap::new();
            for (name, value) in fields(&of).into_iter().filter_map(|(name, value)| Some((name?, value))) {
                map.append(name, value);
            }
            as_it_stands(&map)
        };
        for written in [
            "application/json",
            "application/json; charset=utf-8",
            "application/json;Charset=\"UTF-8\"",
            "application/json; charset=utf-8; profile=x",
        ] {
            assert_eq!(read(&[written]), Ok(()), "{written}");
        }
        for written in [
            "application/json; charset=utf-7",
            "application/json;CHARSET=\"UTF-7\"",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=utf-7",
            "application/json; charset = utf-7",
            "application/json; charset*=utf-7''x",
            "application/json; charset=utf-8x",
            "application/json; charset=\"utf\\-7\"",
            "application/json; charset=",
            "application/json, application/json; charset=utf-7",
        ] {
            assert_eq!(read(&[written]), Err(UnreadableOperation::ContentType), "{written}");
        }
    }

    // D46, I-G2
    #[test]
    fn two_content_types_or_an_encoded_body_are_not_read() {
        let mut two = fields(&[(CONTENT_TYPE, "application/json")]);
        two.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!(as_it_stands(&two), Err(UnreadableOperation::ContentType));
        assert_eq!(as_it_stands(&fields(&[(CONTENT_ENCODING, "Identity")])), Ok(()));
        for encoding in ["gzip", "br", "identity, gzip", ""] {
            let encoded = fields(&[(CONTENT_ENCODING, encoding)]);
            assert_eq!(as_it_stands(&encoded), Err(UnreadableOperation::ContentEncoding), "{encoding}");
        }
        let mut mixed = fields(&[(CONTENT_ENCODING, "identity")]);
        mixed.append(CONTENT_ENCODING, HeaderValue::from_static("deflate"));
        assert_eq!(as_it_stands(&mixed), Err(UnreadableOperation::ContentEncoding));
    }

    // D46, I-G2
    #[test]
    fn a_member_that_a_folding_reader_takes_for_another_is_refused() {
        let of = |text: &str| no_near_names(&JsonObject::parse(text.as_bytes(), 1000).unwrap());
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Methods":1}"#,
            r#"{"method":"tools/call","params":{"name":"a","arguments":{"Name":"b","METHOD":1}}}"#,
            r#"{"method":"tools/call","params":{"name":"a","Method":1}}"#,
            r#"{"id":1,"result":{"Name":1}}"#,
        ] {
            assert_eq!(of(text), Ok(()), "{text}");
        }
        for text in [
            r#"{"method":"tools/list","Method":"tools/call"}"#,
            r#"{"METHOD":"tools/call"}"#,
            r#"{"method":"tools/list","ID":1}"#,
            r#"{"method":"tools/list","param\u017f":{}}"#,
            r#"{"method":"tools/list","j\u017fonrpc":"2.0"}"#,
            r#"{"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
            r#"{"method":"resources/read","params":{"uri":"a","uRi":"b"}}"#,
            r#"{"method":"resources/read","params":{"uri":"a","ur\u0131":"b"}}"#,
            r#"{"method":"tools/list","Params":{}}"#,
        ] {
            assert_eq!(of(text), Err(UnreadableOperation::NearName), "{text}");
        }
    }
}
