//! What the chart's pods run before their end, with processes in place of containers: the script is the chart's own, and
//! Kubernetes is a server that says how many there are to be.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, pem::PemObject};

use crate::run::Place;
use crate::shrink::{all_is_there, cluster, deploy_all, workspaces};
use crate::support::Member;

/// The name by which pods know Kubernetes.
const NAME: &str = "kubernetes.default.svc";

/// Answers whoever asks that there is to be one pod; gives its port. Its certificate goes into `account` as `ca.crt`.
fn kubernetes(account: &Path) -> u16 {
    caxton::trust::install_provider();
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
    std::fs::write(account.join("ca.crt"), made.cert.pem()).expect("written");
    std::fs::write(account.join("token"), "the pod's token").expect("written");
    std::fs::write(account.join("namespace"), "agents").expect("written");
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).expect("they fit"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let (mut asked, mut piece) = (Vec::new(), [0; 1024]);
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(bytes) if bytes > 0 => asked.extend_from_slice(&piece[..bytes]),
                    _ => break,
                }
            }
            let body = r#"{"kind":"Scale","spec":{"replicas":1},"status":{"replicas":5}}"#;
            // Whoever asked may be gone.
            let _ = write!(stream, "HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

/// What a pod runs before its end.
fn stop(member: &Member, ordinal: usize, account: &Path, programs: &Path, port: u16) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/caxton/files/node.sh");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    Command::new("sh")
        .arg(script)
        .arg("stop")
        .env_clear()
        .env("PATH", path)
        .env("HOME", account)
        .env("POD_NAME", format!("caxton-{ordinal}"))
        .env("STATEFULSET", "caxton")
        .env("LEAVE", "true")
        .env("LEAVE_S", "120")
        .env("PAUSE_S", "0")
        .env("ACCOUNT", account)
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", port.to_string())
        .env("CAXTON_DATA_DIR", &member.data)
        .stdin(Stdio::null())
        .output()
        .expect("a shell")
}

#[test]
fn pods_that_are_scaled_away_at_once_and_lose_their_disks_lose_nothing() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("not run: the pods' script asks Kubernetes with openssl, which is missing");
        return;
    }
    let place = Place::new();
    let (account, programs) = (place.dir.path().join("account"), place.dir.path().join("bin"));
    std::fs::create_dir_all(&account).expect("a folder");
    std::fs::create_dir_all(&programs).expect("a folder");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_caxton"), programs.join("caxton")).expect("a link");
    let port = kubernetes(&account);
    let mut members = cluster(place.dir.path(), 5);
    let workspaces = workspaces(place.dir.path());
    deploy_all(&members[4], &workspaces);
    // All end at once, and each one's disk goes as soon as its script is done.
    std::thread::scope(|scope| {
        for (ordinal, member) in members.iter().enumerate().skip(1) {
            let (account, programs) = (&account, &programs);
            scope.spawn(move || {
                let ran = stop(member, ordinal, account, programs, port);
                let said = String::from_utf8_lossy(&ran.stderr).into_owned();
                assert!(ran.status.success(), "caxton-{ordinal}: {ran:?}");
                assert!(said.contains("leaving the cluster") && !said.contains("could not leave"), "{said}");
            });
        }
    });
    for member in &mut members[1..] {
        assert!(member.ended().success(), "{}", member.said());
        std::fs::remove_dir_all(&member.data).expect("wiped");
    }
    // The one that stays is told to end as well, when its machine is drained: it stays a member.
    let ran = stop(&members[0], 0, &account, &programs, port);
    assert!(ran.status.success() && !String::from_utf8_lossy(&ran.stderr).contains("leaving"), "{ran:?}");
    all_is_there(&members[0], &workspaces);
}
