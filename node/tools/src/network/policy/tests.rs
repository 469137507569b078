//! The policy as a table: which URL and which address a tool reaches.

use super::*;

fn rules(texts: &[&str]) -> Vec<HostPattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_url_is_fetched_only_when_a_grant_names_it() {
    let rules = rules(&["api.example.com", "*.example.org", "plain.example.com:8080", "1.1.1.1"]);
    let allowed = [
        "https://api.example.com/",
        "https://api.example.com:443/a?b=c#d",
        "https://API.Example.COM/",
        "https://api.example.com./",
        "https://a.example.org/",
        "https://a.b.example.org/",
        "http://plain.example.com:8080/x",
        "https://1.1.1.1/",
        "http://api.example.com/",
    ];
    for url in allowed {
        assert!(check_url(url, &rules, &[]).is_ok(), "{url}: {:?}", check_url(url, &rules, &[]));
    }
    let refused = [
        "https://[2606:4700::1]/",
        "https://api.example.com:8443/",
        "https://example.com/",
        "https://example.org/",
        "https://badexample.org/",
        "https://api.example.com.evil.net/",
        "https://evil.net/api.example.com",
        "https://evil.net#api.example.com",
        "https://evil.net\\@api.example.com/",
        "http://plain.example.com/",
        "https://xn--pi-7ka.example.com/",
        "https://1.1.1.2/",
    ];
    for url in refused {
        assert!(matches!(check_url(url, &rules, &[]), Err(Denied::NotGranted(_))), "{url}");
    }
}

#[test]
fn what_hides_its_host_is_refused() {
    let rules = rules(&["127.0.0.1", "1.1.1.1", "api.example.com"]);
    let local: Vec<Network> = vec!["127.0.0.0/8".parse().unwrap()];
    for url in [
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://0x7f.1/",
        "http://017700000001/",
        "http://16843009/",
        "http://①②⑦.0.0.1/",
    ] {
        assert!(matches!(check_url(url, &rules, &local), Err(Denied::HiddenAddress(_))), "{url}");
    }
    assert!(check_url("http://127.0.0.1/", &rules, &local).is_ok());
    for url in ["https://user@api.example.com/", "https://u:p@api.example.com/", "https://:p@api.example.com/"] {
        assert_eq!(check_url(url, &rules, &[]), Err(Denied::UserInfo), "{url}");
    }
    for url in ["ftp://api.example.com/", "file:///etc/passwd", "gopher://api.example.com/", "data:text/plain,x"] {
        assert!(matches!(check_url(url, &rules, &[]), Err(Denied::Scheme(_))), "{url}");
    }
    for url in ["", "api.example.com", "https://", "https://[::1", "//api.example.com"] {
        assert!(matches!(check_url(url, &rules, &[]), Err(Denied::NotAUrl(_))), "{url}");
    }
}

#[test]
fn an_address_in_a_url_is_checked_even_when_granted() {
    let rules = rules(&["*"]);
    for url in
        ["http://127.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://[::ffff:a00:1]/"]
    {
        assert!(matches!(check_url(url, &rules, &[]), Err(Denied::Address { .. })), "{url}");
    }
}

#[test]
fn only_public_addresses_are_reached() {
    let refused = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "169.254.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::10.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::10.0.0.1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:0:53aa::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "5f00::1",
        "4000::1",
        "1::1",
        "fd00:ec2::254",
    ];
    for address in refused {
        let address: IpAddr = address.parse().unwrap();
        assert!(check_address("h", address, &[]).is_err(), "{address}");
    }
    let reached = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2a00:1450::1",
    ];
    for address in reached {
        let address: IpAddr = address.parse().unwrap();
        assert!(check_address("h", address, &[]).is_ok(), "{address}");
    }
}

#[test]
fn the_operator_opens_networks_and_no_more() {
    let allowed: Vec<Network> = ["127.0.0.1", "10.1.0.0/16", "fd00::/8"].iter().map(|n| n.parse().unwrap()).collect();
    for address in ["127.0.0.1", "10.1.2.3", "fd12::1"] {
        assert!(check_address("h", address.parse().unwrap(), &allowed).is_ok(), "{address}");
    }
    for address in ["127.0.0.2", "10.2.0.1", "169.254.169.254", "::1", "fc00::1", "::ffff:127.0.0.1"] {
        assert!(check_address("h", address.parse().unwrap(), &allowed).is_err(), "{address}");
    }
    for bad in ["", "10.0.0.0/33", "x/8", "10.0.0.0/x", "::/129"] {
        assert!(bad.parse::<Network>().is_err(), "{bad}");
    }
    let everything: Network = "0.0.0.0/0".parse().unwrap();
    assert!(everything.contains("10.0.0.1".parse().unwrap()));
}
