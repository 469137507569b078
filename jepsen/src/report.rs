//! What is left of a run: a page for people, the same for programs, and the history for other checkers.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::check::{Evidence, Finding};
use crate::history::{Ask, Op, by_key, edn};
use crate::nemesis::Done;
use crate::run::Options;
use crate::scenarios::Scenario;

/// A pause between two acknowledged writes that is worth a line, in milliseconds.
const GAP_MS: u64 = 1_000;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing was found.
    Passed,
    /// Something was found: see the findings.
    Failed,
    /// The checkers could not tell.
    Undecided {
        /// Why not.
        reason: String,
    },
    /// This machine cannot do it.
    NotRun {
        /// What it lacks.
        reason: String,
    },
    /// The harness itself failed, so nothing is known.
    Broken {
        /// How.
        reason: String,
    },
}

impl Verdict {
    /// In a few words.
    pub fn words(&self) -> String {
        match self {
            Verdict::Passed => "passed".to_owned(),
            Verdict::Failed => "FAILED".to_owned(),
            Verdict::Undecided { reason } => format!("UNDECIDED: {reason}"),
            Verdict::NotRun { reason } => format!("NOT RUN: {reason}"),
            Verdict::Broken { reason } => format!("HARNESS BROKE: {reason}"),
        }
    }

    /// Whether a command that ran this may end well. What cannot be had here is told, and is no failure.
    pub fn is_fine(&self) -> bool {
        matches!(self, Verdict::Passed | Verdict::NotRun { .. })
    }
}

/// Findings that say that nodes were slow or could not be asked, and nothing of what they lost.
const LIVENESS: [&str; 4] = ["converge", "look", "node-stop", "mail-stuck"];

/// Operations of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Their kind.
    pub kind: &'static str,
    /// Acknowledged.
    pub ok: usize,
    /// Refused.
    pub fail: usize,
    /// Unknown.
    pub info: usize,
    /// The median of those acknowledged, in milliseconds.
    pub median_ms: f64,
    /// The slowest of those acknowledged, in milliseconds.
    pub max_ms: f64,
}

/// The report of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// Its number.
    pub number: u32,
    /// What it does.
    pub about: &'static str,
    /// The seed.
    pub seed: u64,
    /// How long the load ran at least.
    pub seconds: u64,
    /// What it ran.
    pub binary: String,
    /// Where it ran.
    pub hosts: String,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What must not be.
    pub findings: Vec<Finding>,
    /// What was done.
    pub timeline: Vec<Done>,
    /// What the clients did.
    pub counts: Vec<Counts>,
    /// Acknowledged operations in each second.
    pub per_second: Vec<usize>,
    /// Pauses between acknowledged writes: from and to, in milliseconds.
    pub gaps_ms: Vec<(u64, u64)>,
    /// When everything was put right, in nanoseconds of the history's clock.
    pub healed_ns: u64,
    /// When the cluster was whole again.
    pub settled_ns: u64,
    /// How long all of it took, in seconds.
    pub took_s: f64,
    /// What the nodes said; written beside the report when something was found.
    #[serde(skip)]
    pub logs: Vec<(String, String)>,
}

impl Report {
    /// An empty one.
    pub fn new(scenario: &Scenario, options: &Options) -> Report {
        Report {
            scenario: scenario.name,
            number: scenario.number,
            about: scenario.about,
            seed: options.seed,
            seconds: options.seconds,
            binary: options.binary.caxton.display().to_string(),
            hosts: String::new(),
            verdict: Verdict::Broken { reason: "it did not get to its end".to_owned() },
            findings: Vec::new(),
            timeline: Vec::new(),
            counts: Vec::new(),
            per_second: Vec::new(),
            gaps_ms: Vec::new(),
            healed_ns: 0,
            settled_ns: 0,
            took_s: 0.0,
            logs: Vec::new(),
        }
    }

    /// Counts what a history holds.
    pub fn measure(&mut self, history: &[Op]) {
        type IsKind = fn(&Ask) -> bool;
        let kinds: [(&'static str, IsKind); 10] = [
            ("deployments", |ask| matches!(ask, Ask::Cas { .. })),
            ("reads", |ask| matches!(ask, Ask::Read)),
            ("log reads", |ask| matches!(ask, Ask::Log)),
            ("messages", |ask| matches!(ask, Ask::Say { .. })),
            ("mail", |ask| matches!(ask, Ask::Mail { .. })),
            ("looks at dead letters", |ask| matches!(ask, Ask::Look)),
            ("memories kept", |ask| matches!(ask, Ask::Remember { .. })),
            ("memories changed", |ask| matches!(ask, Ask::Edit { .. } | Ask::Forget { .. })),
            ("memories read", |ask| matches!(ask, Ask::Recall { .. })),
            ("memories found", |ask| matches!(ask, Ask::Search { .. })),
        ];
        for (kind, is_kind) in kinds {
            let mut counts = Counts { kind, ..Counts::default() };
            let mut took = Vec::new();
            for op in history.iter().filter(|op| is_kind(&op.ask)) {
                match op.outcome {
                    crate::history::Outcome::Ok { .. } => {
                        counts.ok += 1;
                        took.push((op.end - op.start) as f64 / 1e6);
                    }
                    crate::history::Outcome::Fail { .. } => counts.fail += 1,
                    crate::history::Outcome::Info { .. } => counts.info += 1,
                }
            }
            took.sort_by(f64::total_cmp);
            counts.median_ms = took.get(took.len() / 2).copied().unwrap_or(0.0);
            counts.max_ms = took.last().copied().unwrap_or(0.0);
            self.counts.push(counts);
        }
        let mut writes = vec![0];
        for op in history.iter().filter(|op| op.is_ok()) {
            let second = (op.end / 1_000_000_000) as usize;
            self.per_second.resize(self.per_second.len().max(second + 1), 0);
            self.per_second[second] += 1;
            if matches!(op.ask, Ask::Cas { .. }) {
                writes.push(op.end / 1_000_000);
            }
        }
        writes.sort_unstable();
        self.gaps_ms =
            writes.windows(2).filter(|pair| pair[1] - pair[0] > GAP_MS).map(|pair| (pair[0], pair[1])).collect();
    }

    /// Whether something was found that no slow machine explains.
    pub fn is_unsafe(&self) -> bool {
        self.findings.iter().any(|finding| !LIVENESS.contains(&finding.code))
    }

    /// One line.
    pub fn line(&self) -> String {
        let ok: usize = self.counts.iter().map(|counts| counts.ok).sum();
        let info: usize = self.counts.iter().map(|counts| counts.info).sum();
        let away: u64 = self.gaps_ms.iter().map(|gap| gap.1 - gap.0).sum();
        let name = self.scenario;
        let run = if matches!(self.verdict, Verdict::NotRun { .. }) {
            String::new()
        } else {
            format!(
                " ({ok} acknowledged, {info} unknown, no write for {:.1} s in {} pauses, {:.0} s in all)",
                away as f64 / 1e3,
                self.gaps_ms.len(),
                self.took_s
            )
        };
        format!("{name:<20} seed {:<4} {}{run}", self.seed, self.verdict.words())
    }

    /// Writes everything into a folder.
    pub fn write(&self, folder: &Path, evidence: Option<&Evidence>) -> Result<()> {
        let put = |name: &str, text: String| {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        put("report.md", self.page())?;
        put("report.json", serde_json::to_string_pretty(self)?)?;
        if let Some(evidence) = evidence {
            put("evidence.json", serde_json::to_string(evidence)?)?;
            for (key, ops) in by_key(&evidence.history) {
                put(&format!("history-{key}.edn"), edn(&ops))?;
            }
        }
        if !self.verdict.is_fine() {
            for (name, said) in &self.logs {
                put(name, said.clone())?;
            }
        }
        Ok(())
    }

    /// The page for people.
    fn page(&self) -> String {
        let mut page = format!(
            "# {} (scenario {}), seed {}: {}\n\n{}\n\n- again: `jepsen run --scenario {} --seed {} --seconds {}`\n- hosts: {}\n- program: `{}`\n",
            self.scenario,
            self.number,
            self.seed,
            self.verdict.words(),
            self.about,
            self.scenario,
            self.seed,
            self.seconds,
            self.hosts,
            self.binary
        );
        if self.settled_ns > 0 {
            let heal = (self.settled_ns - self.healed_ns) as f64 / 1e9;
            let _ =
                writeln!(page, "- whole again {heal:.1} s after everything was put right; {:.0} s in all", self.took_s);
        }
        if !self.findings.is_empty() {
            page.push_str("\n## Findings\n\n");
            for finding in self.findings.iter().take(50) {
                let _ = writeln!(page, "- **{}** {}", finding.code, finding.text);
            }
        }
        page.push_str(
            "\n## Operations\n\n| kind | ok | fail | info | median ms | max ms |\n|---|---|---|---|---|---|\n",
        );
        for c in &self.counts {
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {:.0} | {:.0} |",
                c.kind, c.ok, c.fail, c.info, c.median_ms, c.max_ms
            );
        }
        page.push_str("\n## Timeline\n\n| at ms | took ms | what |\n|---|---|---|\n");
        for done in &self.timeline {
            let _ = writeln!(page, "| {} | {} | {} |", done.at_ms, done.took_ms, done.what.replace('|', "/"));
        }
        let _ = writeln!(page, "\n## No acknowledged deployment for more than {GAP_MS} ms\n");
        for (from, to) in &self.gaps_ms {
            let _ = writeln!(page, "- {from} to {to} ms ({:.1} s)", (to - from) as f64 / 1e3);
        }
        page.push_str("\n## Acknowledged operations in each second\n\n```\n");
        for row in self.per_second.chunks(20) {
            let _ = writeln!(page, "{}", row.iter().map(|n| format!("{n:>4}")).collect::<String>());
        }
        page.push_str("```\n");
        page
    }
}
