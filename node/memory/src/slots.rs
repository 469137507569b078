//! A set of slots, a bit each.

/// Some of the slots from 0 on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    words: Vec<u64>,
    len: usize,
}

impl Slots {
    /// None of the first `len` slots.
    pub fn none(len: usize) -> Slots {
        Slots { words: vec![0; len.div_ceil(64)], len }
    }

    /// How many slots there are, in the set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// One slot more, which is in the set.
    pub fn push(&mut self) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.len += 1;
        self.set(self.len as u32 - 1);
    }

    /// Whether a slot is in the set; one that there is not is not.
    pub fn has(&self, slot: u32) -> bool {
        self.words.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Puts a slot in.
    pub fn set(&mut self, slot: u32) {
        self.words[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// Takes a slot out.
    pub fn clear(&mut self, slot: u32) {
        self.words[slot as usize / 64] &= !(1 << (slot % 64));
    }

    /// The set, 64 slots a word, the first in the lowest bit.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().copied()
    }

    /// The words to change.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The slots in the set, in their order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * 8
    }
}
