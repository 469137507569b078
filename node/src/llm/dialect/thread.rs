//! A conversation as a provider takes it: where instructions stand, whose turn it is, and calls for models that know none.

use std::borrow::Cow;

use caxton_proto::manifest::provider::SystemStyle;

use super::super::{Message, Part};

/// The conversation with its instructions where `style` wants them.
pub fn arrange(messages: &[Message], style: SystemStyle) -> Cow<'_, [Message]> {
    let is_system = |message: &Message| matches!(message, Message::System { .. });
    let count = messages.iter().filter(|message| is_system(message)).count();
    let in_place = match style {
        SystemStyle::Many => true,
        SystemStyle::One => count == 0 || (count == 1 && messages.first().is_some_and(is_system)),
        SystemStyle::User => count == 0,
    };
    if in_place {
        return Cow::Borrowed(messages);
    }
    let said: Vec<String> = messages.iter().filter(|message| is_system(message)).map(Message::text).collect();
    let instructions =
        said.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n");
    let mut rest: Vec<Message> = messages.iter().filter(|message| !is_system(message)).cloned().collect();
    if instructions.is_empty() {
        return Cow::Owned(rest);
    }
    match (style, rest.first_mut()) {
        (SystemStyle::User, Some(Message::User { parts })) => parts.insert(0, Part::Text { text: instructions }),
        (SystemStyle::User, _) => rest.insert(0, Message::user(instructions)),
        (SystemStyle::One | SystemStyle::Many, _) => rest.insert(0, Message::system(instructions)),
    }
    Cow::Owned(rest)
}

/// The conversation with its calls and results told in words, for a request that has no tools.
pub fn tell_calls(messages: &[Message]) -> Vec<Message> {
    let told = |message: &Message| match message {
        Message::Assistant { text, calls, .. } if !calls.is_empty() => {
            let calls = calls.iter().map(|call| format!("[called {} with {}]", call.tool, call.arguments));
            let lines: Vec<String> =
                Some(text.clone()).filter(|text| !text.is_empty()).into_iter().chain(calls).collect();
            Message::assistant(lines.join("\n"))
        }
        Message::Tool { tool, text, .. } => Message::user(format!("[result of {tool}]\n{text}")),
        other => other.clone(),
    };
    messages.iter().map(told).collect()
}

/// The conversation with messages of one role in a row as one, where they only speak.
pub fn alternate(messages: &[Message]) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        match (joined.last_mut(), message) {
            (Some(Message::User { parts: held }), Message::User { parts }) => held.extend(parts.iter().cloned()),
            (Some(Message::Assistant { text: held, calls: before, .. }), Message::Assistant { text, calls, echo })
                if before.is_empty() && calls.is_empty() && echo.is_none() =>
            {
                held.push_str("\n\n");
                held.push_str(text);
            }
            _ => joined.push(message.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::super::super::ToolCall;
    use super::*;

    #[test]
    fn instructions_stand_where_they_are_taken() {
        let messages = [Message::system("a"), Message::user("hi"), Message::system("b")];
        assert_eq!(*arrange(&messages, SystemStyle::Many), messages);
        assert_eq!(*arrange(&messages, SystemStyle::One), [Message::system("a\n\nb"), Message::user("hi")]);
        let parts = ["a\n\nb", "hi"].map(|text| Part::Text { text: text.into() });
        assert_eq!(*arrange(&messages, SystemStyle::User), [Message::User { parts: parts.to_vec() }]);
        let late = [Message::user("hi"), Message::system("b")];
        assert_eq!(*arrange(&late, SystemStyle::One), [Message::system("b"), Message::user("hi")]);
        let alone = [Message::system("b")];
        assert_eq!(*arrange(&alone, SystemStyle::User), [Message::user("b")]);
    }

    #[test]
    fn calls_are_told_and_roles_alternate() {
        let call = ToolCall { id: "1".into(), tool: "sum".into(), arguments: "{}".into() };
        let messages = [
            Message::user("hi"),
            Message::Assistant { text: "see".into(), calls: vec![call], echo: None },
            Message::Tool { call: "1".into(), tool: "sum".into(), text: "3".into(), failed: false },
            Message::user("and?"),
        ];
        let told = tell_calls(&messages);
        assert_eq!(told[1], Message::assistant("see\n[called sum with {}]"));
        let joined = alternate(&told);
        assert_eq!(joined.len(), 3);
        assert_eq!(joined[2].text(), "[result of sum]\n3\nand?");
    }
}
