//! Who is let in, as facts.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use caxton_proto::log::Revocation;

use super::*;
use crate::trust::ADMIN_TOKEN_FILE;

#[derive(Clone, Default)]
struct Book(Arc<Mutex<HashMap<String, Token>>>);

impl KnownTokens for Book {
    fn token(&self, id: &str) -> Option<Token> {
        self.0.lock().expect("no panic while held").get(id).cloned()
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    book: Book,
    auth: Auth,
}

fn fixture(cluster: &str) -> Fixture {
    let dir = tempfile::tempdir().expect("a folder");
    let book = Book::default();
    let auth = Auth::open(dir.path(), cluster, book.clone()).expect("opens");
    Fixture { dir, book, auth }
}

impl Fixture {
    fn mint(&self, role: Role, workspaces: &[&str]) -> String {
        let wanted = TokenDraft {
            subject: "ada".to_owned(),
            role,
            workspaces: workspaces.iter().map(|name| name.parse().expect("a name")).collect(),
            ttl: Duration::from_secs(60),
            actor: "admin".to_owned(),
        };
        let (token, issued) = self.auth.mint(wanted, 1_000_000).expect("signs");
        self.book.0.lock().expect("free").insert(issued.id.clone(), Token { issued, revoked: None });
        token
    }

    fn try_at(&self, bearer: &str, now_ms: u64) -> Result<Access, AuthError> {
        self.auth.authenticate(Some(&format!("Bearer {bearer}")), now_ms)
    }
}

#[test]
fn the_admin_token_is_made_once_and_opens_everything() {
    let it = fixture("c1");
    let path = it.dir.path().join(ADMIN_TOKEN_FILE);
    let token = std::fs::read_to_string(&path).expect("is there");
    assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
    let access = it.try_at(token.trim(), 0).expect("is let in");
    assert_eq!((access.role(), access.workspaces()), (Role::Admin, None));
    let again = Auth::open(it.dir.path(), "c1", Book::default()).expect("opens again");
    assert!(again.authenticate(Some(&format!("bearer {}", token.trim())), 0).is_ok());
    assert_eq!(it.try_at(&token.trim()[1..], 0), Err(AuthError::Invalid));
    assert_eq!(it.auth.authenticate(None, 0), Err(AuthError::Missing));
    assert_eq!(it.auth.authenticate(Some("Basic eDp5"), 0), Err(AuthError::Missing));
    assert_eq!(it.try_at(&"x".repeat(BEARER_BYTES_MAX + 1), 0), Err(AuthError::Invalid));
}

#[test]
fn a_token_opens_what_it_was_made_for_until_it_expires_or_is_revoked() {
    let it = fixture("c1");
    let token = it.mint(Role::Deployer, &["demo"]);
    let access = it.try_at(&token, 1_000_000).expect("is let in");
    let (demo, other) = ("demo".parse().expect("a name"), "other".parse().expect("a name"));
    assert_eq!((access.subject(), access.role()), ("ada", Role::Deployer));
    assert!(access.may(&demo) && !access.may(&other));
    assert_eq!(it.try_at(&token, 1_060_000), Err(AuthError::Expired));
    assert_eq!(it.auth.still(&access, 1_060_000), Err(AuthError::Expired));
    for token in it.book.0.lock().expect("free").values_mut() {
        token.revoked = Some(Revocation { time_ms: 1, actor: "admin".to_owned() });
    }
    assert_eq!(it.try_at(&token, 1_000_000), Err(AuthError::Revoked));
    assert_eq!(it.auth.still(&access, 1_000_000), Err(AuthError::Revoked));
}

#[test]
fn a_signature_alone_opens_nothing() {
    let it = fixture("c1");
    let token = it.mint(Role::Admin, &[]);
    let hash = {
        let mut book = it.book.0.lock().expect("free");
        let row = book.values_mut().next().expect("one row");
        std::mem::replace(&mut row.issued.hash, Digest::of(b"another"))
    };
    assert_eq!(it.try_at(&token, 1_000_000), Err(AuthError::Invalid), "another token with the same id");
    it.book.0.lock().expect("free").values_mut().for_each(|row| row.issued.hash = hash);
    assert!(it.try_at(&token, 1_000_000).is_ok());
    it.book.0.lock().expect("free").clear();
    assert_eq!(it.try_at(&token, 1_000_000), Err(AuthError::Invalid), "unknown to the log");
}

#[test]
fn another_cluster_or_another_algorithm_opens_nothing() {
    let (here, there) = (fixture("c1"), fixture("c2"));
    let token = there.mint(Role::Admin, &[]);
    here.book.0.lock().expect("free").extend(there.book.0.lock().expect("free").clone());
    assert_eq!(here.try_at(&token, 1_000_000), Err(AuthError::Invalid));
    let claims =
        serde_json::json!({"iss": "c1", "jti": "x", "sub": "ada", "exp": 9_999_999_999_u64, "iat": 0, "role": "admin"});
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let forged = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("signs");
    assert_eq!(here.try_at(&forged, 0), Err(AuthError::Invalid));
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", forged.split('.').nth(1).expect("a payload"));
    assert_eq!(here.try_at(&unsigned, 0), Err(AuthError::Invalid));
}

#[test]
fn a_secret_that_the_world_can_read_is_refused() {
    let it = fixture("c1");
    let path = it.dir.path().join(ADMIN_TOKEN_FILE);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let error = Auth::open(it.dir.path(), "c1", Book::default()).err().map(|error| match error {
        OpenError::AdminToken(source) => source.to_string(),
        other => other.to_string(),
    });
    assert!(error.is_some_and(|text| text.contains("chmod 600")));
}

#[test]
fn what_was_opened_with_a_key_that_is_out_of_use_does_not_stand() {
    let it = fixture("c1");
    let admin = std::fs::read_to_string(it.dir.path().join(ADMIN_TOKEN_FILE)).expect("is there");
    let token = it.mint(Role::Caller, &["demo"]);
    let by_admin = it.try_at(admin.trim(), 1_000_000).expect("is let in");
    let by_token = it.try_at(&token, 1_000_000).expect("is let in");
    let next = it.auth.successor().expect("a successor");
    for stage in [Stage::Known, Stage::Everywhere] {
        it.auth.succeed(&next, stage).expect("goes on");
        assert_eq!(it.auth.still(&by_admin, 1_000_000), Ok(()), "{stage:?}");
        assert_eq!(it.auth.still(&by_token, 1_000_000), Ok(()), "{stage:?}");
    }
    it.auth.succeed(&next, Stage::Finished).expect("goes on");
    assert_eq!(it.auth.still(&by_admin, 1_000_000), Err(AuthError::Revoked));
    assert_eq!(it.auth.still(&by_token, 1_000_000), Err(AuthError::Revoked));
    assert!(!format!("{by_admin:?}").contains(admin.trim()), "it is not printed");
}

#[test]
fn an_access_does_not_stand_once_a_workspace_is_off_its_token() {
    let it = fixture("c1");
    let token = it.mint(Role::Caller, &["demo", "other"]);
    let access = it.try_at(&token, 1_000_000).expect("is let in");
    assert_eq!(it.auth.still(&access, 1_000_000), Ok(()));
    for token in it.book.0.lock().expect("free").values_mut() {
        token.issued.workspaces.retain(|name| name.as_str() != "demo");
    }
    assert_eq!(it.auth.still(&access, 1_000_000), Err(AuthError::Revoked));
    let again = it.try_at(&token, 1_000_000).expect("is good for what is left");
    assert_eq!(it.auth.still(&again, 1_000_000), Ok(()));
}
