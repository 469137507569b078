//! What is wrong with a value or a schema, in words that a model can act on. Values are never repeated: they may be long,
//! and whoever sent them has them.

use boon::{CompileError, ErrorKind, InstanceLocation, InstanceToken, Type, Types, ValidationError};
use serde_json::Value;

/// Characters of one problem.
const PROBLEM_CHARS_MAX: usize = 300;
/// How many of a list are named.
const NAMED_MAX: usize = 12;

/// The problems at the leaves of an error, each with its place.
pub(super) fn told(error: &ValidationError<'_, '_>, problems_max: usize) -> Vec<String> {
    let mut found = Vec::new();
    gather(error, problems_max, &mut found);
    found
}

fn gather(error: &ValidationError<'_, '_>, problems_max: usize, found: &mut Vec<String>) {
    if found.len() >= problems_max {
        return;
    }
    match &error.kind {
        ErrorKind::Group | ErrorKind::Schema { .. } | ErrorKind::Reference { .. } | ErrorKind::AllOf => {
            for cause in &error.causes {
                gather(cause, problems_max, found);
            }
        }
        ErrorKind::AnyOf | ErrorKind::OneOf(None) => {
            let mut inner = Vec::new();
            for cause in &error.causes {
                gather(cause, 3, &mut inner);
            }
            let place = place(&error.instance_location);
            found.push(short(&format!("{place} fits none of what it may be: {}", inner.join(", or "))));
        }
        kind => found.push(short(&one(&place(&error.instance_location), kind))),
    }
}

fn one(place: &str, kind: &ErrorKind<'_, '_>) -> String {
    match kind {
        ErrorKind::Required { want } => format!("{place} lack{} {}", s(place), names(want.iter().copied())),
        ErrorKind::Type { got, want } => format!("{place} {} {}, not {}", is(place), a(*got), any(want)),
        ErrorKind::AdditionalProperties { got } => {
            let (plural, list) = (got.len() > 1, names(got.iter().map(|name| &**name)));
            let within = if place == ARGUMENTS { String::new() } else { format!(" in {place}") };
            format!("{list}{within} {} not expected", if plural { "are" } else { "is" })
        }
        ErrorKind::Enum { want } => {
            let shown: Vec<String> = want.iter().take(NAMED_MAX).map(Value::to_string).collect();
            let more = if want.len() > NAMED_MAX { ", .." } else { "" };
            format!("{place} has to be one of {}{more}", shown.join(", "))
        }
        ErrorKind::Const { want } => format!("{place} has to be {want}"),
        ErrorKind::Pattern { want, .. } => format!("{place} does not match the pattern `{want}`"),
        ErrorKind::MinLength { got, want } => format!("{place} has {got} characters, and {want} are the fewest"),
        ErrorKind::MaxLength { got, want } => format!("{place} has {got} characters, and {want} are the most"),
        ErrorKind::MinItems { got, want } => format!("{place} has {got} items, and {want} are the fewest"),
        ErrorKind::MaxItems { got, want } => format!("{place} has {got} items, and {want} are the most"),
        ErrorKind::Minimum { want, .. } => format!("{place} has to be {want} or more"),
        ErrorKind::Maximum { want, .. } => format!("{place} has to be {want} or less"),
        ErrorKind::ExclusiveMinimum { want, .. } => format!("{place} has to be more than {want}"),
        ErrorKind::ExclusiveMaximum { want, .. } => format!("{place} has to be less than {want}"),
        ErrorKind::MultipleOf { want, .. } => format!("{place} has to be a multiple of {want}"),
        ErrorKind::FalseSchema => format!("{place} {} not expected", is(place)),
        ErrorKind::RefCycle { .. } => format!("the schema of {place} refers to itself without end"),
        ErrorKind::OneOf(Some(_)) => format!("{place} fits more than one of what it may be, and has to fit one"),
        ErrorKind::Not => format!("{place} {} what it may not be", is(place)),
        ErrorKind::UniqueItems { got: [first, second] } => {
            format!("{place} has the same item twice, at {first} and {second}")
        }
        ErrorKind::Contains | ErrorKind::MinContains { .. } => format!("{place} has too few items of the wanted kind"),
        ErrorKind::MaxContains { .. } => format!("{place} has too many items of the wanted kind"),
        ErrorKind::AdditionalItems { got } => format!("{place} has {got} items too many"),
        ErrorKind::MinProperties { got, want } => format!("{place} has {got} properties, and {want} are the fewest"),
        ErrorKind::MaxProperties { got, want } => format!("{place} has {got} properties, and {want} are the most"),
        ErrorKind::PropertyName { prop } => format!("{place}: `{prop}` is not a name that it may have"),
        ErrorKind::Dependency { prop, missing } | ErrorKind::DependentRequired { prop, missing } => {
            format!("{place} lack{} {}, which `{prop}` needs", s(place), names(missing.iter().copied()))
        }
        other => format!("{place}: {other}"),
    }
}

const ARGUMENTS: &str = "the arguments";

fn is(place: &str) -> &'static str {
    if place == ARGUMENTS { "are" } else { "is" }
}

fn s(place: &str) -> &'static str {
    if place == ARGUMENTS { "" } else { "s" }
}

fn place(location: &InstanceLocation<'_>) -> String {
    let parts = location.tokens.iter().map(|token| match token {
        InstanceToken::Prop(name) => name.to_string(),
        InstanceToken::Item(number) => number.to_string(),
    });
    let path = parts.collect::<Vec<_>>().join(".");
    if path.is_empty() { ARGUMENTS.to_owned() } else { format!("`{path}`") }
}

fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len() > NAMED_MAX;
    let shown: Vec<String> = names.take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
    format!("{}{}", shown.join(", "), if more { ", .." } else { "" })
}

fn a(kind: Type) -> String {
    match kind {
        Type::Null => "null".into(),
        Type::Array | Type::Integer | Type::Object => format!("an {kind}"),
        Type::Boolean | Type::Number | Type::String => format!("a {kind}"),
    }
}

fn any(types: &Types) -> String {
    types.iter().map(a).collect::<Vec<_>>().join(" or ")
}

fn short(text: &str) -> String {
    text.chars().take(PROBLEM_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Why a schema is none.
pub(super) fn of_schema(error: &CompileError) -> String {
    let text = match error {
        CompileError::ValidationError { src, .. } => {
            let told = told(src, 3);
            let told = told.iter().map(|problem| problem.replace(ARGUMENTS, "it"));
            format!("it is not valid: {}", told.collect::<Vec<_>>().join("; "))
        }
        other => other.to_string(),
    };
    short(&text)
}
