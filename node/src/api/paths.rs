//! The paths of the API, each written down once: a route is registered under it, the description names it, and a client
//! fills it in.

/// A path with `PARTS` parts that a request fills in, as `{workspace}` is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathTemplate<const PARTS: usize>(&'static str);

impl<const PARTS: usize> PathTemplate<PARTS> {
    /// A template. One that has another number of parts does not compile.
    const fn new(text: &'static str) -> PathTemplate<PARTS> {
        let (bytes, mut at, mut parts) = (text.as_bytes(), 0, 0);
        while at < bytes.len() {
            parts += (bytes[at] == b'{') as usize;
            at += 1;
        }
        assert!(parts == PARTS, "the template has another number of parts");
        PathTemplate(text)
    }

    /// The template itself, as routes and the description write it.
    pub const fn text(self) -> &'static str {
        self.0
    }

    /// The path of one request: each part in its place, with everything escaped that a path gives a meaning to.
    pub fn with(self, parts: [&str; PARTS]) -> String {
        let mut path = String::with_capacity(self.0.len() + 32);
        let (mut rest, mut parts) = (self.0, parts.into_iter());
        while let Some((before, after)) = rest.split_once('{') {
            path.push_str(before);
            let (name, behind) = after.split_once('}').unwrap_or((after, ""));
            escape(&mut path, parts.next().unwrap_or_default(), name.starts_with('*'));
            rest = behind;
        }
        path.push_str(rest);
        path
    }
}

/// A path with a query: everything escaped that a query gives a meaning to.
pub fn with_query(mut path: String, parts: &[(&str, String)]) -> String {
    for (at, (name, value)) in parts.iter().enumerate() {
        path.push(if at == 0 { '?' } else { '&' });
        path.push_str(name);
        path.push('=');
        escape(&mut path, value, false);
    }
    path
}

/// Writes what stands for itself in a path as it is, and the rest as `%XX`. Only the last part of a path may have slashes.
fn escape(path: &mut String, part: &str, with_slashes: bool) {
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            b'/' if with_slashes => path.push('/'),
            byte => path.push_str(&format!("%{byte:02X}")),
        }
    }
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident [$parts:literal] = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: PathTemplate<$parts> = PathTemplate::new($text);)*
    };
}

paths! {
    /// Whether the process is alive.
    HEALTH [0] = "/health";
    /// Whether the node can serve.
    READY [0] = "/ready";
    /// What the node measures.
    METRICS [0] = "/metrics";
    /// The description of the API as a page.
    DOCS [0] = "/docs";
    /// The description of the API as JSON.
    OPENAPI [0] = "/api/v1/openapi.json";
    /// Who the node is.
    SERVER [0] = "/api/v1/server";
    /// The deployments of all workspaces as they happen.
    EVENTS [0] = "/api/v1/events";
    /// Where a connection becomes a WebSocket.
    SOCKET [0] = "/api/v1/socket";
    /// Tokens of clients.
    TOKENS [0] = "/api/v1/tokens";
    /// One of them.
    TOKEN [1] = "/api/v1/tokens/{id}";
    /// The nodes and the groups.
    CLUSTER [0] = "/api/v1/cluster";
    /// An archive of the whole cluster.
    CLUSTER_BACKUP [0] = "/api/v1/cluster/backup";
    /// Tokens by which nodes join.
    CLUSTER_TOKENS [0] = "/api/v1/cluster/tokens";
    /// One node of the cluster.
    CLUSTER_NODE [1] = "/api/v1/cluster/nodes/{node}";
    /// Who leads a group.
    CLUSTER_TRANSFER [0] = "/api/v1/cluster/transfer";
    /// The beginning of a rotation of keys.
    KEYS_ROTATE [0] = "/api/v1/cluster/keys/rotate";
    /// The end of a rotation of keys.
    KEYS_FINISH [0] = "/api/v1/cluster/keys/finish";
    /// The list of workspaces.
    WORKSPACES [0] = "/api/v1/workspaces";
    /// What is live in one of them.
    WORKSPACE [1] = "/api/v1/workspaces/{workspace}";
    /// What its agents used, by day.
    USAGE [1] = "/api/v1/workspaces/{workspace}/usage";
    /// How its agents did lately.
    AGENTS_HEALTH [1] = "/api/v1/workspaces/{workspace}/health";
    /// What would go with it.
    CONTENTS [1] = "/api/v1/workspaces/{workspace}/contents";
    /// What lies in its agents' and people's mailboxes, and where messages are sent.
    MAILBOX [1] = "/api/v1/workspaces/{workspace}/mailbox";
    /// One delivery of a mailbox.
    DELIVERY [2] = "/api/v1/workspaces/{workspace}/mailbox/{delivery}";
    /// Where a dead letter is tried again.
    DELIVERY_RETRY [2] = "/api/v1/workspaces/{workspace}/mailbox/{delivery}/retry";
    /// Who signed the message of a delivery, or the one of an id.
    DELIVERY_SIGNATURE [2] = "/api/v1/workspaces/{workspace}/mailbox/{delivery}/signature";
    /// The keys with which messages are signed.
    MESSAGE_KEYS [1] = "/api/v1/workspaces/{workspace}/message-keys";
    /// Where a sender gets a new one.
    MESSAGE_KEYS_ROTATE [1] = "/api/v1/workspaces/{workspace}/message-keys/rotate";
    /// Where all its dead letters are tried again.
    DEAD_LETTERS_RETRY [1] = "/api/v1/workspaces/{workspace}/dead-letters/retry";
    /// Where all its dead letters are dropped.
    DEAD_LETTERS_DROP [1] = "/api/v1/workspaces/{workspace}/dead-letters/drop";
    /// What its agents and people send each other, as it is sent.
    MAILBOX_EVENTS [1] = "/api/v1/workspaces/{workspace}/mailbox/events";
    /// The messages of one conversation.
    CONVERSATION_EVENTS [2] = "/api/v1/workspaces/{workspace}/conversations/{id}/events";
    /// When its agents are sent messages next.
    SCHEDULES [1] = "/api/v1/workspaces/{workspace}/schedules";
    /// The topics of which something is kept.
    TOPICS [1] = "/api/v1/workspaces/{workspace}/topics";
    /// Who subscribed to topics.
    SUBSCRIPTIONS [1] = "/api/v1/workspaces/{workspace}/subscriptions";
    /// One subscription, by its name.
    SUBSCRIPTION [2] = "/api/v1/workspaces/{workspace}/subscriptions/{name}";
    /// What was published, and where something is published.
    PUBLICATIONS [1] = "/api/v1/workspaces/{workspace}/publications";
    /// What it remembers: a page of memories, and where things are kept.
    MEMORIES [1] = "/api/v1/workspaces/{workspace}/memories";
    /// One memory of a workspace.
    MEMORY [2] = "/api/v1/workspaces/{workspace}/memories/{id}";
    /// Where the last edit of a memory is taken back.
    MEMORY_UNDO [2] = "/api/v1/workspaces/{workspace}/memories/{id}/undo";
    /// Where memories are searched for.
    MEMORY_SEARCH [1] = "/api/v1/workspaces/{workspace}/memory/search";
    /// Where many things are forgotten at once.
    MEMORY_FORGET [1] = "/api/v1/workspaces/{workspace}/memory/forget";
    /// One relation of the graph.
    MEMORY_RELATION [2] = "/api/v1/workspaces/{workspace}/memory/relations/{id}";
    /// The graph of entities and relations.
    MEMORY_GRAPH [1] = "/api/v1/workspaces/{workspace}/memory/graph";
    /// How much is remembered.
    MEMORY_STATS [1] = "/api/v1/workspaces/{workspace}/memory/stats";
    /// Where its memory backend is emptied and filled anew.
    MEMORY_SYNC [1] = "/api/v1/workspaces/{workspace}/memory/sync";
    /// All of it, a line each.
    MEMORY_EXPORT [1] = "/api/v1/workspaces/{workspace}/memory/export";
    /// Where such lines are taken in.
    MEMORY_IMPORT [1] = "/api/v1/workspaces/{workspace}/memory/import";
    /// Its deployments as they happen.
    WORKSPACE_EVENTS [1] = "/api/v1/workspaces/{workspace}/events";
    /// The nodes of its Merkle trie.
    TREE_NODES [1] = "/api/v1/workspaces/{workspace}/tree/nodes";
    /// What its files are made of, to be stored.
    ARTIFACTS [1] = "/api/v1/workspaces/{workspace}/artifacts";
    /// Which of it is not there.
    ARTIFACTS_MISSING [1] = "/api/v1/workspaces/{workspace}/artifacts/missing";
    /// What is there, to be read.
    ARTIFACTS_FETCH [1] = "/api/v1/workspaces/{workspace}/artifacts/fetch";
    /// Its history, and where a deployment is sent.
    DEPLOYMENTS [1] = "/api/v1/workspaces/{workspace}/deployments";
    /// Where a deployment is sent too.
    DEPLOY [1] = "/api/v1/workspaces/{workspace}/deploy";
    /// What is live in a workspace, under its other path.
    STATUS [1] = "/api/v1/workspaces/{workspace}/status";
    /// One deployment of a workspace.
    DEPLOYMENT [2] = "/api/v1/workspaces/{workspace}/deployments/{revision}";
    /// Where an older revision is made live again.
    ROLLBACK [1] = "/api/v1/workspaces/{workspace}/rollback";
    /// Its live agents.
    AGENTS [1] = "/api/v1/workspaces/{workspace}/agents";
    /// One of them.
    AGENT [2] = "/api/v1/workspaces/{workspace}/agents/{name}";
    /// Its live tools.
    TOOLS [1] = "/api/v1/workspaces/{workspace}/tools";
    /// One of them.
    TOOL [2] = "/api/v1/workspaces/{workspace}/tools/{tool}";
    /// Where a tool is called directly.
    TOOL_CALLS [2] = "/api/v1/workspaces/{workspace}/tools/{tool}/calls";
    /// The names of its secrets.
    SECRETS [1] = "/api/v1/workspaces/{workspace}/secrets";
    /// One secret of a workspace.
    SECRET [2] = "/api/v1/workspaces/{workspace}/secrets/{name}";
    /// Which agent a message would go to.
    ROUTE [1] = "/api/v1/workspaces/{workspace}/route";
    /// What happens in it.
    LOGS [1] = "/api/v1/workspaces/{workspace}/logs";
    /// Where messages to its agents are sent.
    MESSAGES [1] = "/api/v1/workspaces/{workspace}/messages";
    /// One turn of an agent.
    TURN [2] = "/api/v1/workspaces/{workspace}/turns/{id}";
    /// The conversations of a workspace.
    CONVERSATIONS [1] = "/api/v1/workspaces/{workspace}/conversations";
    /// One of them.
    CONVERSATION [2] = "/api/v1/workspaces/{workspace}/conversations/{id}";
    /// What waits for a person.
    APPROVALS [1] = "/api/v1/workspaces/{workspace}/approvals";
    /// One call that waits.
    APPROVAL [2] = "/api/v1/workspaces/{workspace}/approvals/{id}";
    /// OpenAI's Chat Completions.
    CHAT_COMPLETIONS [0] = "/v1/chat/completions";
    /// The Messages of Anthropic's protocol.
    ANTHROPIC_MESSAGES [0] = "/v1/messages";
    /// gRPC: an agent is asked.
    GRPC_ASK [0] = "/caxton.v1.Messages/Ask";
    /// gRPC: an agent is asked, and every step is told.
    GRPC_ASK_STREAM [0] = "/caxton.v1.Messages/AskStream";
    /// gRPC: how a turn ended.
    GRPC_GET_TURN [0] = "/caxton.v1.Messages/GetTurn";
    /// gRPC: a turn is stopped.
    GRPC_STOP_TURN [0] = "/caxton.v1.Messages/StopTurn";
    /// gRPC: a message is sent to mailboxes.
    GRPC_SEND [0] = "/caxton.v1.Messages/Send";
    /// gRPC: deliveries in mailboxes.
    GRPC_LIST_DELIVERIES [0] = "/caxton.v1.Mailbox/ListDeliveries";
    /// gRPC: one delivery.
    GRPC_GET_DELIVERY [0] = "/caxton.v1.Mailbox/GetDelivery";
    /// gRPC: a delivery is dropped.
    GRPC_DROP_DELIVERY [0] = "/caxton.v1.Mailbox/DropDelivery";
    /// gRPC: a dead letter is tried again.
    GRPC_RETRY_DELIVERY [0] = "/caxton.v1.Mailbox/RetryDelivery";
    /// gRPC: a mailbox as it fills.
    GRPC_FOLLOW_MAILBOX [0] = "/caxton.v1.Mailbox/FollowMailbox";
    /// gRPC: conversations with agents.
    GRPC_LIST_CONVERSATIONS [0] = "/caxton.v1.Conversations/ListConversations";
    /// gRPC: one conversation.
    GRPC_GET_CONVERSATION [0] = "/caxton.v1.Conversations/GetConversation";
    /// gRPC: a conversation as it grows.
    GRPC_FOLLOW_CONVERSATION [0] = "/caxton.v1.Conversations/FollowConversation";
    /// gRPC: the workspaces.
    GRPC_LIST_WORKSPACES [0] = "/caxton.v1.Deployments/ListWorkspaces";
    /// gRPC: what is live in one of them.
    GRPC_GET_CURRENT [0] = "/caxton.v1.Deployments/GetCurrent";
    /// gRPC: the history of a workspace.
    GRPC_LIST_DEPLOYMENTS [0] = "/caxton.v1.Deployments/ListDeployments";
    /// gRPC: one deployment.
    GRPC_GET_DEPLOYMENT [0] = "/caxton.v1.Deployments/GetDeployment";
    /// gRPC: an older revision is made live again.
    GRPC_ROLLBACK [0] = "/caxton.v1.Deployments/Rollback";
    /// gRPC: deployments as they happen.
    GRPC_FOLLOW_DEPLOYMENTS [0] = "/caxton.v1.Deployments/FollowDeployments";
    /// gRPC: whether the node can serve.
    GRPC_HEALTH_CHECK [0] = "/grpc.health.v1.Health/Check";
    /// gRPC: the same, as it changes.
    GRPC_HEALTH_WATCH [0] = "/grpc.health.v1.Health/Watch";
    /// gRPC: what services there are.
    GRPC_REFLECTION [0] = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    /// gRPC: the same, for older clients.
    GRPC_REFLECTION_ALPHA [0] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
    /// Agents as OpenAI's models.
    MODELS [0] = "/v1/models";
    /// One of them.
    MODEL [1] = "/v1/models/{*id}";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_no_name_stays_one_part() {
        assert_eq!(SECRET.with(["demo", "KEY"]), "/api/v1/workspaces/demo/secrets/KEY");
        assert_eq!(
            TURN.with(["demo", "a/../b?c#d%e é"]),
            "/api/v1/workspaces/demo/turns/a%2F..%2Fb%3Fc%23d%25e%20%C3%A9"
        );
        assert_eq!(MODEL.with(["demo/hello you"]), "/v1/models/demo/hello%20you");
        assert_eq!(HEALTH.with([]), HEALTH.text());
    }
}
