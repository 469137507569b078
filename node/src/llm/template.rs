//! `{{name}}` and `{{name/pointer/*/field}}` in the texts and arguments of a script.
//!
//! A string that is nothing but one placeholder becomes the JSON value itself; otherwise values are written into the
//! text. `-1` is the last of a list. A placeholder that leads nowhere is an error, never an empty string.

use serde_json::Value;

/// Why a text cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("`{{{{` without `}}}}` in {0:?}")]
    Unclosed(String),
    /// Nothing has this name.
    #[error("`{{{{{placeholder}}}}}` leads nowhere: {problem}")]
    Nowhere {
        placeholder: String,
        /// Where the path ended.
        problem: String,
    },
}

/// Fills in all strings of a JSON value.
pub fn fill(value: &Value, look_up: &dyn Fn(&str) -> Option<Value>) -> Result<Value, TemplateError> {
    match value {
        Value::String(text) => fill_string(text, look_up),
        Value::Array(values) => values.iter().map(|value| fill(value, look_up)).collect(),
        Value::Object(fields) => {
            let filled = fields.iter().map(|(name, value)| Ok((name.clone(), fill(value, look_up)?)));
            filled.collect::<Result<_, TemplateError>>().map(Value::Object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
    }
}

/// Fills in a text.
pub fn fill_text(text: &str, look_up: &dyn Fn(&str) -> Option<Value>) -> Result<String, TemplateError> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let (placeholder, after) = after.split_once("}}").ok_or_else(|| TemplateError::Unclosed(text.to_owned()))?;
        match value_of(placeholder.trim(), look_up)? {
            Value::String(value) => filled.push_str(&value),
            value => filled.push_str(&shown(&value)),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// A value within a text; a whole number has no `.0`, whichever type it was computed in.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.strip_suffix(".0") {
        Some(whole) if value.is_f64() => whole.to_owned(),
        _ => text,
    }
}

fn fill_string(text: &str, look_up: &dyn Fn(&str) -> Option<Value>) -> Result<Value, TemplateError> {
    let whole = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    match whole {
        Some(placeholder) if !placeholder.contains("}}") => value_of(placeholder.trim(), look_up),
        _ => fill_text(text, look_up).map(Value::String),
    }
}

fn value_of(placeholder: &str, look_up: &dyn Fn(&str) -> Option<Value>) -> Result<Value, TemplateError> {
    let nowhere = |problem: String| TemplateError::Nowhere { placeholder: placeholder.to_owned(), problem };
    let mut parts = placeholder.split('/');
    let name = parts.next().unwrap_or_default();
    let mut value = look_up(name).ok_or_else(|| nowhere(format!("nothing is called `{name}` here")))?;
    let parts: Vec<&str> = parts.collect();
    if let (Some(_), Value::String(text)) = (parts.first(), &value) {
        value = serde_json::from_str(text).map_err(|_| nowhere(format!("`{name}` is not JSON")))?;
    }
    descend(&value, &parts).map_err(nowhere)
}

fn descend(value: &Value, parts: &[&str]) -> Result<Value, String> {
    let Some((part, rest)) = parts.split_first() else { return Ok(value.clone()) };
    match (value, *part) {
        (Value::Array(values), "*") => values.iter().map(|value| descend(value, rest)).collect(),
        (Value::Array(values), part) => {
            let place: isize = part.parse().map_err(|_| format!("`{part}` is not a place in a list"))?;
            let from_end = values.len().checked_sub(place.unsigned_abs());
            let place = if place < 0 { from_end } else { Some(place.unsigned_abs()) };
            let value = place.and_then(|place| values.get(place));
            let value = value.ok_or_else(|| format!("the list has {} values", values.len()))?;
            descend(value, rest)
        }
        (Value::Object(fields), part) => {
            let value = fields.get(part).ok_or_else(|| format!("no field is called `{part}`"))?;
            descend(value, rest)
        }
        _ => Err(format!("there is nothing below `{part}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look_up(name: &str) -> Option<Value> {
        match name {
            "table" => Some(json!({ "rows": [{ "q": "Q1", "sales": 4 }, { "q": "Q2", "sales": 6 }], "mean": 5.0 })),
            "json" => Some(json!("{\"rows\": [1, 2]}")),
            "text" => Some(json!("plain")),
            _ => None,
        }
    }

    #[test]
    fn a_lone_placeholder_keeps_its_type_and_others_become_text() {
        let value =
            json!({ "a": "{{table/rows/*/sales}}", "b": "mean {{table/mean}}, {{text}}", "c": "{{json/rows/-1}}" });
        let filled = fill(&value, &look_up).expect("good");
        assert_eq!(filled, json!({ "a": [4, 6], "b": "mean 5, plain", "c": 2 }));
        assert_eq!(fill(&json!("{{text}} {{text}}"), &look_up), Ok(json!("plain plain")));
    }

    #[test]
    fn a_placeholder_that_leads_nowhere_is_an_error() {
        for bad in [
            "{{none}}",
            "{{table/rows/7}}",
            "{{table/rows/-3/q}}",
            "{{table/x}}",
            "{{text/a}}",
            "{{table/mean/x}}",
            "{{table",
        ] {
            assert!(fill(&json!(bad), &look_up).is_err(), "{bad}");
        }
    }
}
