//! What the deploy log knows of the cluster's nodes: the tokens by which they join, who belongs to it, and who must not
//! come back. As pure as the rest of the state: "now" is the time that the proposer stamped.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use caxton_proto::log::SnapshotRecord;
use caxton_proto::log::cluster::{
    AdmitNode, AnnounceNode, BeginAgain, Command, Credential, FinishRotation, FixShards, IssueJoinToken, JoinRefusal,
    JoinToken, KeyKind, Member, NodeFacts, Outcome, RaiseFormat, RemoveNode, RotateKey, RotatedKey,
};
use caxton_proto::{Format, NodeId};

/// How many join tokens there can be.
pub const JOIN_TOKENS_MAX: usize = 1_000;

/// How many nodes a cluster can have.
pub const MEMBERS_MAX: usize = 64;

/// How many removed nodes are remembered. Whoever was forgotten has an old certificate, which has run out.
pub const DEPARTED_MAX: usize = 10_000;

/// What is known of the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    tokens: BTreeMap<String, JoinToken>,
    members: BTreeMap<NodeId, Member>,
    /// When each node that was removed was.
    departed: BTreeMap<NodeId, u64>,
    /// Nothing where nobody ever said so, which means 1.
    shards: Option<NonZeroU32>,
    /// The newest of each kind that was ever rotated.
    keys: BTreeMap<KeyKind, RotatedKey>,
    /// In which nodes write what others read. It never goes back.
    format: Format,
}

impl Cluster {
    /// The nodes that belong to the cluster, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// The node with this id, if it belongs to the cluster.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Whether the node was removed, and must not come back.
    pub fn is_departed(&self, node: NodeId) -> bool {
        self.departed.contains_key(&node)
    }

    /// The join tokens, in the order of their ids; spent and expired ones too, until others take their place.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &JoinToken> {
        self.tokens.values()
    }

    /// How many shards the cluster has. One whose log does not say so is as old as when there was one.
    pub fn shards(&self) -> NonZeroU32 {
        self.shards.unwrap_or(NonZeroU32::MIN)
    }

    /// The newest key of each kind that was ever rotated.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &RotatedKey> {
        self.keys.values()
    }

    /// The newest key of a kind, if it was ever rotated.
    pub fn key(&self, kind: KeyKind) -> Option<&RotatedKey> {
        self.keys.get(&kind)
    }

    /// The format in which nodes write what others read: every member has said that it reads it. It never goes back.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What can be proposed: the newest format that every member says it reads, if that is newer than the one in force.
    /// It is no part of the state: of a node that says nothing an older build has forgotten what it said.
    pub fn raisable(&self) -> Option<(Format, Vec<NodeId>)> {
        let lowest = self.members.values().map(|member| member.facts.format).min()?;
        let format = lowest.min(Format::NEWEST);
        (format > self.format).then(|| (format, self.members.keys().copied().collect()))
    }

    /// The nodes that have not said that they have a rotated key.
    pub fn lacking(&self, id: u64) -> impl Iterator<Item = NodeId> {
        let lacks = move |member: &&Member| !member.facts.holds.contains(&id);
        self.members.values().filter(lacks).map(|member| member.facts.node)
    }

    /// Takes the log's first command.
    pub(super) fn apply_first(&mut self, command: &Command) -> Outcome {
        if let Command::FixShards(FixShards { count }) = command {
            self.shards = Some(*count);
        }
        self.apply(command)
    }

    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::IssueJoinToken(issue) => self.issue(issue),
            Command::AdmitNode(admit) => match self.admit(admit) {
                Ok(()) => Outcome::NodeAdmitted,
                Err(why) => Outcome::JoinRefused(why),
            },
            Command::AnnounceNode(announce) => self.announce(announce),
            Command::RemoveNode(remove) => self.remove(remove),
            Command::BeginAgain(again) => self.begin_again(again),
            Command::FixShards(_) => Outcome::ShardsAre(self.shards()),
            Command::RotateKey(rotate) => self.rotate(rotate),
            Command::FinishRotation(finish) => self.finish(finish),
            Command::RaiseFormat(raise) => self.raise(raise),
        }
    }

    /// Looks at who belongs to the cluster and not at what they said: older builds let that go.
    fn raise(&mut self, raise: &RaiseFormat) -> Outcome {
        if self.members.keys().all(|node| raise.members.contains(node)) {
            self.format = self.format.max(raise.format);
        }
        Outcome::FormatIs(self.format)
    }

    fn rotate(&mut self, rotate: &RotateKey) -> Outcome {
        match self.keys.get(&rotate.kind) {
            // A retry.
            Some(known) if known.rotated.id == rotate.id => Outcome::RotationStarted,
            Some(known) if known.finished_ms.is_none() => Outcome::RotationUnderWay,
            Some(_) | None => {
                self.keys.insert(rotate.kind, RotatedKey { rotated: rotate.clone(), finished_ms: None });
                Outcome::RotationStarted
            }
        }
    }

    fn finish(&mut self, finish: &FinishRotation) -> Outcome {
        let waits = self.lacking(finish.id).next().is_some() && !finish.overdue;
        match self.keys.get_mut(&finish.kind).filter(|key| key.rotated.id == finish.id) {
            None => Outcome::NoRotation,
            Some(key) if key.finished_ms.is_some() => Outcome::RotationFinished,
            Some(_) if waits => Outcome::RotationWaits,
            Some(key) => {
                key.finished_ms = Some(finish.time_ms);
                Outcome::RotationFinished
            }
        }
    }

    fn issue(&mut self, issue: &IssueJoinToken) -> Outcome {
        if let Some(known) = self.tokens.get(&issue.id) {
            return if known.issued.hash == issue.hash { Outcome::JoinTokenIssued } else { Outcome::JoinTokenIdTaken };
        }
        if self.tokens.len() >= JOIN_TOKENS_MAX {
            self.tokens.retain(|_, token| refusal_of(token, issue.time_ms).is_none());
        }
        if self.tokens.len() >= JOIN_TOKENS_MAX {
            return Outcome::TooManyJoinTokens;
        }
        self.tokens.insert(issue.id.clone(), JoinToken { issued: issue.clone(), used_by: Vec::new() });
        Outcome::JoinTokenIssued
    }

    fn admit(&mut self, admit: &AdmitNode) -> Result<(), JoinRefusal> {
        let node = admit.facts.node;
        if self.departed.contains_key(&node) {
            return Err(JoinRefusal::Removed);
        }
        if admit.facts.format < self.format {
            return Err(JoinRefusal::Format);
        }
        if let Credential::Token { id, hash } = &admit.credential {
            let token = self.tokens.get_mut(id).filter(|token| token.issued.hash == *hash);
            let token = token.ok_or(JoinRefusal::NoSuchToken)?;
            // A node that comes twice by the same token, because the first answer got lost, uses it once.
            if !token.used_by.contains(&node) {
                if let Some(why) = refusal_of(token, admit.time_ms) {
                    return Err(why);
                }
                if self.members.len() >= MEMBERS_MAX {
                    return Err(JoinRefusal::TooManyNodes);
                }
                token.used_by.push(node);
            }
        }
        if !self.members.contains_key(&node) && self.members.len() >= MEMBERS_MAX {
            return Err(JoinRefusal::TooManyNodes);
        }
        self.note(&admit.facts, admit.time_ms);
        Ok(())
    }

    fn announce(&mut self, announce: &AnnounceNode) -> Outcome {
        let node = announce.facts.node;
        // The node that founds the cluster is let in by nobody.
        if !self.members.contains_key(&node) && !self.members.is_empty() || self.departed.contains_key(&node) {
            return Outcome::NoSuchNode;
        }
        self.note(&announce.facts, announce.time_ms);
        Outcome::NodeAnnounced
    }

    fn note(&mut self, facts: &NodeFacts, time_ms: u64) {
        let member = Member { facts: facts.clone(), joined_ms: time_ms };
        self.members.entry(facts.node).or_insert(member).facts = facts.clone();
    }

    fn remove(&mut self, remove: &RemoveNode) -> Outcome {
        if self.departed.contains_key(&remove.node) {
            return Outcome::NodeRemoved;
        }
        if !self.members.contains_key(&remove.node) {
            return Outcome::NoSuchNode;
        }
        if self.members.len() == 1 {
            return Outcome::LastNode;
        }
        self.members.remove(&remove.node);
        self.depart(remove.node, remove.time_ms);
        Outcome::NodeRemoved
    }

    /// The nodes from before are strangers, and the one that is left says of itself where it is when it starts.
    fn begin_again(&mut self, again: &BeginAgain) -> Outcome {
        self.tokens.clear();
        for node in std::mem::take(&mut self.members).into_keys().filter(|node| *node != again.node) {
            self.depart(node, again.time_ms);
        }
        Outcome::BegunAgain
    }

    fn depart(&mut self, node: NodeId, time_ms: u64) {
        if self.departed.len() >= DEPARTED_MAX
            && let Some((&oldest, _)) = self.departed.iter().min_by_key(|(node, time_ms)| (**time_ms, **node))
        {
            self.departed.remove(&oldest);
        }
        self.departed.insert(node, time_ms);
    }

    pub(super) fn records(&self) -> impl Iterator<Item = SnapshotRecord> {
        let tokens = self.tokens.values().cloned().map(SnapshotRecord::JoinToken);
        let members = self.members.values().cloned().map(SnapshotRecord::Member);
        let departed = self.departed.iter().map(|(&node, &time_ms)| SnapshotRecord::Departed { node, time_ms });
        let keys = self.keys.values().cloned().map(SnapshotRecord::RotatedKey);
        let format = (self.format > Format::JSON).then_some(SnapshotRecord::Format(self.format));
        tokens.chain(members).chain(departed).chain(self.shards.map(SnapshotRecord::Shards)).chain(keys).chain(format)
    }

    pub(super) fn put_key(&mut self, key: RotatedKey) {
        self.keys.insert(key.rotated.kind, key);
    }

    pub(super) fn put_format(&mut self, format: Format) {
        self.format = format;
    }

    pub(super) fn put_shards(&mut self, shards: NonZeroU32) {
        self.shards = Some(shards);
    }

    pub(super) fn put_token(&mut self, token: JoinToken) {
        self.tokens.insert(token.issued.id.clone(), token);
    }

    pub(super) fn put_member(&mut self, member: Member) {
        self.members.insert(member.facts.node, member);
    }

    pub(super) fn put_departed(&mut self, node: NodeId, time_ms: u64) {
        self.departed.insert(node, time_ms);
    }
}

/// Why no further node may come by the token, if none may.
fn refusal_of(token: &JoinToken, now_ms: u64) -> Option<JoinRefusal> {
    if token.used_by.len() >= token.issued.uses as usize {
        return Some(JoinRefusal::Spent);
    }
    (now_ms >= token.issued.expires_ms).then_some(JoinRefusal::Expired)
}

#[cfg(test)]
mod tests {
    use caxton_proto::Digest;

    use super::*;

    fn facts(node: u64) -> NodeFacts {
        NodeFacts {
            node: NodeId(node),
            peer_address: format!("10.0.0.{node}:7412"),
            client_url: format!("https://10.0.0.{node}:7411"),
            version: "0.1.0".into(),
            holds: Vec::new(),
            format: Format::JSON,
        }
    }

    fn issue(id: &str, uses: u32, expires_ms: u64) -> Command {
        let hash = Digest::of(id.as_bytes());
        let actor = "admin".into();
        Command::IssueJoinToken(IssueJoinToken { id: id.into(), hash, uses, expires_ms, time_ms: 0, actor })
    }

    fn admit(node: u64, token: &str, secret: &str, time_ms: u64) -> Command {
        let credential = Credential::Token { id: token.into(), hash: Digest::of(secret.as_bytes()) };
        Command::AdmitNode(AdmitNode { facts: facts(node), credential, time_ms })
    }

    fn announce(node: u64) -> Command {
        Command::AnnounceNode(AnnounceNode { facts: facts(node), time_ms: 1 })
    }

    fn remove(node: u64) -> Command {
        Command::RemoveNode(RemoveNode { node: NodeId(node), time_ms: 5, actor: "admin".into() })
    }

    #[test]
    fn a_token_lets_in_as_many_nodes_as_it_says_until_it_expires() {
        let refused = Outcome::JoinRefused;
        let rows = [
            (announce(1), Outcome::NodeAnnounced),
            (issue("a", 1, 100), Outcome::JoinTokenIssued),
            (issue("b", 9, 100), Outcome::JoinTokenIssued),
            (admit(2, "x", "x", 1), refused(JoinRefusal::NoSuchToken)),
            (admit(2, "a", "b", 1), refused(JoinRefusal::NoSuchToken)),
            (admit(2, "a", "a", 1), Outcome::NodeAdmitted),
            // The answer got lost, and the node asks again; also after the token expired.
            (admit(2, "a", "a", 200), Outcome::NodeAdmitted),
            (admit(3, "a", "a", 1), refused(JoinRefusal::Spent)),
            (admit(3, "b", "b", 100), refused(JoinRefusal::Expired)),
            (admit(3, "b", "b", 99), Outcome::NodeAdmitted),
        ];
        let mut cluster = Cluster::default();
        for (at, (command, expected)) in rows.into_iter().enumerate() {
            assert_eq!(cluster.apply(&command), expected, "step {at}: {command:?}");
        }
        assert_eq!(cluster.members().map(|member| member.facts.node.0).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn the_first_node_comes_by_itself_and_no_other() {
        let mut cluster = Cluster::default();
        assert_eq!(cluster.apply(&announce(1)), Outcome::NodeAnnounced);
        assert_eq!(cluster.apply(&announce(2)), Outcome::NoSuchNode);
        assert_eq!(cluster.apply(&announce(1)), Outcome::NodeAnnounced);
    }

    #[test]
    fn a_removed_node_does_not_come_back_and_the_last_one_stays() {
        let mut cluster = Cluster::default();
        cluster.apply(&announce(1));
        assert_eq!(cluster.apply(&remove(1)), Outcome::LastNode);
        assert_eq!(cluster.apply(&remove(2)), Outcome::NoSuchNode);
        cluster.apply(&issue("a", 9, 100));
        cluster.apply(&admit(2, "a", "a", 1));
        assert_eq!(cluster.apply(&remove(2)), Outcome::NodeRemoved);
        assert_eq!(cluster.apply(&remove(2)), Outcome::NodeRemoved);
        assert_eq!(cluster.apply(&admit(2, "a", "a", 2)), Outcome::JoinRefused(JoinRefusal::Removed));
        let secret = AdmitNode { facts: facts(2), credential: Credential::Secret, time_ms: 3 };
        assert_eq!(cluster.apply(&Command::AdmitNode(secret)), Outcome::JoinRefused(JoinRefusal::Removed));
        assert!(cluster.is_departed(NodeId(2)) && cluster.member(NodeId(2)).is_none());
    }

    #[test]
    fn a_cluster_that_begins_again_has_one_node_and_no_tokens() {
        let mut cluster = Cluster::default();
        cluster.apply(&announce(1));
        cluster.apply(&issue("a", 9, 100));
        cluster.apply(&admit(2, "a", "a", 1));
        let again = BeginAgain {
            node: NodeId(3),
            before: "x".into(),
            now: "y".into(),
            from: caxton_proto::log::cluster::Origin::Backup,
            time_ms: 7,
            actor: "root".into(),
        };
        assert_eq!(cluster.apply(&Command::BeginAgain(again)), Outcome::BegunAgain);
        assert_eq!((cluster.members().len(), cluster.tokens().len()), (0, 0));
        assert!(cluster.is_departed(NodeId(1)) && cluster.is_departed(NodeId(2)));
        assert_eq!(cluster.apply(&announce(3)), Outcome::NodeAnnounced, "the node that is left comes by itself");
        assert_eq!(cluster.apply(&announce(2)), Outcome::NoSuchNode);
    }

    #[test]
    fn a_key_gets_one_successor_at_a_time_and_waits_for_every_node_unless_the_overlap_is_over() {
        let mut cluster = Cluster::default();
        cluster.apply(&announce(1));
        cluster.apply(&Command::AdmitNode(AdmitNode { facts: facts(2), credential: Credential::Secret, time_ms: 1 }));
        let rotate = |kind, id| {
            let actor = "admin".to_owned();
            let sealed_with = "k".to_owned();
            Command::RotateKey(RotateKey { kind, id, sealed_with, sealed: vec![1], until_ms: 9, time_ms: 1, actor })
        };
        let finish = |kind, id, overdue| {
            Command::FinishRotation(FinishRotation { kind, id, overdue, time_ms: 2, actor: String::new() })
        };
        let holds = |node, holds: &[u64]| {
            let facts = NodeFacts { holds: holds.to_vec(), ..facts(node) };
            Command::AnnounceNode(AnnounceNode { facts, time_ms: 1 })
        };
        let (gossip, signing) = (KeyKind::Gossip, KeyKind::Signing);
        for (command, expected) in [
            (finish(gossip, 7, true), Outcome::NoRotation),
            (rotate(gossip, 7), Outcome::RotationStarted),
            (rotate(gossip, 7), Outcome::RotationStarted),
            (rotate(gossip, 8), Outcome::RotationUnderWay),
            (rotate(signing, 9), Outcome::RotationStarted),
            (finish(gossip, 8, true), Outcome::NoRotation),
            (finish(gossip, 7, false), Outcome::RotationWaits),
            (holds(1, &[7, 9]), Outcome::NodeAnnounced),
            (finish(gossip, 7, false), Outcome::RotationWaits),
            (holds(2, &[7]), Outcome::NodeAnnounced),
            (finish(gossip, 7, false), Outcome::RotationFinished),
            (finish(gossip, 7, false), Outcome::RotationFinished),
            (rotate(gossip, 8), Outcome::RotationStarted),
            (finish(signing, 9, false), Outcome::RotationWaits),
            (finish(signing, 9, true), Outcome::RotationFinished),
        ] {
            assert_eq!(cluster.apply(&command), expected, "{command:?}");
        }
        assert_eq!(cluster.lacking(9).collect::<Vec<_>>(), [NodeId(2)]);
        assert_eq!(cluster.key(gossip).map(|key| (key.rotated.id, key.finished_ms)), Some((8, None)));
    }

    #[test]
    fn the_format_is_what_every_member_reads_and_never_goes_back() {
        let mut cluster = Cluster::default();
        let says = |node, format| {
            let facts = NodeFacts { format, ..facts(node) };
            Command::AnnounceNode(AnnounceNode { facts, time_ms: 1 })
        };
        let join = |node, format| {
            let facts = NodeFacts { format, ..facts(node) };
            Command::AdmitNode(AdmitNode { facts, credential: Credential::Secret, time_ms: 1 })
        };
        let raise = |format, members: &[u64]| {
            let members = members.iter().copied().map(NodeId).collect();
            Command::RaiseFormat(RaiseFormat { format, members, time_ms: 1 })
        };
        let (old, new) = (Format::JSON, Format::PROTOBUF);
        assert_eq!(cluster.raisable(), None);
        cluster.apply(&says(1, new));
        assert_eq!(cluster.raisable(), Some((new, vec![NodeId(1)])));
        // A node that reads less came in between: what was proposed without it does not count.
        assert_eq!(cluster.apply(&join(2, old)), Outcome::NodeAdmitted);
        assert_eq!(cluster.apply(&raise(new, &[1])), Outcome::FormatIs(old));
        assert_eq!(cluster.raisable(), None);
        cluster.apply(&says(2, new));
        assert_eq!(cluster.raisable(), Some((new, vec![NodeId(1), NodeId(2)])));
        assert_eq!(cluster.apply(&raise(new, &[1, 2])), Outcome::FormatIs(new));
        assert_eq!((cluster.format(), cluster.raisable()), (new, None));
        // Whoever does not read it may not join, and whoever says less later changes nothing.
        assert_eq!(cluster.apply(&join(3, old)), Outcome::JoinRefused(JoinRefusal::Format));
        assert_eq!(cluster.apply(&join(3, new)), Outcome::NodeAdmitted);
        cluster.apply(&says(2, old));
        assert_eq!(cluster.apply(&raise(new, &[])), Outcome::FormatIs(new));
        assert_eq!(cluster.format(), new);
    }

    #[test]
    fn there_is_a_limit_of_nodes_and_of_tokens() {
        let mut cluster = Cluster::default();
        cluster.apply(&announce(1));
        for node in 2..=MEMBERS_MAX as u64 {
            let command = AdmitNode { facts: facts(node), credential: Credential::Secret, time_ms: 1 };
            assert_eq!(cluster.apply(&Command::AdmitNode(command)), Outcome::NodeAdmitted);
        }
        let more = AdmitNode { facts: facts(1_000), credential: Credential::Secret, time_ms: 1 };
        assert_eq!(cluster.apply(&Command::AdmitNode(more)), Outcome::JoinRefused(JoinRefusal::TooManyNodes));
        for token in 0..JOIN_TOKENS_MAX {
            assert_eq!(cluster.apply(&issue(&token.to_string(), 1, 100)), Outcome::JoinTokenIssued);
        }
        assert_eq!(cluster.apply(&issue("more", 1, 100)), Outcome::TooManyJoinTokens);
        let late = IssueJoinToken {
            id: "late".into(),
            hash: Digest::of(b"late"),
            uses: 1,
            expires_ms: 300,
            time_ms: 200,
            actor: String::new(),
        };
        assert_eq!(cluster.apply(&Command::IssueJoinToken(late)), Outcome::JoinTokenIssued, "expired ones made room");
    }
}
