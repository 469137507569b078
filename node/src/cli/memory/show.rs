//! How memories, hits, the graph and counts look on a terminal.

use super::many;
use crate::api::memory::{
    GraphResponse, MemoryBackendInfo, MemoryDetail, MemoryHit, MemoryInfo, MemoryPage, MemoryStats, ScoreParts,
    SearchResponse,
};
use crate::cli::output::{BAD, BOLD, DIM, Table, paint, size};
use crate::cli::{CliError, Context, text};

/// Characters of a text in a table.
const TEXT_SHOWN: usize = 80;

fn short(said: &str) -> String {
    crate::text::preview(&text::one_line(said), TEXT_SHOWN)
}

/// A page of memories.
pub fn list(context: &Context, page: &MemoryPage) -> Result<(), CliError> {
    let out = &context.out;
    if page.memories.is_empty() {
        out.line("Nothing is remembered. Try: caxton memory add \"...\"")?;
    } else {
        let mut table = Table::new(["MEMORY", "CHANGED", "SCOPE", "KIND", "TEXT"]);
        for memory in &page.memories {
            let cells = [&memory.id, &text::age(&memory.changed), &memory.scope, &memory.kind, &short(&memory.text)];
            table.row(cells.map(|cell| text::one_line(cell)));
        }
        out.table(table)?;
    }
    if let Some(next) = &page.next {
        out.note(paint(DIM, format!("there are more: --after {next}")));
    }
    out.json(page)
}

/// What a search found, and by what.
pub fn found(context: &Context, found: &SearchResponse) -> Result<(), CliError> {
    let out = &context.out;
    if found.hits.is_empty() {
        out.line(format_args!("Nothing was found among {}.", many(found.searched, "memory")))?;
    }
    for hit in &found.hits {
        show_hit(context, hit)?;
    }
    if found.meaning == "partial" {
        let missing = many(found.without_vector, "memory");
        out.warn(format_args!("{missing} had no vector yet, and only words to be found by; search again in a moment"));
    }
    if let Some(backend) = &found.backend {
        let note = text::one_line(backend.note.as_deref().unwrap_or_default());
        let name = text::one_line(&backend.name);
        match backend.answered {
            false => out.warn(format_args!("{name} was not searched, and the node's own index answered: {note}")),
            true if !note.is_empty() => out.note(format_args!("{name}: {note}")),
            true => {}
        }
    }
    for (half, what) in [(&found.words, "no word to search by"), (&found.meaning, "no meaning to search by")] {
        if half == "unusable" {
            out.warn(format_args!("the text has {what}: only the other half was used"));
        }
    }
    out.json(found)
}

fn show_hit(context: &Context, hit: &MemoryHit) -> Result<(), CliError> {
    let memory = &hit.memory;
    let mut facts = format!("{}  {}, {}", memory.id, text::one_line(&memory.scope), text::one_line(&memory.kind));
    if let Some(conversation) = &hit.conversation {
        facts.push_str(&format!(", said in {}", text::one_line(conversation)));
    }
    if memory.untrusted {
        facts.push_str(", from a tool or a stranger");
    }
    let fits = hit.similarity.map(|similarity| format!(" (fits {similarity:.2})")).unwrap_or_default();
    context.out.line(format_args!("{:.3}{fits}  {}", hit.score, paint(BOLD, short(&memory.text))))?;
    context.out.line(paint(DIM, format!("       {facts}")))?;
    if let Some(ScoreParts { words, meaning, neighbours, conversation, recency, importance }) = &hit.parts {
        let parts = format!(
            "       words {words:.3} + meaning {meaning:.3} + neighbours {neighbours:.3} + conversation {conversation:.3} \
             + recency {recency:.3} + importance {importance:.3}"
        );
        context.out.line(paint(DIM, parts))?;
    }
    Ok(())
}

/// One memory with what it was before.
pub fn detail(context: &Context, detail: &MemoryDetail) -> Result<(), CliError> {
    let (out, memory) = (&context.out, &detail.memory);
    out.line(paint(BOLD, &memory.id))?;
    out.line(crate::cli::steps::printable(&memory.text))?;
    for (name, value) in facts(memory) {
        out.line(format_args!("{} {}", paint(DIM, format!("{name:>12}")), text::one_line(&value)))?;
    }
    for source in &memory.sources {
        let turn = source.turn.as_ref().map(|turn| format!(", turn {turn}")).unwrap_or_default();
        let mark = if source.untrusted { ", not trusted" } else { "" };
        let line = format!("{} {}{turn}, {}{mark}", source.from, source.name, text::time(&source.at));
        out.line(format_args!("{} {}", paint(DIM, format!("{:>12}", "source")), text::one_line(&line)))?;
    }
    for edit in &detail.history {
        let head = format!("before edit {} by {}, {}:", edit.number, edit.actor, text::time(&edit.at));
        out.line(format_args!("{} {}", paint(DIM, text::one_line(&head)), short(&edit.before.text)))?;
    }
    out.json(detail)
}

fn facts(memory: &MemoryInfo) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("scope", memory.scope.clone()),
        ("kind", memory.kind.clone()),
        ("importance", format!("{}{}", memory.importance, if memory.pinned { ", pinned" } else { "" })),
        ("since", text::time(&memory.valid_from)),
    ];
    let more = [
        ("until", memory.valid_to.as_ref().map(|at| text::time(at))),
        ("name", memory.name.clone()),
        ("about", memory.entity.clone()),
        ("metadata", memory.metadata.as_ref().map(ToString::to_string)),
        ("replaces", memory.replaces.clone()),
        ("mark", memory.untrusted.then(|| "from a tool or a stranger".to_owned())),
    ];
    facts.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    facts
}

/// A part of the graph.
pub fn graph(context: &Context, found: &GraphResponse) -> Result<(), CliError> {
    let out = &context.out;
    if found.entities.is_empty() {
        out.line("Nothing of that name is in the graph. Try another --scope.")?;
    }
    let name =
        |id: &str| found.entities.iter().find(|it| it.id == id).map_or_else(|| id.to_owned(), |it| it.name.clone());
    for entity in &found.entities {
        let kind = paint(DIM, format!("({})", text::one_line(&entity.kind)));
        out.line(format_args!("{}{} {kind}", "  ".repeat(entity.depth as usize), text::one_line(&entity.name)))?;
    }
    for relation in &found.relations {
        let line = format!("{} -- {} --> {}", name(&relation.from), relation.kind, name(&relation.to));
        out.line(text::one_line(&line))?;
    }
    if found.more {
        out.note(paint(BAD, "a limit was reached: there is more"));
    }
    out.json(found)
}

/// How much is remembered.
pub fn stats(context: &Context, stats: &MemoryStats) -> Result<(), CliError> {
    let out = &context.out;
    let mut table = Table::new(["SCOPE", "MEMORIES", "BYTES", "ENTITIES", "RELATIONS"]);
    for it in &stats.scopes {
        let [memories, entities, relations] = [it.memories, it.entities, it.relations].map(|number| number.to_string());
        table.row([text::one_line(&it.scope), memories, size(it.bytes), entities, relations]);
    }
    out.table(table)?;
    if stats.loading {
        out.note("the index is being loaded");
    }
    if stats.pending_vectors > 0 {
        out.note(format_args!("{} without a vector yet", many(stats.pending_vectors, "text")));
    }
    if let Some(backend) = &stats.backend {
        out.line(format_args!("\n{} {}", paint(BOLD, "backend:"), told(backend)))?;
        if let (Some(error), Some(at)) = (&backend.last_error, &backend.last_error_at) {
            out.line(format_args!("{} {} ({})", paint(BAD, "last error:"), text::one_line(error), text::age(at)))?;
        }
    }
    out.json(stats)
}

/// How far a backend is, in a line.
fn told(backend: &MemoryBackendInfo) -> String {
    let how_far = match (backend.state.as_str(), backend.behind) {
        ("filling", _) => format!("{} of {} compared", backend.compared, many(backend.to_compare, "memory")),
        (_, Some(0)) => "up to date".to_owned(),
        (_, Some(behind)) => format!("{} behind", many(behind, "change")),
        (_, None) => "how far it is, is not known yet".to_owned(),
    };
    let position = backend.position.map(|at| format!(", at entry {at} of {}", backend.applied)).unwrap_or_default();
    format!("{}, {}: {how_far}{position}", text::one_line(&backend.name), backend.state)
}
