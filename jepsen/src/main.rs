//! The fault harness: real `caxton` processes, real faults, and checkers that are known to be able to fail.
//!
//! It knows Caxton as a user does, by its binary and its API, and shares no code with it.

#![expect(clippy::print_stdout, reason = "a command line prints")]

mod fault;

mod scenarios;

mod controls;

mod run;

mod nemesis;

mod drill;

mod work;

mod cluster;

mod node;

mod net;

mod delay;

mod disk;

mod http;

mod model;

mod history;

mod check;

mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::node::Binary;
use crate::report::Report;
use crate::run::Options;
use crate::scenarios::Scenario;
use crate::work::Quirk;

#[derive(Parser)]
#[command(name = "jepsen", about = "Harms real Caxton nodes and checks that nothing acknowledged is lost")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the scenarios, and say which cannot run here and why
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Run one scenario
    Run {
        #[command(flatten)]
        common: Common,
        /// Which
        #[arg(long)]
        scenario: String,
        /// Draws the schedule; printed, and the same one draws the same schedule again
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Run the two that a busy machine can run at every change; what says nothing of safety is tried once more
    Smoke {
        #[command(flatten)]
        common: Common,
        /// As for `run`
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run the handful for whoever changed something that they harm
    Short {
        #[command(flatten)]
        common: Common,
        /// As for `run`
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run everything
    All {
        #[command(flatten)]
        common: Common,
        /// With how many seeds each, from 1
        #[arg(long, default_value_t = 3)]
        seeds: u64,
    },
    /// Put defects in, into recorded histories and into real runs, and see that every one is found
    Controls {
        #[command(flatten)]
        common: Common,
        /// As for `run`
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only those whose name has this in it
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Check the evidence of an earlier run again
    Check {
        /// An `evidence.json`
        file: PathBuf,
    },
}

#[derive(Args, Clone)]
struct Common {
    /// The binary to run
    #[arg(long, default_value = "caxton")]
    caxton: PathBuf,
    /// Another version of it, for the rolling upgrade
    #[arg(long)]
    other: Option<PathBuf>,
    /// How long each load runs, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Where reports go [default: a folder below the machine's folder for temporary files]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Use plain loopback addresses, also where namespaces can be made
    #[arg(long)]
    loopback: bool,
}

impl Common {
    fn options(&self, seed: u64) -> Result<Options> {
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("caxton-jepsen-{}", std::process::id())));
        std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let absolute = |path: &PathBuf| match path.canonicalize() {
            Ok(path) => Ok(path),
            // A bare name is looked up in PATH.
            Err(_) if path.components().count() == 1 => Ok(path.clone()),
            Err(error) => Err(error).with_context(|| format!("there is no {}", path.display())),
        };
        let binary = Binary { caxton: absolute(&self.caxton)?, old: self.other.as_ref().map(absolute).transpose()? };
        let out = out.canonicalize()?;
        Ok(Options { binary, seed, seconds: self.seconds, out, loopback: self.loopback, quirk: Quirk::Sound })
    }
}

fn main() -> ExitCode {
    match command(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> Result<bool> {
    match command {
        Command::List { common } => {
            let options = common.options(1)?;
            for scenario in scenarios::ALL {
                let can =
                    run::lacks(scenario, &options).map_or_else(String::new, |reason| format!(" (NOT here: {reason})"));
                println!("{:>2}  {:<20} {}{can}", scenario.number, scenario.name, scenario.about);
            }
            Ok(true)
        }
        Command::Run { common, scenario, seed } => {
            let scenario = named(&scenario)?;
            let seed = seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
            let options = common.options(seed)?;
            one(scenario, &options)
        }
        Command::Smoke { common, seed } => smoke(&common.options(seed)?),
        Command::Short { common, seed } => {
            let options = common.options(seed)?;
            several(scenarios::SHORT.iter().filter_map(|name| scenarios::named(name)), &[seed], &options)
        }
        Command::All { common, seeds } => {
            let options = common.options(1)?;
            let seeds: Vec<u64> = (1..=seeds).collect();
            several(scenarios::ALL.iter(), &seeds, &options)
        }
        Command::Controls { common, seed, only } => controls::run(&common.options(seed)?, &only),
        Command::Check { file } => {
            let evidence = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let evidence = serde_json::from_slice(&evidence).context("this is no evidence of a run")?;
            let (findings, undecided) = check::all(&evidence);
            findings.iter().for_each(|finding| println!("{}: {}", finding.code, finding.text));
            undecided.iter().for_each(|what| println!("undecided: {what}"));
            println!("{} findings, {} undecided", findings.len(), undecided.len());
            Ok(findings.is_empty() && undecided.is_empty())
        }
    }
}

fn named(name: &str) -> Result<&'static Scenario> {
    match scenarios::named(name) {
        Some(scenario) => Ok(scenario),
        None => bail!("there is no scenario `{name}`; `jepsen list` has them all"),
    }
}

fn one(scenario: &Scenario, options: &Options) -> Result<bool> {
    let report = run::run(scenario, options)?;
    tell(&report, options);
    Ok(report.verdict.is_fine())
}

fn tell(report: &Report, options: &Options) {
    println!("{}", report.line());
    for finding in report.findings.iter().take(10) {
        println!("    {}: {}", finding.code, finding.text.replace('\n', "\n      "));
    }
    if !report.verdict.is_fine() {
        let folder = format!("{}-{}", report.scenario, options.seed);
        println!("    report: {}", options.out.join(folder).join("report.md").display());
    }
}

/// A violation of safety ends this at once. A machine on which nodes are too slow to come together, or which could not set
/// a run up, gets a second chance, and says so.
fn smoke(options: &Options) -> Result<bool> {
    for scenario in scenarios::SMOKE.iter().filter_map(|name| scenarios::named(name)) {
        let mut options = options.clone();
        let mut report = run::run(scenario, &options)?;
        tell(&report, &options);
        if !report.verdict.is_fine() && !report.is_unsafe() {
            println!("    nothing was lost, as far as this run could tell: once more");
            options.seed += 1;
            report = run::run(scenario, &options)?;
            tell(&report, &options);
        }
        if !report.verdict.is_fine() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn several<'a>(all: impl Iterator<Item = &'a Scenario>, seeds: &[u64], options: &Options) -> Result<bool> {
    let mut fine = true;
    for scenario in all {
        for seed in seeds {
            fine &= one(scenario, &Options { seed: *seed, ..options.clone() })?;
        }
    }
    println!("{}: reports are in {}", if fine { "all fine" } else { "NOT all fine" }, options.out.display());
    Ok(fine)
}

/// A lock whose holder may have panicked: what it guards is whole after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
