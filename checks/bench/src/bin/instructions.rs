//! Runs one variant so many times, for callgrind: the difference of two numbers of runs is what one costs.

use std::hint::black_box;

use mcp_authz::jose::Algorithm;
use mcp_authz_bench::World;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(algorithm), Some(variant), Some(runs)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        panic!("instructions ALGORITHM raw|cold|outside|warm|jsonwebtoken RUNS");
    };
    let mut world = World::new(Algorithm::from_name(&algorithm).unwrap());
    for _ in 0..runs.parse::<u32>().unwrap() {
        match variant.as_str() {
            "raw" => world.raw(),
            "cold" => drop(black_box(world.cold())),
            "outside" => drop(black_box(world.outside())),
            "warm" => drop(black_box(world.warm())),
            "jsonwebtoken" => drop(black_box(world.jsonwebtoken())),
            other => panic!("no variant {other}"),
        }
    }
}
