//! TLS: on when it has to be, with the node's own authority or the operator's certificate.

use std::os::unix::fs::PermissionsExt;

use reqwest::Method;

use crate::bench::{Bench, read};

#[tokio::test]
async fn the_node_s_own_authority_vouches_for_it_and_stays_the_same() {
    let bench = Bench::new(&["tls.mode=always"]).await;
    assert!(bench.node.url().starts_with("https://127.0.0.1:"));
    let answer = bench.request(Method::GET, "/api/v1/server").send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    let by_name = format!("https://localhost:{}/health", bench.node.addr().port());
    assert_eq!(read(bench.client.get(by_name)).await.0, 200);
    let key = bench.dir.path().join("tls/ca.key");
    assert_eq!(std::fs::metadata(&key).expect("is there").permissions().mode() & 0o777, 0o600);

    let stranger = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    assert!(stranger.get(format!("{}/health", bench.node.url())).send().await.is_err(), "trusted without its CA");
    let clear = bench.node.url().replace("https", "http");
    let told = stranger.get(format!("{clear}/health")).send().await.expect("an answer");
    assert_eq!(told.status(), 400, "nothing but what is wrong is said in clear text");
    assert!(told.text().await.expect("a body").contains("https://"), "and what to do");

    let before = std::fs::read(bench.dir.path().join("tls/ca.pem")).expect("is there");
    let client = bench.client.clone();
    let bench = Bench::on(bench.stop().await, &["tls.mode=always"]).await;
    assert_eq!(std::fs::read(bench.dir.path().join("tls/ca.pem")).expect("is there"), before);
    assert_eq!(read(client.get(format!("{}/health", bench.node.url()))).await.0, 200, "the old CA still vouches");
    bench.stop().await;
}

#[tokio::test]
async fn an_address_that_is_not_loopback_forces_tls() {
    let bench = Bench::new(&["http.bind=0.0.0.0:0"]).await;
    assert!(bench.node.url().starts_with("https://127.0.0.1:"), "{}", bench.node.url());
    assert_eq!(read(bench.request(Method::GET, "/api/v1/server")).await.0, 200);
    bench.stop().await;
}

#[tokio::test]
async fn the_operator_s_certificate_is_used_when_there_is_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    let certificate = params.self_signed(&key).expect("a certificate");
    let (pem, secret) = (dir.path().join("own.pem"), dir.path().join("own.key"));
    std::fs::write(&pem, certificate.pem()).expect("is written");
    std::fs::write(&secret, key.serialize_pem()).expect("is written");
    let set = [format!("tls.certificate_file={}", pem.display()), format!("tls.key_file={}", secret.display())];
    let bench = Bench::new(&["tls.mode=always", &set[0], &set[1]]).await;
    let own = reqwest::Certificate::from_pem(certificate.pem().as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([own]).build().expect("a client");
    assert_eq!(read(client.get(format!("{}/health", bench.node.url()))).await.0, 200);
    bench.stop().await;
}
