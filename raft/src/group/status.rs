//! What a group says of itself, out of what openraft says of it.

use std::collections::BTreeSet;

use caxton_proto::NodeId;
use openraft::metrics::RaftServerMetrics;
use openraft::{BasicNode, RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Members, Role, Status};
use crate::types::{Vote, chain};

type Metrics = RaftMetrics<u64, BasicNode>;
type ServerMetrics = RaftServerMetrics<u64, BasicNode>;

/// Keeps a [`Status`] and [`Members`] up to date, in a task that ends with the group.
///
/// `server` changes when one of the two does, and `metrics`, which has all of it, at every entry. openraft sends `server` first:
/// whoever looks at `metrics` in between finds what was before, and nothing would ever tell that it has changed.
///
/// openraft goes on naming a leader of which nothing is heard: `absent` says which that is.
pub fn follow(
    mut server: watch::Receiver<ServerMetrics>,
    mut metrics: watch::Receiver<Metrics>,
    mut absent: watch::Receiver<Option<Vote>>,
) -> (watch::Receiver<Status>, watch::Receiver<Members>, JoinHandle<()>) {
    let (told, status) = watch::channel(status_of(&metrics.borrow(), None));
    let (told_members, members) = watch::channel(members_of(&metrics.borrow()));
    let task = tokio::spawn(async move {
        loop {
            let now = server.borrow_and_update().clone();
            let level = tokio::select! {
                biased;
                level = metrics.wait_for(|metrics| is_level(metrics, &now)) => level.ok().map(|level| level.clone()),
                changed = server.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => None,
                },
            };
            let Some(level) = level else { break };
            tell(&told, status_of(&level, *absent.borrow_and_update()));
            tell(&told_members, members_of(&level));
            let changed = tokio::select! {
                changed = server.changed() => changed,
                changed = absent.changed() => changed,
            };
            if changed.is_err() {
                break;
            }
        }
        let last = status_of(&metrics.borrow(), None);
        told.send_replace(Status { role: Role::Stopped, ..last });
    });
    (status, members, task)
}

/// Whether both are of one moment, or `metrics` of a later one in which `server` has not changed.
fn is_level(metrics: &Metrics, server: &ServerMetrics) -> bool {
    metrics.state == server.state
        && metrics.current_leader == server.current_leader
        && metrics.vote == server.vote
        && metrics.membership_config == server.membership_config
}

fn tell<T: PartialEq>(to: &watch::Sender<T>, now: T) {
    to.send_if_modified(|known| {
        let new = *known != now;
        *known = now;
        new
    });
}

fn status_of(metrics: &Metrics, absent: Option<Vote>) -> Status {
    let fatal = metrics.running_state.as_ref().err().map(|fatal| chain(fatal).into());
    let role = match metrics.state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    };
    let role = if fatal.is_some() { Role::Stopped } else { role };
    let leader = metrics.current_leader.filter(|_| absent != Some(metrics.vote));
    Status { role, leader: leader.map(NodeId), term: metrics.current_term, fatal }
}

fn members_of(metrics: &Metrics) -> Members {
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
    let learners = membership.learner_ids().map(NodeId).collect();
    Members { voters, learners }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_second_is_waited_for() {
        let (server, server_rx) = watch::channel(ServerMetrics::default());
        let (metrics, metrics_rx) = watch::channel(Metrics::new_initial(0));
        let (absent, absent_rx) = watch::channel(None);
        let (mut status, _members, task) = follow(server_rx, metrics_rx, absent_rx);
        let leads = |term| {
            let (vote, state, current_leader) = (Vote::new_committed(term, 1), ServerState::Leader, Some(1));
            let now = Metrics { vote, state, current_leader, current_term: term, ..Metrics::new_initial(0) };
            (ServerMetrics { vote, state, current_leader, ..ServerMetrics::default() }, now)
        };
        let (first, second) = leads(3);
        server.send_replace(first);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(status.borrow_and_update().leader, None, "it was not all said yet");
        metrics.send_replace(second);
        let told = status.wait_for(|status| status.role == Role::Leader).await.expect("it is told").clone();
        assert_eq!((told.leader, told.term), (Some(NodeId(1)), 3));

        // Two elections before it looks: it comes to the last.
        server.send_replace(leads(4).0);
        tokio::task::yield_now().await;
        let (first, second) = leads(5);
        server.send_replace(first);
        metrics.send_replace(second);
        status.wait_for(|status| status.term == 5).await.expect("it is told");

        // The one that leads is not there, and another one is no more missing for that.
        for (vote, leader) in [(leads(5).1.vote, None), (leads(4).1.vote, Some(NodeId(1)))] {
            absent.send_replace(Some(vote));
            status.wait_for(|status| status.leader == leader).await.expect("it is told");
        }
        drop((server, metrics));
        task.await.expect("it ends");
        assert_eq!(status.borrow().role, Role::Stopped);
    }
}
