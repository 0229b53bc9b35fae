//! What is overwritten with zeroes as it is dropped: secrets, and whatever may hold one.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use zeroize::Zeroize as _;

/// A value whose memory is overwritten with zeroes as it is dropped.
///
/// `zeroize::Zeroizing`, which signatures for hosts have, does the same byte by byte for all but slices. Here every
/// value is erased as a slice, which takes an eighth of the time, and one that holds no memory is left alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Erased<T: Erase>(T);

/// What [`Erased`] can hold.
pub(crate) trait Erase {
    /// Overwrites all of its memory with zeroes.
    fn erase(&mut self);
}

impl Erase for Vec<u8> {
    fn erase(&mut self) {
        if self.capacity() == 0 {
            return;
        }
        // I-G7
        self.as_mut_slice().zeroize();
        if self.len() < self.capacity() {
            self.spare_capacity_mut().zeroize();
        }
    }
}

impl Erase for String {
    fn erase(&mut self) {
        core::mem::take(self).into_bytes().erase();
    }
}

impl<const N: usize> Erase for [u8; N] {
    fn erase(&mut self) {
        // I-G7
        self.as_mut_slice().zeroize();
    }
}

impl<T: Erase> Erased<T> {
    /// Takes the value over.
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T: Erase> Drop for Erased<T> {
    fn drop(&mut self) {
        self.0.erase();
    }
}

impl<T: Erase> Deref for Erased<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Erase> DerefMut for Erased<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::{Erase as _, Erased};

    // I-G7
    #[test]
    fn what_is_erased_is_zero() {
        for length in 0..100 {
            let mut bytes = vec![7_u8; length];
            bytes.erase();
            assert_eq!(bytes, vec![0; length]);
        }
        let mut array = [7_u8; 33];
        array.erase();
        assert_eq!(array, [0; 33]);
        Vec::new().erase();
    }

    // I-G7
    #[test]
    fn it_is_erased_as_it_is_dropped() {
        struct Told<'a>(&'a mut bool);
        impl super::Erase for Told<'_> {
            fn erase(&mut self) {
                *self.0 = true;
            }
        }
        let mut erased = false;
        drop(Erased::new(Told(&mut erased)));
        assert!(erased);
    }
}
