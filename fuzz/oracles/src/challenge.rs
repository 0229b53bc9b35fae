//! `WWW-Authenticate`: what is read means one thing however it is spelled, and nothing rendered can be read as more
//! than it is.

use mcp_authz::limits;
use mcp_authz::message::challenge::{BearerChallenge, Challenge, ChallengeError, parse_challenges};

/// Each line of the input is one field. Accepted fields keep the bounds, survive another spelling, and their
/// challenge renders to itself (I-A8, I-G1, I-G2).
pub fn challenge(data: &[u8]) {
    rendered_safely(data);
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let Ok(challenges) = parse_challenges(lines.iter().copied()) else { return };
    assert!(
        data.len() < limits::FIELD_BYTES && challenges.len() <= limits::CHALLENGES,
        "a bound is not kept"
    );
    challenges.iter().for_each(well_formed);

    let one_field: Vec<String> = challenges.iter().map(spelled).collect();
    same(&challenges, one_field.join(" ,\t,").as_bytes());
    same(&challenges, [b" ,, ", lines.join(&b", "[..]).as_slice(), b", ,"].concat().as_slice());
    repeated(&challenges);

    match BearerChallenge::find(&challenges) {
        Ok(Some(found)) => {
            let named =
                |known: &&Challenge| known.param("resource_metadata") == found.resource_metadata.as_deref();
            let usable = challenges.iter().filter(|known| usable(known));
            let naming = usable.filter(|known| known.param("resource_metadata").is_some());
            assert_eq!(
                naming.clone().filter(named).count(),
                naming.count(),
                "one of two documents was picked"
            );
            round_trip(&found);
        }
        Ok(None) => assert!(!challenges.iter().any(usable), "a usable challenge is overlooked"),
        Err(error) => assert_eq!(error, ChallengeError::Conflict),
    }
}

fn usable(challenge: &Challenge) -> bool {
    (challenge.has_scheme("bearer") || challenge.has_scheme("dpop")) && challenge.token68().is_none()
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn well_formed(challenge: &Challenge) {
    assert!(is_token(challenge.scheme()));
    let names: Vec<String> = challenge.params().map(|(name, _)| name.to_ascii_lowercase()).collect();
    assert!(names.len() <= limits::CHALLENGE_PARAMETERS && names.iter().all(|name| is_token(name)));
    assert!(names.is_empty() || challenge.token68().is_none(), "parameters beside a token68");
    for (at, (name, value)) in challenge.params().enumerate() {
        assert!(
            !names.iter().skip(at + 1).any(|other| other.eq_ignore_ascii_case(name)),
            "a parameter twice"
        );
        assert_eq!(challenge.param(&name.to_ascii_uppercase()), Some(value));
        assert!(value.chars().all(|character| character == '\t' || !character.is_ascii_control()));
    }
}

/// The same challenge with every value quoted and every character that may have a backslash given one.
fn spelled(challenge: &Challenge) -> String {
    let mut out = format!("{}  ", challenge.scheme());
    if let Some(token68) = challenge.token68() {
        out.push_str(token68);
    }
    for (name, value) in challenge.params() {
        let quoted: String = value.chars().flat_map(|character| ['\\', character]).collect();
        out.push_str(&format!(",{name}\t= \"{quoted}\","));
    }
    out
}

fn same(challenges: &[Challenge], field: &[u8]) {
    match parse_challenges([field]) {
        Ok(again) => assert_eq!(again, challenges, "another spelling means something else"),
        Err(error) => {
            assert_eq!(error, ChallengeError::TooLarge);
            assert!(field.len() >= limits::FIELD_BYTES);
        }
    }
}

fn repeated(challenges: &[Challenge]) {
    let Some(last) = challenges.last() else { return };
    let Some((name, _)) = last.params().next() else { return };
    let field = format!("{}, {}=x", spelled(last), name.to_ascii_uppercase());
    let error = parse_challenges([field.as_bytes()]).expect_err("a repeated parameter is accepted");
    assert!(matches!(error, ChallengeError::Duplicate | ChallengeError::TooLarge));
}

/// Any six texts render to one Bearer challenge in printable ASCII with no more than the six parameters.
fn rendered_safely(data: &[u8]) {
    let mut texts = data.splitn(6, |byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    round_trip(&BearerChallenge {
        realm: texts.next(),
        scope: texts.next(),
        error: texts.next(),
        error_description: texts.next(),
        error_uri: texts.next(),
        resource_metadata: texts.next(),
    });
}

fn round_trip(challenge: &BearerChallenge) {
    let field = challenge.render();
    assert!(field.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "not printable ASCII");
    if field.len() >= limits::FIELD_BYTES {
        return;
    }
    let read = parse_challenges([field.as_bytes()]).expect("our own challenge is refused");
    let [only] = read.as_slice() else { panic!("more than one challenge") };
    assert!(only.scheme() == "Bearer" && only.token68().is_none());
    assert!((1..=6).contains(&only.params().count()), "a lone scheme, or an injected parameter");
    let found =
        BearerChallenge::find(&read).expect("no conflict with itself").expect("it is a Bearer challenge");
    assert_eq!(found.render(), field);
    for (given, kept) in [
        (&challenge.scope, &found.scope),
        (&challenge.error, &found.error),
        (&challenge.error_uri, &found.error_uri),
        (&challenge.resource_metadata, &found.resource_metadata),
    ] {
        assert!(kept.is_none() || kept == given, "a machine-read value was changed");
    }
}
