//! What the tables alone cost: one thread applies what becomes of each message, without the log, HTTP and programs. Nothing that
//! keeps them so can settle more.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caxton_benches::figures::{Figures, thread_time};
use caxton_messages::acl::{Content, Message, MessageId, Performative};
use caxton_messages::mailbox::{Action, Command, Outcome, Submission, Verdict};
use caxton_messages::{Limits, Ready, TABLES, apply, due, next, waiting};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{Bench, row, say};

/// Messages that are applied between two commits: a node commits once a second, and has some thousand by then.
const COMMIT_AFTER: u64 = 2_000;
/// A node gives out so many at a time.
const ROUND: usize = 64;
const TERM: u64 = 1;

/// The tables of one workspace, and how many messages were in them.
struct Tables {
    db: Connection,
    limits: Limits,
    drawn: u128,
}

pub fn measure(bench: &Bench<'_>) -> Result<()> {
    let args = bench.args;
    let mut tables = Tables::open(&bench.dir.join("tables.db"))?;
    let (mut taken, mut started, mut settled, mut looked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (began, began_thread, mut sent) = (Instant::now(), thread_time(), 0);
    while began.elapsed() < args.time() {
        for sender in 0..ROUND {
            let at = thread_time();
            tables.send(sender, args.agents, &"x".repeat(args.bytes), args.conversation_each)?;
            taken.push(thread_time() - at);
        }
        let at = thread_time();
        let ready = tables.round(args.agents)?;
        looked.push((thread_time() - at) / ROUND as u32);
        let at = thread_time();
        tables.start(&ready)?;
        started.push((thread_time() - at) / ROUND as u32);
        ensure!(ready.len() == ROUND, "{} of {ROUND} messages can be started", ready.len());
        for (_, one) in ready {
            let at = thread_time();
            tables.settle(&one)?;
            settled.push(thread_time() - at);
        }
        sent += ROUND as u64;
        if sent % COMMIT_AFTER < ROUND as u64 {
            tables.db.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        }
    }
    let took = thread_time() - began_thread;
    say(&["the tables alone, of one thread: sent, started, settled with an answer", &rate(sent, took), "", "", ""])?;
    for (what, times) in [
        ("of it, taking one", taken),
        ("of it, looking for one that can be started", looked),
        ("of it, starting one", started),
        ("of it, settling one with its answer", settled),
    ] {
        let spent = times.iter().sum::<Duration>();
        let part = spent.as_secs_f64() * if times.len() as u64 == sent { 1.0 } else { ROUND as f64 };
        row(what, &Figures::of(times, took)?, &format!("{:.0} % of the time", 1e2 * part / took.as_secs_f64()))?;
    }
    Ok(())
}

fn rate(count: u64, took: Duration) -> String {
    format!("{:.0}", count as f64 / took.as_secs_f64())
}

impl Tables {
    /// As a shard's file is opened.
    fn open(file: &Path) -> Result<Tables> {
        let db = Connection::open(file)?;
        db.set_prepared_statement_cache_capacity(128);
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", "NORMAL"), ("cache_size", "-4096")] {
            db.pragma_update(None, name, value)?;
        }
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        TABLES.iter().try_for_each(|(_, sql)| db.execute_batch(sql))?;
        db.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Tables { db, limits: Limits::default(), drawn: 0 })
    }

    fn run(&self, action: Action) -> Result<Outcome> {
        let time_ms = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
        let command = Command { workspace: "bench".parse()?, time_ms, mailboxes_max: Some(100_000), action };
        // An entry is written and read.
        let command = Command::decode(&command.encode())?;
        Ok(apply(&self.db, &command, TERM, &self.limits)?)
    }

    fn draw(&mut self) -> MessageId {
        self.drawn += 1;
        MessageId::from_bytes(self.drawn.to_be_bytes())
    }

    fn send(&mut self, sender: usize, agents: usize, text: &str, conversation_each: bool) -> Result<()> {
        let to = format!("echo-{}", sender % agents).parse()?;
        let mut message =
            Message::new(Performative::Request, [to]).stamped(format!("subject:sender-{sender}").parse()?);
        message.content = Some(Content::text(text));
        message.conversation_id = (!conversation_each).then(|| format!("flow-{sender}"));
        let submission = Submission::new(self.draw(), message);
        let outcome = self.run(Action::Send(vec![submission]))?;
        ensure!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
        Ok(())
    }

    /// What a round reads to find what can be started.
    fn round(&self, agents: usize) -> Result<Vec<(String, Ready)>> {
        let now_ms = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
        due(&self.db, now_ms, TERM, &self.limits)?;
        let found = waiting(&self.db, now_ms, 0, agents)?;
        let mut all = Vec::new();
        for (_, workspace, owner) in found {
            let ready = next(&self.db, &workspace, &owner, now_ms, ROUND, &self.limits)?;
            all.extend(ready.into_iter().map(|one| (owner.to_string(), one)));
        }
        Ok(all)
    }

    fn start(&self, ready: &[(String, Ready)]) -> Result<()> {
        let numbers = ready.iter().map(|(_, one)| one.delivery).collect();
        let outcome = self.run(Action::Start(numbers))?;
        ensure!(matches!(&outcome, Outcome::Started(all) if all.len() == ready.len()), "{outcome:?}");
        Ok(())
    }

    fn settle(&mut self, ready: &Ready) -> Result<()> {
        let message = &ready.submission.message;
        let agent = message.receivers.first().context("a receiver")?.clone();
        let mut answer = message.reply(Performative::Inform, message.content.clone()).stamped(agent);
        answer.conversation_id.get_or_insert_with(|| ready.submission.id.to_string());
        let submissions = vec![Submission::new(self.draw(), answer)];
        let (delivery, attempt) = (ready.delivery, ready.attempt);
        let (verdict, state) = (Verdict::Done("handled".to_owned()), BTreeMap::new());
        let outcome = self.run(Action::Settle { delivery, attempt, verdict, submissions, state })?;
        ensure!(matches!(outcome, Outcome::Settled { .. }), "{outcome:?}");
        Ok(())
    }
}
