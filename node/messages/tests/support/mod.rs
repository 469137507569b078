//! What the tests share: a database in memory, and short ways to say commands.

#![allow(dead_code)]

use std::collections::BTreeMap;

use caxton_messages::acl::{Address, Content, Message, MessageId, Performative};
use caxton_messages::mailbox::{Action, Command, Fate, Outcome, Reason, Submission, Verdict};
use caxton_messages::{Limits, Listing, Ready, TABLES, apply, list, next};
use rusqlite::Connection;
use rusqlite::types::Value;

pub struct Store {
    pub db: Connection,
    pub limits: Limits,
    pub now_ms: i64,
    pub term: u64,
    pub workspace: &'static str,
    pub mailboxes_max: Option<u64>,
    drawn: u128,
}

pub fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

pub fn message(performative: Performative, from: &str, to: &str) -> Message {
    let receivers = to.split(' ').map(address);
    let mut message = Message::new(performative, receivers).stamped(address(from));
    message.content = Some(Content::text("x"));
    message
}

fn open() -> Connection {
    let db = Connection::open_in_memory().expect("memory");
    TABLES.iter().for_each(|(name, sql)| db.execute_batch(sql).expect(name));
    db
}

impl Store {
    pub fn new(limits: Limits) -> Store {
        Store { db: open(), limits, now_ms: 1_000_000, term: 1, workspace: "w", mailboxes_max: None, drawn: 0 }
    }

    pub fn submission(&mut self, message: Message) -> Submission {
        self.drawn += 1;
        Submission::new(MessageId::from_bytes(self.drawn.to_be_bytes()), message)
    }

    pub fn run(&mut self, action: Action) -> Outcome {
        let command = Command {
            workspace: self.workspace.parse().expect("a name"),
            time_ms: self.now_ms,
            mailboxes_max: self.mailboxes_max,
            action,
        };
        assert_eq!(Command::decode(&command.encode()).expect("what is written can be read"), command);
        let transaction = self.db.unchecked_transaction().expect("SQLite");
        let outcome = apply(&transaction, &command, self.term, &self.limits).expect("SQLite");
        transaction.commit().expect("SQLite");
        assert_eq!(Outcome::decode(&outcome.encode()).expect("an outcome"), outcome);
        outcome
    }

    pub fn send(&mut self, submission: Submission) -> Fate {
        match self.run(Action::Send(vec![submission])) {
            Outcome::Sent(receipts) => receipts.into_iter().next().expect("one").fate,
            other => panic!("{other:?}"),
        }
    }

    pub fn say(&mut self, message: Message) -> Fate {
        let submission = self.submission(message);
        self.send(submission)
    }

    pub fn refused(&mut self, message: Message) -> Reason {
        match self.say(message) {
            Fate::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    pub fn accepted(&mut self, message: Message) {
        let fate = self.say(message);
        assert!(matches!(fate, Fate::Accepted { .. }), "{fate:?}");
    }

    pub fn next(&self, owner: &str, most: usize) -> Vec<Ready> {
        let workspace = self.workspace.parse().expect("a name");
        next(&self.db, &workspace, &address(owner), self.now_ms, most, &self.limits).expect("SQLite")
    }

    /// Starts what comes next.
    pub fn take(&mut self, owner: &str) -> Option<Ready> {
        let ready = self.next(owner, 1).into_iter().next()?;
        assert_eq!(self.run(Action::Start(vec![ready.delivery])), Outcome::Started(vec![ready.delivery]));
        Some(ready)
    }

    pub fn settle(&mut self, ready: &Ready, verdict: Verdict) -> Outcome {
        let (delivery, attempt) = (ready.delivery, ready.attempt);
        self.run(Action::Settle { delivery, attempt, verdict, submissions: Vec::new(), state: BTreeMap::new() })
    }

    pub fn done(&mut self, owner: &str) -> Ready {
        let ready = self.take(owner).expect("something waits");
        self.settle(&ready, Verdict::Done("ok".to_owned()));
        ready
    }

    pub fn tick(&mut self) -> Outcome {
        self.run(Action::Tick { term: self.term })
    }

    pub fn list(&self, what: Listing) -> Vec<caxton_messages::Listed> {
        list(&self.db, &self.workspace.parse().expect("a name"), &Listing { most: 10_000, ..what }).expect("SQLite")
    }

    pub fn dead(&self) -> Vec<caxton_messages::Listed> {
        self.list(Listing { dead: Some(true), ..Listing::default() })
    }

    /// Everything that is kept: each table with its rows.
    pub fn rows(&self) -> Vec<(&'static str, Vec<Vec<Value>>)> {
        let table = |(name, _): &(&'static str, &'static str)| {
            let mut statement = self.db.prepare(&format!("SELECT * FROM {name}")).expect("SQLite");
            let columns = statement.column_count();
            let row = |row: &rusqlite::Row<'_>| (0..columns).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>();
            let rows = statement.query_map([], row).expect("SQLite");
            (*name, rows.collect::<Result<Vec<_>, _>>().expect("SQLite"))
        };
        TABLES.iter().map(table).collect()
    }

    /// A replica that was restored from a snapshot of this one.
    pub fn restored(&self) -> Store {
        let db = open();
        for (name, rows) in self.rows() {
            for row in rows {
                let marks = vec!["?"; row.len()].join(", ");
                let sql = format!("INSERT INTO {name} VALUES ({marks})");
                db.execute(&sql, rusqlite::params_from_iter(row)).expect("SQLite");
            }
        }
        Store {
            db,
            limits: self.limits,
            now_ms: self.now_ms,
            term: self.term,
            workspace: self.workspace,
            mailboxes_max: self.mailboxes_max,
            drawn: self.drawn,
        }
    }
}
