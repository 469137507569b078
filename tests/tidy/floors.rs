//! Which floor of the node each module stands on: a module may use those of its own floor and of the floors below.
//!
//! The table has modules that are on their way, so that it holds when they come. A module that is not in it fails the
//! check: whoever adds one says where it belongs.

use crate::modules::{Crate, Use};

/// The floors inside `node/src`, from the top, as `docs/ARCHITECTURE.md` draws them.
pub const NODE: [&[&str]; 10] = [
    // What people type.
    &["cli"],
    // How a program talks to a node, and what `caxton init` writes: for the command line.
    &["client", "templates"],
    // The composition root.
    &["node"],
    // Protocols, which map and only map.
    &["edge"],
    // What can be asked of a node, by whom.
    &["app"],
    // The walks.
    &["invoke", "deploy", "rollout", "backup"],
    // What they use.
    &["agent", "capability", "llm", "tools", "memory_backend"],
    // Tenants of the shard.
    &["conversations", "memory", "mailbox", "audit"],
    // Where a workspace is kept, who belongs, and who may: which shard a workspace is in is a fact of the cluster.
    &["shard", "cluster", "peers", "replicas", "tls", "trust", "secrets", "authn", "authz", "limits", "affinity"],
    // The ground.
    &[
        "api",
        "activity",
        "catalog",
        "chat",
        "artifacts",
        "config",
        "telemetry",
        "tasks",
        "time",
        "files",
        "addresses",
        "text",
        "recalled",
        "errors",
    ],
];

/// What does not keep to the table yet, and why. One that is not needed any more fails the check: take it out.
pub const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// What is wrong with the uses of modules by each other.
pub fn problems(used: &Crate, floors: &[&[&str]], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let floor = |module: &str| floors.iter().position(|floor| floor.contains(&module));
    let mut problems = Vec::new();
    let mut needed = Vec::new();
    for module in used.top_level() {
        if floor(&module).is_none() {
            problems.push(format!("`{module}` stands on no floor: say in tests/tidy/floors.rs where it belongs"));
        }
    }
    for Use { from, to, place } in used.uses().iter().filter(|it| it.from.len() == 1) {
        let (from, to) = (&*from[0], &*to[0]);
        let (Some(user), Some(user_of)) = (floor(from), floor(to)) else { continue };
        if user_of >= user {
            continue;
        }
        match exceptions.iter().position(|(user, used, _)| (*user, *used) == (from, to)) {
            Some(known) => needed.push(known),
            None => problems.push(format!("{place}: `{from}` may not use `{to}`, which is above it")),
        }
    }
    for (at, (from, to, _)) in exceptions.iter().enumerate() {
        if !needed.contains(&at) {
            problems.push(format!("the exception `{from}` -> `{to}` is not needed any more: take it out"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOORS: &[&[&str]] = &[&["top"], &["low", "base"]];

    fn of(files: &[(&str, &str)], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
        problems(&Crate::read(files.iter().copied()), FLOORS, exceptions)
    }

    #[test]
    fn what_reaches_up_is_found_and_what_reaches_down_or_aside_is_not() {
        let fine = [("top.rs", "use crate::low::X;"), ("low.rs", "use crate::base;"), ("base.rs", "")];
        assert!(of(&fine, &[]).is_empty());
        for reach in [
            "use crate::top::X;",
            "fn f() -> crate::base::B { crate::top::x() }",
            "use crate::{base, top};",
            "use super::top;",
            "#[cfg(test)]\nmod tests {}\nuse crate::top::X;",
        ] {
            let found = of(&[("top.rs", ""), ("low.rs", reach), ("base.rs", "")], &[]);
            assert!(found.len() == 1 && found[0].contains("`low` may not use `top`"), "{reach}: {found:?}");
        }
        let deep = [("top.rs", ""), ("low/mod.rs", "mod a;"), ("low/a.rs", "use super::super::top::X;")];
        assert_eq!(of(&deep, &[]).len(), 1, "a chain of supers");
    }

    #[test]
    fn a_module_without_a_floor_and_an_exception_without_need_are_found() {
        let found = of(&[("top.rs", ""), ("new.rs", "")], &[]);
        assert!(found.len() == 1 && found[0].contains("`new` stands on no floor"), "{found:?}");
        let reach = [("top.rs", ""), ("low.rs", "use crate::top;")];
        assert!(of(&reach, &[("low", "top", "why")]).is_empty());
        let found = of(&[("top.rs", ""), ("low.rs", "")], &[("low", "top", "why")]);
        assert!(found.len() == 1 && found[0].contains("not needed any more"), "{found:?}");
    }
}
