//! Identifiers (placeholder until the grammar lands in the next commit).

use alloc::string::String;

macro_rules! identifier {
    ($name:ident) => {
        /// An identifier.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);
        impl $name {
            /// Takes the text.
            ///
            /// # Errors
            /// None yet.
            pub fn new(text: impl Into<String>) -> Result<Self, core::convert::Infallible> {
                Ok(Self(text.into()))
            }
            /// The exact text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}
identifier!(Issuer);
identifier!(ResourceId);
identifier!(Origin);
