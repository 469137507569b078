//! What nodes have of mailboxes and memories, by what the leader answers and by each node's own tables.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Cluster;
use crate::check::mail::{Letter, Said, count_of};
use crate::check::memories::Kept;
use crate::check::{Finding, NodeSeen};
use crate::model;
use crate::work::half;

/// How long messages may wait for an outcome once nobody sends any more: five attempts of the last one take a quarter of a minute.
const QUIET_WAIT: Duration = Duration::from_secs(90);
/// How long a node's own tables may be behind.
const OWN_WAIT: Duration = Duration::from_secs(30);
/// The most rows on a page.
const PAGE: usize = 500;

/// What a node has of the mailboxes and memories of all workspaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The deliveries of each workspace, in the order of their numbers.
    pub mail: BTreeMap<String, Vec<Letter>>,
    /// What was sent in each.
    pub said: BTreeMap<String, Vec<Said>>,
    /// The memories of each.
    pub memories: BTreeMap<String, Vec<Kept>>,
}

/// Whose tables are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Those of whoever leads the shard.
    Leader,
    /// Those of the node itself.
    Node,
}

impl Cluster {
    /// Waits until every message to an agent has its outcome. One that has none in the end is left to the checkers.
    pub fn quiet(&self, workspaces: &[String]) {
        let deadline = Instant::now() + QUIET_WAIT;
        let Some(node) = self.members().first().copied() else { return };
        let is_quiet = |workspace: &String| {
            let letters = self.letters(node, workspace, Source::Leader);
            letters.is_ok_and(|letters| !letters.iter().any(Letter::is_pending))
        };
        while Instant::now() < deadline && !workspaces.iter().all(is_quiet) {
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What a node shows of mailboxes and memories.
    pub fn holdings(&self, index: usize, workspaces: &[String], source: Source) -> Result<Holdings> {
        let mut holdings = Holdings::default();
        for workspace in workspaces {
            let letters = self.letters(index, workspace, source)?;
            if !letters.is_empty() {
                holdings.mail.insert(workspace.clone(), letters);
            }
            let said = self.sent(index, workspace, source)?;
            if !said.is_empty() {
                holdings.said.insert(workspace.clone(), said);
            }
            let memories = self.memories(index, workspace, source)?;
            if !memories.is_empty() {
                holdings.memories.insert(workspace.clone(), memories);
            }
        }
        Ok(holdings)
    }

    /// What the node itself has is what the leader shows.
    pub fn own_holdings(&self, seen: &NodeSeen, workspaces: &[String]) -> Vec<Finding> {
        let deadline = Instant::now() + OWN_WAIT;
        loop {
            let own = match self.holdings(seen.node, workspaces, Source::Node) {
                Ok(own) => own,
                Err(error) => return vec![Finding::new("own-mail", format!("{error:#}"))],
            };
            let differ = [
                ("own-mail", differing(&own.mail, &seen.mail)),
                ("own-mail", differing(&own.said, &seen.said)),
                ("own-memories", differing(&own.memories, &seen.memories)),
            ];
            let finding = |(code, differs): (&'static str, Option<String>)| {
                Some(Finding::new(code, format!("node {} itself: {}", seen.node, differs?)))
            };
            let findings: Vec<Finding> = differ.into_iter().filter_map(finding).collect();
            if findings.is_empty() || Instant::now() > deadline {
                return findings;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn letters(&self, index: usize, workspace: &str, source: Source) -> Result<Vec<Letter>> {
        let rows = self.pages(index, &format!("/api/v1/workspaces/{workspace}/mailbox"), source, "deliveries")?;
        rows.iter().map(|row| letter(row).with_context(|| format!("a delivery without its fields: {row}"))).collect()
    }

    fn sent(&self, index: usize, workspace: &str, source: Source) -> Result<Vec<Said>> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let stale = source == Source::Node;
            let path =
                format!("/api/v1/workspaces/{workspace}/mailbox/events?limit={PAGE}&after={after}&stale={stale}");
            let page = self.get(index, &path)?;
            for row in page["events"].as_array().context("no events")? {
                let said = || Some(Said { position: row["position"].as_u64()?, id: half(&row["id"])? });
                all.push(said().with_context(|| format!("an event without its numbers: {row}"))?);
            }
            if page["more"] != true {
                return Ok(all);
            }
            after = page["reached"].as_u64().context("no position")?;
        }
    }

    fn memories(&self, index: usize, workspace: &str, source: Source) -> Result<Vec<Kept>> {
        let rows = self.pages(index, &format!("/api/v1/workspaces/{workspace}/memories"), source, "memories")?;
        let kept = |row: &Value| {
            let (memory, value) = model::memory_read(row["text"].as_str()?)?;
            Some(Kept { memory, value, id: model::memory_number(row["id"].as_str()?).unwrap_or_default() })
        };
        let mut all: Vec<Kept> = rows.iter().filter_map(kept).collect();
        all.sort_unstable();
        Ok(all)
    }

    fn pages(&self, index: usize, path: &str, source: Source, name: &str) -> Result<Vec<Value>> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let stale = source == Source::Node;
            let page = self.get(index, &format!("{path}?limit={PAGE}&stale={stale}{after}"))?;
            all.extend(page[name].as_array().with_context(|| format!("no {name}"))?.iter().cloned());
            after = match &page["next"] {
                Value::Null => return Ok(all),
                Value::String(next) => format!("&after={next}"),
                Value::Number(next) => format!("&after={next}"),
                other => bail!("{path}: the next page is asked for after {other}"),
            };
        }
    }
}

/// A delivery as the API writes it.
pub fn letter(row: &Value) -> Option<Letter> {
    let message = &row["message"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let sender = text(&message["sender"])?;
    let about = message["in_reply_to"].as_str().or(message["reply_with"].as_str()).and_then(model::marked);
    let count = message["content"].as_str().and_then(|content| count_of(&sender, content));
    Some(Letter {
        number: row["delivery"].as_u64()?,
        owner: text(&row["owner"])?,
        state: text(&row["state"])?,
        performative: text(&message["performative"])?,
        sender,
        about,
        count,
        reason: text(&row["reason"]),
    })
}

/// Where two views of the workspaces are not the same.
fn differing<T: PartialEq + std::fmt::Debug>(
    own: &BTreeMap<String, Vec<T>>,
    seen: &BTreeMap<String, Vec<T>>,
) -> Option<String> {
    let keys = own.keys().chain(seen.keys());
    keys.into_iter().find_map(|key| {
        let (one, other) = (own.get(key).map_or(&[][..], Vec::as_slice), seen.get(key).map_or(&[][..], Vec::as_slice));
        let at = one.iter().zip(other).position(|(a, b)| a != b).unwrap_or(one.len().min(other.len()));
        (one != other).then(|| {
            let (own, seen) = (one.get(at), other.get(at));
            format!("{key}: {} rows of {}, and place {at} is {own:?} and not {seen:?}", one.len(), other.len())
        })
    })
}
