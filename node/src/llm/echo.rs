//! What a provider wants to hear again of a reply of its own: reasoning, signatures of thoughts, ids of calls.
//!
//! Everybody else carries it as text and does not look into it. It goes back to the address and the model that it came
//! from and to nobody else: another provider would refuse it, and has no business with it.

use caxton_proto::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ToolCall;
use super::limits::{ECHO_BYTES_MAX, ID_BYTES_MAX};

/// What is kept of a reply beside its text and calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Echo {
    /// Whose it is: [`origin`].
    from: String,
    /// Fields of the message, as they were.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub message: Map<String, Value>,
    /// The message's parts or blocks in their order, where these say more than text and calls: what is text or a call
    /// stands there by its kind only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Value>,
    /// Beside each call, in the reply's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallEcho>,
}

/// What is kept of a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CallEcho {
    /// The provider's own id, which may be missing, and may be that of another call.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Fields that no protocol names.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// The name of a provider's address and model in an echo.
pub(super) fn origin(base: &str, model: &str) -> String {
    Digest::of_parts([base.as_bytes(), b"\0", model.as_bytes()]).to_string()
}

impl Echo {
    /// An empty one.
    pub fn of(origin: String) -> Echo {
        Echo { from: origin, ..Echo::default() }
    }

    /// The text that is carried; nothing where there is nothing to say again, or too much.
    pub fn into_text(mut self, calls: &[ToolCall]) -> Option<String> {
        self.calls.truncate(calls.len());
        for call in &mut self.calls {
            if call.id.len() > ID_BYTES_MAX {
                call.id.clear();
            }
        }
        let says = |call: &CallEcho| !call.id.is_empty() || !call.fields.is_empty();
        if self.message.is_empty() && self.parts.is_empty() && !self.calls.iter().any(says) {
            return None;
        }
        // What serde_json would not read back is not kept.
        let text = serde_json::to_string(&self).ok()?;
        (text.len() <= ECHO_BYTES_MAX && serde_json::from_str::<Echo>(&text).is_ok()).then_some(text)
    }

    /// Reads what is carried, if it is `origin`'s.
    pub fn read(text: Option<&str>, origin: &str) -> Option<Echo> {
        let echo: Echo = serde_json::from_str(text?).ok()?;
        (echo.from == origin).then_some(echo)
    }
}

/// The same with only those calls of the reply that `kept` names by their places.
pub fn keep_calls(echo: Option<&str>, kept: &[usize]) -> Option<String> {
    let mut echo: Echo = serde_json::from_str(echo?).ok()?;
    let calls = kept.iter().map(|place| echo.calls.get(*place).cloned().unwrap_or_default()).collect();
    echo.calls = calls;
    echo.parts.retain(|part| {
        part["type"] != "call" || part["place"].as_u64().is_some_and(|at| kept.contains(&(at as usize)))
    });
    for part in echo.parts.iter_mut().filter(|part| part["type"] == "call") {
        let place = part["place"].as_u64().and_then(|at| kept.iter().position(|kept| *kept as u64 == at));
        part["place"] = place.into();
    }
    serde_json::to_string(&echo).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(id: &str) -> ToolCall {
        ToolCall { id: id.into(), tool: "t".into(), arguments: "{}".into() }
    }

    #[test]
    fn an_echo_goes_back_to_where_it_came_from_and_nowhere_else() {
        let home = origin("https://a.example/v1", "m");
        let mut echo = Echo::of(home.clone());
        echo.message.insert("reasoning_content".into(), json!("I should look."));
        let text = echo.clone().into_text(&[]).expect("it says something");
        assert_eq!(Echo::read(Some(&text), &home), Some(echo));
        for elsewhere in [origin("https://b.example/v1", "m"), origin("https://a.example/v1", "n")] {
            assert_eq!(Echo::read(Some(&text), &elsewhere), None);
        }
        assert_eq!(Echo::of(home).into_text(&[call("")]), None, "nothing is carried for nothing");
    }

    #[test]
    fn what_is_too_large_or_too_deep_to_be_read_back_is_not_carried() {
        let mut large = Echo::of(String::new());
        large.message.insert("reasoning".into(), json!("x".repeat(ECHO_BYTES_MAX)));
        assert_eq!(large.into_text(&[]), None);
        let mut deep = Echo::of(String::new());
        let nested = (0..127).fold(json!(1), |inner, _| json!([inner]));
        deep.message.insert("reasoning".into(), nested);
        assert_eq!(deep.into_text(&[]), None);
    }

    #[test]
    fn calls_that_are_left_out_take_what_was_kept_of_them_along() {
        let mut echo = Echo::of("o".into());
        echo.calls = ["a", "b", "c"].map(|id| CallEcho { id: id.into(), fields: Map::new() }).to_vec();
        echo.parts = vec![json!({ "type": "call", "place": 0 }), json!({ "type": "call", "place": 2 })];
        let text = echo.into_text(&[call("a"), call("b"), call("c")]).expect("ids");
        let kept = Echo::read(keep_calls(Some(&text), &[1, 2]).as_deref(), "o").expect("the same origin");
        assert_eq!(kept.calls.iter().map(|call| call.id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(kept.parts, [json!({ "type": "call", "place": 1 })]);
    }
}
