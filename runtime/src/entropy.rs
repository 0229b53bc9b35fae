//! Randomness: the operating system's, asked for at each draw or ahead.

use std::cell::RefCell;

use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use zeroize::{Zeroize as _, Zeroizing};

/// The operating system's generator (`getrandom`), which never gives bytes before it is seeded.
///
/// Each draw is a system call. A host whose process or machine is copied while it serves draws from here and nowhere else.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        // OAUTH21-7.7-1
        getrandom::fill(buffer).map_err(|_| EntropyUnavailable)
    }
}

/// Bytes that each thread draws ahead, four kilobytes at a time: for a server that answers many requests.
///
/// They come of the cryptographic library's generator, which the operating system seeds, where it is built in (feature
/// `aws-lc-rs`), and of the operating system's own where it is not. A byte is given once: it is erased from the stock as it
/// is given, and what is left is erased with the thread. A process that was forked draws anew, because it finds the stock
/// to be another process's. A copy of a running machine finds out nothing: it repeats what is in stock, so that a host
/// that is copied like that uses [`OsEntropy`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadEntropy;

/// How many bytes a thread has in stock at most.
const STOCK: usize = 4096;

struct Stock {
    /// Whose it is.
    process: u32,
    bytes: Zeroizing<[u8; STOCK]>,
    /// So many are left, at the front.
    left: usize,
}

thread_local! {
    static STOCK_OF_THREAD: RefCell<Stock> =
        RefCell::new(Stock { process: 0, bytes: Zeroizing::new([0; STOCK]), left: 0 });
}

impl Entropy for ThreadEntropy {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        let of_stock = STOCK_OF_THREAD.try_with(|stock| {
            let mut stock = stock.try_borrow_mut().ok()?;
            stock.give(buffer, std::process::id())
        });
        match of_stock {
            Ok(Some(given)) => given,
            // More than there ever is in stock, or the thread is about to end.
            _ => draw(buffer),
        }
    }
}

impl Stock {
    /// Gives so many bytes to that process; `None` where no stock has so many.
    fn give(&mut self, buffer: &mut [u8], process: u32) -> Option<Result<(), EntropyUnavailable>> {
        if buffer.len() > STOCK {
            return None;
        }
        if self.process != process || self.left < buffer.len() {
            // Nothing is in stock before all of it is new.
            self.left = 0;
            if let Err(error) = draw(self.bytes.as_mut_slice()) {
                return Some(Err(error));
            }
            (self.left, self.process) = (STOCK, process);
        }
        let rest = self.left.checked_sub(buffer.len())?;
        let given = self.bytes.get_mut(rest..self.left)?;
        buffer.copy_from_slice(given);
        given.zeroize();
        self.left = rest;
        Some(Ok(()))
    }
}

fn draw(buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
    // OAUTH21-7.7-1
    #[cfg(feature = "aws-lc-rs")]
    return aws_lc_rs::rand::fill(buffer).map_err(|_| EntropyUnavailable);
    #[cfg(not(feature = "aws-lc-rs"))]
    return OsEntropy.fill(buffer);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use mcp_authz::entropy::Entropy;
    use zeroize::Zeroizing;

    use super::{OsEntropy, STOCK, Stock, ThreadEntropy};

    fn two_draws_differ(mut entropy: impl Entropy) {
        let (mut first, mut second) = ([0_u8; 32], [0_u8; 32]);
        entropy.fill(&mut first).unwrap();
        entropy.fill(&mut second).unwrap();
        assert_ne!(first, second);
        assert_ne!(first, [0; 32]);
    }

    #[test]
    fn two_draws_of_either_source_differ() {
        two_draws_differ(OsEntropy);
        two_draws_differ(ThreadEntropy);
    }

    // I-G10: also where a stock ends, and in another thread.
    #[test]
    fn no_draw_ever_repeats_another() {
        let draws = || {
            let draw = |_| {
                let mut bytes = [0; 24];
                ThreadEntropy.fill(&mut bytes).unwrap();
                bytes
            };
            (0..500).map(draw).collect::<Vec<_>>()
        };
        let other = std::thread::spawn(draws).join().unwrap();
        let all: HashSet<[u8; 24]> = draws().into_iter().chain(other).collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn a_draw_of_more_than_the_stock_is_all_random() {
        let mut bytes = [0; 2 * STOCK];
        ThreadEntropy.fill(&mut bytes).unwrap();
        assert!(bytes.chunks(16).all(|piece| piece.iter().any(|byte| *byte != 0)));
    }

    fn empty() -> Stock {
        Stock { process: 0, bytes: Zeroizing::new([0; STOCK]), left: 0 }
    }

    // I-G10: the child of a fork has its parent's memory, and must not give its parent's bytes.
    #[test]
    fn a_stock_is_of_one_process() {
        let (mut stock, mut bytes) = (empty(), [0; 32]);
        stock.give(&mut bytes, 1).unwrap().unwrap();
        let (of_parent, left) = (*stock.bytes, stock.left);
        let mut child = Stock { process: stock.process, bytes: Zeroizing::new(of_parent), left };
        let (mut here, mut there) = ([0; 32], [0; 32]);
        stock.give(&mut here, 1).unwrap().unwrap();
        child.give(&mut there, 2).unwrap().unwrap();
        assert_ne!(here, there);
        assert!(!of_parent.windows(32).any(|window| window == there));
    }

    // I-G7
    #[test]
    fn what_was_given_is_in_stock_no_more() {
        let (mut stock, mut bytes) = (empty(), [0; 32]);
        for _ in 0..STOCK / 32 {
            stock.give(&mut bytes, 1).unwrap().unwrap();
            assert!(!stock.bytes.windows(32).any(|window| window == bytes));
        }
        assert_eq!((stock.left, *stock.bytes), (0, [0; STOCK]));
    }
}
