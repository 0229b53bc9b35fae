//! What the bridge has to know of a JSON-RPC message; everything else passes through as it is.

use serde_json::{Value, json};

/// The first revision without sessions, whose requests carry what `initialize` used to settle.
const STATELESS: &str = "2026-07-28";

/// One message, or a batch of revision 2025-03-26, as one line of the client.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// The ids of the requests in it: each is owed an answer.
    pub(super) ids: Vec<Value>,
    pub(super) method: Option<String>,
    /// The revision that the request itself names.
    pub(super) revision: Option<String>,
    /// What a tool call, prompt or resource is called.
    pub(super) name: Option<String>,
}

impl Message {
    /// Reads a line; what is no JSON-RPC message gets the answer that JSON-RPC has for it.
    pub(super) fn read(line: &[u8]) -> Result<Self, Vec<u8>> {
        let parsed: Value =
            serde_json::from_slice(line).map_err(|_| error(&Value::Null, -32700, "the line is not JSON"))?;
        let text = |value: Option<&Value>| Some(value?.as_str()?.to_owned());
        let elements = parsed.as_array().map_or(std::slice::from_ref(&parsed), Vec::as_slice);
        if elements.is_empty() || !elements.iter().all(Value::is_object) {
            return Err(error(&Value::Null, -32600, "the line is no JSON-RPC message"));
        }
        let requests = elements.iter().filter(|element| element.get("method").is_some());
        let ids = requests.filter_map(|request| request.get("id")).filter(|id| !id.is_null()).cloned();
        let params = parsed.get("params");
        let meta = params.and_then(|params| params.get("_meta"));
        Ok(Self {
            bytes: line.to_vec(),
            ids: ids.collect(),
            method: text(parsed.get("method")),
            revision: text(meta.and_then(|meta| meta.get("io.modelcontextprotocol/protocolVersion"))),
            name: ["name", "uri"].iter().find_map(|name| text(params?.get(name))),
        })
    }

    pub(super) fn is_request(&self) -> bool {
        !self.ids.is_empty()
    }

    pub(super) fn is_stateless(&self) -> bool {
        self.revision.as_deref().is_some_and(|revision| revision >= STATELESS)
    }
}

/// The answer to a request when there is none from the server.
pub(super) fn failed(id: &Value, why: &str) -> Vec<u8> {
    error(id, -32000, why)
}

/// The revision that an answer to `initialize` settles on.
pub(super) fn settled_revision(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    Some(answer.get("result")?.get("protocolVersion")?.as_str()?.to_owned())
}

/// Whether the answer is a JSON-RPC error.
pub(super) fn is_error(answer: &[u8]) -> bool {
    serde_json::from_slice::<Value>(answer).is_ok_and(|answer| answer.get("error").is_some())
}

/// Whether this, or an element of this batch, answers the request of that id.
pub(super) fn answers(answer: &[u8], id: &Value) -> bool {
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return false };
    let elements = answer.as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice);
    elements.iter().any(|element| {
        (element.get("result").is_some() || element.get("error").is_some()) && element.get("id") == Some(id)
    })
}

/// A message as one line: in JSON a line break is white space wherever it stands unescaped.
pub(super) fn line(mut message: Vec<u8>) -> Option<Vec<u8>> {
    serde_json::from_slice::<serde::de::IgnoredAny>(&message).ok()?;
    for byte in &mut message {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    message.push(b'\n');
    Some(message)
}

fn error(id: &Value, code: i32, message: &str) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::{Message, answers, failed, is_error, line, settled_revision};

    #[test]
    fn what_is_owed_an_answer_is_seen() {
        let read = |text: &str| Message::read(text.as_bytes()).unwrap();
        let call = read(r#"{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{"name":"add"}}"#);
        assert_eq!((call.ids.len(), call.name.as_deref()), (1, Some("add")));
        assert_eq!(call.method.as_deref(), Some("tools/call"));
        assert!(!read(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).is_request());
        // An answer of the client's to a request of the server's is owed nothing.
        assert!(!read(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#).is_request());
        let batch = read(r#"[{"id":1,"method":"ping"},{"method":"x"},{"id":2,"method":"ping"}]"#);
        assert_eq!(batch.ids, [1, 2]);
        let no = failed(&batch.ids[1], "no");
        assert!(is_error(&no) && answers(&no, &batch.ids[1]));
        assert!(!answers(&no, &batch.ids[0]) && !answers(&no, &call.ids[0]));
        // A request of the server's own may have the same id.
        assert!(!answers(br#"{"id":2,"method":"ping"}"#, &batch.ids[1]));
        assert!(answers(br#"[{"id":1,"result":{}},{"id":2,"result":{}}]"#, &batch.ids[1]));
    }

    #[test]
    fn what_is_no_message_is_answered_with_what_is_wrong() {
        for (text, code) in [("{", "-32700"), ("1", "-32600"), ("[]", "-32600"), ("[1]", "-32600")] {
            let answer = String::from_utf8(Message::read(text.as_bytes()).unwrap_err()).unwrap();
            assert!(answer.contains(code), "{text}: {answer}");
        }
    }

    #[test]
    fn a_revision_is_read_from_the_request_or_from_what_was_settled() {
        let text = r#"{"id":1,"method":"ping","params":{"_meta":
            {"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert!(Message::read(text.as_bytes()).unwrap().is_stateless());
        assert_eq!(
            settled_revision(br#"{"id":1,"result":{"protocolVersion":"2025-11-25"}}"#).as_deref(),
            Some("2025-11-25")
        );
        assert_eq!(settled_revision(br#"{"id":1,"error":{}}"#), None);
    }

    #[test]
    fn a_message_is_one_line_and_means_the_same() {
        let pretty = "{\r\n  \"a\": \"b\\nc\"\n}";
        let one = line(pretty.as_bytes().to_vec()).unwrap();
        assert_eq!(one.iter().filter(|byte| **byte == b'\n').count(), 1);
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(pretty).unwrap(), serde_json::from_slice(&one).unwrap());
        assert_eq!(before, after);
        assert!(line(b"<html>".to_vec()).is_none());
    }
}
