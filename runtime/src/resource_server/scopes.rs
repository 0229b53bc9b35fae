//! Which scopes an operation needs: from the request's head, or from the JSON-RPC message in its body (D46).

use std::collections::BTreeMap;

use http::Method;
use http::request::Parts;
use mcp_authz::identifier::ScopeSet;
use mcp_authz::resource_server::{InvalidConfiguration, RequiredScopes};
use mcp_authz::syntax::json::{JsonObject, JsonValue};

/// Says what each operation needs. The same operation must always name the same scopes (MCP-AUTH-019).
///
/// A function from the head to the scopes is one.
pub trait OperationScopes: Send + Sync + 'static {
    /// The scopes as far as the head tells; the challenge for a request without a token names them.
    fn of_head(&self, head: &Parts) -> RequiredScopes;

    /// Whether the body has to be read to know.
    fn reads_body(&self, _head: &Parts) -> bool {
        false
    }

    /// The scopes once the body is read. They take the place of those of the head.
    ///
    /// # Errors
    /// [`UnreadableOperation`] for a body that does not say one thing only; the answer is 400.
    fn of_body(&self, head: &Parts, _body: &[u8]) -> Result<RequiredScopes, UnreadableOperation> {
        Ok(self.of_head(head))
    }
}

/// The body does not say, or says in two ways, which operation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body does not say which operation it asks for")]
pub struct UnreadableOperation;

impl<F: Fn(&Parts) -> RequiredScopes + Send + Sync + 'static> OperationScopes for F {
    fn of_head(&self, head: &Parts) -> RequiredScopes {
        self(head)
    }
}

/// The scopes of an MCP server on streamable HTTP, by JSON-RPC method and by tool.
///
/// Every request needs the base scopes, and those of its method and tool besides.
#[derive(Debug, Clone)]
pub struct McpScopes {
    base: ScopeSet,
    methods: BTreeMap<String, ScopeSet>,
    tools: BTreeMap<String, ScopeSet>,
    max_bytes: usize,
}

impl McpScopes {
    /// What every request needs.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn new(base: ScopeSet) -> Result<Self, InvalidConfiguration> {
        RequiredScopes::new(base.clone())?;
        Ok(Self { base, methods: BTreeMap::new(), tools: BTreeMap::new(), max_bytes: 1024 * 1024 })
    }

    /// What a JSON-RPC method needs besides.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn method(mut self, name: &str, scopes: ScopeSet) -> Result<Self, InvalidConfiguration> {
        RequiredScopes::new(scopes.clone())?;
        self.methods.insert(name.to_owned(), scopes);
        Ok(self)
    }

    /// What a call of a tool needs besides.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn tool(mut self, name: &str, scopes: ScopeSet) -> Result<Self, InvalidConfiguration> {
        RequiredScopes::new(scopes.clone())?;
        self.tools.insert(name.to_owned(), scopes);
        Ok(self)
    }

    /// What one message needs, checked against the head's account of it.
    fn of_message(&self, head: &Parts, message: &JsonObject) -> Result<ScopeSet, UnreadableOperation> {
        let mut scopes = self.base.clone();
        // A response or notification of the client has no method to look up, or one without scopes.
        let method = message.string("method").map_err(|_| UnreadableOperation)?;
        agrees(head, "mcp-method", method)?;
        let Some(method) = method else { return Ok(scopes) };
        if let Some(more) = self.methods.get(method) {
            scopes = scopes.union(more);
        }
        if method == "tools/call" {
            let params =
                message.object("params").map_err(|_| UnreadableOperation)?.ok_or(UnreadableOperation)?;
            let name = params.required_string("name").map_err(|_| UnreadableOperation)?;
            agrees(head, "mcp-name", Some(name))?;
            if let Some(more) = self.tools.get(name) {
                scopes = scopes.union(more);
            }
        }
        Ok(scopes)
    }

    /// The messages of a body: one object, or the objects of an array (the batches of revision 2025-03-26).
    fn messages(&self, body: &[u8]) -> Result<Vec<JsonObject>, UnreadableOperation> {
        if body.trim_ascii_start().first() != Some(&b'[') {
            return Ok(vec![JsonObject::parse(body, self.max_bytes).map_err(|_| UnreadableOperation)?]);
        }
        let wrapped = [b"{\"batch\":".as_slice(), body, b"}"].concat();
        let limit = self.max_bytes.saturating_add(16);
        let object = JsonObject::parse(&wrapped, limit).map_err(|_| UnreadableOperation)?;
        let (Some(JsonValue::Array(entries)), 1) = (object.get("batch"), object.names().count()) else {
            return Err(UnreadableOperation);
        };
        entries
            .iter()
            .map(|entry| match entry {
                JsonValue::Object(message) => Ok(message.clone()),
                _ => Err(UnreadableOperation),
            })
            .collect()
    }
}

/// A header that repeats a member of the body must equal it; several of them are an error.
fn agrees(head: &Parts, field: &'static str, member: Option<&str>) -> Result<(), UnreadableOperation> {
    let mut values = head.headers.get_all(field).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if member.is_some_and(|member| member.as_bytes() == value.as_bytes()) => Ok(()),
        _ => Err(UnreadableOperation),
    }
}

impl OperationScopes for McpScopes {
    fn of_head(&self, _head: &Parts) -> RequiredScopes {
        // Checked when they were set: the same constructor cannot fail here.
        RequiredScopes::new(self.base.clone()).unwrap_or_default()
    }

    fn reads_body(&self, head: &Parts) -> bool {
        head.method == Method::POST
    }

    fn of_body(&self, head: &Parts, body: &[u8]) -> Result<RequiredScopes, UnreadableOperation> {
        let messages = self.messages(body)?;
        if messages.is_empty() {
            return Err(UnreadableOperation);
        }
        // D46: each element of a batch is authorized, so the request needs what they need together.
        let mut scopes = ScopeSet::new();
        for message in &messages {
            scopes = scopes.union(&self.of_message(head, message)?);
        }
        RequiredScopes::new(scopes).map_err(|_| UnreadableOperation)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::request::Parts;
    use mcp_authz::identifier::ScopeSet;

    use super::{McpScopes, OperationScopes as _};

    fn scopes() -> McpScopes {
        let set = |text| ScopeSet::parse(text).unwrap();
        McpScopes::new(set("notes:read")).unwrap().tool("write_note", set("notes:write")).unwrap()
    }

    fn head(fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/mcp");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn needed(fields: &[(&str, &str)], body: &str) -> Option<String> {
        let required = scopes().of_body(&head(fields), body.as_bytes()).ok()?;
        Some(required.scopes().to_string())
    }

    const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    const WRITE: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"write_note"}}"#;

    // D46
    #[test]
    fn a_tool_adds_its_scopes_to_the_base() {
        assert_eq!(needed(&[], LIST).unwrap(), "notes:read");
        assert_eq!(needed(&[], WRITE).unwrap(), "notes:read notes:write");
        assert_eq!(needed(&[], &format!("[{LIST},{WRITE}]")).unwrap(), "notes:read notes:write");
    }

    // D46
    #[test]
    fn what_does_not_say_one_thing_is_refused() {
        for body in [
            "",
            "[]",
            "null",
            "[1]",
            "{",
            r#"{"method":"tools/list","method":"tools/call"}"#,
            r#"{"method":"tools/call"}"#,
            r#"{"method":"tools/call","params":{}}"#,
            r#"{"method":["tools/call"]}"#,
            r#"[{"method":"tools/list"}],"x":1"#,
        ] {
            assert_eq!(needed(&[], body), None, "{body}");
        }
    }

    // D46
    #[test]
    fn headers_that_repeat_the_body_agree_with_it() {
        let right = [("mcp-method", "tools/call"), ("mcp-name", "write_note")];
        assert_eq!(needed(&right, WRITE).unwrap(), "notes:read notes:write");
        assert_eq!(needed(&[("mcp-method", "tools/list")], WRITE), None);
        assert_eq!(needed(&[("mcp-name", "read_note")], WRITE), None);
        assert_eq!(needed(&[("mcp-method", "tools/call"), ("mcp-method", "tools/call")], WRITE), None);
        assert_eq!(needed(&[("mcp-method", "tools/call")], r#"{"id":1,"result":{}}"#), None);
    }
}
