//! How turns that a message of a mailbox began are told from others.

/// With what the ids of turns begin that a message began, and those of their conversations. No client can name either.
pub(super) const MAIL_TURN: &str = "mail-";

/// Whether a message of a mailbox began the turn.
pub(super) fn is_mailed(turn: &str) -> bool {
    turn.starts_with(MAIL_TURN)
}

/// The id of a turn that a message began.
pub(super) fn mailed(turn: &str) -> String {
    format!("{MAIL_TURN}{turn}")
}
