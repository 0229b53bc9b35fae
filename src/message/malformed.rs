//! Why a message was refused.

use crate::syntax::form::FormError;
use crate::syntax::json::JsonError;

/// A message that breaks its specification; nothing of it was used.
///
/// It names members and parameters by our own constants and never repeats what the peer wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The body is not a JSON object of the strict grammar, or a member has another JSON type than it must have.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// The body or query is not strict form encoding, or a parameter is repeated.
    #[error("{0}")]
    Form(#[from] FormError),
    /// A member or parameter that the message must have is absent or empty.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A member or parameter breaks its grammar or a limit.
    #[error("`{0}` is not valid")]
    Invalid(&'static str),
    /// Two members or parameters that exclude each other are both there.
    #[error("`{0}` and `{1}` exclude each other")]
    Conflict(&'static str, &'static str),
    /// A member or parameter that must not be there is.
    #[error("`{0}` is not allowed here")]
    Forbidden(&'static str),
}

impl Malformed {
    /// The member or parameter at fault, where there is one.
    pub fn member(&self) -> Option<&'static str> {
        match self {
            Self::Json(JsonError::Missing(name) | JsonError::WrongType(name)) => Some(name),
            Self::Json(_) | Self::Form(_) => None,
            Self::Missing(name) | Self::Invalid(name) | Self::Conflict(name, _) | Self::Forbidden(name) => {
                Some(name)
            }
        }
    }
}
