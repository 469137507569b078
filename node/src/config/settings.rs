//! Every setting of a node: its name, type, default, bounds and meaning, in one table.
//!
//! The table makes the types that a node runs with, the environment's names, the checks and docs/config.md; a setting
//! that is not in it does not exist.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{ByteSize, LogFormat, Networks, TlsMode};
use super::{Draft, Problem, Setting, Value, pick};

macro_rules! bounds {
    () => {
        None
    };
    ($min:literal, $max:literal) => {
        Some(($min, $max))
    };
}

macro_rules! settings {
    ($(
        $(#[doc = $about:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $meaning:literal])+ $name:ident: $Type:ty = $default:literal $(in $min:literal..$max:literal)?; )+
        }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone)]
            pub struct $Section { $( $(#[doc = $meaning])+ pub $name: $Type, )+ }
        )+

        /// What a node runs with: checked, whole, and never changed while it runs.
        #[derive(Debug, Clone)]
        pub struct Config { $( $(#[doc = $about])+ pub $section: $Section, )+ }

        /// The table, in the order of docs/config.md.
        pub const SETTINGS: &[Setting] = &[ $( $( Setting {
            key: concat!(stringify!($section), ".", stringify!($name)),
            kind: <$Type as Value>::KIND,
            default: $default,
            bounds: bounds!($($min, $max)?),
            meaning: &[$($meaning),+],
        }, )+ )+ ];

        /// What each section is about, in the order of docs/config.md.
        pub const SECTIONS: &[(&str, &[&str])] = &[ $( (stringify!($section), &[$($about),+]), )+ ];

        impl Config {
            /// Reads every setting of the draft, and adds each one that is wrong to `problems`.
            pub(super) fn read(draft: &Draft, problems: &mut Vec<Problem>) -> Option<Config> {
                let mut settings = SETTINGS.iter();
                $( $( let $name: Option<$Type> = pick(settings.next()?, draft, problems); )+
                   let $section = (|| Some($Section { $( $name: $name?, )+ }))(); )+
                Some(Config { $( $section: $section?, )+ })
            }

            /// Every setting's value as text, in the table's order.
            pub fn shown(&self) -> Vec<(&'static Setting, String)> {
                let values = [ $( $( self.$section.$name.show(), )+ )+ ];
                SETTINGS.iter().zip(values).collect()
            }
        }
    };
}

settings! {
    /// Where the node keeps what it knows.
    data: Data {
        /// The data directory. Empty means `$XDG_DATA_HOME/caxton`, or `~/.local/share/caxton`.
        dir: PathBuf = "";
    }
    /// The HTTP API.
    http: Http {
        /// The address that the API listens on. Anything but loopback switches TLS on. Port 0 takes a free one.
        bind: SocketAddr = "127.0.0.1:7411";
        /// The largest body of a request, where its route does not say otherwise.
        body_bytes_max: ByteSize = "8MiB" in "1KiB".."1GiB";
        /// How many requests are answered at once; one more gets 503 and `Retry-After`.
        requests_max: u64 = "1024" in "1".."1000000";
        /// How many connections are open at once; one more waits until another closes.
        connections_max: u64 = "4096" in "1".."1000000";
        /// How many connections one address has open at once; one more is closed. Of IPv6 a /64 is one address.
        connections_per_address_max: u64 = "1024" in "1".."1000000";
        /// How many requests of one address are answered at once; one more gets 429 and `Retry-After`.
        requests_per_address_max: u64 = "768" in "1".."1000000";
        /// How many requests of one role in one workspace are answered at once; one more gets 429 and `Retry-After`.
        requests_per_workspace_max: u64 = "768" in "1".."1000000";
        /// How long a connection may be open without a request.
        idle_timeout: Duration = "5m" in "100ms".."1d";
        /// How long a client may read nothing of an answer that is there for it; then its connection is closed.
        write_timeout: Duration = "60s" in "100ms".."1h";
        /// How long a request may take, from its head to the answer's head. A turn of an agent and a call of a tool have times
        /// of their own, and this one is for the body of the request. Event streams are not limited.
        timeout: Duration = "30s" in "100ms".."1h";
        /// How long a connection may take to send a request's head, or to finish the TLS handshake.
        header_timeout: Duration = "10s" in "100ms".."5m";
        /// How many event streams are open at once; one more gets 503 and `Retry-After`.
        event_streams_max: u64 = "1000" in "1".."1000000";
        /// How often a quiet event stream sends a comment, so that proxies keep it open.
        event_heartbeat: Duration = "15s" in "100ms".."10m";
        /// The largest message to an agent, with its attachments and images.
        message_bytes_max: ByteSize = "24MiB" in "1KiB".."1GiB";
        /// The largest head of a request.
        head_bytes_max: ByteSize = "64KiB" in "8KiB".."1MiB";
        /// How many requests one HTTP/2 connection may have open at once.
        streams_max: u64 = "256" in "1".."100000";
        /// How often a quiet HTTP/2 connection is asked whether it is still there.
        ping_interval: Duration = "30s" in "1s".."1h";
        /// How long an HTTP/2 connection may take to say that it is still there; then it is closed.
        ping_timeout: Duration = "20s" in "1s".."1h";
        /// How long a request waits while the group whose leader has to answer it has none.
        leader_wait: Duration = "6s" in "100ms".."5m";
        /// How much of a request's body is kept, so that it can be sent to another node again when the first one does not
        /// lead any more. A larger one is sent once.
        forward_bytes_max: ByteSize = "8MiB" in "0B".."1GiB";
    }
    /// TLS 1.3, with a certificate authority of the node's own unless a certificate is given.
    tls: Tls {
        /// `auto`: on as soon as `http.bind` is not loopback. `always`: on loopback too.
        mode: TlsMode = "auto";
        /// Further host names and IP addresses for the certificate, beside the bind address, the host's name and `localhost`.
        names: Vec<String> = "";
        /// A PEM file with a certificate chain to use instead of the node's own; goes with `tls.key_file`.
        certificate_file: PathBuf = "";
        /// A PEM file with the private key of `tls.certificate_file`.
        key_file: PathBuf = "";
    }
    /// Tokens that `caxton token create` makes.
    tokens: Tokens {
        /// How long a token is valid when its maker does not say.
        ttl: Duration = "30d" in "1m".."365d";
        /// How long a token may be valid at most.
        ttl_max: Duration = "365d" in "1m".."3650d";
    }
    /// Deployments and their files.
    deploy: Deploy {
        /// How many files a workspace may have.
        files_max: u64 = "100000" in "1".."10000000";
        /// The largest file of a workspace.
        file_bytes_max: ByteSize = "256MiB" in "1KiB".."16GiB";
        /// How large all files of a workspace may be together.
        workspace_bytes_max: ByteSize = "2GiB" in "1KiB".."1TiB";
        /// The largest body of a request that sends artifacts; the command line splits what is larger.
        upload_bytes_max: ByteSize = "32MiB" in "1MiB".."1GiB";
        /// The largest body of a request that deploys: it names every file that changes, at about 250 bytes each.
        request_bytes_max: ByteSize = "64MiB" in "1KiB".."1GiB";
        /// How many requests that send artifacts are read at once.
        uploads_max: u64 = "16" in "1".."10000";
        /// How many revisions of a workspace keep their content, so that a rollback can put it back.
        revisions_kept: u64 = "100" in "1".."10000";
        /// How many deployments are checked and proposed at once; one more gets 503 and `Retry-After`.
        concurrent_max: u64 = "64" in "1".."10000";
        /// How long a deployment may wait to be live on this node after the log took it.
        live_timeout: Duration = "20s" in "100ms".."10m";
    }
    /// The turns of agents on this node.
    limits: Limits {
        /// How many turns run at once; one more gets 429 and `Retry-After`.
        turns_max: u64 = "1024" in "1".."1000000";
        /// How much of the earlier turns of a conversation is put before a model, the newest first.
        history_bytes_max: ByteSize = "96KiB" in "0B".."64MiB";
        /// How long a message waits for its workspace's shard to be led, before it is sent on or refused.
        lead_wait: Duration = "3s" in "10ms".."5m";
        /// How long whoever asks for a turn that is under way waits for its end.
        turn_wait: Duration = "30s" in "100ms".."1h";
        /// How many turns of a shard that another node began go on at once on the node that takes the shard over.
        takeover_turns_max: u64 = "32" in "1".."100000";
        /// How long a turn that another node began waits for what is deployed to be loaded.
        takeover_wait: Duration = "60s" in "1s".."1h";
        /// How large the files of a turn may be together, those that came with the message and those of the answer, to be
        /// kept with it for later turns, which see as much of all earlier ones, the newest first; larger ones are in the
        /// first answer only.
        answer_files_bytes_max: ByteSize = "8MiB" in "0B".."256MiB";
        /// How many agents are kept put together in memory.
        agents_kept: u64 = "4096" in "1".."1000000";
        /// How many mailboxes a workspace may have with something in them; a message that needs one more is refused. What the shard's leader has counts.
        workspace_mailboxes_max: u64 = "100000" in "1".."10000000";
    }
    /// The tools of workspaces.
    tools: Tools {
        /// Networks that tools may reach although they are private, as `10.1.0.0/16`; all public ones are open to those that are granted a host in them.
        networks: Networks = "";
        /// MCP servers as processes of this node (`kind = "mcp-stdio"`). They run outside of the sandbox, with the rights of the node.
        processes: bool = "false";
        /// How many calls run in the sandbox at once, on a thread each; 0 for 8 for each processor, 32 at least and 256 at most.
        threads: u64 = "0" in "0".."4096";
        /// How many calls may wait for such a thread; one more is refused.
        queue_max: u64 = "1024" in "1".."1000000";
        /// The memory that all instances in the sandbox have together; 0 for half of what the machine or the container has. A call that finds none left is refused as busy.
        total_memory_bytes_max: ByteSize = "0B" in "0B".."1TiB";
        /// The machine code of tools that is kept in memory; what was used longest ago makes room, and is loaded again from the disk.
        code_bytes_max: ByteSize = "1GiB" in "1MiB".."1TiB";
        /// What one call may keep in its directory `/scratch`, looked at every 20 ms.
        scratch_bytes_max: ByteSize = "64MiB" in "4KiB".."1TiB";
        /// How many files and directories one call may keep there.
        scratch_files_max: u64 = "1024" in "1".."1000000";
        /// The most that `memory_bytes` of a tool's `[limits]` may be; what is above it counts as this. So do the four below.
        memory_bytes_max: ByteSize = "4GiB" in "64KiB".."4GiB";
        /// The most that `wall_time` may be.
        wall_time_max: Duration = "10m" in "1ms".."10m";
        /// The most that `cpu` may be.
        cpu_max: Duration = "10m" in "1ms".."10m";
        /// The most that `output_bytes` may be.
        output_bytes_max: ByteSize = "64MiB" in "1KiB".."64MiB";
        /// The most that `concurrency` may be.
        concurrency_max: u64 = "1024" in "1".."1024";
        /// After this long an MCP server outside of the sandbox is asked again what tools it has; sooner when it says that they changed.
        list_kept: Duration = "10m" in "100ms".."1d";
    }
    /// Language models and their providers.
    llm: Llm {
        /// A directory into which real providers' answers are recorded, for `scripted` providers to play back; empty for none. The answers are in it as they came, keys never are.
        record: PathBuf = "";
        /// Networks that workspaces' providers and memory backends may lead to although they are private, as `10.1.0.0/16`; all public ones are open. Loopback is open too as long as `http.bind` is a loopback address, as on a laptop with Ollama. What the node's own environment names goes anywhere.
        networks: Networks = "";
    }
    /// The sentence model, by which messages find their agents.
    embed: Embed {
        /// A directory with a BERT or DistilBERT to use in the place of the built-in all-MiniLM-L6-v2: `config.json`, `tokenizer.json` and `model.safetensors`, as `sentence-transformers` saves them; empty for the built-in one. It is read at the start. Give all nodes of a cluster the same.
        model: PathBuf = "";
    }
    /// What workspaces remember.
    memory: Memory {
        /// Whether workspaces may share what they keep in the scope `global`. Two do if each names the other as `share_with` under `[memory]` in its caxton.toml.
        share: bool = "false";
    }
    /// The disk below the data directory.
    disk: Disk {
        /// Writes that a person can repeat are refused while less than this is free, so that the log can go on.
        reserve_bytes: ByteSize = "128MiB" in "0B".."1TiB";
    }
    /// The replicated log.
    raft: Raft {
        /// How often a leader says that it is there.
        heartbeat: Duration = "200ms" in "10ms".."10s";
        /// The shortest silence of the leader that starts an election. A leader whose process ended is missed sooner.
        election_min: Duration = "1s" in "50ms".."60s";
        /// The longest silence of the leader that starts an election; each node draws its own between the two. More than
        /// twice the heartbeat.
        election_max: Duration = "1300ms" in "100ms".."120s";
        /// How many entries of a group's log are kept at least before a snapshot stands in for them. A snapshot is the whole
        /// state of the group, which the log makes longer: a log of more than sixteen times as many entries keeps a
        /// sixteenth of them, but never more than sixteen times this number.
        snapshot_entries: u64 = "20000" in "10".."10000000";
        /// How many bytes of a group's log are kept at least before a snapshot stands in for them, if they are not that many
        /// entries before. Where the last snapshot is more than sixteen times as long, a sixteenth of its length is kept, but
        /// never more than sixteen times this number.
        snapshot_bytes: ByteSize = "64MiB" in "64KiB".."64GiB";
    }
    /// The cluster: other nodes that this one belongs together with.
    cluster: Cluster {
        /// The address for other nodes: TCP for messages and UDP for gossip, on the same port. Empty means `127.0.0.1:7412`
        /// as soon as any setting below, or the data directory, says that there is a cluster, and none otherwise.
        bind: Option<SocketAddr> = "";
        /// Where other nodes reach this one, as `HOST:PORT`. Empty means `cluster.bind`.
        advertise: String = "";
        /// Nodes of the cluster to join, as `HOST:PORT`; any that is there will do. A node that has joined needs it no more.
        join: Vec<String> = "";
        /// A file with the token to join by, from `caxton cluster token create`.
        token_file: PathBuf = "";
        /// A file with a secret of at least 32 bytes that is the same on all nodes, for clusters that a machine sets up:
        /// who has it may join, and no token is needed.
        secret_file: PathBuf = "";
        /// Found the cluster, unless a node of `cluster.join` already belongs to one. Only a node with an empty data
        /// directory ever founds or joins.
        found: bool = "false";
        /// How long to try to join.
        join_timeout: Duration = "10m" in "1s".."1d";
        /// How many shards a cluster has that this node founds; fixed for its life. Each workspace belongs to one, and each
        /// shard is led by one node at a time.
        shards: u64 = "8" in "1".."1024";
        /// The newest format of what is written that this node says it reads; 0 for the newest that it knows. The cluster
        /// writes what all its nodes say they read, and never goes back. Hold it at the number that `caxton cluster status`
        /// shows as long as you may want to go back to the version before.
        format_max: u64 = "0" in "0".."1000000";
        /// How many nodes vote at most; an odd number of them does, and the rest follow and serve.
        voters_max: u64 = "5" in "1".."7";
        /// Time between two rounds of gossip. A node that falls silent is suspected after about eight.
        gossip_interval: Duration = "250ms" in "10ms".."10s";
        /// Time after which gossip forgets a node that fell silent.
        gossip_forget: Duration = "15m" in "10s".."1d";
    }
    /// Logs, traces and metrics.
    telemetry: Telemetry {
        /// `pretty` for people, `json` for programs, `auto` for pretty on a terminal and JSON elsewhere.
        log_format: LogFormat = "auto";
        /// Which log lines are written, in the syntax of tracing's `EnvFilter`, as in `info,caxton=debug`.
        filter: String = "info,rmcp=warn";
        /// Where traces are sent with OTLP over gRPC, as in `http://127.0.0.1:4317`; empty for nowhere.
        otlp_endpoint: String = "";
        /// How long one export may take.
        otlp_timeout: Duration = "5s" in "100ms".."5m";
        /// The name that traces carry as `service.name`.
        service_name: String = "caxton";
    }
    /// How a node stops.
    stop: Stop {
        /// How long requests that are being answered may go on after SIGTERM; then they are cut off.
        grace: Duration = "10s" in "0s".."1h";
    }
    /// The process of a node.
    runtime: Runtime {
        /// How many threads answer requests; 0 for as many as there are processors, 16 at most.
        threads: u64 = "0" in "0".."1024";
    }
}
