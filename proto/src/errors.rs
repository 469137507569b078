//! An error with its causes in one line: how one part of Caxton tells another, or a log, what went wrong.

/// An error and what caused it, from the outermost to the innermost, joined by `: `.
///
/// An error of ours never prints its source itself, so nothing is said twice.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    #[test]
    fn causes_follow_from_the_outermost_to_the_innermost() {
        let disk = Layer("the disk is full", None);
        assert_eq!(chain(&disk), "the disk is full");
        let file = Layer("the file cannot be written", Some(Box::new(disk)));
        let turn = Layer("the turn was not kept", Some(Box::new(file)));
        assert_eq!(chain(&turn), "the turn was not kept: the file cannot be written: the disk is full");
    }
}
