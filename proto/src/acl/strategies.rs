//! Arbitrary messages, for property tests.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::*;

pub fn address() -> impl Strategy<Value = Address> {
    let to = |text: String| text.parse::<Address>().expect("an address");
    prop_oneof![
        "[a-z][a-z0-9-]{0,8}".prop_map(to),
        "[a-z][a-z0-9-]{0,8}@[a-z][a-z0-9]{0,8}".prop_map(to),
        "capability:[a-z][a-z0-9]{0,8}".prop_map(to),
        "subject:[a-z:@ ü]{0,8}x".prop_map(to),
        "topic:[a-z]{1,4}(/[a-z0-9é]{1,4}){0,3}".prop_map(to),
        Just(Address::Broadcast),
    ]
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|it| it.to_string()),
        any::<i64>().prop_map(|it| it.to_string()),
        Just("1e999".to_owned()),
        any::<String>().prop_map(|it| serde_json::Value::String(it).to_string()),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(" , "))),
            vec(inner, 0..4).prop_map(|all| {
                let member = |(at, value): (usize, &String)| format!("\"{at}\": {value}");
                format!("{{{}}}", all.iter().enumerate().map(member).collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

pub fn content() -> impl Strategy<Value = Content> {
    let any_type = || prop_oneof![Just("text/markdown".to_owned()), Just("image/png; q=1".to_owned())];
    prop_oneof![
        any::<String>().prop_map(Content::text),
        (any::<String>(), any_type()).prop_map(|(text, media_type)| Content { media_type, body: Body::Text(text) }),
        json().prop_map(Content::json),
        json().prop_map(|text| Content { media_type: "application/ld+json".to_owned(), body: Body::Json(text) }),
        (vec(any::<u8>(), 0..40), any_type())
            .prop_map(|(bytes, media_type)| Content { media_type, body: Body::Bytes(bytes) }),
        (any::<[u8; 8]>(), any::<u32>(), any_type()).prop_map(|(seed, bytes, media_type)| Content {
            media_type,
            body: Body::Artifact { digest: Digest::of(&seed), bytes: bytes.into() }
        }),
    ]
}

fn token() -> impl Strategy<Value = Option<String>> {
    of("[\\PC&&[^ ]]{1,12}".prop_filter("it is not blank", |text| !text.trim().is_empty()))
}

pub fn message() -> impl Strategy<Value = Message> {
    let to = (btree_set(address(), 1..4), btree_set(address(), 0..3), of(address()));
    let tokens = [token(), token(), token(), token(), token(), token(), token()];
    let extensions = btree_map("X-[a-zA-Z0-9_.-]{1,8}", any::<String>(), 0..3);
    (0..20_usize, to, of(content()), tokens, of(0..=TIME_MAX_MS), extensions).prop_map(
        |(performative, (receivers, reply_to, sender), content, tokens, reply_by_ms, extensions)| {
            let [language, encoding, ontology, protocol, conversation_id, reply_with, in_reply_to] = tokens;
            Message {
                performative: Performative::ALL[performative],
                sender,
                receivers: receivers.into_iter().collect(),
                reply_to: reply_to.into_iter().collect(),
                content,
                language,
                encoding,
                ontology,
                protocol,
                conversation_id,
                reply_with,
                in_reply_to,
                reply_by_ms,
                extensions,
            }
        },
    )
}
