//! Controls: a checker that never failed has not been tested. Each puts one defect in and has to see it found.
//!
//! Some change a history that was recorded from real nodes; the others run real nodes with the defect in a client, below
//! a node, or in how a node is treated.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::check::mail::Letter;
use crate::check::memories::Kept;
use crate::check::{self, Evidence};
use crate::disk::Kind;
use crate::fault::{Cut, Fault, Plan, Who};
use crate::history::{Ask, Live, Op, Outcome};
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
                _ => None,
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
                _ => false,
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
    Mutation {
        name: "an acknowledged message has no outcome",
        found_as: &["mail-lost"],
        put: |evidence| {
            let Some(letters) = letters(evidence) else { return false };
            let count = letters.len();
            let gone = letters.iter().find(|letter| letter.is_dead()).and_then(|letter| letter.about);
            letters.retain(|letter| gone.is_none() || letter.about != gone);
            letters.len() < count
        },
    },
    Mutation {
        name: "a message was answered twice",
        found_as: &["mail-twice"],
        put: |evidence| {
            let Some(letters) = letters(evidence) else { return false };
            let Some(mut again) = letters.iter().find(|letter| letter.performative == "inform").cloned() else {
                return false;
            };
            again.number += 1_000_000;
            letters.push(again);
            true
        },
    },
    Mutation {
        name: "a dead letter of which nobody was told",
        found_as: &["mail-notice"],
        put: |evidence| {
            let Some(letters) = letters(evidence) else { return false };
            let notice = letters.iter().position(|letter| letter.is_notice());
            notice.map(|notice| letters.remove(notice)).is_some()
        },
    },
    Mutation {
        name: "for a moment a dead letter of which nobody was told",
        found_as: &["mail-torn"],
        put: |evidence| {
            evidence.history.iter_mut().any(|op| match &mut op.outcome {
                Outcome::Ok { log, .. } if op.ask == Ask::Look => {
                    let told = log.iter().position(|it| it.rev == 2);
                    told.map(|told| log.remove(told)).is_some()
                }
                _ => false,
            })
        },
    },
    Mutation {
        name: "a program counted messages in the wrong order",
        found_as: &["mail-order"],
        put: |evidence| {
            let Some(letters) = letters(evidence) else { return false };
            let most = letters.iter().filter_map(|letter| letter.count).max().unwrap_or_default();
            letters.iter_mut().for_each(|letter| letter.count = letter.count.map(|count| most + 1 - count));
            most > 8
        },
    },
    Mutation {
        name: "a program forgot what it counted",
        found_as: &["mail-count"],
        put: |evidence| {
            let Some(letters) = letters(evidence) else { return false };
            let counted = letters.iter_mut().filter_map(|letter| letter.count.as_mut()).find(|count| **count > 2);
            counted.map(|count| *count -= 1).is_some()
        },
    },
    Mutation {
        name: "a memory was read as it was before",
        found_as: &["memory-linear"],
        put: |evidence| before_edit(evidence, |ask| matches!(ask, Ask::Recall { .. })),
    },
    Mutation {
        name: "a memory was found as it was before",
        found_as: &["memory-search"],
        put: |evidence| before_edit(evidence, |ask| matches!(ask, Ask::Search { .. })),
    },
    Mutation {
        name: "a memory was not found by its words",
        found_as: &["memory-search"],
        put: |evidence| {
            let forgotten: Vec<u64> = evidence.history.iter().filter_map(forgets).collect();
            let found = evidence.history.iter_mut().find(|op| {
                matches!(op.ask, Ask::Search { memory } if !forgotten.contains(&memory))
                    && matches!(&op.outcome, Outcome::Ok { log, .. } if !log.is_empty())
            });
            found.map(|op| op.outcome = Outcome::Ok { live: Live::default(), event: None, log: Vec::new() }).is_some()
        },
    },
    Mutation {
        name: "an acknowledged memory is gone",
        found_as: &["memory-lost"],
        put: |evidence| {
            let node = &mut evidence.seen.nodes[0];
            node.memories.values_mut().find(|kept| !kept.is_empty()).and_then(Vec::pop).is_some()
        },
    },
    Mutation {
        name: "a forgotten memory is back",
        found_as: &["memory-back"],
        put: |evidence| {
            let of = |op: &Op| Some((op.key.clone(), forgets(op).filter(|_| op.is_ok())?));
            let Some((key, memory)) = evidence.history.iter().find_map(of) else { return false };
            let kept = Kept { memory, value: memory, id: memory };
            evidence.seen.nodes[0].memories.entry(key).or_default().push(kept);
            true
        },
    },
    Mutation {
        name: "one text is two memories",
        found_as: &["memory-twice"],
        put: |evidence| {
            let node = &mut evidence.seen.nodes[0];
            let Some(kept) = node.memories.values_mut().find(|kept| !kept.is_empty()) else { return false };
            let again = Kept { id: kept[0].id + 1_000_000, ..kept[0].clone() };
            kept.push(again);
            true
        },
    },
];

/// The fullest mailboxes of the first node.
fn letters(evidence: &mut Evidence) -> Option<&mut Vec<Letter>> {
    evidence.seen.nodes.first_mut()?.mail.values_mut().max_by_key(|letters| letters.len())
}

fn forgets(op: &Op) -> Option<u64> {
    if let Ask::Forget { memory } = op.ask { Some(memory) } else { None }
}

/// The last of some reads of a memory that was changed shows what it was at first.
fn before_edit(evidence: &mut Evidence, is: impl Fn(&Ask) -> bool) -> bool {
    let edits: Vec<(String, u64, u64)> = evidence
        .history
        .iter()
        .filter(|op| op.is_ok() && matches!(op.ask, Ask::Edit { .. }))
        .filter_map(|op| Some((op.key.clone(), op.ask.memory()?, op.end)))
        .collect();
    let after = |op: &Op| {
        edits.iter().find(|(key, memory, end)| *key == op.key && Some(*memory) == op.ask.memory() && *end < op.start)
    };
    let found = evidence.history.iter_mut().rev().find(|op| {
        is(&op.ask) && matches!(op.outcome, Outcome::Ok { live, .. } if live.rev > 0) && after(op).is_some()
    });
    let Some(op) = found else { return false };
    let live = Live { rev: 1, value: op.ask.memory().unwrap_or_default() };
    op.outcome = Outcome::Ok { live, event: None, log: vec![live] };
    true
}

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
        found_as: &["mail-twice"],
        quirk: Quirk::ResendWithoutKey,
        scenario: Scenario {
            name: "control-resend-without-key",
            about: "a message whose connection broke is sent again under a new key",
            load: |load| load.abandon = 50,
            ..PLAIN
        },
    },
    Bug {
        found_as: &["mail-lost"],
        quirk: Quirk::AcknowledgedEarly,
        scenario: Scenario {
            name: "control-acknowledged-early",
            about: "a message counts as acknowledged before anybody says so, and leaders are killed",
            plan: |plan| {
                while plan.goes_on() {
                    plan.then(Fault::Kill { who: Who::Leader });
                    plan.wait(1_500, 3_000);
                    plan.then(Fault::Revive);
                    plan.wait(2_000, 4_000);
                }
            },
            ..PLAIN
        },
    },
    Bug {
        found_as: &["memory-linear"],
        quirk: Quirk::StaleMemories,
        scenario: Scenario {
            name: "control-stale-memories",
            about: "clients read the memories that a node has itself, and one is cut off",
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
