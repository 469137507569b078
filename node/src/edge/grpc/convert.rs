//! What several services map: names, times, JSON, and what was said.

use caxton_proto::v1::pb;
use caxton_proto::{AgentName, WorkspaceId};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};
use serde_json::Number;

use crate::authz::{InWorkspace, Permit, UnscopedToken};
use crate::chat::Usage;
use crate::edge::problem::{Code, Problem};
use crate::invoke::Freshness;

/// How deep values may be in each other.
const DEPTH_MAX: usize = 32;

/// The permit for the workspace that a call names.
pub fn permit<P: InWorkspace>(token: &UnscopedToken<P>, workspace: &str) -> Result<Permit<P>, Problem> {
    let workspace: WorkspaceId = workspace.parse().map_err(|error| {
        invalid(format!("{workspace:?} is not a workspace: {error}")).help("name one as `workspace`")
    })?;
    Ok(token.permit(&workspace)?)
}

/// What `stale` asks for.
pub fn freshness(stale: bool) -> Freshness {
    if stale { Freshness::Stale } else { Freshness::Current }
}

/// How many of something a page has.
pub fn page(limit: u32, usual: usize, most: usize) -> usize {
    let limit = usize::try_from(limit).unwrap_or(most);
    if limit == 0 { usual } else { limit.min(most) }
}

/// What is wrong with a part of a call's message.
pub fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
}

/// An agent by its name.
pub fn agent(name: &str) -> Result<AgentName, Problem> {
    name.parse().map_err(|error| invalid(format!("{name:?} names no agent: {error}")))
}

/// A moment in milliseconds since 1970.
pub fn time(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1_000)).unwrap_or_default() * 1_000_000;
    Timestamp { seconds: ms.div_euclid(1_000), nanos }
}

/// The same of one that is never before 1970.
pub fn time_of(ms: u64) -> Timestamp {
    time(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// The milliseconds since 1970 of a moment.
pub fn milliseconds(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos / 1_000_000))
}

/// Tokens that models read and wrote.
pub fn usage(usage: Usage) -> pb::Usage {
    pb::Usage { input: usage.input, output: usage.output }
}

/// The JSON of a value.
pub fn json(value: &Value) -> Result<serde_json::Value, Problem> {
    json_at(value, 0)
}

fn json_at(value: &Value, depth: usize) -> Result<serde_json::Value, Problem> {
    if depth > DEPTH_MAX {
        return Err(invalid(format!("values are more than {DEPTH_MAX} deep in each other")));
    }
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(is)) => serde_json::Value::Bool(*is),
        Some(Kind::StringValue(text)) => serde_json::Value::String(text.clone()),
        Some(Kind::NumberValue(number)) => serde_json::Value::Number(
            written(*number).ok_or_else(|| invalid(format!("{number} is no number of JSON")))?,
        ),
        Some(Kind::ListValue(ListValue { values })) => {
            serde_json::Value::Array(values.iter().map(|value| json_at(value, depth + 1)).collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(Struct { fields })) => {
            let field = |(name, value): (&String, &Value)| Ok((name.clone(), json_at(value, depth + 1)?));
            serde_json::Value::Object(fields.iter().map(field).collect::<Result<_, Problem>>()?)
        }
    })
}

/// A number as JSON has it: one without a fraction is whole, since protobuf's values have no whole numbers.
fn written(number: f64) -> Option<Number> {
    const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
}
