//! Has every message one outcome: one answer, or one dead letter of which its sender was told? And was the order kept?

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{Finding, NodeSeen, Seen};
use crate::history::{Ask, Errand, Op, Outcome};
use crate::model;

/// A delivery in a mailbox, as a node shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The number of the delivery.
    pub number: u64,
    /// Whose mailbox it is in.
    pub owner: String,
    /// Where it is: `ready`, `started`, `retry`, `waiting` or `dead`.
    pub state: String,
    /// What the message does.
    pub performative: String,
    /// Who sent it.
    pub sender: String,
    /// The number of the client's message that it is, or that it replies to.
    pub about: Option<u64>,
    /// The count that a program tells in it.
    pub count: Option<u64>,
    /// Why it failed last.
    pub reason: Option<String>,
}

impl Letter {
    /// A message that nobody tries to deliver any more.
    pub fn is_dead(&self) -> bool {
        self.state == "dead"
    }

    /// What the platform says to the sender of a message that will have no answer.
    pub fn is_notice(&self) -> bool {
        self.is_to_a_person() && self.sender == "platform:"
    }

    /// A message to an agent that has no outcome yet.
    pub fn is_pending(&self) -> bool {
        !self.is_to_a_person() && !self.is_dead()
    }

    fn is_answer(&self) -> bool {
        self.is_to_a_person() && self.sender != "platform:"
    }

    fn is_to_a_person(&self) -> bool {
        self.owner.starts_with("subject:")
    }
}

/// A message of all that were sent in a workspace, as a node tells it to followers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its position, from 1.
    pub position: u64,
    /// The lower half of its id.
    pub id: u64,
}

/// A message of a client's with everything that is known of it.
struct Message<'a> {
    errand: Errand,
    priority: u8,
    /// When it was asked for first, and when it was taken in at the latest.
    start: u64,
    end: u64,
    /// It was acknowledged.
    taken: bool,
    /// It was refused, and nothing of what was asked for it before can be under way.
    refused: Option<&'a str>,
    /// The ids of its acknowledgements, and how many of these said that it was new.
    ids: BTreeSet<u64>,
    fresh: usize,
}

/// Checks the messages of all workspaces against what the nodes have in the end, when nothing waits any more.
pub fn check(history: &[Op], seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let messages = messages(history);
    for node in &seen.nodes {
        for (key, letters) in &node.mail {
            let of = messages.get(key.as_str());
            outcomes(&place(key, node), letters, of, &mut findings);
            counts(&place(key, node), letters, &mut findings);
            order(&place(key, node), letters, of, seen.upsets, &mut findings);
        }
        for (key, said) in &node.said {
            feed(&place(key, node), said, messages.get(key.as_str()), &mut findings);
        }
        for (key, of) in &messages {
            if !node.mail.contains_key(*key) && of.values().any(|message| message.taken) {
                let text = format!("{}: messages were acknowledged, and there is no mailbox", place(key, node));
                findings.push(Finding::new("mail-lost", text));
            }
        }
    }
    keys(&messages, &mut findings);
    looks(history, &mut findings);
    findings
}

fn place(key: &str, node: &NodeSeen) -> String {
    format!("{key} on node {}", node.node)
}

fn messages(history: &[Op]) -> BTreeMap<&str, BTreeMap<u64, Message<'_>>> {
    let mut all: BTreeMap<&str, BTreeMap<u64, Message>> = BTreeMap::new();
    for op in history {
        let Ask::Mail { errand, priority, value, again } = op.ask else { continue };
        let message = all.entry(&op.key).or_default().entry(value).or_insert_with(|| Message {
            errand,
            priority,
            start: op.start,
            end: op.happened_by(),
            taken: false,
            refused: None,
            ids: BTreeSet::new(),
            fresh: 0,
        });
        match &op.outcome {
            Outcome::Ok { live, .. } => {
                message.taken = true;
                // 0 stands for an acknowledgement that a client made up.
                message.ids.extend((live.value != 0).then_some(live.value));
                message.fresh += usize::from(live.rev == 1);
            }
            Outcome::Fail { why, .. } if !again => message.refused = Some(why),
            Outcome::Fail { .. } | Outcome::Info { .. } => {}
        }
    }
    all
}

/// What of a message lies in mailboxes.
#[derive(Default)]
struct Lies<'a> {
    answers: Vec<&'a Letter>,
    notices: Vec<&'a Letter>,
    dead: Vec<&'a Letter>,
    pending: Vec<&'a Letter>,
}

/// Each message that was acknowledged has one outcome, and each other one at most.
fn outcomes(at: &str, letters: &[Letter], of: Option<&BTreeMap<u64, Message>>, findings: &mut Vec<Finding>) {
    let mut lies: BTreeMap<u64, Lies> = BTreeMap::new();
    for letter in letters {
        let Some(about) = letter.about else { continue };
        let found = lies.entry(about).or_default();
        match letter {
            _ if letter.is_notice() => found.notices.push(letter),
            _ if letter.is_answer() => found.answers.push(letter),
            _ if letter.is_dead() => found.dead.push(letter),
            _ => found.pending.push(letter),
        }
    }
    let none = BTreeMap::new();
    let of = of.unwrap_or(&none);
    for (value, found) in &lies {
        let what =
            || format!("{at}: message {value} has the answers {:?} and is dead as {:?}", found.answers, found.dead);
        match of.get(value) {
            None => findings
                .push(Finding::new("mail-alien", format!("{at}: nobody sent message {value}: {:?}", found.all()))),
            Some(Message { refused: Some(why), .. }) => {
                let text = format!("{at}: message {value} was refused ({why}) and is there: {:?}", found.all());
                findings.push(Finding::new("mail-refused", text));
            }
            Some(message) => {
                if found.answers.len() + found.dead.len() + found.pending.len() > 1 {
                    findings.push(Finding::new("mail-twice", what()));
                }
                if message.errand == Errand::Poison && !found.answers.is_empty() {
                    let text = format!("{at}: message {value} failed, and what it sent is there: {:?}", found.answers);
                    findings.push(Finding::new("mail-poison", text));
                }
                let alien = |letter: &&&Letter| letter.sender != message.errand.receiver();
                if let Some(letter) = found.answers.iter().find(alien) {
                    findings.push(Finding::new("mail-alien", format!("{at}: {letter:?} answers a message to another")));
                }
            }
        }
        if found.dead.len() != found.notices.len() {
            let text = format!(
                "{at}: message {value} is dead as {:?}, and its sender was told {:?}",
                found.dead, found.notices
            );
            findings.push(Finding::new("mail-notice", text));
        }
        if let Some(letter) = found.dead.iter().find(|letter| letter.reason.as_deref().is_none_or(str::is_empty)) {
            findings.push(Finding::new("mail-reason", format!("{at}: {letter:?} is dead without a reason")));
        }
        if !found.pending.is_empty() {
            let text = format!("{at}: message {value} has no outcome: {:?}", found.pending);
            findings.push(Finding::new("mail-stuck", text));
        }
    }
    for (value, message) in of.iter().filter(|(value, message)| message.taken && !lies.contains_key(value)) {
        let text = format!(
            "{at}: message {value} ({:?}) was acknowledged at {} ms and is lost",
            message.errand,
            message.end / 1_000_000
        );
        findings.push(Finding::new("mail-lost", text));
    }
}

impl Lies<'_> {
    fn all(&self) -> Vec<&Letter> {
        [&self.answers, &self.notices, &self.dead, &self.pending].into_iter().flatten().copied().collect()
    }
}

/// The program's count is its state, kept in one entry with its answer: each number is told once, and none is left out.
fn counts(at: &str, letters: &[Letter], findings: &mut Vec<Finding>) {
    let mut told: Vec<u64> = letters.iter().filter(|letter| letter.is_answer()).filter_map(|it| it.count).collect();
    told.sort_unstable();
    let wrong = told.iter().zip(1..).find(|(told, expected)| **told != *expected);
    if let Some((told, expected)) = wrong {
        let text =
            format!("{at}: the program told {told} where {expected} comes next: its state is not what it answered");
        findings.push(Finding::new("mail-count", text));
    }
}

/// What was acknowledged before another was sent comes before it, within a receiver and a priority. A message that was tried again
/// may come late, which is one a mailbox for each time that its node stopped leading.
fn order(at: &str, letters: &[Letter], of: Option<&BTreeMap<u64, Message>>, upsets: u64, findings: &mut Vec<Finding>) {
    let Some(of) = of else { return };
    // The program's own count says when it took a message; a model's answers have the order of their deliveries.
    let mut taken: HashMap<(&str, u8), Vec<(u64, u64)>> = HashMap::new();
    for letter in letters.iter().filter(|letter| letter.is_answer()) {
        let Some((value, message)) = letter.about.and_then(|value| Some((value, of.get(&value)?))) else { continue };
        let place = letter.count.unwrap_or(letter.number);
        taken.entry((message.errand.receiver(), message.priority)).or_default().push((place, value));
    }
    for ((receiver, priority), mut rows) in taken {
        rows.sort_unstable();
        let (mut newest, mut late) = (0, Vec::new());
        for (_, value) in rows {
            let message = &of[&value];
            if message.taken && message.end < newest {
                late.push(value);
            }
            newest = newest.max(message.start);
        }
        if late.len() as u64 > upsets {
            let text = format!(
                "{at}: {} messages to {receiver} of priority {priority} came after ones that were sent later, and leaders changed \
                 {upsets} times: {late:?}",
                late.len()
            );
            findings.push(Finding::new("mail-order", text));
        }
    }
}

/// Positions have no gap, and what was acknowledged has one.
fn feed(at: &str, said: &[Said], of: Option<&BTreeMap<u64, Message>>, findings: &mut Vec<Finding>) {
    if let Some((found, expected)) = said.iter().zip(1..).find(|(said, expected)| said.position != *expected) {
        let text = format!("{at}: {found:?} stands where position {expected} comes next");
        findings.push(Finding::new("mail-feed", text));
    }
    let mut times: HashMap<u64, usize> = HashMap::new();
    said.iter().for_each(|said| *times.entry(said.id).or_default() += 1);
    if let Some((id, count)) = times.iter().find(|(_, count)| **count > 1) {
        findings.push(Finding::new("mail-feed", format!("{at}: the message {id:016x} was told {count} times")));
    }
    for (value, message) in of.into_iter().flatten() {
        if let Some(id) = message.ids.iter().find(|id| !times.contains_key(id)) {
            let text = format!("{at}: message {value} was acknowledged as {id:016x} and was not told");
            findings.push(Finding::new("mail-feed", text));
        }
    }
}

/// What is sent again with the same key is the same message.
fn keys(messages: &BTreeMap<&str, BTreeMap<u64, Message>>, findings: &mut Vec<Finding>) {
    for (key, of) in messages {
        for (value, message) in of.iter().filter(|(_, message)| message.ids.len() > 1 || message.fresh > 1) {
            let text = format!(
                "{key}: message {value} was acknowledged under the ids {:x?}, {} times as new",
                message.ids, message.fresh
            );
            findings.push(Finding::new("mail-key", text));
        }
    }
}

/// At no moment is there a dead letter without its notice, or a notice without its dead letter.
fn looks(history: &[Op], findings: &mut Vec<Finding>) {
    for op in history.iter().filter(|op| op.ask == Ask::Look) {
        let Outcome::Ok { log, .. } = &op.outcome else { continue };
        let look = |of: u64| -> BTreeSet<u64> { log.iter().filter(|it| it.rev == of).map(|it| it.value).collect() };
        let (before, told, after) = (look(1), look(2), look(3));
        for (some, all, what) in
            [(&before, &told, "dead, and nobody was told"), (&told, &after, "told of, and not dead")]
        {
            if let Some(value) = some.difference(all).next() {
                let text = format!("{}: at {} ms message {value} was {what}", op.key, op.start / 1_000_000);
                findings.push(Finding::new("mail-torn", text));
            }
        }
    }
}

/// The count in an answer, if the program gave it.
pub fn count_of(sender: &str, content: &str) -> Option<u64> {
    if sender == model::COUNTER { model::count(content) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::samples::{self, Sample};
    use crate::history::Live;

    fn codes(sample: &Sample) -> BTreeSet<&'static str> {
        check(&sample.history, &sample.seen).iter().map(|finding| finding.code).collect()
    }

    fn letters(sample: &mut Sample) -> &mut Vec<Letter> {
        sample.seen.nodes[0].mail.get_mut("w0").expect("a mailbox")
    }

    fn outcome(sample: &mut Sample, of: u64) -> &mut Outcome {
        let is = |op: &&mut Op| matches!(op.ask, Ask::Mail { value, .. } if value == of);
        &mut sample.history.iter_mut().find(is).expect("the message").outcome
    }

    #[test]
    fn a_good_history_passes() {
        assert_eq!(check(&samples::mail().history, &samples::mail().seen), vec![]);
    }

    #[test]
    fn what_nobody_knows_of_may_have_one_outcome_or_none() {
        for change in [|_: &mut Sample| {}, |sample: &mut Sample| letters(sample).retain(|it| it.about != Some(25))] {
            let mut sample = samples::mail();
            change(&mut sample);
            *outcome(&mut sample, 25) = Outcome::Info { why: String::new() };
            sample.seen.nodes.truncate(1);
            assert_eq!(codes(&sample), BTreeSet::new());
        }
    }

    #[test]
    fn one_that_was_tried_again_may_come_late_and_no_more() {
        let mut sample = samples::mail();
        // Messages 21 and 22 change places.
        for letter in letters(&mut sample) {
            letter.count = match letter.count {
                Some(1) => Some(2),
                Some(2) => Some(1),
                other => other,
            };
        }
        assert_eq!(codes(&sample), BTreeSet::from(["mail-order"]));
        sample.seen.upsets = 1;
        assert_eq!(codes(&sample), BTreeSet::new());
    }

    #[test]
    fn each_defect_is_found_and_named() {
        let change: &[(&str, fn(&mut Sample))] = &[
            ("mail-lost", |s| letters(s).retain(|it| it.about != Some(21))),
            ("mail-lost", |s| drop(s.seen.nodes[0].mail.remove("w0"))),
            ("mail-twice", |s| {
                let mut again = letters(s)[0].clone();
                again.number = 99;
                letters(s).push(again);
            }),
            // Answered and dead.
            ("mail-twice", |s| {
                let mut dead = letters(s).iter().find(|it| it.is_dead()).expect("one").clone();
                dead.about = Some(21);
                letters(s).push(dead);
            }),
            ("mail-notice", |s| letters(s).retain(|it| !it.is_notice())),
            ("mail-notice", |s| letters(s).retain(|it| !it.is_dead())),
            ("mail-reason", |s| letters(s).iter_mut().for_each(|it| it.reason = None)),
            ("mail-poison", |s| {
                let mut answer = letters(s)[0].clone();
                (answer.about, answer.count) = (Some(24), Some(3));
                letters(s).push(answer);
            }),
            ("mail-count", |s| letters(s)[1].count = Some(7)),
            ("mail-count", |s| letters(s)[1].count = Some(1)),
            ("mail-alien", |s| letters(s)[0].about = Some(404)),
            ("mail-alien", |s| letters(s)[0].sender = "clerk".to_owned()),
            ("mail-refused", |s| *outcome(s, 21) = Outcome::Fail { seen: None, why: "full".to_owned() }),
            ("mail-stuck", |s| {
                let letter = letters(s).iter_mut().find(|it| it.is_dead()).expect("one");
                letter.state = "retry".to_owned();
            }),
            ("mail-key", |s| {
                let is = |op: &&Op| matches!(op.ask, Ask::Mail { value: 21, .. });
                let mut another = s.history.iter().find(is).expect("the message").clone();
                another.outcome = Outcome::Ok { live: Live { rev: 2, value: 777 }, event: None, log: Vec::new() };
                s.history.push(another);
            }),
            ("mail-feed", |s| _ = s.seen.nodes[0].said.get_mut("w0").expect("a feed").remove(1)),
            ("mail-feed", |s| s.seen.nodes[0].said.get_mut("w0").expect("a feed")[0].id = 5),
            ("mail-torn", |s| look(s, |log| log.retain(|it| it.rev != 2))),
            ("mail-torn", |s| look(s, |log| log.retain(|it| it.rev == 2))),
        ];
        for (code, change) in change {
            let mut sample = samples::mail();
            change(&mut sample);
            let found = codes(&sample);
            assert!(found.contains(code), "{code}: {found:?}");
        }
    }

    fn look(sample: &mut Sample, change: impl Fn(&mut Vec<Live>)) {
        let op = sample.history.iter_mut().find(|op| op.ask == Ask::Look).expect("a look");
        let Outcome::Ok { log, .. } = &mut op.outcome else { panic!("it was answered") };
        change(log);
    }
}
