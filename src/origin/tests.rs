use super::*;

fn uri(text: &str) -> Uri {
    text.parse().unwrap()
}

#[test]
fn spelling_makes_no_difference() {
    for text in [
        "https://api.ploton.ai",
        "https://api.ploton.ai/v1/tasks?limit=1",
        "https://API.Ploton.AI:443/v1",
        "HTTPS://api.ploton.ai./v1",
        "https://api.ploton.ai:/v1",
        "https://user:word@api.ploton.ai/v1",
    ] {
        assert!(Origin::default().contains(&uri(text)), "{text}");
    }
}

#[test]
fn look_alikes_are_other_origins() {
    for text in [
        "http://api.ploton.ai/v1",
        "https://api.ploton.ai:8443/v1",
        "https://api.ploton.ai.evil.example/v1",
        "https://api.ploton.ai@evil.example/v1",
        "https://evil.example/api.ploton.ai",
        "https://xapi.ploton.ai/v1",
        "https://ploton.ai/v1",
        "https://api.ploton.ai..",
        "https://api.ploton.ai:99999/v1",
        "https://api.ploton.ai:+443/v1",
        "https://api.ploton.ai:443:443/v1",
        "https://api.ploton.ai%2eevil.example/v1",
        "https://api.ploton.ai,evil.example/v1",
        "https://[api.ploton.ai]/v1",
        "https://evil.example?https://api.ploton.ai/",
        "/v1/tasks",
        "api.ploton.ai:443",
        "*",
    ] {
        let Ok(parsed) = text.parse::<Uri>() else {
            continue;
        };
        assert!(!Origin::default().contains(&parsed), "{text}");
    }
}

#[test]
fn addresses_are_compared_as_addresses() {
    let origin = Origin::parse("http://[::1]:8080").unwrap();
    assert!(origin.contains(&uri("http://[0:0:0:0:0:0:0:1]:8080/v1")));
    assert!(!origin.contains(&uri("http://[::2]:8080/v1")));
    assert!(!origin.contains(&uri("http://[::1]a:8080/v1")));
    let origin = Origin::parse("http://127.0.0.1:8080").unwrap();
    assert!(origin.contains(&uri("http://127.0.0.1:8080/v1")));
    assert!(!origin.contains(&uri("http://127.0.0.1:8081/v1")));
    assert!(!origin.contains(&uri("https://127.0.0.1:8080/v1")));
}

#[test]
fn plain_http_to_the_host_is_seen_on_any_port() {
    let origin = Origin::default();
    assert!(origin.is_in_the_clear(&uri("http://api.ploton.ai/v1")));
    assert!(origin.is_in_the_clear(&uri("http://API.ploton.ai.:8080/v1")));
    assert!(!origin.is_in_the_clear(&uri("https://api.ploton.ai/v1")));
    assert!(!origin.is_in_the_clear(&uri("http://evil.example/v1")));
    let loopback = Origin::parse("http://localhost:1").unwrap();
    assert!(!loopback.is_in_the_clear(&uri("http://localhost:1/v1")));
}

#[test]
fn what_is_no_origin_says_why() {
    let table = [
        ("https://b\u{fc}cher.example", Fault::NotAscii),
        ("", Fault::Uri),
        ("https://", Fault::Uri),
        ("api.ploton.ai", Fault::Scheme),
        ("ftp://api.ploton.ai", Fault::Scheme),
        ("/v1", Fault::More),
        ("https://api.ploton.ai/v1", Fault::More),
        ("https://api.ploton.ai?x", Fault::More),
        ("https://me@api.ploton.ai", Fault::More),
        ("https://api.ploton.ai:65536", Fault::Port),
        ("https://api.ploton.ai:+443", Fault::Port),
        ("https://[2001:db8::1]a:443", Fault::Port),
        ("https://.", Fault::Host),
        ("https://api.ploton.ai..", Fault::Host),
        ("https://api..ploton.ai", Fault::Host),
        ("http://api.ploton.ai", Fault::PlainHttp),
        ("http://127.evil.example", Fault::PlainHttp),
        ("http://localhost.evil.example", Fault::PlainHttp),
    ];
    for (text, fault) in table {
        assert_eq!(Origin::parse(text), Err(InvalidOrigin(fault)), "{text}");
    }
}

#[test]
fn an_origin_is_shown_as_it_is_read() {
    for text in [
        "https://api.ploton.ai",
        "https://proxy.example:8443",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://localhost",
    ] {
        assert_eq!(Origin::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn an_internationalised_name_is_known_by_its_punycode() {
    let origin = Origin::parse("https://xn--bcher-kva.example").unwrap();
    assert!(origin.contains(&uri("https://XN--BCHER-kva.example/v1")));
    assert!(!origin.contains(&uri("https://bcher-kva.example/v1")));
    assert!("https://b\u{fc}cher.example".parse::<Uri>().is_err());
}

/// A URI that is put together keeps its scheme's case. Connectors take what is not `https` to the letter for plain HTTP.
#[test]
fn a_scheme_in_upper_case_is_never_taken_for_a_safe_one() {
    let put_together = |scheme: &str| {
        let uri = Uri::builder().scheme(scheme).authority("api.ploton.ai");
        uri.path_and_query("/v1").build().unwrap()
    };
    for scheme in ["HTTP", "Http", "HTTPS"] {
        assert!(!Origin::default().contains(&put_together(scheme)));
    }
    assert!(Origin::default().is_in_the_clear(&put_together("HTTP")));
    assert!(Origin::default().is_in_the_clear(&put_together("Http")));
}
