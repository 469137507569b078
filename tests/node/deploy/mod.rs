//! The deploy walk over HTTP: what becomes live, and everything that is refused on the way.

mod blobs;

mod history;

mod space;

mod walk;

use std::collections::BTreeMap;

use caxton::api::frame;
use caxton_proto::Digest;
use caxton_proto::chunk::{CHUNK_BYTES_MAX, ChunkList};
use caxton_proto::plan::Plan;
use caxton_proto::tree::{File, Tree, TreePath};
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read};

/// The files of a workspace.
#[derive(Clone, Default)]
pub struct Content(BTreeMap<TreePath, Vec<u8>>);

impl Content {
    /// A workspace of agents, whose descriptions end in `word`.
    pub fn of(agents: &[&str], word: &str) -> Content {
        agents.iter().fold(Content::default(), |content, name| content.agent(name, word))
    }

    pub fn agent(self, name: &str, word: &str) -> Content {
        let text = format!(
            "[agent]\nname = \"{name}\"\ndescription = \"says {word}\"\n[capabilities]\npatterns = [\"{name} {word}\"]\n"
        );
        self.file(&format!("agents/{name}.toml"), text)
    }

    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Content {
        self.0.insert(path.parse().expect("a path"), content.into());
        self
    }

    /// Each file as the tree has it, and all blobs that it is made of.
    pub fn cut(&self) -> (Tree, Vec<(Digest, Vec<u8>)>) {
        let mut blobs = Vec::new();
        let tree = self.0.iter().map(|(path, content)| {
            let digest = Digest::of(content);
            let chunks = (content.len() > CHUNK_BYTES_MAX).then(|| {
                let (list, ranges) = ChunkList::cut(content);
                blobs.extend(
                    ranges.into_iter().map(|range| (Digest::of(&content[range.clone()]), content[range].to_vec())),
                );
                let list = list.encode();
                let digest = Digest::of(&list);
                blobs.push((digest, list));
                digest
            });
            if chunks.is_none() {
                blobs.push((digest, content.clone()));
            }
            (path.clone(), File { digest, bytes: content.len() as u64, chunks })
        });
        (tree.collect(), blobs)
    }

    pub fn tree(&self) -> Tree {
        self.cut().0
    }

    /// The request that leads here from `parent`, whose files are `live`.
    pub fn request(&self, parent: u64, live: &Content, key: &str) -> Value {
        let tree = self.tree();
        let plan = Plan::between(&live.tree(), &tree);
        let upserts: Vec<_> = plan.upserts.iter().map(|(path, file)| upsert(path.as_str(), file)).collect();
        json!({
            "parent": parent, "root": tree.root(), "upserts": upserts, "removals": plan.removals,
            "idempotency_key": key, "author": {"name": "Ada", "email": "ada@example.org"}, "message": key,
        })
    }
}

pub fn upsert(path: &str, file: &File) -> Value {
    let mut upsert = serde_json::to_value(file).expect("JSON");
    upsert["path"] = json!(path);
    upsert
}

/// A framed body.
pub fn framed(blobs: &[(Digest, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    blobs.iter().for_each(|(digest, blob)| frame::push(&mut body, digest, blob));
    body
}

/// Bytes that look random and are the same each time (xorshift64).
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// The path of something in workspace `demo`.
pub fn at(rest: &str) -> String {
    format!("/api/v1/workspaces/demo{rest}")
}

impl Bench {
    pub fn upload(&self, body: Vec<u8>) -> reqwest::RequestBuilder {
        self.request(Method::PUT, &at("/artifacts")).header("content-type", frame::MEDIA_TYPE).body(body)
    }

    /// Sends what the server does not have of `content`.
    pub async fn send(&self, content: &Content) {
        let (_, blobs) = content.cut();
        let mut missing: Vec<Digest> = Vec::new();
        for part in blobs.chunks(frame::DIGESTS_MAX) {
            let digests: Vec<_> = part.iter().map(|(digest, _)| digest).collect();
            let asked = self.request(Method::POST, &at("/artifacts/missing")).json(&json!({"digests": digests}));
            let (status, body) = read(asked).await;
            assert_eq!(status, 200, "{body}");
            missing.extend(serde_json::from_value::<Vec<Digest>>(body["missing"].clone()).expect("digests"));
        }
        let missing: std::collections::HashSet<_> = missing.into_iter().collect();
        let blobs: Vec<_> = blobs.into_iter().filter(|(digest, _)| missing.contains(digest)).collect();
        for part in blobs.chunks(400) {
            let (status, body) = read(self.upload(framed(part))).await;
            assert_eq!(status, 200, "{body}");
            assert_eq!(body["blobs"], part.len());
        }
    }

    pub fn post(&self, rest: &str, body: &Value) -> reqwest::RequestBuilder {
        self.request(Method::POST, &at(rest)).json(body)
    }

    /// Makes `content` live on top of `parent`; gives the answer.
    pub async fn deploy(&self, content: &Content, parent: u64, live: &Content, key: &str) -> Value {
        self.send(content).await;
        let (status, body) = read(self.post("/deployments", &content.request(parent, live, key))).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// What the server says is live.
    pub async fn live(&self) -> Value {
        let (status, body) = read(self.request(Method::GET, &at(""))).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// An agent's description, as the server serves it.
    pub async fn says(&self, agent: &str) -> Option<String> {
        let (_, body) = read(self.request(Method::GET, &at(&format!("/agents/{agent}")))).await;
        body["description"].as_str().map(str::to_owned)
    }
}
