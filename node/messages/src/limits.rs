//! How much a workspace's mailboxes hold, and how often a delivery is tried. Every replica applies the same.

/// The limits of mailboxes, conversations and topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most messages in one mailbox, dead letters among them. One sender has at most half of it.
    pub mailbox_messages_max: i64,
    /// The most bytes of the messages in one mailbox.
    pub mailbox_bytes_max: i64,
    /// How often a delivery is given to its receiver before it is a dead letter.
    pub attempts_max: u32,
    /// The pause before the second attempt, in milliseconds; it doubles with each.
    pub retry_ms: i64,
    /// The longest pause between two attempts, in milliseconds.
    pub retry_ms_max: i64,
    /// After so many milliseconds, a message that waits is as urgent as one of the next priority that has just come.
    pub ageing_ms: i64,
    /// The most conversations of a workspace that are kept. Where one more begins, the one that has been over for longest goes.
    pub conversations_max: i64,
    /// The most participants of one conversation.
    pub participants_max: i64,
    /// The most events of a conversation that are kept; their numbers go on.
    pub events_kept: i64,
    /// How long a conversation is kept after its last event, once it is over or where it has no deadline, in milliseconds.
    pub conversation_ms: i64,
    /// How long the initiator of a contract net has to award it after the deadline, in milliseconds.
    pub award_ms: i64,
    /// The most keys of one sender that are kept, with those before the one that it signs with.
    pub keys_max: i64,
    /// The most keys of a workspace that are kept.
    pub workspace_keys_max: i64,
    /// How long it is known that a message of another workspace was taken in, in milliseconds.
    pub received_ms: i64,
    /// Of how many messages of other workspaces it is known that they were taken in.
    pub received_kept: i64,
    /// How long the key of a message that is gone is still known, in milliseconds.
    pub key_ms: i64,
    /// The most subscriptions of a workspace.
    pub subscriptions_max: i64,
    /// How long a subscription is passed over whose subscriber's mailbox is full, in milliseconds.
    pub held_ms: i64,
    /// The most calls of a workspace's turns that wait for answers.
    pub waits_max: i64,
    /// The most publications of a workspace that are kept to be replayed.
    pub publications_kept: i64,
    /// The most things that one tick does; the next goes on.
    pub tick_max: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            mailbox_messages_max: 1_000_000,
            mailbox_bytes_max: 1 << 30,
            attempts_max: 5,
            retry_ms: 1_000,
            retry_ms_max: 300_000,
            ageing_ms: 30_000,
            conversations_max: 100_000,
            participants_max: 1_024,
            events_kept: 1_000,
            conversation_ms: 7 * 86_400_000,
            award_ms: 600_000,
            keys_max: 8,
            workspace_keys_max: 200_000,
            received_ms: 7 * 86_400_000,
            received_kept: 1_000_000,
            key_ms: 600_000,
            subscriptions_max: 20_000,
            held_ms: 5_000,
            waits_max: 10_000,
            publications_kept: 10_000,
            tick_max: 1_000,
        }
    }
}

impl Limits {
    /// The pause after an attempt, counted from 1.
    pub(crate) fn pause_ms(&self, attempt: u32) -> i64 {
        let doubled = 1_i64.checked_shl(attempt.saturating_sub(1).min(40)).unwrap_or(i64::MAX);
        self.retry_ms.saturating_mul(doubled).min(self.retry_ms_max)
    }
}
