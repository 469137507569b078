//! How the cluster comes to write in a newer format: each node says which it reads, and the deploy log's leader proposes the
//! newest that all of them read. The log decides, see `deploy_log::Cluster::format`.

use caxton_proto::log::cluster::{Command, NodeFacts, Outcome, RaiseFormat};
use caxton_proto::log::{self};
use caxton_proto::{Format, NodeId};
use caxton_raft::deploy_log::DeployLog;
use tracing::{debug, info};

use crate::errors::chain;
use crate::time::now_ms;

/// In which term this node last said of itself what there is to say.
///
/// A leader of an older version passes on what a node says without its format, and a node of one notes it without; whoever
/// was upgraded since then lacks it. So a node says it again in each term of the log until the format is raised. Terms are
/// few, and it is one entry a node.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// The term, or 0 for none.
    last: u64,
}

impl Announcements {
    /// Something was said in this term.
    pub(super) fn made(&mut self, term: u64) {
        self.last = term;
    }

    /// Whether nothing more need be said, where the log says `known` of this node.
    pub(super) fn suffice(&self, known: &NodeFacts, own: &NodeFacts, in_force: Format, term: u64) -> bool {
        let here = NodeFacts { format: own.format, ..known.clone() } == *own;
        let read = known.format == own.format && in_force >= own.format;
        here && (read || self.last == term)
    }
}

/// Proposes that nodes write in a format that all of them said they read.
pub(super) async fn raise(log: &DeployLog, format: Format, members: Vec<NodeId>) {
    let command = Command::RaiseFormat(RaiseFormat { format, members, time_ms: now_ms() });
    match log.propose(&log::Command::Cluster(command)).await {
        Ok(answer) => match answer.outcome {
            log::Outcome::Cluster(Outcome::FormatIs(now)) if now >= format => {
                info!(%format, "every node reads a newer format: from now on it is written");
            }
            outcome => debug!(?outcome, "a node came in that reads less"),
        },
        Err(error) => debug!(error = chain(&error), "the format was not raised yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_which_format_it_reads_once_a_term_until_the_format_is_raised() {
        let own = NodeFacts {
            node: NodeId(1),
            peer_address: "10.0.0.1:7412".into(),
            client_url: "https://10.0.0.1:7411".into(),
            version: "0.1.0".into(),
            holds: Vec::new(),
            format: Format::PROTOBUF,
        };
        let forgotten = NodeFacts { format: Format::JSON, ..own.clone() };
        let moved = NodeFacts { peer_address: "10.0.0.9:7412".into(), ..own.clone() };
        let mut said = Announcements::default();
        for known in [&own, &forgotten] {
            assert!(!said.suffice(known, &own, Format::JSON, 3));
        }
        said.made(3);
        for known in [&own, &forgotten] {
            assert!(
                said.suffice(known, &own, Format::JSON, 3),
                "an older leader does not pass it on: not again and again"
            );
            assert!(!said.suffice(known, &own, Format::JSON, 4), "the next leader may");
        }
        assert!(!said.suffice(&moved, &own, Format::JSON, 3), "where it is has to be known");
        assert!(said.suffice(&own, &own, Format::PROTOBUF, 9), "nothing is left to say");
        let held = NodeFacts { format: Format::JSON, ..own };
        assert!(
            said.suffice(&held, &held, Format::JSON, 9),
            "a node that is held at the first format says nothing more"
        );
    }
}
