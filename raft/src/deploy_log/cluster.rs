//! What the deploy log knows of the cluster's nodes: the tokens by which they join, who belongs to it, and who must not
//! come back. As pure as the rest of the state: "now" is the time that the proposer stamped.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use caxton_proto::log::SnapshotRecord;
use caxton_proto::log::cluster::{
    AdmitNode, AnnounceNode, BeginAgain, Command, Credential, FinishRotation, FixShards, IssueJoinToken, JoinRefusal,
    JoinToken, KeyKind, Member, Outcome, RaiseFormat, RemoveNode, RetireNode, Retirement, RotateKey, RotatedKey,
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
    /// Stays after its time was up, until another one retires: whoever looks compares the times.
    retirement: Option<Retirement>,
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

    /// The node that is being taken out at `now_ms`.
    pub fn retiring(&self, now_ms: u64) -> Option<NodeId> {
        self.retirement.as_ref().filter(|it| now_ms < it.until_ms).map(|it| it.node)
    }

    /// The node that is being taken out, or was last begun to be, and until when.
    pub fn retirement(&self) -> Option<&Retirement> {
        self.retirement.as_ref()
    }

    /// Why a node that asks at `admit.time_ms` would not be let in, if it would not: what is certain to be refused need
    /// not go into the log.
    pub fn refusal(&self, admit: &AdmitNode) -> Option<JoinRefusal> {
        self.admission(admit).err()
    }

    /// The join tokens, in the order of their ids. One that can let nobody in any more goes with the next change.
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
            Command::RetireNode(retire) => self.retire(retire),
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
        self.collect_tokens(issue.time_ms);
        if self.tokens.len() >= JOIN_TOKENS_MAX {
            return Outcome::TooManyJoinTokens;
        }
        self.tokens.insert(issue.id.clone(), JoinToken { issued: issue.clone(), used_by: Vec::new() });
        Outcome::JoinTokenIssued
    }

    fn admit(&mut self, admit: &AdmitNode) -> Result<(), JoinRefusal> {
        let use_of = self.admission(admit)?;
        if let (Admission::First, Credential::Token { id, .. }) = (use_of, &admit.credential)
            && let Some(token) = self.tokens.get_mut(id)
        {
            token.used_by.push(admit.facts.node);
        }
        let fresh = Member { facts: admit.facts.clone(), joined_ms: admit.time_ms, join_key: admit.join_key };
        self.members.entry(admit.facts.node).or_insert(fresh).facts = admit.facts.clone();
        self.collect_tokens(admit.time_ms);
        Ok(())
    }

    /// Whether a node is let in, and as what.
    fn admission(&self, admit: &AdmitNode) -> Result<Admission, JoinRefusal> {
        let node = admit.facts.node;
        if self.departed.contains_key(&node) {
            return Err(JoinRefusal::Removed);
        }
        if admit.facts.format < self.format {
            return Err(JoinRefusal::Format);
        }
        let token = match &admit.credential {
            Credential::Secret => None,
            Credential::Token { id, hash } => {
                let token = self.tokens.get(id).filter(|token| token.issued.hash == *hash);
                Some(token.ok_or(JoinRefusal::NoSuchToken)?)
            }
        };
        if token.is_some_and(|token| admit.time_ms >= token.issued.expires_ms) {
            return Err(JoinRefusal::Expired);
        }
        if let Some(member) = self.members.get(&node) {
            // Its first answer got lost. Whoever only knows its id, or comes after it has arrived, is another.
            let same = match (admit.join_key, member.join_key) {
                (Some(shown), Some(first)) => shown == first,
                // An entry of a build that knew no such key.
                (None, _) => true,
                (Some(_), None) => false,
            };
            if !same {
                return Err(JoinRefusal::NodeIdTaken);
            }
            // A further token, because the first has expired meanwhile, is used like any other.
            if token.is_none_or(|token| token.used_by.contains(&node)) {
                return Ok(Admission::Again);
            }
        }
        if token.is_some_and(|token| token.used_by.len() >= token.issued.uses as usize) {
            return Err(JoinRefusal::Spent);
        }
        if !self.members.contains_key(&node) && self.members.len() >= MEMBERS_MAX {
            return Err(JoinRefusal::TooManyNodes);
        }
        Ok(Admission::First)
    }

    /// Drops the tokens that let nobody in any more: those that have expired, and those that were used as often as they
    /// may be by nodes that have all arrived.
    fn collect_tokens(&mut self, now_ms: u64) {
        let members = &self.members;
        self.tokens.retain(|_, token| {
            let on_its_way = |node: &NodeId| members.get(node).is_some_and(|member| member.join_key.is_some());
            let spent = token.used_by.len() >= token.issued.uses as usize;
            now_ms < token.issued.expires_ms && (!spent || token.used_by.iter().any(on_its_way))
        });
    }

    fn announce(&mut self, announce: &AnnounceNode) -> Outcome {
        let node = announce.facts.node;
        // The node that founds the cluster is let in by nobody.
        if !self.members.contains_key(&node) && !self.members.is_empty() || self.departed.contains_key(&node) {
            return Outcome::NoSuchNode;
        }
        let fresh = Member { facts: announce.facts.clone(), joined_ms: announce.time_ms, join_key: None };
        let member = self.members.entry(node).or_insert(fresh);
        (member.facts, member.join_key) = (announce.facts.clone(), None);
        self.collect_tokens(announce.time_ms);
        Outcome::NodeAnnounced
    }

    fn retire(&mut self, retire: &RetireNode) -> Outcome {
        let RetireNode { node, until_ms, time_ms, actor } = retire;
        if self.departed.contains_key(node) {
            return Outcome::NodeRemoved;
        }
        if !self.members.contains_key(node) {
            return Outcome::NoSuchNode;
        }
        if self.members.len() == 1 {
            return Outcome::LastNode;
        }
        match self.retiring(*time_ms).filter(|other| other != node) {
            Some(other) => Outcome::AnotherRetires(other),
            None => {
                self.retirement = Some(Retirement { node: *node, until_ms: *until_ms, actor: actor.clone() });
                Outcome::NodeRetires
            }
        }
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
        if remove.retired && self.retiring(remove.time_ms) != Some(remove.node) {
            return Outcome::NotRetiring;
        }
        self.members.remove(&remove.node);
        self.retirement = self.retirement.take().filter(|it| it.node != remove.node);
        self.depart(remove.node, remove.time_ms);
        Outcome::NodeRemoved
    }

    /// The nodes from before are strangers, and the one that is left says of itself where it is when it starts.
    fn begin_again(&mut self, again: &BeginAgain) -> Outcome {
        self.tokens.clear();
        self.retirement = None;
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
        let retirement = self.retirement.clone().map(SnapshotRecord::Retirement);
        let format = (self.format > Format::JSON).then_some(SnapshotRecord::Format(self.format));
        let nodes = tokens.chain(members).chain(departed).chain(retirement);
        nodes.chain(self.shards.map(SnapshotRecord::Shards)).chain(keys).chain(format)
    }

    pub(super) fn put_key(&mut self, key: RotatedKey) {
        self.keys.insert(key.rotated.kind, key);
    }

    pub(super) fn put_retirement(&mut self, retirement: Retirement) {
        self.retirement = Some(retirement);
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

/// As what a node is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// It comes for the first time by what it shows.
    First,
    /// It was let in before, and has not arrived.
    Again,
}

#[cfg(test)]
mod tests {
    use caxton_proto::Digest;
    use caxton_proto::log::cluster::NodeFacts;

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
        admit_with(node, token, secret, time_ms, &format!("the key of {node}"))
    }

    fn admit_with(node: u64, token: &str, secret: &str, time_ms: u64, key: &str) -> Command {
        let credential = Credential::Token { id: token.into(), hash: Digest::of(secret.as_bytes()) };
        let join_key = Some(Digest::of(key.as_bytes()));
        Command::AdmitNode(AdmitNode { facts: facts(node), credential, join_key, time_ms })
    }

    fn by_secret(node: u64, key: &str) -> Command {
        let join_key = Some(Digest::of(key.as_bytes()));
        Command::AdmitNode(AdmitNode { facts: facts(node), credential: Credential::Secret, join_key, time_ms: 1 })
    }

    fn admission(node: u64) -> AdmitNode {
        AdmitNode { facts: facts(node), credential: Credential::Secret, join_key: None, time_ms: 1 }
    }

    fn retire(node: u64, until_ms: u64, time_ms: u64) -> Command {
        Command::RetireNode(RetireNode { node: NodeId(node), until_ms, time_ms, actor: "admin".into() })
    }

    fn remove_retired(node: u64, time_ms: u64) -> Command {
        Command::RemoveNode(RemoveNode { node: NodeId(node), retired: true, time_ms, actor: "admin".into() })
    }

    fn announce(node: u64) -> Command {
        Command::AnnounceNode(AnnounceNode { facts: facts(node), time_ms: 1 })
    }

    fn remove(node: u64) -> Command {
        Command::RemoveNode(RemoveNode { node: NodeId(node), retired: false, time_ms: 5, actor: "admin".into() })
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
            // The answer got lost, and the node asks again, as often as it has to until it has arrived.
            (admit(2, "a", "a", 50), Outcome::NodeAdmitted),
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
    fn nobody_joins_again_in_the_name_of_a_node_that_has_joined() {
        let refused = Outcome::JoinRefused;
        let rows = [
            (announce(1), Outcome::NodeAnnounced),
            (issue("a", 1, 100), Outcome::JoinTokenIssued),
            (issue("b", 9, 100), Outcome::JoinTokenIssued),
            (admit(2, "a", "a", 1), Outcome::NodeAdmitted),
            // Who found the token and the id, and not the key that the node drew.
            (admit_with(2, "a", "a", 2, "guessed"), refused(JoinRefusal::NodeIdTaken)),
            // By another token, which is good.
            (admit_with(2, "b", "b", 2, "guessed"), refused(JoinRefusal::NodeIdTaken)),
            (by_secret(2, "guessed"), refused(JoinRefusal::NodeIdTaken)),
            (admit(2, "a", "a", 100), refused(JoinRefusal::Expired)),
            (admit(2, "a", "a", 99), Outcome::NodeAdmitted),
            (issue("d", 1, 900), Outcome::JoinTokenIssued),
            (admit(2, "d", "d", 99), Outcome::NodeAdmitted),
            (admit(3, "d", "d", 99), refused(JoinRefusal::Spent)),
            // It has arrived: neither it nor anybody else asks again.
            (announce(2), Outcome::NodeAnnounced),
            (admit(2, "a", "a", 3), refused(JoinRefusal::NoSuchToken)),
            (admit(2, "b", "b", 3), refused(JoinRefusal::NodeIdTaken)),
            (by_secret(2, "the key of 2"), refused(JoinRefusal::NodeIdTaken)),
            (admit(1, "b", "b", 3), refused(JoinRefusal::NodeIdTaken)),
        ];
        let mut cluster = Cluster::default();
        for (at, (command, expected)) in rows.into_iter().enumerate() {
            if let Command::AdmitNode(admit) = &command {
                let foreseen = cluster.refusal(admit).map_or(Outcome::NodeAdmitted, Outcome::JoinRefused);
                assert_eq!(foreseen, expected, "step {at}: what is said before it is proposed");
            }
            assert_eq!(cluster.apply(&command), expected, "step {at}: {command:?}");
        }
        let tokens: Vec<&str> = cluster.tokens().map(|token| token.issued.id.as_str()).collect();
        assert_eq!(tokens, ["b"], "a spent token goes");
        assert_eq!(cluster.apply(&issue("c", 1, 300)), Outcome::JoinTokenIssued);
        cluster.apply(&Command::AnnounceNode(AnnounceNode { facts: facts(1), time_ms: 200 }));
        let tokens: Vec<&str> = cluster.tokens().map(|token| token.issued.id.as_str()).collect();
        assert_eq!(tokens, ["c"], "an expired token goes");
    }

    #[test]
    fn one_node_is_taken_out_at_a_time_and_only_while_it_retires() {
        let mut cluster = Cluster::default();
        cluster.apply(&announce(1));
        (2..=4).for_each(|node| assert_eq!(cluster.apply(&by_secret(node, "x")), Outcome::NodeAdmitted));
        let rows = [
            (retire(9, 50, 10), Outcome::NoSuchNode),
            (remove_retired(2, 10), Outcome::NotRetiring),
            (retire(2, 50, 10), Outcome::NodeRetires),
            (retire(3, 50, 11), Outcome::AnotherRetires(NodeId(2))),
            (remove_retired(3, 11), Outcome::NotRetiring),
            (retire(2, 60, 12), Outcome::NodeRetires),
            (retire(3, 99, 59), Outcome::AnotherRetires(NodeId(2))),
            // Its time is up, and it stays.
            (remove_retired(2, 60), Outcome::NotRetiring),
            (retire(3, 90, 60), Outcome::NodeRetires),
            (retire(2, 90, 61), Outcome::AnotherRetires(NodeId(3))),
            (remove_retired(3, 62), Outcome::NodeRemoved),
            (retire(3, 90, 63), Outcome::NodeRemoved),
            (retire(2, 90, 63), Outcome::NodeRetires),
            (remove_retired(2, 64), Outcome::NodeRemoved),
            (retire(4, 90, 65), Outcome::NodeRetires),
            (remove_retired(4, 66), Outcome::NodeRemoved),
            (retire(1, 90, 67), Outcome::LastNode),
        ];
        for (at, (command, expected)) in rows.into_iter().enumerate() {
            assert_eq!(cluster.apply(&command), expected, "step {at}: {command:?}");
        }
        assert_eq!(cluster.members().map(|member| member.facts.node.0).collect::<Vec<_>>(), [1]);
        assert_eq!(cluster.retirement(), None);
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
        assert_eq!(cluster.apply(&by_secret(2, "x")), Outcome::JoinRefused(JoinRefusal::Removed));
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
        cluster.apply(&by_secret(2, "x"));
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
            Command::AdmitNode(AdmitNode { facts, credential: Credential::Secret, join_key: None, time_ms: 1 })
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
            let command = admission(node);
            assert_eq!(cluster.apply(&Command::AdmitNode(command)), Outcome::NodeAdmitted);
        }
        let more = admission(1_000);
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
