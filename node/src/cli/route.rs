//! `caxton route TEXT`: which live agent a message would go to, and with `--explain` why.

use semver::VersionReq;

use crate::api::paths;
use crate::api::{RouteCandidate, RouteRequest, RouteResponse};
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, DIM, GOOD, Table, WARN, paint};
use crate::cli::{CliError, Context, text};
use crate::client::Retry;

/// Candidates that are named when nobody can do it.
const NEAREST_SHOWN: usize = 3;
/// Words of a candidate that are named.
const WORDS_SHOWN: usize = 5;

/// Arguments of `caxton route`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns of --explain: AGENT and CAPABILITY who it would be, ORDER what sorts them, SCORE how well it fits, NEEDS the least that \
counts, then what the score is made of: MIDDLE of all phrases, NEAREST phrase, WORDS in common, NAME of the capability, AGENT \
as a whole; TURNS under way.

Examples:
  caxton route \"draw the sales of last year as bars\"
  caxton route --explain \"draw the sales of last year as bars\"
  caxton route --capability-version '^2' plot_chart")]
pub struct Args {
    /// The message, or a capability's name.
    text: String,
    /// Show every candidate with its score and what the score is made of.
    #[arg(long)]
    explain: bool,
    /// Ask for a version of the capability, as in `^1.2`; the nearest serves if nobody has it.
    #[arg(long, value_name = "REQ")]
    capability_version: Option<VersionReq>,
}

/// Asks, and prints the answer.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let path = Remote { client: &client, id: &id }.path(paths::ROUTE);
    let request = RouteRequest { text: args.text, version: args.capability_version };
    let answer: RouteResponse = context.block_on(async { Ok(client.post(&path, &request, Retry::Once).await?) })?;
    let out = &context.out;
    for line in summary(&answer) {
        out.line(line)?;
    }
    if args.explain && !answer.candidates.is_empty() {
        out.line("")?;
        out.table(table(&answer.candidates))?;
        for candidate in &answer.candidates {
            out.hanging(format_args!("{}: ", paint(BOLD, &candidate.capability)), reason(candidate))?;
        }
    }
    let source = if answer.cached { "remembered" } else { "worked out" };
    out.line(paint(DIM, format!("{source} in {} us, {}", answer.took_us, answer.revision)))?;
    out.json(&answer)
}

fn summary(answer: &RouteResponse) -> Vec<String> {
    let Some(chosen) = &answer.chosen else {
        let nearest = answer.candidates.iter().take(NEAREST_SHOWN);
        let nearest: Vec<String> = nearest
            .map(|near| {
                format!("  {} of {} ({:.2}, needs {:.2})", near.capability, near.agent, near.score, near.threshold)
            })
            .collect();
        let mut lines = vec![paint(WARN, "Nobody here can do this.").to_string()];
        if !nearest.is_empty() {
            lines.push("Nearest:".to_owned());
            lines.extend(nearest);
        }
        return lines;
    };
    let mut lines = vec![format!(
        "{} {}",
        paint(GOOD, &chosen.agent),
        paint(DIM, format!("for {} {}", chosen.capability, chosen.version))
    )];
    if chosen.degraded {
        lines.push(paint(WARN, "No live agent has the version asked for; this is the nearest.").to_string());
    }
    lines
}

fn table(candidates: &[RouteCandidate]) -> Table {
    let mut table = Table::new([
        "AGENT",
        "CAPABILITY",
        "ORDER",
        "SCORE",
        "NEEDS",
        "MIDDLE",
        "NEAREST",
        "WORDS",
        "NAME",
        "AGENT",
        "TURNS",
    ]);
    for candidate in candidates {
        let parts = &candidate.parts;
        let numbers = [
            candidate.order,
            candidate.score,
            candidate.threshold,
            parts.centre,
            parts.nearest,
            parts.keywords,
            parts.summary,
            parts.agent,
        ];
        let names = [candidate.agent.to_string(), candidate.capability.to_string()];
        let numbers = numbers.map(|number| format!("{number:.2}"));
        table.row(names.into_iter().chain(numbers).chain([candidate.underway.to_string()]));
    }
    table
}

fn reason(candidate: &RouteCandidate) -> String {
    let words: Vec<&str> = candidate.words.iter().take(WORDS_SHOWN).map(String::as_str).collect();
    let words = if words.is_empty() { "no word in common".to_owned() } else { format!("words: {}", words.join(", ")) };
    let phrase = text::one_line(&candidate.nearest_phrase);
    format!("nearest phrase \"{phrase}\"; {}", text::one_line(&words))
}
