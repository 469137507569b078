//! The tenant on its own: what it refuses, and what a restore fills in.

use caxton_memory::proto::{Action, Forget, MemoryId, NewMemory, Origin, Outcome, Scope, Source};
use caxton_memory::{Permit, proto};
use caxton_raft::GroupId;

use super::*;
use crate::memory::Keepers;

fn tenant(dir: &std::path::Path) -> (MemoryTenant, Connection) {
    let keeper = Keepers::new(dir, caxton_embed::Model::built_in()).of(GroupId(1));
    let rows = Connection::open_in_memory().expect("memory");
    let tenant = MemoryTenant::new(keeper);
    tenant.tables().iter().for_each(|table| rows.execute_batch(table.sql).expect(table.name));
    (tenant, rows)
}

fn remember(text: &str) -> proto::Command {
    let source = Source { origin: Origin::Subject { subject: "ann".to_owned() }, at_ms: 1, untrusted: false };
    let memory = NewMemory {
        id: MemoryId::imported("test", text),
        scope: Scope::Workspace,
        kind: "fact".to_owned(),
        name: None,
        text: text.to_owned(),
        metadata: None,
        importance: 50,
        pinned: false,
        sources: vec![source],
        created_ms: 1,
        valid_from_ms: 1,
        valid_to_ms: None,
        replaces: None,
        entity: None,
    };
    command(Action::Remember { entities: vec![], memories: vec![memory], relations: vec![] })
}

fn command(action: Action) -> proto::Command {
    let workspace = "team".parse().expect("a name");
    proto::Command { workspace, time_ms: 2, actor: "ann".to_owned(), permit: None, action }
}

fn apply(tenant: &MemoryTenant, rows: &Connection, command: &proto::Command) -> Outcome {
    let body = command.encode();
    let command = Command { version: 2, term: 1, body: &body };
    tenant.check(&command).expect("it can be read");
    Outcome::decode(&tenant.apply(&command, rows).expect("applied").body).expect("an outcome")
}

#[test]
fn every_table_is_strict_and_what_cannot_be_read_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (tenant, rows) = tenant(dir.path());
    for table in tenant.tables().iter().filter(|table| table.content == Content::Rows) {
        let strict = "SELECT strict FROM pragma_table_list WHERE name = ?1";
        assert_eq!(rows.query_row(strict, [table.name], |row| row.get(0)), Ok(1), "{}", table.name);
    }
    for bad in [&b"{}"[..], b"", b"\xff\xff", b"\x08\x01"] {
        let command = Command { version: 2, term: 1, body: bad };
        assert!(matches!(tenant.check(&command), Err(ApplyError::Refused(_))), "{bad:?}");
        assert!(matches!(tenant.apply(&command, &rows), Err(ApplyError::Refused(_))));
    }
    // The version of a newer program stops this one, which must not skip what others apply.
    let mut newer = remember("x").encode();
    assert_eq!(newer[..2], [8, 1], "the version comes first");
    newer[1] = 9;
    let command = Command { version: 2, term: 1, body: &newer };
    assert!(matches!(tenant.check(&command), Err(ApplyError::Stop(Stop::Newer(_)))));
}

#[test]
fn a_restore_fills_what_is_derived_and_what_was_taken_back_is_not_found() {
    let dir = tempfile::tempdir().expect("a folder");
    let (tenant, rows) = tenant(dir.path());
    assert!(matches!(apply(&tenant, &rows, &remember("the quick fox")), Outcome::Remembered(_)));
    let phrase = |rows: &Connection| {
        let permit = Permit::everything("team".parse().expect("a name"));
        caxton_memory::phrases(rows, &permit, &caxton_memory::Filter::default(), "quick", None, 10)
            .expect("words")
            .len()
    };
    assert_eq!(phrase(&rows), 1);
    rows.execute("DELETE FROM memory_text", []).expect("emptied, as a restore does");
    assert_eq!(phrase(&rows), 0);
    tenant.derive(&rows, 1).expect("made anew");
    assert_eq!(phrase(&rows), 1);
    let gone = apply(&tenant, &rows, &command(Action::Forget(Forget::Everything)));
    assert!(matches!(gone, Outcome::Removed(removed) if removed.memories == 1));
    assert_eq!(phrase(&rows), 0);
}
