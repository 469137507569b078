//! What happens in each workspace on this node: the last lines are kept in memory, for people who look.
//!
//! A line says who did what, how long it took and how it ended, and never what was said: prompts, arguments and results
//! belong into conversations, where those who may read them do.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caxton_proto::shard::Approval;
use caxton_proto::{Revision, WorkspaceId};
use caxton_tools::{CallReport, Ended};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::api::logs::LogLine;
use crate::api::messages::{Route, TurnEvent};

/// Lines that are kept of one workspace; the oldest go first.
pub const LINES_KEPT: usize = 1_000;
/// Workspaces whose lines are kept; the one that was quiet the longest goes first.
pub const WORKSPACES_KEPT: usize = 200;
/// The longest detail of a line, in characters.
const DETAIL_CHARS_MAX: usize = 200;

/// The lines of all workspaces on this node. A clone is a handle on the same.
#[derive(Clone, Default)]
pub struct Activity(Arc<Shared>);

#[derive(Default)]
struct Shared {
    journals: Mutex<HashMap<WorkspaceId, Journal>>,
    /// How often a workspace had its first line.
    begun: watch::Sender<u64>,
}

struct Journal {
    lines: VecDeque<Arc<LogLine>>,
    /// The number of the newest line.
    newest: watch::Sender<u64>,
    noted_at: Timestamp,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { lines: VecDeque::new(), newest: watch::Sender::new(0), noted_at: Timestamp::UNIX_EPOCH }
    }
}

impl Activity {
    /// Notes a line; its number and its time are filled in.
    pub fn note(&self, workspace: &WorkspaceId, line: LogLine) {
        let now = crate::time::now();
        let mut journals = self.lock();
        make_room(&mut journals, workspace);
        let is_first = !journals.contains_key(workspace);
        let journal = journals.entry(workspace.clone()).or_default();
        let id = *journal.newest.borrow() + 1;
        if journal.lines.len() >= LINES_KEPT {
            journal.lines.pop_front();
        }
        journal.lines.push_back(Arc::new(LogLine { id, time: format!("{now:.3}"), ..line }));
        journal.noted_at = now;
        journal.newest.send_replace(id);
        if is_first {
            self.0.begun.send_modify(|count| *count += 1);
        }
    }

    /// The lines after `id` that are still kept, and whether some between were not kept.
    pub fn after(&self, workspace: &WorkspaceId, id: u64) -> (Vec<Arc<LogLine>>, u64) {
        let journals = self.lock();
        let Some(journal) = journals.get(workspace) else { return (Vec::new(), 0) };
        let lines: Vec<_> = journal.lines.iter().filter(|line| line.id > id).cloned().collect();
        let missed = lines.first().map_or(0, |first| first.id - id - 1);
        (lines, missed)
    }

    /// The number of the newest line, which changes with each.
    /// Nothing where no line of it was noted: whoever only looks takes no place of one that has lines.
    pub fn newest(&self, workspace: &WorkspaceId) -> Option<watch::Receiver<u64>> {
        self.lock().get(workspace).map(|journal| journal.newest.subscribe())
    }

    /// Changes whenever there is the first line of some workspace.
    pub fn begun(&self) -> watch::Receiver<u64> {
        self.0.begun.subscribe()
    }

    /// Notes that a revision is served now.
    pub fn serving(&self, workspace: &WorkspaceId, revision: Revision) {
        self.note(workspace, line("serving", revision.to_string()));
    }

    /// Notes that a revision cannot be served.
    pub fn not_serving(&self, workspace: &WorkspaceId, revision: Revision, why: &str) {
        self.note(workspace, LogLine { failed: true, ..line("not_serving", format!("{revision}: {why}")) });
    }

    /// Notes a call that no agent made.
    pub fn tool_called(&self, workspace: &WorkspaceId, subject: &str, report: &CallReport) {
        let detail = format!("{} of {}: {:?}", report.tool, report.server, report.ended);
        let line = LogLine {
            failed: report.ended != Ended::Ok,
            subject: Some(subject.to_owned()),
            duration_ms: Some(u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX)),
            ..line("tool_returned", detail)
        };
        self.note(workspace, line);
    }

    /// Notes that a secret was set or removed, by its name.
    pub fn secret(&self, workspace: &WorkspaceId, subject: &str, event: &str, name: &str) {
        self.note(workspace, LogLine { subject: Some(subject.to_owned()), ..line(event, name) });
    }

    /// Forgets the lines of a workspace, which is gone. Whoever follows them sees no more.
    pub fn forget(&self, workspace: &WorkspaceId) {
        self.lock().remove(workspace);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Journal>> {
        self.0.journals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the quietest workspace go when another one comes; those that somebody follows stay.
fn make_room(journals: &mut HashMap<WorkspaceId, Journal>, coming: &WorkspaceId) {
    if journals.len() < WORKSPACES_KEPT || journals.contains_key(coming) {
        return;
    }
    let unfollowed = journals.iter().filter(|(_, journal)| journal.newest.receiver_count() == 0);
    let quietest = unfollowed.min_by_key(|(_, journal)| journal.noted_at).map(|(name, _)| name.clone());
    if let Some(quietest) = quietest {
        journals.remove(&quietest);
    }
}

/// A line of this event.
pub fn line(event: &str, detail: impl Into<String>) -> LogLine {
    let detail: String = detail.into();
    let detail = detail.chars().filter(|c| !c.is_control()).take(DETAIL_CHARS_MAX).collect();
    LogLine { event: event.to_owned(), detail, ..LogLine::default() }
}

/// Notes what happens in one turn.
#[derive(Clone)]
pub struct TurnLog {
    activity: Activity,
    workspace: WorkspaceId,
    conversation: String,
    turn: String,
    subject: String,
}

impl TurnLog {
    /// The lines of a turn.
    pub fn new(activity: Activity, workspace: &WorkspaceId, conversation: &str, turn: &str, subject: &str) -> TurnLog {
        TurnLog {
            activity,
            workspace: workspace.clone(),
            conversation: conversation.to_owned(),
            turn: turn.to_owned(),
            subject: subject.to_owned(),
        }
    }

    /// Notes a step. What a model says, word by word, is no step.
    pub fn step(&self, event: &TurnEvent) {
        let Some(line) = line_of(event) else { return };
        self.note(line);
    }

    /// The turn's id.
    pub fn turn(&self) -> &str {
        &self.turn
    }

    /// Whose token asked.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Notes that the turn waits for a person.
    pub fn waits(&self, approvals: &[Approval]) {
        let tools: Vec<&str> = approvals.iter().map(|approval| approval.tool.as_str()).collect();
        let agent = approvals.first().map(|approval| approval.agent.to_string());
        self.note(LogLine { agent, ..line("waiting", tools.join(", ")) });
    }

    /// Notes that the turn waits for the answers of others.
    pub fn awaits(&self, agent: &str) {
        self.note(LogLine { agent: Some(agent.to_owned()), ..line("awaiting", "") });
    }

    /// Notes that somebody stopped the turn.
    pub fn stopped(&self, by: &str) {
        self.note(line("stopped", format!("by {by}")));
    }

    /// Notes how the turn ended.
    pub fn ended(&self, agent: &str, failure: Option<String>, tokens: u64, duration_ms: u64) {
        let (event, failed) = if failure.is_some() { ("failed", true) } else { ("answered", false) };
        self.note(LogLine {
            failed,
            agent: Some(agent.to_owned()),
            tokens: Some(tokens),
            duration_ms: Some(duration_ms),
            ..line(event, failure.unwrap_or_default())
        });
    }

    /// Notes that the message was not answered before any agent had it.
    pub fn refused(&self, why: String) {
        self.note(LogLine { failed: true, ..line("failed", why) });
    }

    fn note(&self, line: LogLine) {
        let (conversation, turn) = (Some(self.conversation.clone()), Some(self.turn.clone()));
        let subject = Some(self.subject.clone());
        self.activity.note(&self.workspace, LogLine { conversation, turn, subject, ..line });
    }
}

impl std::fmt::Debug for TurnLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnLog").field("turn", &self.turn).finish_non_exhaustive()
    }
}

fn line_of(event: &TurnEvent) -> Option<LogLine> {
    let of = |agent: &caxton_proto::AgentName, depth: u32, line: LogLine| LogLine {
        agent: Some(agent.to_string()),
        depth: Some(depth),
        ..line
    };
    let name = event.name();
    Some(match event {
        TurnEvent::Routed { agent, route, .. } => {
            let why = match route {
                Route::Address => "by its name".to_owned(),
                Route::Conversation => "because the conversation is with it".to_owned(),
                Route::Capability { capability, score } => format!("by {capability} ({score:.2})"),
            };
            of(agent, 0, line("message", why))
        }
        TurnEvent::ModelAsked { agent, depth } => of(agent, *depth, line(name, "")),
        TurnEvent::ModelAnswered { agent, depth, provider, model, usage, calls, duration_ms } => {
            let wants = match calls {
                0 => String::new(),
                1 => ", wants 1 call".to_owned(),
                calls => format!(", wants {calls} calls"),
            };
            let line = line(name, format!("{provider}/{model}{wants}"));
            LogLine { tokens: Some(usage.total()), duration_ms: Some(*duration_ms), ..of(agent, *depth, line) }
        }
        TurnEvent::ToolCalled { agent, depth, tool, .. } => of(agent, *depth, line(name, tool)),
        TurnEvent::ToolReturned { agent, depth, tool, failed, duration_ms, .. } => {
            let line = of(agent, *depth, line(name, tool));
            LogLine { failed: *failed, duration_ms: Some(*duration_ms), ..line }
        }
        TurnEvent::Delegated { agent, depth, to, capability, score, .. } => {
            of(agent, *depth, line(name, format!("{to}, by {capability} ({score:.2})")))
        }
        TurnEvent::DelegateReturned { agent, depth, from, failed, duration_ms, .. } => {
            let line = of(agent, *depth, line(name, from.as_str()));
            LogLine { failed: *failed, duration_ms: Some(*duration_ms), ..line }
        }
        TurnEvent::Attached { name: file, bytes, .. } => line(name, format!("{file}, {bytes} bytes")),
        // The ends of a turn are noted where they are recorded.
        TurnEvent::Waiting { .. } | TurnEvent::Answered(_) | TurnEvent::Failed(_) => return None,
        TurnEvent::Text { .. } | TurnEvent::TextWithdrawn { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkspaceId {
        text.parse().expect("a name")
    }

    #[test]
    fn the_newest_lines_are_kept_and_what_is_missed_is_counted() {
        let activity = Activity::default();
        let demo = name("demo");
        for number in 1..=LINES_KEPT + 5 {
            activity.note(&demo, line("tool_called", number.to_string()));
        }
        let (lines, missed) = activity.after(&demo, 0);
        assert_eq!((lines.len(), missed, lines[0].id), (LINES_KEPT, 5, 6));
        let (lines, missed) = activity.after(&demo, LINES_KEPT as u64 + 3);
        assert_eq!((lines.len(), missed, lines[0].detail.as_str()), (2, 0, "1004"));
        assert_eq!(*activity.newest(&demo).expect("lines").borrow(), LINES_KEPT as u64 + 5);
    }

    #[test]
    fn the_quietest_workspace_goes_unless_somebody_follows_it() {
        let activity = Activity::default();
        activity.note(&name("w0"), line("serving", "r0"));
        let _followed = activity.newest(&name("w0"));
        for number in 0..=WORKSPACES_KEPT {
            activity.note(&name(&format!("w{number}")), line("serving", "r1"));
        }
        assert_eq!(activity.after(&name("w0"), 0).0.len(), 2);
        assert_eq!(activity.after(&name("w1"), 0).0.len(), 0);
        assert_eq!(activity.after(&name("w2"), 0).0.len(), 1);
    }

    #[test]
    fn whoever_follows_workspaces_that_there_are_not_takes_no_lines_from_others() {
        let activity = Activity::default();
        activity.note(&name("real"), line("serving", "r1"));
        let begun: Vec<_> = (0..3 * WORKSPACES_KEPT)
            .map(|number| {
                assert!(activity.newest(&name(&format!("invented{number}"))).is_none());
                activity.begun()
            })
            .collect();
        activity.note(&name("other"), line("serving", "r1"));
        assert_eq!(activity.after(&name("real"), 0).0.len(), 1);
        assert!(begun.iter().all(|begun| begun.has_changed().expect("it is there")), "they are told of a first line");
    }

    #[test]
    fn what_is_said_and_handed_to_tools_is_in_no_line() {
        let event = |text: &str| TurnEvent::ToolCalled {
            agent: "a".parse().expect("a name"),
            depth: 0,
            call: "1".into(),
            tool: "stats".into(),
            arguments: text.into(),
        };
        let line = line_of(&event("hidden words")).expect("a line");
        assert_eq!((line.event.as_str(), line.detail.as_str()), ("tool_called", "stats"));
        assert!(!serde_json::to_string(&line).expect("JSON").contains("hidden"));
        let text = TurnEvent::Text { agent: "a".parse().expect("a name"), depth: 0, text: "hidden".into() };
        assert!(line_of(&text).is_none());
    }
}
