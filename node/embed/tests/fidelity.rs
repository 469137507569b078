//! Our eight-bit forward pass against candle's in f32, on sentences that the calibration did not see.

#[path = "support/mod.rs"]
mod support;

use anyhow::Result;
use caxton_embed::{Embedder, Kernel, TOKENS_MAX, Vector};

const SENTENCES: &str = include_str!("sentences.txt");

fn texts() -> Vec<String> {
    let lines: Vec<&str> = SENTENCES.lines().collect();
    let long = lines.chunks(8).map(|lines| lines.join(" "));
    let longest = [lines.join(" ")];
    lines.iter().map(|line| (*line).to_owned()).chain(long).chain(longest).collect()
}

#[test]
fn vectors_point_where_the_published_model_points() -> Result<()> {
    let reference = support::Reference::load()?;
    let embedder = Embedder::load();
    let texts = texts();
    let mut ids = Vec::new();
    let (mut sum, mut least, mut agreed) = (0.0, 1.0_f32, 0);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for text in &texts {
        embedder.vocabulary().encode(text, TOKENS_MAX, &mut ids);
        let exact = reference.embed(&ids)?;
        let own = embedder.embed(text);
        let cosine = caxton_embed::dot(own.as_slice(), &exact);
        assert!(cosine > 0.99, "cosine {cosine} for {text:?}");
        (sum, least) = (sum + cosine, least.min(cosine));
        ours.push(own);
        theirs.push(Vector::new(exact));
    }
    let nearest = |vectors: &[Vector], of: usize| {
        (0..vectors.len())
            .filter(|i| *i != of)
            .max_by(|a, b| vectors[of].similarity(&vectors[*a]).total_cmp(&vectors[of].similarity(&vectors[*b])))
    };
    for i in 0..texts.len() {
        let (own, exact) = (nearest(&ours, i), nearest(&theirs, i));
        agreed += usize::from(own == exact);
        if let (Some(own), Some(exact)) = (own, exact) {
            // A difference of roundings may only choose among neighbours that are as near.
            let behind = theirs[i].similarity(&theirs[exact]) - theirs[i].similarity(&theirs[own]);
            assert!(behind < 0.01, "the neighbour of {:?} is {behind} farther away than the nearest", texts[i]);
            println!("{behind:.5} behind the nearest");
        }
    }
    let mean = sum / texts.len() as f32;
    let share = agreed as f32 / texts.len() as f32;
    println!("{} texts: mean cosine {mean:.5}, least {least:.5}, same nearest neighbour {share:.3}", texts.len());
    assert!(mean > 0.999, "mean cosine {mean}");
    assert!(share > 0.93, "the nearest neighbour is the same for {share}");
    Ok(())
}

#[test]
fn every_kernel_gives_the_same_vectors() {
    let kernels: Vec<Embedder> = Kernel::available().into_iter().filter_map(Embedder::with).collect();
    assert_eq!(kernels.last().map(Embedder::kernel), Some(Kernel::Plain), "the plain kernel runs everywhere");
    let mut least = vec![1.0_f32; kernels.len()];
    for text in texts().iter().step_by(3).map(String::as_str).chain(["", "a"]) {
        let vectors: Vec<Vector> = kernels.iter().map(|embedder| embedder.embed(text)).collect();
        for ((kernel, vector), least) in kernels.iter().zip(&vectors).zip(&mut least) {
            let cosine = vector.similarity(&vectors[0]);
            // A float that is rounded otherwise may put an input on the other side of a step of its eight bits.
            assert!(cosine > 0.999, "{:?} against {:?}: {cosine} for {text:?}", kernel.kernel(), kernels[0].kernel());
            *least = least.min(cosine);
        }
    }
    for (kernel, least) in kernels.iter().zip(least) {
        println!("{:?} against {:?}: least cosine {least:.6}", kernel.kernel(), kernels[0].kernel());
    }
}

#[test]
fn a_long_sentence_leaves_nothing_behind_for_a_short_one() {
    let embedder = Embedder::load();
    let before = embedder.embed("water the plants");
    embedder.embed(&SENTENCES.replace('\n', " "));
    assert!(before == embedder.embed("water the plants"));
}

#[test]
fn a_text_is_cut_at_the_limit() {
    let embedder = Embedder::load();
    let start = "restart the ingestion pipeline";
    assert_eq!(embedder.embed_start(start, 256), embedder.embed_start(start, 16));
    assert!(embedder.embed_start(start, 256) != embedder.embed_start(start, 4), "four tokens are not the whole");
    let endless = "word ".repeat(1_000_000);
    assert!(embedder.embed(&endless) == embedder.embed(&"word ".repeat(254)), "the rest of an endless text counts");
}

#[test]
fn threads_share_one_model() {
    let expected = Embedder::shared().embed("how is the weather in Lisbon");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(expected == Embedder::shared().embed("how is the weather in Lisbon")));
        }
    });
}

#[test]
fn vectors_survive_being_written_down() {
    let vector = Embedder::shared().embed("a vector");
    assert_eq!(Vector::from_bytes(&vector.to_bytes()), Some(vector.clone()));
    assert!((vector.similarity(&vector) - 1.0).abs() < 1e-5);
    assert_eq!(Vector::from_bytes(&vector.to_bytes()[1..]), None);
    assert_eq!(Vector::from_bytes(&[0xff; 384 * 4]), None, "not a number");
    assert_eq!(Vector::new([0.0_f32; 384]), Vector::ZERO);
    assert_eq!(Vector::ZERO.similarity(&vector), 0.0);
}
