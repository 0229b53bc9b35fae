//! Choices read from bytes: a generator that knows the state asks for the next one.

/// The bytes not yet used.
pub(crate) struct Choices<'d>(&'d [u8]);

impl<'d> Choices<'d> {
    pub(crate) fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    /// The next byte; nothing when there is none.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of several; the first when the bytes are used up.
    pub(crate) fn of<'a, T>(&mut self, several: &'a [T]) -> &'a T {
        let at = usize::from(self.byte().unwrap_or(0)) % several.len();
        &several[at]
    }

    /// Up to 64 raw bytes, as lossy text.
    pub(crate) fn text(&mut self) -> String {
        let length = usize::from(self.byte().unwrap_or(0)) % 64;
        let (text, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
