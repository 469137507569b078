//! A node with a sentence model of its own, out of a folder.

use std::fs;
use std::path::Path;

use caxton::node::{Node, StartError};
use serde_json::{Map, Value, json};

use crate::bench::{Bench, config, eventually, read};
use crate::deploy::Content;

/// As wide as the built-in model's rows, so that only its id tells its vectors apart.
const WIDTH: usize = 384;
const INNER: usize = 8;
const WORDS: [&str; 7] = ["[UNK]", "plot", "a", "chart", "say", "this", "french"];

/// A DistilBERT of one layer that knows seven words, with the same numbers each time.
fn write_model(dir: &Path) {
    let (mut header, mut data, mut state) = (Map::new(), Vec::<u8>::new(), 1_u64);
    let mut put = |name: &str, shape: &[usize]| {
        let begin = data.len();
        for _ in 0..shape.iter().product() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let one = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            data.extend(one.to_le_bytes());
        }
        header.insert(name.to_owned(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] }));
    };
    put("embeddings.word_embeddings.weight", &[WORDS.len(), WIDTH]);
    put("embeddings.position_embeddings.weight", &[16, WIDTH]);
    let layer = "transformer.layer.0";
    for (name, inputs, outputs) in [
        ("attention.q_lin", WIDTH, WIDTH),
        ("attention.k_lin", WIDTH, WIDTH),
        ("attention.v_lin", WIDTH, WIDTH),
        ("attention.out_lin", WIDTH, WIDTH),
        ("ffn.lin1", WIDTH, INNER),
        ("ffn.lin2", INNER, WIDTH),
    ] {
        put(&format!("{layer}.{name}.weight"), &[outputs, inputs]);
        put(&format!("{layer}.{name}.bias"), &[outputs]);
    }
    for norm in ["embeddings.LayerNorm".into(), format!("{layer}.sa_layer_norm"), format!("{layer}.output_layer_norm")]
    {
        put(&format!("{norm}.weight"), &[WIDTH]);
        put(&format!("{norm}.bias"), &[WIDTH]);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.extend(data);
    fs::write(dir.join("model.safetensors"), file).expect("weights");
    let vocabulary: Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "Lowercase" }, "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null,
        "decoder": null, "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("a tokenizer");
    let shape = json!({
        "model_type": "distilbert", "vocab_size": WORDS.len(), "dim": WIDTH, "n_layers": 1, "n_heads": 4,
        "hidden_dim": INNER, "max_position_embeddings": 16, "activation": "gelu",
    });
    fs::write(dir.join("config.json"), shape.to_string()).expect("a config");
}

/// What the file of vectors begins with, once it is there: whose they are, and how many bytes there are.
async fn kept(dir: &Path) -> (Vec<u8>, usize) {
    let file = dir.join("cache/vectors.bin");
    eventually("the vectors are written down", || async { file.exists() }).await;
    let bytes = fs::read(file).expect("vectors");
    (bytes[16..48].to_vec(), bytes.len())
}

impl Bench {
    /// The agent that a text is routed to.
    async fn routed(&self, text: &str) -> Value {
        let (status, answer) = read(self.post("/route", &json!({ "text": text }))).await;
        assert_eq!(status, 200, "{answer}");
        answer["chosen"]["agent"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_out_of_a_folder_routes_and_its_vectors_are_never_taken_for_the_built_in_ones() {
    let model = tempfile::tempdir().expect("a folder");
    write_model(model.path());
    let setting = format!("embed.model={}", model.path().display());
    let agent =
        |name: &str, pattern: &str| format!("[agent]\nname = \"{name}\"\n[capabilities]\npatterns = [\"{pattern}\"]\n");
    let content = Content::default()
        .file("agents/artist.toml", agent("artist", "plot a chart"))
        .file("agents/linguist.toml", agent("linguist", "say this"));
    let bench = Bench::new(&[&setting]).await;
    bench.deploy(&content, 0, &Content::default(), "first").await;
    assert_eq!(bench.routed("plot a chart").await, json!("artist"));
    assert_eq!(bench.routed("say this").await, json!("linguist"));
    let (own, bytes) = kept(bench.dir.path()).await;

    let bench = Bench::on(bench.stop().await, &[]).await;
    assert_eq!(bench.routed("draw a diagram of the sales").await, json!("artist"));
    let dir = bench.dir.path().to_owned();
    let replaced = || async { fs::read(dir.join("cache/vectors.bin")).is_ok_and(|bytes| bytes[16..48] != own) };
    eventually("the built-in model's vectors are in their place", replaced).await;
    // The model of the folder has too few layers for a wording of its own.
    assert_eq!(kept(&dir).await.1, bytes + 4 * WIDTH, "as many phrases, and each with its wording as well");

    // And back again, from what the folder says today.
    let bench = Bench::on(bench.stop().await, &[&setting]).await;
    assert_eq!(bench.routed("plot a chart").await, json!("artist"));
    bench.stop().await;
}

#[tokio::test]
async fn a_node_whose_model_is_missing_or_wrong_does_not_start_and_says_why() {
    let (model, dir) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let setting = format!("embed.model={}", model.path().display());
    let said = |error: StartError| {
        assert!(error.to_string().contains("`embed.model`"), "{error}");
        assert!(error.help().is_some_and(|help| help.contains("embed.model")), "{error}");
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    };
    let start = || async { Node::start(config(dir.path(), &[&setting])).await.err().expect("is refused") };
    let missing = said(start().await);
    assert!(missing.contains("config.json cannot be read"), "{missing}");
    write_model(model.path());
    fs::remove_file(model.path().join("model.safetensors")).expect("removed");
    let missing = said(start().await);
    assert!(missing.contains("model.safetensors cannot be read"), "{missing}");
    let other = json!({ "model_type": "gpt2", "vocab_size": 7, "dim": WIDTH, "n_layers": 1, "n_heads": 4, "hidden_dim": 8, "max_position_embeddings": 16 });
    fs::write(model.path().join("config.json"), other.to_string()).expect("a config");
    let wrong = said(start().await);
    assert!(wrong.contains("`gpt2`"), "{wrong}");
}
