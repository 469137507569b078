//! WordPiece: text to the token ids that the model was trained on.
//!
//! The rules are those of BERT's uncased tokenizer, in this order: control characters go, CJK characters become words
//! of their own, accents go, letters become small, words end at white space and punctuation, and each word is cut
//! greedily into the longest pieces that the vocabulary has. Text is never read as a special token: `[CLS]` in a
//! message is five pieces of text. The build script uses this file too, so it depends on nothing else here.

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;

/// What no piece of the vocabulary can spell.
pub const UNKNOWN: u32 = 100;
/// Opens every sequence.
pub const FIRST: u32 = 101;
/// Closes every sequence.
pub const LAST: u32 = 102;

/// Longer words are unknown as a whole, as in the reference.
const WORD_CHARS_MAX: usize = 100;
/// No entry of the vocabulary is longer, in bytes; checked when it is read.
const PIECE_BYTES_MAX: usize = 32;
const EMPTY: u32 = u32::MAX;

/// The pieces, one a line, and a hash table over them.
pub struct Vocabulary<'a> {
    text: &'a [u8],
    /// Where each line begins; one more than there are lines.
    starts: Vec<u32>,
    /// Open addressing; the low bits of the hash choose the slot.
    slots: Vec<u32>,
}

impl<'a> Vocabulary<'a> {
    /// Reads `vocab.txt`: the line number is the id. Costs less than a millisecond.
    pub fn new(text: &'a [u8]) -> Self {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let mut starts = Vec::with_capacity(1 << 15);
        starts.push(0);
        starts.extend(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at as u32 + 1));
        starts.push(text.len() as u32 + 1);
        let pieces = starts.len() - 1;
        let mut vocabulary = Self { text, starts, slots: vec![EMPTY; (pieces * 2).next_power_of_two()] };
        for id in 0..pieces as u32 {
            let (inside, piece) = vocabulary.piece(id);
            let mut slot = vocabulary.first_slot(inside, piece);
            while vocabulary.slots[slot] != EMPTY {
                slot = (slot + 1) & (vocabulary.slots.len() - 1);
            }
            vocabulary.slots[slot] = id;
        }
        vocabulary
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The ids of `text` between [`FIRST`] and [`LAST`], at most `tokens_max` in all; replaces what `out` holds.
    pub fn encode(&self, text: &str, tokens_max: usize, out: &mut Vec<u32>) {
        out.clear();
        out.push(FIRST);
        let mut words = Words { vocabulary: self, word: String::with_capacity(PIECE_BYTES_MAX), out, tokens_max };
        if text.is_ascii() {
            words.take_ascii(text.as_bytes());
        } else {
            words.take_unicode(text);
        }
        words.finish_word();
        out.truncate(tokens_max.saturating_sub(1).max(1));
        out.push(LAST);
    }

    /// Whether it continues a word, and its bytes without the `##` that says so.
    fn piece(&self, id: u32) -> (bool, &'a [u8]) {
        let line = &self.text[self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize - 1];
        match line.strip_prefix(b"##") {
            Some(rest) if !rest.is_empty() => (true, rest),
            Some(_) | None => (false, line),
        }
    }

    fn first_slot(&self, inside: bool, piece: &[u8]) -> usize {
        const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut hash = if inside { MULTIPLIER } else { piece.len() as u64 };
        for chunk in piece.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
        }
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    fn find(&self, inside: bool, piece: &[u8]) -> Option<u32> {
        let mut slot = self.first_slot(inside, piece);
        loop {
            let id = self.slots[slot];
            if id == EMPTY {
                return None;
            }
            if self.piece(id) == (inside, piece) {
                return Some(id);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn cut_word(&self, word: &str, out: &mut Vec<u32>) {
        if word.len() > WORD_CHARS_MAX && word.chars().count() > WORD_CHARS_MAX {
            out.push(UNKNOWN);
            return;
        }
        let before = out.len();
        let mut start = 0;
        while start < word.len() {
            let longest = word.len().min(start + PIECE_BYTES_MAX);
            let found = (start + 1..=longest)
                .rev()
                .filter(|end| word.is_char_boundary(*end))
                .find_map(|end| Some((self.find(start > 0, &word.as_bytes()[start..end])?, end)));
            let Some((id, end)) = found else {
                out.truncate(before);
                out.push(UNKNOWN);
                return;
            };
            out.push(id);
            start = end;
        }
    }
}

/// Collects characters into words and cuts each into pieces.
struct Words<'v, 'o> {
    vocabulary: &'v Vocabulary<'v>,
    word: String,
    out: &'o mut Vec<u32>,
    tokens_max: usize,
}

impl Words<'_, '_> {
    fn take_ascii(&mut self, text: &[u8]) {
        for &byte in text {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' => self.word.push(byte as char),
                b'A'..=b'Z' => self.word.push(byte.to_ascii_lowercase() as char),
                b' ' | b'\t' | b'\n' | b'\r' => self.finish_word(),
                0..=31 | 127 => {}
                _ => self.take_mark(byte as char),
            }
            if self.out.len() >= self.tokens_max {
                return;
            }
        }
    }

    fn take_unicode(&mut self, text: &str) {
        let spaced = text.chars().filter(|c| !is_control(*c)).flat_map(|c| {
            let around = is_cjk(c).then_some(' ');
            around.into_iter().chain([c]).chain(around)
        });
        let plain = spaced.nfd().map(|(c, _)| c).filter(|c| !c.is_mark_nonspacing());
        for c in plain.flat_map(char::to_lowercase) {
            if c.is_whitespace() {
                self.finish_word();
            } else if c.is_ascii_punctuation() || c.is_punctuation() {
                self.take_mark(c);
            } else {
                self.word.push(c);
            }
            if self.out.len() >= self.tokens_max {
                return;
            }
        }
    }

    /// A punctuation mark is a word of its own.
    fn take_mark(&mut self, mark: char) {
        self.finish_word();
        self.vocabulary.cut_word(mark.encode_utf8(&mut [0; 4]), self.out);
    }

    fn finish_word(&mut self) {
        if !self.word.is_empty() {
            self.vocabulary.cut_word(&self.word, self.out);
            self.word.clear();
        }
    }
}

fn is_control(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\0' | '\u{fffd}' => true,
        c => c.is_other(),
    }
}

fn is_cjk(c: char) -> bool {
    matches!(c as u32,
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
