//! Requests that meet: every order of their store actions, or many random ones. Whatever the order, a code mints once,
//! a family has at most one live leaf, and what was revoked stays so.

use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::identifier::ClientId;
use proptest::prelude::*;

use crate::grants::{APP, Request, World, family, tokens};
use crate::token_host::{Answer, Flow};

/// Somebody whose actions come between those of others.
enum Actor {
    Client(Box<Option<Flow>>),
    Withdrawal(Option<RevokeAll>),
}

impl Actor {
    fn asks(request: &Request, world: &World) -> Self {
        Self::Client(Box::new(Some(request.begin(&world.server))))
    }

    fn revokes(request: &Request, world: &World) -> Self {
        Self::Client(Box::new(Some(request.begin_revocation(&world.server))))
    }

    /// The person ends what they granted the client.
    fn withdraws() -> Self {
        let client_id = ClientId::new(APP).unwrap();
        Self::Withdrawal(Some(RevokeAll::of(RevocationTarget::Consent { subject: "ann".into(), client_id })))
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Client(flow) => flow.as_ref().as_ref().is_none_or(Flow::is_done),
            Self::Withdrawal(action) => action.is_none(),
        }
    }

    fn act(&mut self, world: &mut World) {
        match self {
            Self::Client(flow) => {
                **flow = flow.take().map(|flow| flow.advance(&mut world.store, &mut world.entropy));
            }
            Self::Withdrawal(action) => {
                let _done = action.take().map(|action| world.store.revoke_all(action));
            }
        }
        // I-T1
        assert!(world.store.live_leaves(family()) <= 1);
    }

    fn answer(self) -> Option<Answer> {
        match self {
            Self::Client(flow) => (*flow).map(Flow::answer),
            Self::Withdrawal(_) => None,
        }
    }
}

/// Runs one order: at each step, `choose` picks among the actors that are not done.
fn run(
    mut world: World,
    mut actors: Vec<Actor>,
    mut choose: impl FnMut(usize) -> usize,
) -> (World, Vec<Answer>) {
    loop {
        let waiting: Vec<usize> = (0..actors.len()).filter(|at| !actors[*at].is_done()).collect();
        if waiting.is_empty() {
            return (world, actors.into_iter().filter_map(Actor::answer).collect());
        }
        actors[waiting[choose(waiting.len())]].act(&mut world);
    }
}

/// Every order of the actors' actions, each in a fresh world; the number of orders.
fn every_order(start: impl Fn() -> (World, Vec<Actor>), mut check: impl FnMut(World, Vec<Answer>)) -> usize {
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut orders = 0;
    loop {
        let (world, actors) = start();
        let mut depth = 0;
        let (world, answers) = run(world, actors, |waiting| {
            if depth == path.len() {
                path.push((0, waiting));
            }
            depth += 1;
            path[depth - 1].0
        });
        check(world, answers);
        orders += 1;
        while path.last().is_some_and(|(chosen, of)| chosen + 1 == *of) {
            path.pop();
        }
        match path.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return orders,
        }
    }
}

fn granted(answers: &[Answer]) -> Vec<&Answer> {
    answers.iter().filter(|answer| answer.is_success()).collect()
}

/// That no refresh token of these answers is worth anything.
fn assert_dead(world: &mut World, answers: &[Answer]) {
    assert_eq!(world.store.live_leaves(family()), 0);
    for answer in granted(answers).into_iter().filter(|answer| !answer.respond.body().is_empty()) {
        let refresh = tokens(answer).refresh_token.unwrap();
        assert_eq!(world.send(&Request::refresh(APP, refresh.expose())).error().1, "invalid_grant");
    }
}

// I-C1, I-C3 (a), OAUTH21-4.1.3-1
#[test]
fn two_redemptions_of_one_code_mint_once_in_every_order() {
    let start = || {
        let world = World::with_code_for(APP);
        let actors = vec![Actor::asks(&Request::code(APP), &world), Actor::asks(&Request::code(APP), &world)];
        (world, actors)
    };
    let orders = every_order(start, |mut world, answers| {
        assert_eq!(granted(&answers).len(), 1);
        assert_eq!(world.store.revocation(family()), Some("code_replayed"));
        assert_dead(&mut world, &answers);
    });
    assert!(orders >= 70, "{orders}");
}

// I-C3 (b): a guesser between the owner's actions takes nothing from the owner.
#[test]
fn a_wrong_guess_beside_a_redemption_costs_its_owner_nothing_in_any_order() {
    let wrong = "verifier-verifier-verifier-verifier-verifieR";
    every_order(
        || {
            let world = World::with_code_for(APP);
            let guess = Request::code(APP).with("code_verifier", wrong);
            let actors = vec![Actor::asks(&Request::code(APP), &world), Actor::asks(&guess, &world)];
            (world, actors)
        },
        |world, answers| {
            assert_eq!(granted(&answers).len(), 1);
            assert!(!world.store.is_revoked(family()));
            assert_eq!(world.store.live_leaves(family()), 1);
        },
    );
}

// I-C3 (a), I-T1: a replay ends the family, wherever a refresh stands.
#[test]
fn a_replay_beside_a_refresh_leaves_nothing_alive_in_any_order() {
    every_order(
        || {
            let mut world = World::with_code_for(APP);
            let refresh = world.refresh_token();
            let actors = vec![
                Actor::asks(&Request::code(APP), &world),
                Actor::asks(&Request::refresh(APP, &refresh), &world),
            ];
            (world, actors)
        },
        |mut world, answers| {
            assert!(world.store.is_revoked(family()));
            assert!(!answers[0].is_success());
            assert_dead(&mut world, &answers);
        },
    );
}

// I-T1, I-T2, MCP-SEC-004
#[test]
fn two_refreshes_with_one_token_rotate_once_in_every_order() {
    let orders = every_order(
        || {
            let mut world = World::with_code_for(APP);
            let refresh = Request::refresh(APP, &world.refresh_token());
            let actors = vec![Actor::asks(&refresh, &world), Actor::asks(&refresh, &world)];
            (world, actors)
        },
        |mut world, answers| {
            assert_eq!(granted(&answers).len(), 1);
            assert_eq!(world.store.revocation(family()), Some("refresh_reused"));
            assert_dead(&mut world, &answers);
        },
    );
    assert!(orders >= 70, "{orders}");
}

// RFC7009-2-1, I-T1: after the client's own revocation nothing lives, rotated or not.
#[test]
fn a_revocation_beside_a_rotation_wins_in_every_order() {
    every_order(
        || {
            let mut world = World::with_code_for(APP);
            let refresh = world.refresh_token();
            let actors = vec![
                Actor::asks(&Request::refresh(APP, &refresh), &world),
                Actor::revokes(&Request::revocation(APP, &refresh), &world),
            ];
            (world, actors)
        },
        |mut world, answers| {
            assert_eq!(answers[1].respond.status(), 200);
            assert!(world.store.is_revoked(family()));
            assert_dead(&mut world, &answers);
        },
    );
}

// I-T4, OAUTH21-4.3.3-3: consent withdrawn before a commit stops it, after it kills what came of it.
#[test]
fn a_withdrawal_beside_a_refresh_or_a_redemption_wins_in_every_order() {
    for redeemed in [false, true] {
        let (mut before, mut after) = (0, 0);
        every_order(
            || {
                let mut world = World::with_code_for(APP);
                let request =
                    if redeemed { Request::refresh(APP, &world.refresh_token()) } else { Request::code(APP) };
                let actors = vec![Actor::asks(&request, &world), Actor::withdraws()];
                (world, actors)
            },
            |mut world, answers| {
                match granted(&answers).first() {
                    Some(answer) => {
                        after += 1;
                        let refresh = tokens(answer).refresh_token.unwrap();
                        assert_eq!(
                            world.send(&Request::refresh(APP, refresh.expose())).error().1,
                            "invalid_grant"
                        );
                    }
                    None => before += 1,
                }
                assert!(!world.send(&Request::code(APP)).is_success());
            },
        );
        // The withdrawal may come before any of the four actions, or after all of them.
        assert_eq!((before, after), (4, 1), "{redeemed}");
    }
}

// I-C1: the process dies after the commit and before the reply; the tokens are lost, and nobody gets a second set.
#[test]
fn a_commit_whose_reply_is_lost_mints_nothing_twice() {
    let mut world = World::with_code_for(APP);
    let mut flow = Request::code(APP).begin(&world.server);
    while !matches!(flow, Flow::Redeem(..)) {
        flow = flow.advance(&mut world.store, &mut world.entropy);
    }
    let Flow::Redeem(action, state) = flow else { panic!() };
    let _lost = world.store.redeem_code(action);
    assert_eq!(state.store_failed().status(), 503);
    assert_eq!(world.send(&Request::code(APP)).error().1, "invalid_grant");
    assert!(world.store.is_revoked(family()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // I-C1, I-T1
    #[test]
    fn many_redemptions_in_any_order_mint_once(clients in 2_usize..8, seed in proptest::collection::vec(any::<u16>(), 60)) {
        let world = World::with_code_for(APP);
        let actors = (0..clients).map(|_| Actor::asks(&Request::code(APP), &world)).collect();
        let mut at = 0;
        let (mut world, answers) = run(world, actors, |waiting| {
            at += 1;
            usize::from(seed[at % seed.len()]) % waiting
        });
        prop_assert_eq!(granted(&answers).len(), 1);
        prop_assert!(world.store.is_revoked(family()));
        assert_dead(&mut world, &answers);
    }

    // I-T1, I-T2, I-T4: refreshes, replays, revocations and a withdrawal all at once.
    #[test]
    fn at_most_one_leaf_lives_whatever_meets(
        kinds in proptest::collection::vec(0_u8..10, 2..7),
        seed in proptest::collection::vec(any::<u16>(), 60),
    ) {
        let mut world = World::with_code_for(APP);
        let refresh = world.refresh_token();
        let actors = kinds.iter().map(|kind| match kind {
            0 => Actor::asks(&Request::code(APP), &world),
            1 => Actor::revokes(&Request::revocation(APP, &refresh), &world),
            2 => Actor::withdraws(),
            _ => Actor::asks(&Request::refresh(APP, &refresh), &world),
        }).collect();
        let mut at = 0;
        let (world, answers) = run(world, actors, |waiting| {
            at += 1;
            usize::from(seed[at % seed.len()]) % waiting
        });
        let rotated = granted(&answers).into_iter().filter(|answer| !answer.respond.body().is_empty()).count();
        prop_assert!(rotated <= 1);
        if kinds.contains(&1) || kinds.contains(&0) {
            prop_assert_eq!(world.store.live_leaves(family()), 0);
        }
    }
}
