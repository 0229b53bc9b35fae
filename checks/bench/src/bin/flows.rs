//! Whole flows over HTTP, each an authorization request, a code for tokens and a refresh, as fast as a server answers
//! them over so many connections: `mcp-authz serve` and npm's oidc-provider, each on each store, in turn.
//!
//! `flows TOOL NODE NODE_MODULES SCRIPT [SECONDS [ROUNDS [CONNECTIONS...]]]`

use std::time::Duration;

use mcp_authz_bench::postgres::Postgres;
use mcp_authz_bench::server::{Rival, Server};

/// Connections above which oidc-provider's store in memory, of a thousand entries, forgets flows before they end.
const REMEMBERED: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tool, node, modules, script, rest @ ..] = arguments.as_slice() else {
        panic!("flows TOOL NODE NODE_MODULES SCRIPT [SECONDS [ROUNDS [CONNECTIONS...]]]");
    };
    let number = |at: usize, default: f64| rest.get(at).map_or(default, |text| text.parse().unwrap());
    let (time, rounds) = (Duration::from_secs_f64(number(0, 3.0)), number(1, 5.0) as usize);
    let connections: Vec<usize> = match rest.get(2..) {
        None | Some([]) => vec![64, 256],
        Some(given) => given.iter().map(|text| text.parse().unwrap()).collect(),
    };
    assert!(rounds % 2 == 1, "an odd number of rounds has a median");
    assert!(
        connections.iter().any(|&connections| connections <= REMEMBERED),
        "oidc-provider in memory takes part with at most {REMEMBERED} connections"
    );
    let rival = Rival { node, modules, script };
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start();
    let file = folder.path().join("theirs.db");
    let mut stores = [
        ("memory", "memory".to_owned(), None),
        ("SQLite", "sqlite:store.db".to_owned(), file.to_str().map(str::to_owned)),
        ("PostgreSQL", postgres.url(), Some(postgres.url())),
    ]
    .map(|(name, ours, theirs)| {
        let place = [format!("{name}.ours"), format!("{name}.theirs")].map(|place| folder.path().join(place));
        place.iter().for_each(|place| std::fs::create_dir(place).unwrap());
        let servers = [
            Server::ours(tool, &place[0], &ours),
            Server::oidc_provider(&rival, &place[1], theirs.as_deref()),
        ];
        // Of each number of connections, of ours and theirs, the rate in each round.
        (name, servers, vec![[Vec::new(), Vec::new()]; connections.len()])
    });
    println!(
        "authorizations a second, medians of {rounds} rounds of {} s, one server after the other",
        time.as_secs_f64()
    );
    for _ in 0..rounds {
        for (name, servers, rates) in &mut stores {
            for (&connections, rates) in connections.iter().zip(rates) {
                let forgets = *name == "memory" && connections > REMEMBERED;
                let those = if forgets { &servers[..1] } else { &servers[..] };
                for (server, rates) in those.iter().zip(rates) {
                    rates.push(server.measure(connections, time));
                }
            }
        }
    }
    println!("store       connections   serve   oidc-provider");
    for (name, _, rates) in &stores {
        for (connections, [ours, theirs]) in connections.iter().zip(rates) {
            let theirs =
                if theirs.is_empty() { "forgets".to_owned() } else { format!("{:.0}", median(theirs)) };
            println!("{name:10} {connections:12} {:7.0} {theirs:>15}", median(ours));
        }
    }
    // Each over as many connections as suit it best.
    let bests = stores.map(|(name, _, rates)| {
        let best = |which: usize| {
            let all = rates.iter().map(|rates| &rates[which]).filter(|rates| !rates.is_empty());
            all.max_by(|one, other| median(one).total_cmp(&median(other))).unwrap().clone()
        };
        (name, best(0), best(1))
    });
    // The machine wanders: what was measured in one round is compared.
    let times = |ours: &[f64], theirs: &[f64]| {
        median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
    };
    let in_memory = bests[0].2.clone();
    println!(
        "each over as many connections as suit it best: times oidc-provider in memory, and on the same store"
    );
    for (name, ours, theirs) in &bests {
        println!("{name:10} {:7.1} {:7.1}", times(ours, &in_memory), times(ours, theirs));
    }
}

/// What half of them are above.
fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
