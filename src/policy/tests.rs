//! The relaxations as text, and what they are scoped to.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;

use super::{
    AuthorizationExtras, InvalidRelaxation, LoopbackRedirect, Policy, PrivateNetworks, ProxyUrl, Relaxation,
};
use crate::identifier::{Issuer, Origin, RedirectUri, ResourceId};

fn issuer() -> Issuer {
    Issuer::new("https://as.example/t").unwrap()
}

/// One of each.
fn all() -> Vec<Relaxation> {
    let resource = ResourceId::new("https://mcp.example/notes?x=1").unwrap();
    let origin = || Origin::new("https://mcp.example").unwrap();
    [
        Relaxation::AssumeS256(issuer()),
        Relaxation::IssuerRootSlash(issuer()),
        Relaxation::OmitResource(issuer()),
        Relaxation::ResourcePathPrefix(resource.clone()),
        Relaxation::MetadataOnOtherOrigin(origin()),
        Relaxation::SharedRedirect(issuer()),
        Relaxation::AssertionAudience(issuer()),
        Relaxation::LegacyEndpoints(resource),
        Relaxation::LoopbackRedirect(LoopbackRedirect::new(issuer(), true, [8081, 8080]).unwrap()),
        Relaxation::AuthorizationExtras(
            AuthorizationExtras::new(issuer(), [("prompt", "consent & more"), ("audience", "https://api")])
                .unwrap(),
        ),
        Relaxation::PrivateNetworks(
            PrivateNetworks::new(origin(), ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
                .unwrap(),
        ),
        Relaxation::EgressProxy(ProxyUrl::enforcing_address_policy("http://proxy.example:3128").unwrap()),
        Relaxation::PrivateScheme(RedirectUri::private_scheme("com.example.app:/cb").unwrap()),
        Relaxation::PlaintextRecords,
    ]
    .into()
}

#[test]
fn every_relaxation_is_written_as_it_is_read_and_begins_with_its_name() {
    for relaxation in all() {
        let text = relaxation.to_string();
        assert_eq!(text.parse::<Relaxation>().as_ref(), Ok(&relaxation), "{text}");
        assert!(text.starts_with(relaxation.name()) && text.contains(relaxation.scope()), "{text}");
    }
    let texts: Vec<String> = all().iter().map(ToString::to_string).collect();
    assert!(texts.contains(&"LoopbackRedirect=https://as.example/t localhost 8080 8081".into()));
    assert!(texts.contains(&"PrivateNetworks=https://mcp.example 10.0.0.0/8 fd00::/8".into()));
    assert!(texts.contains(&"EgressProxy=http://proxy.example:3128 enforces-address-policy".into()));
}

#[test]
fn a_policy_lists_everything_and_comes_back_from_its_text() {
    let policy = all().into_iter().fold(Policy::strict(), Policy::relax);
    assert_eq!(policy.relaxations().len(), all().len());
    assert!(all().iter().all(|relaxation| policy.allows(relaxation)));
    let text = policy.to_string();
    assert_eq!(text.lines().count(), all().len());
    assert_eq!(text.parse::<Policy>(), Ok(policy.clone()));
    assert_eq!(String::from(policy), text);
    assert_eq!("".parse::<Policy>(), Ok(Policy::strict()));
}

// I-G8
#[test]
fn nothing_empty_and_nothing_unknown_relaxes() {
    for relaxation in all().iter().filter(|relaxation| **relaxation != Relaxation::PlaintextRecords) {
        let name = relaxation.name();
        assert_eq!(name.parse::<Relaxation>(), Err(InvalidRelaxation::NoScope), "{name}");
        assert_eq!(format!("{name}=").parse::<Relaxation>(), Err(InvalidRelaxation::NoScope), "{name}");
        for value in ["*", "as.example", "https://", "x y", "javascript:alert(1)"] {
            assert!(format!("{name}={value}").parse::<Relaxation>().is_err(), "{name}={value}");
        }
    }
    for text in [
        "",
        "=https://as.example",
        "assumes256=https://as.example",
        "AssumeS256=http://as.example",
        "AssumeS256=https://as.example https://other.example",
        "AssumeS256 =https://as.example",
        "PlaintextRecords=https://as.example",
        "PlaintextRecords=",
        "LoopbackRedirect=https://as.example",
        "LoopbackRedirect=https://as.example ",
        "LoopbackRedirect=https://as.example 0",
        "LoopbackRedirect=https://as.example 80 80",
        "LoopbackRedirect=https://as.example 80 localhost",
        "LoopbackRedirect=https://as.example 65536",
        "LoopbackRedirect=https://as.example 80  81",
        "LoopbackRedirect=https://as.example localhost localhost",
        "AuthorizationExtras=https://as.example",
        "AuthorizationExtras=https://as.example ",
        "AuthorizationExtras=https://as.example a=1&a=2",
        "AuthorizationExtras=https://as.example =1",
        "PrivateNetworks=https://mcp.example",
        "PrivateNetworks=https://mcp.example 0.0.0.0/0",
        "PrivateNetworks=https://mcp.example 10.0.0.0/8 127.0.0.0/8",
        "PrivateNetworks=https://mcp.example/path 10.0.0.0/8",
        "PrivateNetworks=10.0.0.0/8",
        "EgressProxy=http://proxy.example:3128",
        "EgressProxy=http://proxy.example:3128 trust-me",
        "EgressProxy=http://user:secret@proxy.example enforces-address-policy",
        "EgressProxy=http://proxy.example/path enforces-address-policy",
        "EgressProxy=socks5://proxy.example enforces-address-policy",
        "PrivateScheme=https://app.example/cb",
        "PrivateScheme=app:/cb",
    ] {
        assert!(text.parse::<Relaxation>().is_err(), "{text}");
    }
}

#[test]
fn the_clients_own_parameters_are_no_extras() {
    for name in [
        "state",
        "scope",
        "resource",
        "redirect_uri",
        "code_challenge",
        "request_uri",
        "response_mode",
        "STATE",
        "client_secret",
    ] {
        assert!(AuthorizationExtras::new(issuer(), [(name, "x")]).is_err(), "{name}");
        let text = format!("AuthorizationExtras=https://as.example ok=1&{name}=x");
        assert!(text.parse::<Relaxation>().is_err(), "{text}");
    }
    let none: [(&str, &str); 0] = [];
    assert!(AuthorizationExtras::new(issuer(), none).is_err());
}

// I-G2
#[test]
fn one_scope_has_one_relaxation_of_a_name() {
    let with = |port| Relaxation::LoopbackRedirect(LoopbackRedirect::new(issuer(), false, [port]).unwrap());
    let policy = Policy::strict().relax(with(1)).relax(with(2));
    assert_eq!(policy.relaxations().collect::<Vec<_>>(), [&with(2)]);
    let text = format!("{}\n{}", with(1), with(2));
    assert_eq!(text.parse::<Policy>(), Err(InvalidRelaxation::Twice { name: "LoopbackRedirect" }));
    assert_eq!(
        "PlaintextRecords\nPlaintextRecords".parse::<Policy>(),
        Err(InvalidRelaxation::Twice { name: "PlaintextRecords" })
    );
    let proxy = |text| Relaxation::EgressProxy(ProxyUrl::enforcing_address_policy(text).unwrap());
    let policy = Policy::strict().relax(proxy("http://a.example")).relax(proxy("http://b.example"));
    assert_eq!(policy.egress_proxy().map(ProxyUrl::host), Some("b.example"));
    assert_eq!(policy.relaxations().len(), 1);
}

#[test]
fn a_value_is_found_for_its_scope_alone() {
    let policy = all().into_iter().fold(Policy::strict(), Policy::relax);
    let other = Issuer::new("https://as.example").unwrap();
    assert!(policy.loopback_redirect(&issuer()).is_some() && policy.loopback_redirect(&other).is_none());
    assert!(
        policy.authorization_extras(&issuer()).is_some() && policy.authorization_extras(&other).is_none()
    );
    let networks = |text| policy.private_networks(&Origin::new(text).unwrap()).is_some();
    assert!(networks("https://mcp.example") && !networks("https://mcp.example:8443"));
    assert_eq!(policy.networks().count(), 2);
    let redirect = policy.loopback_redirect(&issuer()).unwrap();
    assert!(redirect.knows(Some(8080)) && !redirect.knows(Some(8082)) && !redirect.knows(None));
}

proptest! {
    // I-G1: whatever is read is written the same way.
    #[test]
    fn text_that_is_read_is_written_again(text in "[A-Za-z0-9]{0,18}(=[ -~]{0,40})?") {
        if let Ok(relaxation) = text.parse::<Relaxation>() {
            prop_assert_eq!(relaxation.to_string().parse(), Ok(relaxation));
        }
    }

    #[test]
    fn extras_survive_any_text(name in "[a-z]{1,8}_x", value in "\\PC{0,30}") {
        let extras = AuthorizationExtras::new(issuer(), [(name, value)]).unwrap();
        prop_assert_eq!(extras.to_string().parse(), Ok(extras));
    }
}
