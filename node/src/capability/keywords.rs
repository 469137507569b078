//! Words that messages and capabilities share, the rare ones counting most: what finds a product's name, of which the
//! sentence model knows nothing.
//!
//! The score is BM25's, divided by the most that the message's own words could have brought, so that it lies between 0
//! and 1 in any workspace. A word that no capability uses counts half as much as the rarest: it says that the message
//! may be about something else.

use std::collections::{HashMap, HashSet};

/// How soon a word's repetitions stop counting.
const SATURATION: f32 = 1.2;
/// How much a long description weighs against a short one.
const LENGTH_SHARE: f32 = 0.3;
/// What an unknown word counts, as a part of the rarest known one.
const UNKNOWN_SHARE: f32 = 0.5;
/// Words of a message that are looked at.
const WORDS_MAX: usize = 128;

/// Words of documents, which are known by their numbers.
#[derive(Default)]
pub struct Keywords {
    words: HashMap<String, Word>,
    documents: usize,
}

struct Word {
    rarity: f32,
    /// Each document that has it, with what it is worth there.
    uses: Vec<(u32, f32)>,
}

/// What a message's words say of the documents.
pub struct Hits<'a> {
    /// For each document, between 0 and 1.
    pub scores: Vec<f32>,
    found: Vec<(&'a str, &'a Word)>,
}

impl Keywords {
    /// Counts the words of each document.
    pub fn build<'a, D: IntoIterator<Item = &'a str>>(documents: impl IntoIterator<Item = D>) -> Self {
        let mut counts: HashMap<String, Vec<(u32, f32)>> = HashMap::new();
        let mut lengths = Vec::new();
        for (document, texts) in documents.into_iter().enumerate() {
            let mut length = 0.0;
            for word in texts.into_iter().flat_map(words) {
                length += 1.0;
                let uses = counts.entry(word).or_default();
                match uses.last_mut() {
                    Some((last, count)) if *last == document as u32 => *count += 1.0,
                    Some(_) | None => uses.push((document as u32, 1.0)),
                }
            }
            lengths.push(length);
        }
        let average = lengths.iter().sum::<f32>().max(1.0) / lengths.len().max(1) as f32;
        let worth = |document: u32, count: f32| {
            let length = 1.0 - LENGTH_SHARE + LENGTH_SHARE * lengths[document as usize] / average;
            count / (count + SATURATION * length)
        };
        let documents = lengths.len();
        let prepare = |mut uses: Vec<(u32, f32)>| {
            uses.iter_mut().for_each(|(document, count)| *count = worth(*document, *count));
            Word { rarity: rarity(documents, uses.len()), uses }
        };
        Self { words: counts.into_iter().map(|(word, uses)| (word, prepare(uses))).collect(), documents }
    }

    /// Looks a message's words up.
    pub fn find(&self, text: &str) -> Hits<'_> {
        let mut scores = vec![0.0; self.documents];
        let (mut found, mut most) = (Vec::new(), 0.0);
        let wanted: HashSet<String> = words(text).take(WORDS_MAX).collect();
        for word in &wanted {
            let Some((word, known)) = self.words.get_key_value(word) else {
                most += UNKNOWN_SHARE * rarity(self.documents, 0);
                continue;
            };
            most += known.rarity;
            known.uses.iter().for_each(|(document, worth)| scores[*document as usize] += known.rarity * worth);
            found.push((word.as_str(), known));
        }
        if most > 0.0 {
            scores.iter_mut().for_each(|score| *score /= most);
        }
        found.sort_by(|(a, x), (b, y)| y.rarity.total_cmp(&x.rarity).then(a.cmp(b)));
        Hits { scores, found }
    }
}

impl Hits<'_> {
    /// The message's words that a document has, the rarest first.
    pub fn of(&self, document: usize) -> impl Iterator<Item = &str> {
        let has =
            move |word: &Word| word.uses.binary_search_by_key(&(document as u32), |(document, _)| *document).is_ok();
        self.found.iter().filter(move |(_, word)| has(word)).map(|(text, _)| *text)
    }
}

fn rarity(documents: usize, uses: usize) -> f32 {
    (1.0 + (documents as f32 - uses as f32 + 0.5) / (uses as f32 + 0.5)).ln()
}

/// The words of a text in small letters, without the commonest endings of English.
pub fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(|word| {
        let mut word = word.to_lowercase();
        let ending =
            ["ing", "ed", "es", "s"].into_iter().find(|ending| word.len() > ending.len() + 3 && word.ends_with(ending));
        word.truncate(word.len() - ending.map_or(0, str::len));
        word
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keywords() -> Keywords {
        Keywords::build([["restart the frobnicator", "frobnicators"], ["restart the pump", "the the"], ["", ""]])
    }

    #[test]
    fn a_rare_word_outweighs_common_ones() {
        let keywords = keywords();
        let hits = keywords.find("Restart the FROBNICATOR, please");
        assert!(hits.scores[0] > 1.5 * hits.scores[1], "{:?}", hits.scores);
        assert_eq!(hits.scores[2], 0.0);
        assert_eq!(hits.of(0).next(), Some("frobnicator"));
        assert!(!hits.of(1).any(|word| word == "frobnicator"));
    }

    #[test]
    fn scores_lie_between_nothing_and_one() {
        for text in ["", "?!", "frobnicator", "the the the", "nothing of this is known", "frobnicator frobnicator"] {
            for score in keywords().find(text).scores {
                assert!((0.0..=1.0).contains(&score), "{text:?}: {score}");
            }
        }
        assert!(Keywords::build::<[&str; 0]>([]).find("anything").scores.is_empty());
    }

    #[test]
    fn unknown_words_lower_the_score() {
        let keywords = keywords();
        assert!(keywords.find("frobnicator of the whale").scores[0] < keywords.find("the frobnicator").scores[0]);
    }

    #[test]
    fn endings_do_not_matter_and_short_words_stay() {
        assert_eq!(words("Charts charting chart bus is").collect::<Vec<_>>(), ["chart", "chart", "chart", "bus", "is"]);
        assert_eq!(words("Größe/ÄPFEL-名前").collect::<Vec<_>>(), ["größe", "äpfel", "名前"]);
    }
}
