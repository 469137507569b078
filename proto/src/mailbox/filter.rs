//! Filters by content: conditions on a message's fields, all of which have to hold.
//!
//! Every replica decides by them which publications a subscription gets, so that they depend on nothing but the message.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::acl::{Address, Body, Message};

/// The most conditions of a filter.
pub const CONDITIONS_MAX: usize = 16;
/// The most bytes of a condition.
pub const CONDITION_BYTES_MAX: usize = 512;

/// Conditions that a message has to fulfil, all of them. A filter without any takes every message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Vec<Condition>);

/// One condition: a field, and what its value is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    field: String,
    /// Nothing where it is enough that the field is there.
    wanted: Option<(Comparison, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// The longest first, so that `<=` is not taken for `<`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

/// Fields of a message that a condition can name beside `content` and extensions.
const FIELDS: [&str; 8] =
    ["performative", "sender", "language", "encoding", "ontology", "protocol", "conversation_id", "in_reply_to"];

/// Why a text is no condition, or why conditions are no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It is none of the forms.
    #[error(
        "`{text}` is no condition: {why}; write one such as content.amount>=100, content.kind=order or performative=inform"
    )]
    Condition {
        /// The first characters of the text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// There are too many conditions.
    #[error("a filter has {found} conditions, and {CONDITIONS_MAX} is the most")]
    TooMany {
        /// How many there are.
        found: usize,
    },
}

impl Filter {
    /// The filter of these conditions.
    pub fn new(conditions: Vec<Condition>) -> Result<Filter, InvalidFilter> {
        match conditions.len() {
            found if found > CONDITIONS_MAX => Err(InvalidFilter::TooMany { found }),
            _ => Ok(Filter(conditions)),
        }
    }

    /// The filter whose conditions are written in these texts.
    pub fn of<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Filter, InvalidFilter> {
        // One more than there may be is read, so that no list makes work without an end.
        let conditions = texts.into_iter().take(CONDITIONS_MAX + 1).map(|text| text.as_ref().parse());
        Filter::new(conditions.collect::<Result<_, _>>()?)
    }

    /// The conditions, in the order in which they were written.
    pub fn conditions(&self) -> &[Condition] {
        &self.0
    }

    /// It takes every message.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all conditions hold for a message.
    pub fn matches(&self, message: &Message) -> bool {
        let of_content = |condition: &Condition| condition.field.starts_with("content");
        let content = match message.content.as_ref().map(|content| &content.body) {
            Some(Body::Text(text)) if self.0.iter().any(of_content) => Some(Value::from(text.as_str())),
            Some(Body::Json(text)) if self.0.iter().any(of_content) => serde_json::from_str(text).ok(),
            Some(_) | None => None,
        };
        self.0.iter().all(|condition| condition.holds(message, content.as_ref()))
    }
}

impl Condition {
    fn holds(&self, message: &Message, content: Option<&Value>) -> bool {
        let found = match self.field.strip_prefix("content") {
            Some(path) => content.and_then(|content| at(content, path)).map(Found::of),
            None => of_field(message, &self.field).map(Found::Text),
        };
        let Some((comparison, wanted)) = &self.wanted else { return found.is_some() };
        let Some(found) = found else { return *comparison == Comparison::Unequal };
        let order = found.compare(wanted);
        match comparison {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::Unequal => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::More => order == Some(Ordering::Greater),
            Comparison::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// The value of a field, as it is compared.
enum Found {
    Number(f64),
    Text(String),
    /// An object or a list, which is there and is like nothing.
    Several,
}

impl Found {
    fn of(value: &Value) -> Found {
        match value {
            Value::Null => Found::Text("null".to_owned()),
            Value::Bool(is) => Found::Text(is.to_string()),
            Value::Number(number) => number.as_f64().map_or_else(|| Found::Text(number.to_string()), Found::Number),
            Value::String(text) => Found::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => Found::Several,
        }
    }

    /// Numbers as numbers, texts by their characters; nothing where the two cannot be compared.
    fn compare(&self, wanted: &str) -> Option<Ordering> {
        match self {
            Found::Number(number) => wanted.parse::<f64>().ok().and_then(|wanted| number.partial_cmp(&wanted)),
            Found::Text(text) => Some(text.as_str().cmp(wanted)),
            Found::Several => None,
        }
    }
}

/// The part of a value at a path such as `.items.0.price`.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').skip(1).try_fold(value, |value, name| match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => name.parse::<usize>().ok().and_then(|at| items.get(at)),
        _ => None,
    })
}

fn of_field(message: &Message, field: &str) -> Option<String> {
    match field {
        "performative" => Some(message.performative.name().to_owned()),
        "sender" => message.sender.as_ref().map(Address::to_string),
        "language" => message.language.clone(),
        "encoding" => message.encoding.clone(),
        "ontology" => message.ontology.clone(),
        "protocol" => message.protocol.clone(),
        "conversation_id" => message.conversation_id.clone(),
        "in_reply_to" => message.in_reply_to.clone(),
        extension => message.extensions.get(extension).cloned(),
    }
}

impl FromStr for Condition {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Condition, InvalidFilter> {
        let wrong = |why: &str| {
            let text = text.chars().filter(|c| !c.is_control()).take(40).collect();
            InvalidFilter::Condition { text, why: why.to_owned() }
        };
        if text.len() > CONDITION_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(wrong("it has more than 512 bytes or a control character"));
        }
        let (field, rest) = text.split_at(text.find(['=', '!', '<', '>']).unwrap_or(text.len()));
        let field = field.trim();
        let known = FIELDS.contains(&field) || field == "content" || field.starts_with("X-");
        let within = field.strip_prefix("content.").is_some_and(|path| path.split('.').all(|name| !name.is_empty()));
        if !known && !within {
            let why = format!("it begins with content, content.PATH, X-NAME or one of {}", FIELDS.join(", "));
            return Err(wrong(&why));
        }
        if rest.is_empty() {
            return Ok(Condition { field: field.to_owned(), wanted: None });
        }
        let found = COMPARISONS.iter().find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(*sign)?)));
        let (comparison, value) = found.ok_or_else(|| wrong("it compares with =, !=, <, <=, > or >="))?;
        Ok(Condition { field: field.to_owned(), wanted: Some((comparison, value.trim().to_owned())) })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        let Some((comparison, value)) = &self.wanted else { return Ok(()) };
        let sign = COMPARISONS.iter().find(|(_, it)| it == comparison).map_or("", |(sign, _)| *sign);
        // Blanks keep a value that begins with a sign from being read as part of the comparison.
        write!(f, " {sign} {value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{Content, Performative};

    fn message() -> Message {
        let mut message = Message::new(Performative::Inform, []);
        message.sender = Some("ann".parse().expect("an agent"));
        message.ontology = Some("orders".to_owned());
        message.extensions.insert("X-cost".to_owned(), "3".to_owned());
        message.content = Some(Content::json(
            r#"{"kind": "order", "amount": 120.5, "vip": true, "none": null, "at": "2026-03-01", "items": [{"price": 9}]}"#,
        ));
        message
    }

    #[test]
    fn a_condition_compares_numbers_as_numbers_and_texts_as_texts() {
        for (condition, holds) in [
            ("content.kind=order", true),
            ("content.kind = orders", false),
            ("content.kind!=order", false),
            ("content.amount>=120.5", true),
            ("content.amount>99", true),
            ("content.amount<99", false),
            ("content.amount<=1e3", true),
            ("content.amount=nothing", false),
            ("content.amount<nan", false),
            ("content.vip=true", true),
            ("content.none=null", true),
            ("content.none", true),
            ("content.at<2026-04-01", true),
            ("content.items.0.price=9", true),
            ("content.items.1.price", false),
            ("content.items", true),
            ("content.items=9", false),
            ("content.kind.deeper", false),
            ("content.missing", false),
            ("content.missing!=x", true),
            ("content.missing=x", false),
            ("content", true),
            ("performative=inform", true),
            ("sender=ann", true),
            ("ontology!=orders", false),
            ("language", false),
            ("X-cost=3", true),
        ] {
            let filter = Filter::of([condition]).expect(condition);
            assert_eq!(filter.matches(&message()), holds, "{condition}");
        }
        let both = |other| Filter::of(["content.vip=true", other]).expect("a filter").matches(&message());
        assert!(both("performative=inform") && !both("performative=cfp"), "all of them have to hold");
        assert!(Filter::default().matches(&message()));
    }

    #[test]
    fn text_that_is_no_json_is_the_content_itself() {
        let mut said = message();
        said.content = Some(Content::text("hello"));
        assert!(Filter::of(["content=hello"]).expect("a filter").matches(&said));
        assert!(!Filter::of(["content.kind"]).expect("a filter").matches(&said));
        said.content = None;
        assert!(!Filter::of(["content"]).expect("a filter").matches(&said));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_form() {
        let long = "x".repeat(600);
        for bad in ["", "amount>1", "content.>1", "content..a", "content.a!1", "contents=1", "a\nb=1", &long] {
            let error = Filter::of([bad]).expect_err(bad).to_string();
            assert!(error.contains("content.amount>=100"), "{error}");
        }
        let many = vec!["content"; 17];
        assert_eq!(Filter::of(&many), Err(InvalidFilter::TooMany { found: 17 }));
    }

    #[test]
    fn a_condition_reads_back_as_it_is_written() {
        for text in ["content.a = =b", "content.a < =b", "content", "X-a != ", "sender >= b c", "content.a = 1"] {
            let condition: Condition = text.parse().expect(text);
            assert_eq!(condition.to_string().parse::<Condition>(), Ok(condition), "{text}");
        }
    }
}
