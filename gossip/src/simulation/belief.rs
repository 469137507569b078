//! What hosts said and what they believe of each other, and the rules that this is held to while it happens: a member
//! believes in members only, believes what they said, and never goes back to what it was before.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::host::{MEMBERS, name};
use super::schedule::{self, Phase};
use crate::change::Change;
use crate::generation::Generation;
use crate::member::{Fact, Member, Members};
use crate::trace::{self, note};

/// A word of a node is lately said while it has said no more than so many since.
const WORDS_LATELY: u64 = 5;

/// What happened up to now. A simulation has one thread.
#[derive(Default)]
struct History {
    /// The generation of each node's last life.
    lives: BTreeMap<u64, Generation>,
    /// How many words a node said in a life.
    said: BTreeMap<(u64, Generation), u64>,
    /// Of whom a node heard, in which life, and how many words. It begins again with each life.
    heard: BTreeMap<u64, BTreeMap<u64, (Generation, u64)>>,
    /// Whom each node believes alive.
    believed: BTreeMap<u64, Members>,
    wrong: bool,
}

thread_local! {
    static HISTORY: RefCell<History> = RefCell::default();
}

/// Whether nothing was found up to now.
pub fn is_right() -> bool {
    HISTORY.with_borrow(|history| !history.wrong)
}

fn find(what: String) {
    HISTORY.with_borrow_mut(|history| history.wrong = true);
    trace::find(what);
}

/// A node begins a life.
pub fn starts(node: u64, generation: Generation) {
    HISTORY.with_borrow_mut(|history| {
        history.lives.insert(node, generation);
        history.heard.remove(&node);
        history.believed.remove(&node);
    });
}

/// The next word of a node: which one it is, of which life.
pub fn says(node: u64, generation: Generation) -> String {
    let count = HISTORY.with_borrow_mut(|history| {
        let said = history.said.entry((node, generation)).or_default();
        *said += 1;
        *said
    });
    word(count, generation)
}

fn word(count: u64, generation: Generation) -> String {
    format!("word {count} of {}", generation.0)
}

/// Which word it is, if one of this life.
fn count(word: &str, generation: Generation) -> Option<u64> {
    let count = word.strip_prefix("word ")?.split(' ').next()?.parse().ok()?;
    (self::word(count, generation) == word).then_some(count)
}

/// A node sees that another one changed.
pub fn sees(node: u64, change: &Change) {
    let (what, member) = match change {
        Change::Joined(member) => ("joined", member),
        Change::Restarted(member) => ("restarted", member),
        Change::Updated(member) => ("updated", member),
        Change::Gone(gone) => {
            note(&name(node), &format!("sees {gone} gone"));
            if schedule::phase() == Phase::Calm {
                find(format!("node {node} takes {gone} for dead, which it can reach"));
            }
            return;
        }
    };
    let said = member.fact(&Fact::Load).unwrap_or_default();
    note(&name(node), &format!("sees {} {what} as {} saying {said:?}", member.node, member.generation.0));
    if MEMBERS.contains(&node) != MEMBERS.contains(&member.node.0) {
        return find(format!("node {node} and node {} meet, of which one is no member", member.node));
    }
    if schedule::phase() == (Phase::Without { gone: member.node.0 }) {
        find(format!("node {node} believes {} alive, which has ended for good", member.node));
    }
    compare(node, member, said);
}

/// Holds what is heard of a member against what it said, and what was heard of it before.
fn compare(node: u64, member: &Member, word: &str) {
    let (other, generation) = (member.node.0, member.generation);
    let heard = match word {
        "" => Some(0),
        word => count(word, generation),
    };
    let (before, said) = HISTORY.with_borrow_mut(|history| {
        let said = history.said.get(&(other, generation)).copied().unwrap_or(0);
        let now = (generation, heard.unwrap_or(0));
        (history.heard.entry(node).or_default().insert(other, now), said)
    });
    if heard.is_none_or(|heard| heard > said) {
        find(format!("node {node} heard {word:?} of {other}, which never said that as {}", generation.0));
    }
    let now = (generation, heard.unwrap_or(0));
    if let Some(before) = before.filter(|before| *before > now) {
        find(format!("node {node} went back from {before:?} of {other} to {now:?}"));
    }
}

/// Whom a node believes alive from now on.
pub fn believes(node: u64, members: &Members) {
    HISTORY.with_borrow_mut(|history| history.believed.insert(node, members.clone()));
}

/// Whether `present` believe in each other and nobody else, in their last lives, with what they said lately.
pub fn all_see_all(present: &[u64]) -> Result<(), String> {
    HISTORY.with_borrow(|history| {
        for node in present {
            let believed = history.believed.get(node).cloned().unwrap_or_default();
            let here: BTreeSet<u64> = believed.keys().map(|it| it.0).collect();
            if here != BTreeSet::from_iter(present.iter().copied()) {
                return Err(format!("node {node} believes in {here:?}"));
            }
            for (other, member) in &believed {
                let generation = history.lives[&other.0];
                let said = history.said.get(&(other.0, generation)).copied().unwrap_or(0);
                let word = member.fact(&Fact::Load).unwrap_or_default();
                let heard = count(word, generation).unwrap_or(0);
                if member.generation != generation || heard + WORDS_LATELY < said {
                    let life = member.generation.0;
                    return Err(format!(
                        "node {node} believes in {other} as {life} saying {word:?}, and it is at word {said} of {}",
                        generation.0
                    ));
                }
            }
        }
        Ok(())
    })
}

/// Finds out when not all see all by now.
pub fn must_see_all(present: &[u64], when: &str) {
    if let Err(why) = all_see_all(present) {
        find(format!("{when}, {why}"));
    }
}
