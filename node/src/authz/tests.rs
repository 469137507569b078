//! The policy as facts, and as docs/SECURITY.md shows it.

use std::path::Path;

use caxton_proto::log::Role;

use super::*;
use crate::authn::Access;

#[test]
fn a_role_has_all_that_smaller_roles_have_and_admins_have_everything() {
    for permission in Permission::ALL {
        let held: Vec<bool> = Role::ALL.into_iter().map(|role| permission.is_of(role)).collect();
        assert!(held.is_sorted(), "{permission:?}: {held:?}");
        assert!(permission.is_of(Role::Admin), "{permission:?}");
        assert_eq!(
            held.iter().filter(|held| **held).count(),
            permission.roles().len(),
            "{permission:?} names a role twice"
        );
    }
}

#[test]
fn a_permit_is_given_only_where_the_token_is_good_and_the_role_has_it() {
    let workspace = |name: &str| name.parse().expect("a name");
    let limited = Access::for_test("ada", Role::Caller, Some(&["demo"]));
    let permit = limited.permit(Converse, &workspace("demo")).expect("a caller may");
    assert_eq!((permit.subject(), permit.workspace().as_str()), ("ada", "demo"));
    let why = |denied: Result<(), Denied>| denied.expect_err("it is denied").why;
    let needed = Role::Deployer;
    assert_eq!(why(permit.also(ReadConversations).map(drop)), Why::Role { has: Role::Caller, needed });
    assert_eq!(why(limited.permit(ReadDeployed, &workspace("other")).map(drop)), Why::Workspace);
    assert_eq!(why(limited.permit_cluster(ReadCluster).map(drop)), Why::Workspace);
    let viewer = Access::for_test("eve", Role::Viewer, None);
    assert!(viewer.permit_cluster(ReadCluster).is_ok());
    assert_eq!(
        why(viewer.permit(Converse, &workspace("demo")).map(drop)),
        Why::Role { has: Role::Viewer, needed: Role::Caller }
    );
    let needed = Role::Admin;
    assert_eq!(why(viewer.permit_cluster(ManageTokens).map(drop)), Why::Role { has: Role::Viewer, needed });
}

/// The table as docs/SECURITY.md has it.
fn table() -> String {
    let mut table = String::from(
        "| permission | where | metrics | viewer | caller | deployer | admin |\n|---|---|---|---|---|---|---|\n",
    );
    for permission in Permission::ALL {
        let place = match permission.scope() {
            Scope::Workspace => "workspace",
            Scope::Cluster => "cluster",
        };
        let held = Role::ALL.map(|role| if permission.is_of(role) { "yes" } else { "" });
        table.push_str(&format!("|{} | {place} | {} |\n", permission.meaning(), held.join(" | ")));
    }
    table
}

#[test]
fn the_manual_shows_the_policy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SECURITY.md");
    let manual = std::fs::read_to_string(&path).expect("docs/SECURITY.md");
    let (before, rest) = manual.split_once("| permission | where |").expect("the table");
    let behind = rest.split_once("\n\n").map_or("", |(_, behind)| behind);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{}\n{behind}", table())).expect("docs/SECURITY.md can be written");
        return;
    }
    assert!(
        manual.contains(&table()),
        "the table is old: run UPDATE_DOCS=1 cargo test -p caxton --lib authz\n{}",
        table()
    );
}
