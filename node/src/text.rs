//! Text that has to be shorter: cut where a character ends, never in one.

/// The start of a text, at most `bytes_max` bytes of it, in whole characters.
pub fn head(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The start of a text, with three dots where something is missing. The dots come on top of `bytes_max`.
pub fn preview(text: &str, bytes_max: usize) -> String {
    let head = head(text, bytes_max);
    if head.len() < text.len() { format!("{head}...") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, bytes_max, expected) in
            [("", 0, ""), ("", 3, ""), ("abc", 0, ""), ("abc", 3, "abc"), ("a\u{e9}", 2, "a"), ("\u{1f980}", 3, "")]
        {
            assert_eq!(head(text, bytes_max), expected, "{text:?} at {bytes_max}");
        }
        assert_eq!((preview("abc", 3), preview("abcd", 3)), ("abc".to_owned(), "abc...".to_owned()));
    }

    proptest! {
        #[test]
        fn the_head_is_the_longest_start_that_fits(text in any::<String>(), bytes_max in 0..64_usize) {
            let head = head(&text, bytes_max);
            prop_assert!(text.starts_with(head) && head.len() <= bytes_max);
            let next = text[head.len()..].chars().next();
            prop_assert!(next.is_none_or(|next| head.len() + next.len_utf8() > bytes_max));
        }
    }
}
