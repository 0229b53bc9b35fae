//! Times whole flows without HTTP, ours and those of `oxide-auth`, in turn, in one process: the least of the batches.
//!
//! `transitions VARIANT FLOWS [BATCHES]` runs one variant only, once or so often, for a profiler.

use mcp_authz_bench::transitions::{Ours, Oxide, STEPS, run};

/// Batches of each variant. The least of them is the one the machine disturbed least.
const BATCHES: usize = 60;

/// Flows of one batch, on a server that is new.
const FLOWS: usize = 200;

fn batch(variant: &str, flows: usize) -> [f64; 4] {
    match variant {
        "ours" => run(&mut Ours::default(), flows),
        "oxide-auth" => run(&mut Oxide::new(true), flows),
        "oxide-auth-3" => run(&mut Oxide::new(false), flows),
        other => panic!("no variant {other}"),
    }
}

const VARIANTS: [(&str, &str); 3] = [
    ("ours", "ours"),
    ("oxide-auth", "oxide-auth"),
    ("oxide-auth-3", "oxide-auth, asking inside the first request"),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(variant), Some(flows)) = (arguments.next(), arguments.next()) {
        let batches: usize = arguments.next().map_or(1, |batches| batches.parse().unwrap());
        for _ in 0..batches {
            batch(&variant, flows.parse().unwrap());
        }
        return;
    }
    // Of each step the least, and the least whole: a step's least may come of another batch.
    let mut least = [([f64::INFINITY; 4], f64::INFINITY); VARIANTS.len()];
    for _ in 0..BATCHES {
        for ((variant, _), (steps, whole)) in VARIANTS.iter().zip(&mut least) {
            let times = batch(variant, FLOWS).map(|time| time / FLOWS as f64 / 1e3);
            *whole = whole.min(times.iter().sum());
            for (step, time) in steps.iter_mut().zip(times) {
                *step = step.min(time);
            }
        }
    }
    println!("one flow without HTTP and signatures, least of {BATCHES} batches of {FLOWS}, in microseconds");
    for ((_, title), (steps, whole)) in VARIANTS.iter().zip(least) {
        let steps: Vec<String> =
            STEPS.iter().zip(steps).map(|(name, time)| format!("{name} {time:5.2}")).collect();
        println!("{whole:6.2}  {title} ({})", steps.join("  "));
    }
    println!("ours / oxide-auth, four requests each: {:.2} (goal 0.50)", least[0].1 / least[1].1);
    println!("ours / oxide-auth with three requests: {:.2}", least[0].1 / least[2].1);
}
