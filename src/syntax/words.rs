//! Eight bytes at a time: how far a text goes on without a byte that needs a look.

/// How many bytes stand before the first that is marked.
///
/// `marks` is asked about eight bytes, the first of which is the lowest: the high bit of the first that is marked must be
/// the lowest that it sets, and it sets none where none is. `marked` is asked about each of the last seven at most.
#[inline]
pub(super) fn length_before(bytes: &[u8], marks: impl Fn(u64) -> u64, marked: impl Fn(u8) -> bool) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut length = 0_usize;
    for word in words {
        let plain = length_unmarked(marks(u64::from_le_bytes(*word)));
        length = length.saturating_add(plain);
        if plain < 8 {
            return length;
        }
    }
    length.saturating_add(rest.iter().take_while(|byte| !marked(**byte)).count())
}

/// How many of eight bytes stand before the first that is marked.
#[inline]
pub(super) fn length_unmarked(marks: u64) -> usize {
    usize::try_from((marks & HIGH).trailing_zeros()).unwrap_or_default() / 8
}

/// The byte eight times.
pub(super) const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

const HIGH: u64 = each(0x80);

/// Marks bytes below a byte, which is at most 0x80: one that is less is borrowed for by its high bit, and one from 0x80 on is not.
#[inline]
pub(super) fn below(word: u64, byte: u8) -> u64 {
    word.wrapping_sub(each(byte)) & !word
}

/// Marks bytes equal to a byte.
#[inline]
pub(super) fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ each(byte), 1)
}

/// Marks bytes beyond those that print in ASCII: from 0x7f on.
#[inline]
pub(super) fn beyond_print(word: u64) -> u64 {
    word | word.wrapping_add(each(1))
}
