//! Models out of folders: BERT and DistilBERT against candle's reference and against the built-in model, and every way
//! in which a folder can be wrong.

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "the models here are not the published one")]
mod support;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use caxton_embed::{Embedder, Model, OpenError, Vector, dot};
use serde_json::{Value, json};
use tempfile::TempDir;

const SENTENCES: &str = include_str!("sentences.txt");
/// The small model's: layers, heads, and the widths of a row and inside a layer.
const SMALL: (usize, usize, usize, usize) = (2, 4, 32, 48);
const PIECES: usize = 30_522;

type Tensors = HashMap<String, Tensor>;

fn bert(layers: usize, heads: usize, width: usize, inner: usize, positions: usize) -> Value {
    json!({
        "model_type": "bert", "vocab_size": PIECES, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": inner, "max_position_embeddings": positions,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    })
}

fn distilbert(layers: usize, heads: usize, width: usize, inner: usize, positions: usize) -> Value {
    json!({
        "model_type": "distilbert", "vocab_size": PIECES, "dim": width, "n_layers": layers, "n_heads": heads,
        "hidden_dim": inner, "max_position_embeddings": positions, "activation": "gelu",
    })
}

/// A folder with the published tokenizer.
fn folder(config: &Value, tensors: &Tensors) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    fs::copy(support::source()?.join("tokenizer.json"), dir.path().join("tokenizer.json"))?;
    fs::write(dir.path().join("config.json"), config.to_string())?;
    candle_core::safetensors::save(tensors, dir.path().join("model.safetensors"))?;
    Ok(dir)
}

/// A BERT of small random numbers, the same each time.
fn small(positions: usize) -> Result<Tensors> {
    let (layers, _, width, inner) = SMALL;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |shape: &[usize], scale: f32, middle: f32| {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                middle + scale * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
            })
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    };
    let mut tensors = Tensors::new();
    let mut put = |name: String, shape: &[usize], scale, middle| -> Result<()> {
        tensors.insert(name, random(shape, scale, middle)?);
        Ok(())
    };
    put("embeddings.word_embeddings.weight".into(), &[PIECES, width], 0.5, 0.0)?;
    put("embeddings.position_embeddings.weight".into(), &[positions, width], 0.5, 0.0)?;
    put("embeddings.token_type_embeddings.weight".into(), &[2, width], 0.5, 0.0)?;
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..layers {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, inputs, outputs) in [
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", width, inner),
            ("output.dense", inner, width),
        ] {
            put(format!("{}.weight", name(part)), &[outputs, inputs], 0.4, 0.0)?;
            put(format!("{}.bias", name(part)), &[outputs], 0.2, 0.0)?;
        }
        norms.extend([name("attention.output.LayerNorm"), name("output.LayerNorm")]);
    }
    for norm in norms {
        put(format!("{norm}.weight"), &[width], 0.3, 1.0)?;
        put(format!("{norm}.bias"), &[width], 0.3, 0.0)?;
    }
    Ok(tensors)
}

/// The same numbers as DistilBERT has them: other names, and the first token type in the positions.
fn as_distilbert(bert: &Tensors) -> Result<Tensors> {
    let names = [
        ("encoder.layer.", "transformer.layer."),
        ("attention.self.query", "attention.q_lin"),
        ("attention.self.key", "attention.k_lin"),
        ("attention.self.value", "attention.v_lin"),
        ("attention.output.dense", "attention.out_lin"),
        ("attention.output.LayerNorm", "sa_layer_norm"),
        ("intermediate.dense", "ffn.lin1"),
        ("output.dense", "ffn.lin2"),
        ("output.LayerNorm", "output_layer_norm"),
    ];
    let mut tensors: Tensors = bert
        .iter()
        .map(|(name, tensor)| {
            let renamed = names.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to));
            (format!("distilbert.{renamed}"), tensor.clone())
        })
        .collect();
    let kinds = tensors.remove("distilbert.embeddings.token_type_embeddings.weight").context("token types")?;
    let places = tensors.get_mut("distilbert.embeddings.position_embeddings.weight").context("positions")?;
    *places = places.broadcast_add(&kinds.narrow(0, 0, 1)?)?;
    Ok(tensors)
}

fn texts() -> impl Iterator<Item = String> {
    let lines: Vec<&str> = SENTENCES.lines().collect();
    let long = lines.chunks(6).map(|lines| lines.join(" ")).collect::<Vec<_>>();
    lines.into_iter().map(str::to_owned).chain(long)
}

#[test]
fn the_published_model_named_as_a_folder_gives_the_vectors_of_the_built_in_one() -> Result<()> {
    let file = support::source()?.join("model.safetensors");
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu)?;
    let positions = tensors["embeddings.position_embeddings.weight"].dim(0)?;
    let bert = folder(&bert(6, 12, 384, 1_536, positions), &tensors)?;
    fs::write(bert.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 256}"#)?;
    let distilbert = folder(&distilbert(6, 12, 384, 1_536, positions), &as_distilbert(&tensors)?)?;
    fs::write(distilbert.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 256}"#)?;
    let (bert, distilbert) = (Model::open(bert.path())?, Model::open(distilbert.path())?);
    let built_in = Model::built_in();
    assert_eq!((bert.dimensions(), bert.tokens_max()), (built_in.dimensions(), built_in.tokens_max()));
    assert!(bert.id() != built_in.id() && bert.id() != distilbert.id(), "their numbers are not the same");
    let (mut least, mut sum, mut count) = (1.0_f32, 0.0, 0);
    for text in texts() {
        let (one, other, own) = (bert.embed(&text), distilbert.embed(&text), built_in.embed(&text));
        assert!(one.similarity(&other) > 0.99999, "{text:?}: {}", one.similarity(&other));
        let cosine = one.similarity(&own);
        (least, sum, count) = (least.min(cosine), sum + cosine, count + 1);
        assert_eq!(one.as_slice().len(), 384);
    }
    let mean = sum / count as f32;
    println!("{count} texts: mean cosine {mean:.5}, least {least:.5}");
    assert!(mean > 0.999 && least > 0.998, "mean cosine {mean}, least {least}");
    Ok(())
}

#[test]
fn small_models_of_both_kinds_agree_with_the_reference() -> Result<()> {
    let (layers, heads, width, inner) = SMALL;
    let tensors = small(64)?;
    let bert_dir = folder(&bert(layers, heads, width, inner, 64), &tensors)?;
    let reference = support::Reference::read(&bert_dir.path().join("model.safetensors"), layers, heads)?;
    let bert_model = Model::open(bert_dir.path())?;
    let distilbert_dir = folder(&distilbert(layers, heads, width, inner, 64), &as_distilbert(&tensors)?)?;
    let distilbert_model = Model::open(distilbert_dir.path())?;
    assert_eq!((bert_model.dimensions(), bert_model.tokens_max()), (width, 64));
    let mut ids = Vec::new();
    for text in texts() {
        Embedder::shared().vocabulary().encode(&text, 64, &mut ids);
        let exact = reference.embed(&ids)?;
        for model in [&bert_model, &distilbert_model] {
            let own = model.embed(&text);
            let cosine = dot(own.as_slice(), &exact);
            assert!((cosine - 1.0).abs() < 1e-4, "{text:?}: {cosine}");
        }
    }
    // Half as many bits for a number hardly turn a vector, and are another model.
    let halves = tensors.iter().map(|(name, tensor)| Ok((format!("bert.{name}"), tensor.to_dtype(DType::F16)?)));
    let half_dir = folder(&bert(layers, heads, width, inner, 64), &halves.collect::<Result<Tensors>>()?)?;
    let half = Model::open(half_dir.path())?;
    assert!(half.id() != bert_model.id());
    let text = "plot a chart of the temperatures";
    assert!(half.embed(text).similarity(&bert_model.embed(text)) > 0.999);
    assert_eq!(Model::open(bert_dir.path())?.id(), bert_model.id(), "the same files are the same model");
    Ok(())
}

#[test]
fn a_model_says_how_its_rows_make_a_sentence() -> Result<()> {
    let (layers, heads, width, inner) = SMALL;
    let dir = folder(&bert(layers, heads, width, inner, 64), &small(64)?)?;
    let text = "plot a chart of the temperatures";
    let mean = Model::open(dir.path())?;
    let pooling = dir.path().join("1_Pooling");
    fs::create_dir(&pooling)?;
    fs::write(pooling.join("config.json"), r#"{"pooling_mode_cls_token": true}"#)?;
    let first = Model::open(dir.path())?;
    assert!(first.id() != mean.id() && first.embed(text).similarity(&mean.embed(text)) < 0.999);
    // The first row of a text knows the others: it is not that of another text.
    assert!(first.embed(text).similarity(&first.embed("water the plants")) < 0.999);
    fs::write(pooling.join("config.json"), r#"{"pooling_mode_max_tokens": true}"#)?;
    assert!(refusal(dir.path()).contains("pooled in another way"), "{}", refusal(dir.path()));
    fs::write(pooling.join("config.json"), r#"{"pooling_mode_mean_tokens": true}"#)?;
    assert_eq!(Model::open(dir.path())?.embed(text), mean.embed(text));
    let dense = json!([{ "type": "sentence_transformers.models.Dense", "path": "2_Dense" }]);
    fs::write(dir.path().join("modules.json"), dense.to_string())?;
    assert!(refusal(dir.path()).contains("`Dense`"), "{}", refusal(dir.path()));
    Ok(())
}

#[test]
fn texts_of_any_length_and_kind_have_a_vector() -> Result<()> {
    let (layers, heads, width, inner) = SMALL;
    let dir = folder(&bert(layers, heads, width, inner, 64), &small(64)?)?;
    let model = Model::open(dir.path())?;
    let endless = "word ".repeat(1_000_000);
    assert_eq!(model.embed(&endless), model.embed(&"word ".repeat(62)), "the rest of an endless text counts");
    assert_eq!(model.embed_start("water the plants", 3), model.embed("water"));
    assert_eq!(model.embed("[SEP]"), model.embed("[sep]"), "text is never read as a special token");
    assert!(model.embed("") != Vector::ZERO, "the two tokens that frame a text are there in any case");
    Ok(())
}

/// Why a folder's model is refused, with all causes.
fn refusal(dir: &Path) -> String {
    let error: OpenError = Model::open(dir).err().expect("it is refused");
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn what_is_missing_or_wrong_is_named() -> Result<()> {
    let (layers, heads, width, inner) = SMALL;
    let (good, tensors) = (bert(layers, heads, width, inner, 64), small(64)?);
    let dir = folder(&good, &tensors)?;
    let at = |name: &str| dir.path().join(name);
    let restored = |name: &str, bytes: &[u8]| fs::write(at(name), bytes);
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let bytes = fs::read(at(name))?;
        fs::remove_file(at(name))?;
        assert!(refusal(dir.path()).contains(&format!("{} cannot be read", at(name).display())), "{name}");
        fs::write(at(name), &bytes[..bytes.len() / 2])?;
        assert!(refusal(dir.path()).contains(&format!("{} is not what it should be", at(name).display())), "{name}");
        restored(name, &bytes)?;
    }
    let with = |key: &str, value: Value| -> Result<String> {
        let mut config = good.clone();
        config[key] = value;
        fs::write(at("config.json"), config.to_string())?;
        Ok(refusal(dir.path()))
    };
    for (key, value, said) in [
        ("model_type", json!("gpt2"), "`gpt2`"),
        ("hidden_act", json!("swish"), "`swish`"),
        ("position_embedding_type", json!("relative_key"), "relative"),
        ("num_attention_heads", json!(5), "5 heads"),
        ("num_attention_heads", json!(0), "heads is 0"),
        ("hidden_size", json!(64), "the shape [30522, 64]"),
        ("num_hidden_layers", json!(3), "`encoder.layer.2.attention.self.query.weight`"),
        ("vocab_size", json!(20_000), "20000 pieces"),
        ("max_position_embeddings", json!(65), "the shape [65, 32]"),
    ] {
        let refused = with(key, value)?;
        assert!(refused.contains(said), "{key}: {refused}");
    }
    fs::write(at("config.json"), good.to_string())?;
    let mut broken = tensors;
    let gain = broken.get_mut("embeddings.LayerNorm.weight").context("a norm")?;
    *gain = Tensor::from_vec(vec![f32::NAN; width], width, &Device::Cpu)?;
    candle_core::safetensors::save(&broken, at("model.safetensors"))?;
    assert!(refusal(dir.path()).contains("damaged"), "{}", refusal(dir.path()));
    Ok(())
}
