//! Controls: a checker that never failed has not been tested. Each puts one defect in and has to see it found.
//!
//! Some change a history that was recorded from real nodes; the others run real nodes with the defect in a client, below
//! a node, or in how a node is treated.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::check::{self, Evidence};
use crate::disk::Kind;
use crate::fault::{Cut, Fault, Plan, Who};
use crate::history::{Ask, Live, Outcome};
use crate::report::Verdict;
use crate::run::{self, Options};
use crate::scenarios::{Need, PLAIN, Scenario};
use crate::work::Quirk;

/// A defect that is put into a recorded history.
struct Mutation {
    name: &'static str,
    /// The findings of which one has to come.
    found_as: &'static [&'static str],
    /// Puts it in; says whether the history had a place for it.
    put: fn(&mut Evidence) -> bool,
}

/// A defect that is put into a real run.
struct Bug {
    found_as: &'static [&'static str],
    quirk: Quirk,
    scenario: Scenario,
}

const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "the last acknowledged deployment is in no log",
        found_as: &["log-lost"],
        put: |evidence| {
            let key = evidence.history.iter().rev().find_map(|op| match op.ask {
                Ask::Cas { .. } if op.is_ok() => Some(op.key.clone()),
                Ask::Cas { .. } | Ask::Read | Ask::Log | Ask::Say { .. } => None,
            });
            let Some(key) = key else { return false };
            evidence.seen.nodes.iter_mut().all(|node| node.logs.get_mut(&key).and_then(Vec::pop).is_some())
        },
    },
    Mutation {
        name: "a deployment is there twice",
        found_as: &["log-twice"],
        put: |evidence| {
            evidence.seen.nodes.iter_mut().all(|node| {
                let Some(log) = node.logs.values_mut().next().filter(|log| !log.is_empty()) else { return false };
                let mut again = log[0].clone();
                let last = log[log.len() - 1].clone();
                (again.rev, again.parent, again.event) = (last.rev + 1, last.rev, last.event + 1);
                log.push(again);
                true
            })
        },
    },
    Mutation {
        name: "two deployments have changed places",
        found_as: &["log-moved"],
        put: |evidence| {
            evidence.seen.nodes.iter_mut().all(|node| {
                let Some(log) = node.logs.values_mut().find(|log| log.len() > 3) else { return false };
                let (a, b) = (log[1].clone(), log[2].clone());
                (log[1].value, log[1].root) = (b.value, b.root);
                (log[2].value, log[2].root) = (a.value, a.root);
                true
            })
        },
    },
    Mutation {
        name: "one node lacks a deployment",
        found_as: &["log-agree"],
        put: |evidence| {
            let last = evidence.seen.nodes.len() - 1;
            evidence.seen.nodes[last].logs.values_mut().next().and_then(Vec::pop).is_some()
        },
    },
    Mutation {
        name: "a read shows what was live before",
        found_as: &["linear"],
        put: |evidence| {
            // The newest read that had seen a few deployments now shows the first.
            let first = evidence.history.iter().find_map(|op| match (&op.ask, &op.outcome) {
                (Ask::Cas { .. }, Outcome::Ok { live, .. }) if live.rev == 1 => Some((op.key.clone(), *live)),
                _ => None,
            });
            let Some((key, first)) = first else { return false };
            let read = evidence.history.iter_mut().rev().find(|op| {
                op.key == key && op.ask == Ask::Read && matches!(op.outcome, Outcome::Ok { live, .. } if live.rev > 5)
            });
            let Some(read) = read else { return false };
            read.outcome = Outcome::Ok { live: first, event: None, log: Vec::new() };
            true
        },
    },
    Mutation {
        name: "two deployments on one parent were acknowledged",
        found_as: &["linear"],
        put: |evidence| {
            let won = evidence.history.iter().find_map(|op| match (&op.ask, &op.outcome) {
                (Ask::Cas { from, .. }, Outcome::Ok { .. }) if from.rev > 2 => Some((op.key.clone(), *from)),
                _ => None,
            });
            let Some((key, parent)) = won else { return false };
            let lost = evidence.history.iter_mut().find(|op| match &op.ask {
                Ask::Cas { from, .. } => op.key == key && *from == parent && !op.is_ok(),
                Ask::Read | Ask::Log | Ask::Say { .. } => false,
            });
            let Some(lost) = lost else { return false };
            let Ask::Cas { to, .. } = lost.ask else { return false };
            let live = Live { rev: parent.rev + 1, value: to };
            lost.outcome = Outcome::Ok { live, event: None, log: Vec::new() };
            true
        },
    },
    Mutation {
        name: "a follower of the events missed one",
        found_as: &["events-gap"],
        put: |evidence| {
            let Some(followed) = evidence.followers.iter_mut().find(|f| f.events.len() > 4) else { return false };
            followed.events.remove(2);
            true
        },
    },
    Mutation {
        name: "a follower of the events got two in the wrong order",
        found_as: &["events-order"],
        put: |evidence| {
            let Some(followed) = evidence.followers.iter_mut().find(|f| f.events.len() > 4) else { return false };
            followed.events.swap(2, 3);
            true
        },
    },
    Mutation {
        name: "an answered message is gone",
        found_as: &["turn-lost"],
        put: |evidence| {
            let node = &mut evidence.seen.nodes[0];
            node.conversations.values_mut().find(|turns| !turns.is_empty()).and_then(Vec::pop).is_some()
        },
    },
    Mutation {
        name: "an answered message is there twice",
        found_as: &["turn-twice"],
        put: |evidence| {
            let node = &mut evidence.seen.nodes[0];
            let Some(turns) = node.conversations.values_mut().find(|turns| !turns.is_empty()) else { return false };
            turns.push(turns[0]);
            true
        },
    },
];

/// Real runs with a defect in them.
const BUGS: &[Bug] = &[
    Bug {
        found_as: &["linear"],
        quirk: Quirk::StaleReads,
        scenario: Scenario {
            name: "control-stale-reads",
            about: "clients read what a node knows itself, and one is cut off",
            needs: &[Need::Namespaces],
            plan: |plan| {
                plan.then(Fault::Partition { who: Who::Follower(0), cut: Cut::Alone });
                plan.wait(6_000, 6_000);
                plan.then(Fault::Heal);
            },
            ..PLAIN
        },
    },
    Bug {
        found_as: &["log-twice"],
        quirk: Quirk::RetryWithoutKey,
        scenario: Scenario {
            name: "control-retry-without-key",
            about: "a deployment whose connection broke is made again under a new key",
            load: |load| load.abandon = 50,
            ..PLAIN
        },
    },
    Bug {
        // The other node says from now on, which may be after or before where the broken stream was.
        found_as: &["events-gap", "events-order"],
        quirk: Quirk::ResumeWithoutId,
        scenario: Scenario {
            name: "control-resume-without-id",
            about: "a broken event stream is opened again without saying where it broke",
            load: |load| {
                load.follow = Duration::from_secs(1);
                load.think = Duration::from_millis(60);
            },
            ..PLAIN
        },
    },
    Bug {
        // A node that notices what its disk forgot refuses to start, and the cluster does not come together.
        found_as: &["log-lost", "converge"],
        quirk: Quirk::Sound,
        scenario: Scenario {
            name: "control-no-sync",
            about: "every sync says that it is done and does nothing, and then the power of all goes",
            needs: &[Need::Disk(Kind::Power), Need::Strace],
            plan: |plan: &mut Plan| {
                plan.then(Fault::SyncLies { who: Who::All });
                plan.wait(6_000, 9_000);
                plan.then(Fault::PowerCut { who: Who::All });
                plan.wait(500, 1_000);
                plan.then(Fault::Revive);
            },
            ..PLAIN
        },
    },
    Bug {
        found_as: &["log-lost", "linear"],
        quirk: Quirk::Sound,
        scenario: Scenario {
            name: "control-forgotten-votes",
            about: "a node comes back under its own id with an older data directory",
            needs: &[Need::Namespaces],
            plan: |plan: &mut Plan| {
                plan.wait(2_000, 3_000);
                plan.then(Fault::Forget);
                plan.then(Fault::Revive);
            },
            ..PLAIN
        },
    },
];

/// Runs all whose name has `only` in it; says whether every defect was found.
pub fn run(options: &Options, only: &str) -> Result<bool> {
    let mut fine = mutations(options, only)?;
    for bug in BUGS.iter().filter(|bug| bug.scenario.name.contains(only)) {
        let report = run::run(&bug.scenario, &Options { quirk: bug.quirk, ..options.clone() })?;
        let found = report.findings.iter().find(|finding| bug.found_as.contains(&finding.code));
        let (good, what) = match (&report.verdict, found) {
            (Verdict::NotRun { reason }, _) => (true, format!("NOT RUN: {reason}")),
            (_, Some(finding)) => (true, format!("found, as it has to be: {}: {:.200}", finding.code, finding.text)),
            (verdict, None) => (false, format!("NOT FOUND: {}", verdict.words())),
        };
        fine &= good;
        println!("{:<28} {what}", bug.scenario.name);
    }
    println!("{}", if fine { "every defect was found" } else { "NOT every defect was found" });
    Ok(fine)
}

fn mutations(options: &Options, only: &str) -> Result<bool> {
    if !"mutations".contains(only) {
        return Ok(true);
    }
    let Some(calm) = crate::scenarios::named("calm") else { bail!("there is no scenario `calm`") };
    let report = run::run(calm, options)?;
    println!("{}", report.line());
    let file = options.out.join(format!("calm-{}/evidence.json", options.seed));
    let whole: Evidence = serde_json::from_slice(&std::fs::read(file)?)?;
    let mut fine = report.verdict == Verdict::Passed;
    for mutation in MUTATIONS {
        let mut evidence = whole.clone();
        let there = (mutation.put)(&mut evidence);
        let (findings, _) = check::all(&evidence);
        let found = findings.iter().find(|finding| mutation.found_as.contains(&finding.code));
        let what = match (there, found) {
            (false, _) => "NOT PUT IN: the history has no place for it".to_owned(),
            (true, Some(finding)) => format!("found as {}", finding.code),
            (true, None) => format!("NOT FOUND: {} other findings", findings.len()),
        };
        fine &= there && found.is_some();
        println!("  {:<50} {what}", mutation.name);
    }
    Ok(fine)
}
