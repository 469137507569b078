//! What is answered to a message: by a turn's text, and by an agent that does not do what the message says.

use caxton_messages::Ready;
use caxton_messages::acl::{Address, Content, MessageId, Performative};
use caxton_messages::mailbox::Submission;

use super::Owner;

/// What a turn's text replies. What asks for nothing gets none, so that two agents do not thank each other for ever.
pub(super) fn usual_replies(performative: Performative) -> &'static [Performative] {
    match performative {
        Performative::Request | Performative::QueryIf | Performative::QueryRef | Performative::AcceptProposal => {
            &[Performative::Inform]
        }
        Performative::RequestWhen | Performative::RequestWhenever | Performative::Subscribe | Performative::Proxy => {
            &[Performative::Agree, Performative::Inform]
        }
        Performative::Cfp => &[Performative::Propose],
        Performative::Agree
        | Performative::Cancel
        | Performative::Confirm
        | Performative::Disconfirm
        | Performative::Failure
        | Performative::Inform
        | Performative::NotUnderstood
        | Performative::Propagate
        | Performative::Propose
        | Performative::Refuse
        | Performative::RejectProposal => &[],
    }
}

/// The id of a reply: the same for every attempt.
pub(super) fn reply_id((_, agent): &Owner, ready: &Ready, what: &str) -> MessageId {
    let parts = [ready.submission.id.as_bytes().as_slice(), agent.as_str().as_bytes(), what.as_bytes()];
    MessageId::derived(&parts)
}

/// The reply of an agent that does not do what the message says. What objects itself gets none, so that two agents that do not
/// understand each other do not go on for ever.
pub(super) fn objection(owner: &Owner, ready: &Ready, performative: Performative, why: Content) -> Option<Submission> {
    let objects = matches!(
        ready.submission.message.performative,
        Performative::NotUnderstood | Performative::Failure | Performative::Refuse | Performative::RejectProposal
    );
    if objects { None } else { reply(owner, ready, performative, Some(why)) }
}

/// A reply to the message, if somebody can receive one.
pub(super) fn reply(
    owner: &Owner,
    ready: &Ready,
    performative: Performative,
    content: Option<Content>,
) -> Option<Submission> {
    let message = &ready.submission.message;
    let mut reply = message.reply(performative, content).stamped(Address::Agent(owner.1.clone()));
    reply.receivers.retain(|to| {
        matches!(to, Address::Agent(_) | Address::Elsewhere { .. } | Address::Subject(_) | Address::Topic(_))
    });
    reply.conversation_id.get_or_insert_with(|| ready.submission.id.to_string());
    if reply.receivers.is_empty() {
        return None;
    }
    let id = reply_id(owner, ready, performative.name());
    let (priority, trace) = (ready.submission.priority, ready.submission.trace.clone());
    Some(Submission { priority, trace, ..Submission::new(id, reply) })
}

#[cfg(test)]
mod tests {
    use super::super::tests::ready;
    use super::*;

    #[test]
    fn an_objection_is_not_objected_to() {
        let owner = ("w".parse().expect("a name"), "bob".parse().expect("a name"));
        for (performative, answered) in [
            (Performative::Request, true),
            (Performative::Inform, true),
            (Performative::NotUnderstood, false),
            (Performative::Failure, false),
            (Performative::Refuse, false),
            (Performative::RejectProposal, false),
        ] {
            let ready = ready(performative);
            let reply = objection(&owner, &ready, Performative::NotUnderstood, Content::text("what?"));
            assert_eq!(reply.is_some(), answered, "{performative}");
        }
    }

    #[test]
    fn an_agent_of_another_workspace_is_answered() {
        let owner = ("w".parse().expect("a name"), "bob".parse().expect("a name"));
        let mut ready = ready(Performative::Request);
        ready.submission.message.sender = Some("ann@other".parse().expect("an address"));
        let reply = reply(&owner, &ready, Performative::Inform, None).expect("a reply");
        assert_eq!(reply.message.receivers, ["ann@other".parse().expect("an address")]);
    }
}
