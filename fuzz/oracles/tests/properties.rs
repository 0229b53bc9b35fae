//! The state-aware oracles over generated sequences, on stable: what a fuzz run looks for with more time.

use mcp_authz_fuzz_oracles::{client_flow, server_flow};
use proptest::collection::vec;
use proptest::prelude::*;

/// One operation of the server's oracle, in the bytes it reads.
fn operation() -> impl Strategy<Value = Vec<u8>> {
    let any_of = |bytes: Vec<u8>| prop::sample::select(bytes);
    prop_oneof![
        3 => Just(vec![0, 15]),
        // A wrong parameter, its text (none, so that one of the listed values is taken), and what goes wrong besides.
        4 => (0_u8..8, 0_u8..5, 0_u8..8, 0_u8..4).prop_map(|(at, value, second, fault)| vec![0, at, 0, value, second, fault]),
        4 => (0_u8..3, any_of(vec![0, 1, 2, 3, 4, 8, 11]), 0_u8..3)
            .prop_map(|(which, answer, scopes)| vec![2, which, answer, scopes]),
        6 => (0_u8..3, any_of(vec![0, 0, 0, 1, 2, 3, 4, 5, 6])).prop_map(|(which, change)| vec![3, which, change]),
        3 => (0_u8..4, 0_u8..8).prop_map(|(which, change)| vec![5, which, change]),
        // Time passes, up to three minutes: a code lives one.
        2 => (0_u8..60).prop_map(|time| vec![7, time, 0]),
        1 => (0_u8..4, 0_u8..2).prop_map(|(which, client)| vec![6, which, client]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    // I-C1, I-C2, I-C3, I-C4, I-C8, I-R1, I-R5, I-T1, I-T8
    #[test]
    fn the_server_holds_for_any_sequence_of_requests(operations in vec(operation(), 0..60)) {
        // A code to begin with: authorized, approved, redeemed.
        let begun = [vec![0, 15], vec![2, 0, 0, 1], vec![3, 0, 0]];
        server_flow(&begun.into_iter().chain(operations).flatten().collect::<Vec<u8>>());
    }

    // I-L3, I-L4, I-L6, I-L7, I-L8
    #[test]
    fn the_client_holds_for_a_login_with_a_few_other_choices(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut choices = *include_bytes!("../../corpus/client_flow/happy");
        for (at, choice) in changes {
            let at = at.index(choices.len());
            choices[at] = choice;
        }
        client_flow(&choices);
    }
}
