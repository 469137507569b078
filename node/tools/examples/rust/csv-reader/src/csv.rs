//! CSV as RFC 4180 has it, and as people write it: quotes, doubled quotes, line breaks in quotes, CRLF or LF.

use serde_json::{Value, json};
use std::fmt;

/// Splits text into records of fields; lines with nothing on them are left out.
pub fn parse(text: &str, delimiter: char) -> Result<Vec<Vec<String>>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut quoted_at) = (1_usize, None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match (quoted_at, c) {
            (Some(_), '"') if chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            (Some(_), '"') => quoted_at = None,
            (Some(_), c) => field.push(c),
            (None, '"') if field.is_empty() => quoted_at = Some(line),
            (None, c) if c == delimiter => record.push(std::mem::take(&mut field)),
            (None, '\r') if chars.peek() == Some(&'\n') => {}
            (None, '\n') => end_record(&mut records, &mut record, &mut field),
            (None, c) => field.push(c),
        }
    }
    if let Some(line) = quoted_at {
        return Err(format!("the quote that opens on line {line} is never closed"));
    }
    end_record(&mut records, &mut record, &mut field);
    Ok(records)
}

fn end_record(records: &mut Vec<Vec<String>>, record: &mut Vec<String>, field: &mut String) {
    if record.is_empty() && field.is_empty() {
        return;
    }
    record.push(std::mem::take(field));
    records.push(std::mem::take(record));
}

/// The likeliest delimiter: the one that the first line has most of.
pub fn guess_delimiter(text: &str) -> char {
    let first = text.lines().next().unwrap_or("");
    [',', ';', '\t', '|'].into_iter().rev().max_by_key(|d| first.matches(*d).count()).unwrap_or(',')
}

/// Trimmed names, each one once.
pub fn column_names(header: Vec<String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (n, name) in header.into_iter().enumerate() {
        let name = if name.trim().is_empty() { format!("column{}", n + 1) } else { name.trim().to_string() };
        let again = names.iter().filter(|other| **other == name).count();
        names.push(if again == 0 { name } else { format!("{name}_{}", n + 1) });
    }
    names
}

/// What all values of a column are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Empty,
    Boolean,
    Integer,
    Number,
    String,
}

impl Type {
    /// The narrowest type that holds every value that is there.
    pub fn of<'a>(values: impl Iterator<Item = Option<&'a String>>) -> Type {
        values.flatten().map(|v| v.trim()).filter(|v| !v.is_empty()).fold(Type::Empty, |sofar, value| {
            match (sofar, Type::of_value(value)) {
                (Type::Empty, kind) => kind,
                (a, b) if a == b => a,
                (Type::Integer, Type::Number) | (Type::Number, Type::Integer) => Type::Number,
                _ => Type::String,
            }
        })
    }

    fn of_value(value: &str) -> Type {
        match value {
            "true" | "false" | "TRUE" | "FALSE" | "True" | "False" => Type::Boolean,
            // A code like 00501 is not a number, however it looks.
            v if v.len() > 1 && v.starts_with('0') && v.bytes().all(|b| b.is_ascii_digit()) => Type::String,
            v if v.parse::<i64>().is_ok() => Type::Integer,
            v if v.parse::<f64>().is_ok_and(f64::is_finite) => Type::Number,
            _ => Type::String,
        }
    }

    /// One field as JSON; an empty one is null.
    pub fn value(self, field: Option<&String>) -> Value {
        let Some(field) = field.filter(|f| !f.trim().is_empty()) else { return Value::Null };
        match self {
            Type::Boolean => json!(field.trim().eq_ignore_ascii_case("true")),
            Type::Integer => field.trim().parse::<i64>().map_or(Value::Null, |v| json!(v)),
            Type::Number => field.trim().parse::<f64>().map_or(Value::Null, |v| json!(v)),
            Type::String | Type::Empty => json!(field),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Empty => "empty",
            Type::Boolean => "boolean",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::String => "string",
        })
    }
}
