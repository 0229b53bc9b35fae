//! Times every variant for every algorithm, in turn, in one process, and reports the least of the batches.
//!
//! Seconds on a shared machine wander; ratios of what ran side by side, and the time outside the signature, say more.

use std::hint::black_box;
use std::time::Instant;

use mcp_authz_bench::{ALGORITHMS, World};

/// Batches of each variant. The least of them is the one the machine disturbed least.
const BATCHES: usize = 60;

/// How long a batch takes, about, in nanoseconds.
const BATCH_NANOSECONDS: f64 = 1_500_000.0;

type Variant = (&'static str, fn(&mut World));

const VARIANTS: [Variant; 5] = [
    ("raw", |world| world.raw()),
    ("cold", |world| drop(black_box(world.cold()))),
    ("outside", |world| drop(black_box(world.outside()))),
    ("warm", |world| drop(black_box(world.warm()))),
    ("jsonwebtoken", |world| drop(black_box(world.jsonwebtoken()))),
];

/// Nanoseconds of one call, from a batch of so many.
fn batch(world: &mut World, variant: fn(&mut World), calls: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        variant(world);
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

/// The least nanoseconds of each variant, the variants alternating.
fn measure<const N: usize>(world: &mut World, variants: [fn(&mut World); N]) -> [f64; N] {
    let calls = variants.map(|variant| {
        let once = batch(world, variant, 50).max(10.0);
        (BATCH_NANOSECONDS / once) as u32 + 1
    });
    let mut least = [f64::INFINITY; N];
    for _ in 0..BATCHES {
        for ((variant, calls), least) in variants.into_iter().zip(calls).zip(&mut least) {
            *least = least.min(batch(world, variant, calls));
        }
    }
    least
}

fn main() {
    println!("least of {BATCHES} batches, in microseconds; in parentheses the multiple of raw");
    for algorithm in ALGORITHMS {
        let mut world = World::new(algorithm);
        let [raw, cold, outside, warm, other] = measure(&mut world, VARIANTS.map(|(_, variant)| variant));
        println!(
            "{:6} raw {:7.2}  cold {:7.2} ({:.3})  jsonwebtoken {:7.2} ({:.3})  outside the signature {:.3}  warm {:.3}",
            algorithm.name(),
            raw / 1e3,
            cold / 1e3,
            cold / raw,
            other / 1e3,
            other / raw,
            outside / 1e3,
            warm / 1e3,
        );
    }
    println!("outside the signature, by how many issuers and keys are configured");
    for (issuers, keys) in [(1, 1), (16, 1), (1, 64), (16, 64)] {
        let mut world = World::among(ALGORITHMS[0], issuers, keys);
        let [outside, warm] = measure(&mut world, [VARIANTS[2].1, VARIANTS[3].1]);
        println!("{issuers:2} issuers {keys:2} keys: {:.3}  warm {:.3}", outside / 1e3, warm / 1e3);
    }
}
