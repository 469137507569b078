//! What a person is told whose token does not open what they want.

use crate::auth::{AuthError, Denied};
use crate::edge::problem::{Code, Problem};

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Problem {
        Problem::new(Code::Unauthorized, error.to_string()).help(error.help())
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Problem {
        Problem::new(Code::Forbidden, denied.to_string())
            .help("use a token that allows it; an admin makes one with `caxton token create`")
    }
}
