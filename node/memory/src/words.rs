//! A text as the words by which it is found: in small letters, without accents, English endings and stop words.
//!
//! A memory and a search go through the same function. Writing without spaces (Chinese, Japanese, Korean) is cut into
//! characters, and an emoji is a word of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization_alignments::UnicodeNormalization;

use crate::Map;

/// Longer words are cut: nobody types them, and a text of one endless word shall not fill the memory.
const WORD_BYTES_MAX: usize = 64;

/// Words that most texts have and that say nothing of what they are about; sorted.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "again", "all", "am", "an", "and", "any", "are", "as", "at", "be", "because", "been",
    "before", "being", "both", "but", "by", "can", "could", "did", "do", "does", "doing", "don", "down", "during",
    "each", "few", "for", "from", "further", "had", "has", "have", "having", "he", "her", "here", "hers", "him", "his",
    "how", "i", "if", "in", "into", "is", "it", "its", "just", "ll", "me", "more", "most", "my", "no", "nor", "not",
    "now", "of", "off", "on", "once", "only", "or", "other", "our", "ours", "out", "over", "own", "re", "s", "same",
    "she", "should", "so", "some", "such", "t", "than", "that", "the", "their", "theirs", "them", "then", "there",
    "these", "they", "this", "those", "through", "to", "too", "under", "until", "up", "ve", "very", "was", "we",
    "were", "what", "when", "where", "which", "while", "who", "whom", "why", "will", "with", "would", "you", "your",
    "yours",
];

/// Cuts texts into words.
pub struct Words {
    stemmer: Stemmer,
}

impl Default for Words {
    fn default() -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English) }
    }
}

impl Words {
    /// Hands out each word of a text.
    pub fn each(&self, text: &str, mut word: impl FnMut(&str)) {
        cut(text, |raw, alone| match alone {
            true => word(raw),
            false => {
                if let Some(stem) = self.stem(raw) {
                    word(&stem);
                }
            }
        });
    }

    /// The first `most` different words of a text.
    pub fn first(&self, text: &str, most: usize) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        self.each(text, |word| {
            if words.len() < most && !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        });
        words
    }

    /// What is searched by of a word as it stands in a text; nothing of a stop word.
    fn stem<'a>(&self, raw: &'a str) -> Option<Cow<'a, str>> {
        STOP_WORDS.binary_search(&raw).is_err().then(|| self.stemmer.stem(raw))
    }
}

/// The first words of a text by which it is found, at most `most` different ones, in the order of the text.
pub fn first_words(text: &str, most: usize) -> Vec<String> {
    Words::default().first(text, most)
}

/// The words of a text by which it is found, with how often each is in it.
pub fn word_counts(text: &str) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    Words::default().each(text, |word| *counts.entry(word.to_owned()).or_insert(0) += 1);
    counts
}

/// Cuts a text into words as they stand in it, in small letters; says of each whether it is one that stands alone.
fn cut(text: &str, mut word: impl FnMut(&str, bool)) {
    let mut current = String::new();
    if text.is_ascii() {
        let mut characters = text.bytes().peekable();
        while let Some(byte) = characters.next() {
            if byte.is_ascii_alphanumeric() {
                current.push(char::from(byte.to_ascii_lowercase()));
            } else if byte == b'\'' && !current.is_empty() && characters.peek().is_some_and(u8::is_ascii_alphabetic) {
                end(&mut current, &mut word);
                // What follows an apostrophe (`'s`, `'ll`, `'t`) is an ending and no word.
                while characters.next_if(u8::is_ascii_alphanumeric).is_some() {}
            } else {
                end(&mut current, &mut word);
            }
        }
    } else {
        cut_unicode(text, &mut current, &mut word);
    }
    end(&mut current, &mut word);
}

fn cut_unicode(text: &str, current: &mut String, word: &mut impl FnMut(&str, bool)) {
    let mut after_apostrophe = false;
    for (character, _) in text.nfkd() {
        if is_mark(character) {
            continue;
        }
        if stands_alone(character) {
            end(current, word);
            after_apostrophe = false;
            word(character.encode_utf8(&mut [0; 4]), true);
        } else if character.is_alphanumeric() {
            if !after_apostrophe {
                current.extend(character.to_lowercase());
            }
        } else {
            after_apostrophe = matches!(character, '\'' | '\u{2019}') && !current.is_empty();
            end(current, word);
        }
    }
}

fn end(current: &mut String, word: &mut impl FnMut(&str, bool)) {
    if current.is_empty() {
        return;
    }
    if current.len() > WORD_BYTES_MAX {
        let end = (0..=WORD_BYTES_MAX).rev().find(|&at| current.is_char_boundary(at)).unwrap_or(0);
        current.truncate(end);
    }
    word(current, false);
    current.clear();
}

/// The words of many texts, each under a number: one that comes again is not brought to its stem once more.
#[derive(Default)]
pub struct Vocabulary {
    words: Words,
    /// The number of the stem of a word as it stands in a text.
    raw: Map<Box<str>, u32>,
    numbers: Map<Box<str>, u32>,
    stems: Vec<Box<str>>,
}

/// A stop word's number.
const STOP: u32 = u32::MAX;

impl Vocabulary {
    /// The words of a text by their numbers, with how often each is in it.
    pub fn count(&mut self, text: &str) -> Counts {
        let mut numbers = Vec::new();
        cut(text, |raw, alone| {
            let known = self.raw.get(raw).filter(|_| !alone).copied();
            let number = known.unwrap_or_else(|| self.learn(raw, alone));
            if number != STOP {
                numbers.push(number);
            }
        });
        numbers.sort_unstable();
        let length = numbers.len().min(u16::MAX.into()) as u16;
        let mut counts: Vec<(u32, u32)> = Vec::with_capacity(numbers.len());
        for number in numbers {
            match counts.last_mut().filter(|(last, _)| *last == number) {
                Some((_, count)) => *count += 1,
                None => counts.push((number, 1)),
            }
        }
        Counts { counts: counts.into(), length }
    }

    fn learn(&mut self, raw: &str, alone: bool) -> u32 {
        let stem = if alone { Some(Cow::Borrowed(raw)) } else { self.words.stem(raw) };
        let number = match &stem {
            None => STOP,
            Some(stem) => match self.numbers.get(&**stem) {
                Some(number) => *number,
                None => {
                    let number = self.stems.len() as u32;
                    self.stems.push((&**stem).into());
                    self.numbers.insert((&**stem).into(), number);
                    number
                }
            },
        };
        if !alone {
            self.raw.insert(raw.into(), number);
        }
        number
    }

    /// A word that was counted.
    pub fn word(&self, number: u32) -> &str {
        &self.stems[number as usize]
    }

    /// How many words it knows.
    pub fn len(&self) -> usize {
        self.raw.len() + self.stems.len()
    }
}

/// How often each word is in a text, by the numbers of the [`Vocabulary`] that counted.
pub struct Counts {
    counts: Box<[(u32, u32)]>,
    /// Words in all, those that come again too; at most 65,535.
    pub length: u16,
}

impl Counts {
    /// How many different words.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// The words by their numbers, with how often each is in the text.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.counts.iter().copied()
    }
}

/// Accents, vowel signs and variation selectors, which are not what tells words apart.
fn is_mark(character: char) -> bool {
    matches!(u32::from(character), 0x300..=0x36F | 0x483..=0x489 | 0x591..=0x5C7 | 0x610..=0x61A | 0x64B..=0x65F | 0x670
        | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF | 0xFE00..=0xFE0F | 0xFE20..=0xFE2F | 0x200B..=0x200F)
}

/// Characters of writing without spaces, symbols and emoji.
fn stands_alone(character: char) -> bool {
    matches!(u32::from(character), 0x1100..=0x11FF | 0x2190..=0x2BFF | 0x2E80..=0x2FDF | 0x3040..=0x30FF | 0x3400..=0x9FFF
        | 0xAC00..=0xD7AF | 0xF900..=0xFAFF | 0x1F000..=0x1FAFF | 0x20000..=0x3FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        Words::default().each(text, |word| all.push(word.to_owned()));
        all
    }

    #[test]
    fn stop_words_are_sorted_so_that_they_are_found() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn a_text_and_a_search_meet_whatever_their_endings_cases_and_accents() {
        assert_eq!(words("The Runners' running"), words("runner RUN"));
        assert_eq!(words("Caroline's caf\u{e9}"), words("caroline cafe"));
        assert_eq!(words("Caroline\u{2019}s cafe\u{301}"), words("caroline cafe"));
        assert_eq!(words("foo_bar-1.2"), ["foo", "bar", "1", "2"]);
    }

    #[test]
    fn writing_without_spaces_and_emoji_are_found_by_character() {
        assert_eq!(words("\u{6771}\u{4eac}\u{1F600}ok"), ["\u{6771}", "\u{4eac}", "\u{1F600}", "ok"]);
        assert_eq!(words("\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{645}\u{631}\u{62d}\u{628}\u{627}").len(), 2);
    }

    #[test]
    fn endless_words_are_cut_at_a_character() {
        assert_eq!(words(&"\u{e4}\u{df}".repeat(1_000))[0].len(), WORD_BYTES_MAX);
    }
}
