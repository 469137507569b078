//! The log's messages over the connections between nodes.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use caxton_proto::NodeId;
use caxton_proto::peer::pb::RaftRequest;
use caxton_raft::{Transport, TransportError};
use tokio::sync::broadcast;

use super::lives::Standing;
use super::{Copied, DialError, Peers, dial, is_refusal, line};

/// No answer came in the time that the log gave it.
#[derive(Debug, thiserror::Error)]
#[error("no answer came within {within:?}")]
struct TooLate {
    within: Duration,
}

#[async_trait]
impl Transport for Peers {
    async fn call(&self, to: NodeId, message: Bytes, within: Duration) -> Result<Bytes, TransportError> {
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| TransportError::Unreachable { node: to, source };
        let exchange = async {
            let channel = self.counted(to).await.map_err(|error| unreachable(error.into()))?;
            let lineage = channel.lineage.clone();
            let answered = if message.len() <= line::MESSAGE_BYTES_MAX {
                channel.line().call(message).await
            } else {
                let answered = dial::client(channel).raft(RaftRequest { message }).await;
                answered.map(|reply| reply.into_inner().answer)
            };
            match answered {
                // A vote or an acknowledgement of a process that no longer counts is nobody's.
                Ok(_) if self.lives().standing(to, &lineage) != Standing::Counts => {
                    Err(unreachable(DialError::Copied { node: to, why: Copied::Forked }.into()))
                }
                Ok(answer) => {
                    self.note_heard(to);
                    Ok(answer)
                }
                Err(status) if is_refusal(&status) => {
                    self.hear(&status);
                    Err(TransportError::Refused { why: status.message().to_owned() })
                }
                Err(status) => Err(unreachable(status.into())),
            }
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(unreachable(TooLate { within }.into())),
        }
    }

    fn gone(&self) -> Option<broadcast::Receiver<NodeId>> {
        Some(Peers::gone(self))
    }
}
