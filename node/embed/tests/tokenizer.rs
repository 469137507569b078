//! Our WordPiece against the `tokenizers` crate with the published `tokenizer.json`.

#[path = "support/mod.rs"]
#[allow(dead_code)]
mod support;

use anyhow::Result;
use caxton_embed::{Embedder, TOKENS_MAX};
use tokenizers::{Tokenizer, TruncationParams};

/// Ranges of characters that behave differently: letters, marks, spaces, controls, scripts, private use, emoji.
const RANGES: [(u32, u32); 22] = [
    (0x20, 0x7e),
    (0x20, 0x7e),
    (0x61, 0x7a),
    (0x61, 0x7a),
    (0x61, 0x7a),
    (0x00, 0x1f),
    (0x7f, 0xff),
    (0x100, 0x24f),
    (0x300, 0x36f),
    (0x370, 0x3ff),
    (0x400, 0x4ff),
    (0x590, 0x6ff),
    (0x900, 0x9ff),
    (0xe00, 0xe7f),
    (0x1e00, 0x1fff),
    (0x2000, 0x206f),
    (0x2070, 0x2bff),
    (0x3000, 0x30ff),
    (0x4e00, 0x4fff),
    (0xac00, 0xacff),
    (0xe000, 0xe0ff),
    (0x1f300, 0x1f6ff),
];

/// xorshift64*: enough to wander, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn text(&mut self, words: &[&str]) -> String {
        let mut text = String::new();
        for _ in 0..self.below(12) + 1 {
            if self.below(3) == 0 {
                text.push_str(words[self.below(words.len() as u64) as usize]);
                text.push(' ');
            }
            let (from, to) = RANGES[self.below(RANGES.len() as u64) as usize];
            for _ in 0..self.below(6) {
                text.extend(char::from_u32(from + self.below(u64::from(to - from + 1)) as u32));
            }
            if self.below(40) == 0 {
                text.push_str(&"x".repeat(self.below(130) as usize));
            }
        }
        text
    }
}

#[test]
fn ids_are_those_of_the_reference() -> Result<()> {
    let mut reference = Tokenizer::from_file(support::source()?.join("tokenizer.json")).map_err(anyhow::Error::msg)?;
    reference.with_padding(None);
    reference
        .with_truncation(Some(TruncationParams { max_length: TOKENS_MAX, ..TruncationParams::default() }))
        .map_err(anyhow::Error::msg)?;
    let seed = match std::env::var("CAXTON_TEST_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => 0x00C0_FFEE,
    };
    println!("CAXTON_TEST_SEED={seed}");
    let mut random = Random(seed | 1);
    let sentences: Vec<&str> = include_str!("sentences.txt").lines().collect();
    let words: Vec<&str> = sentences.iter().flat_map(|line| line.split(' ')).collect();
    let long = sentences.join(" ");
    let fixed =
        ["", " ", "\t\n", "naïve Ænima ŒUVRE ﬁne İstanbul ẞ", "x\u{0}y\u{fffd}z", "don't e-mail me@example.org", &long];
    let texts = fixed.iter().map(|text| (*text).to_owned()).chain(sentences.iter().map(|text| (*text).to_owned()));
    let mut ids = Vec::new();
    for text in texts.chain((0..20_000).map(|_| random.text(&words))) {
        let expected = reference.encode(text.as_str(), true).map_err(anyhow::Error::msg)?;
        Embedder::shared().vocabulary().encode(&text, TOKENS_MAX, &mut ids);
        assert_eq!(ids, expected.get_ids(), "{text:?}");
    }
    Ok(())
}

#[test]
fn text_is_never_a_special_token() {
    let mut ids = Vec::new();
    Embedder::shared().vocabulary().encode("[SEP]", TOKENS_MAX, &mut ids);
    assert!(ids.len() > 3 && ids.iter().filter(|id| **id == 102).count() == 1, "{ids:?}");
}
