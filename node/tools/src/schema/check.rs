//! A value against the nodes of a schema.

use super::{Node, PROBLEMS_MAX, Range, STEPS_MAX, Schema, Type};
use serde_json::{Map, Number, Value};

/// Schemas applied inside schemas: JSON itself is at most 128 deep.
const CHECK_DEPTH_MAX: u32 = 400;

/// A check ends early where it would take too many steps.
struct TooMuch;

struct Check<'s> {
    nodes: &'s [Node],
    steps: u32,
    depth: u32,
    problems: Vec<String>,
}

pub(super) fn check(schema: &Schema, value: &Value) -> Vec<String> {
    let mut check = Check { nodes: &schema.nodes, steps: 0, depth: 0, problems: Vec::new() };
    match check.node(schema.root, value, "", true) {
        Ok(true) => Vec::new(),
        Ok(false) => check.problems,
        Err(TooMuch) => vec![format!("they are too complicated to check in {STEPS_MAX} steps")],
    }
}

impl<'s> Check<'s> {
    /// Whether a value fits; its problems are noted only when somebody will read them.
    fn node(&mut self, index: usize, value: &Value, at: &str, tell: bool) -> Result<bool, TooMuch> {
        self.steps += 1;
        // A reference that leads to itself takes no step forward in the value, so the depth has to end it.
        if self.steps > STEPS_MAX || self.depth > CHECK_DEPTH_MAX {
            return Err(TooMuch);
        }
        self.depth += 1;
        let fits = self.fits(index, value, at, tell);
        self.depth -= 1;
        fits
    }

    fn fits(&mut self, index: usize, value: &Value, at: &str, tell: bool) -> Result<bool, TooMuch> {
        let node = &self.nodes[index];
        if node.never {
            return Ok(self.fails(tell, at, || "is not expected".into()));
        }
        let mut fits = self.plain(node, value, at, tell);
        fits &= match value {
            Value::Object(object) => self.object(node, object, at, tell)?,
            Value::Array(items) => self.array(node, items, at, tell)?,
            Value::String(text) => self.string(node, text, at, tell),
            Value::Number(number) => self.number(node, number, at, tell),
            Value::Null | Value::Bool(_) => true,
        };
        fits &= self.combined(node, value, at, tell)?;
        Ok(fits)
    }

    fn fails(&mut self, tell: bool, at: &str, what: impl FnOnce() -> String) -> bool {
        if tell && self.problems.len() < PROBLEMS_MAX {
            let place = if at.is_empty() { "the arguments".to_string() } else { format!("`{}`", &at[1..]) };
            self.problems.push(format!("{place} {}", what()));
        }
        false
    }

    fn plain(&mut self, node: &Node, value: &Value, at: &str, tell: bool) -> bool {
        let mut fits = true;
        if let Some(types) = &node.types
            && !types.iter().any(|kind| is(value, *kind))
        {
            let wanted: Vec<&str> = types.iter().map(|kind| name(*kind)).collect();
            fits = self.fails(tell, at, || format!("is {}, not {}", of(value), wanted.join(" or ")));
        }
        if let Some(choices) = &node.choices
            && !choices.iter().any(|choice| same(choice, value))
        {
            let wanted: Vec<String> = choices.iter().take(20).map(Value::to_string).collect();
            fits = self.fails(tell, at, || format!("is none of {}", wanted.join(", ")));
        }
        if let Some(constant) = &node.constant
            && !same(constant, value)
        {
            fits = self.fails(tell, at, || format!("is not {constant}"));
        }
        fits
    }

    fn object(&mut self, node: &'s Node, object: &Map<String, Value>, at: &str, tell: bool) -> Result<bool, TooMuch> {
        let mut fits = self.range(node.properties_range, object.len(), "properties", at, tell);
        for name in &node.required {
            if !object.contains_key(name) {
                fits = self.fails(tell, at, || format!("lack `{name}`"));
            }
        }
        for (name, needed) in &node.dependents {
            for other in needed.iter().filter(|other| object.contains_key(name) && !object.contains_key(*other)) {
                fits = self.fails(tell, at, || format!("have `{name}`, so they need `{other}`"));
            }
        }
        for (name, value) in object {
            let place = format!("{at}.{name}");
            let mut known = false;
            if let Some((_, index)) = node.properties.iter().find(|(property, _)| property == name) {
                known = true;
                fits &= self.node(*index, value, &place, tell)?;
            }
            for (pattern, index) in &node.patterns {
                if pattern.is_match(name) {
                    known = true;
                    fits &= self.node(*index, value, &place, tell)?;
                }
            }
            if let Some(index) = node.additional.filter(|_| !known) {
                fits &= self.node(index, value, &place, tell)?;
            }
            if let Some(index) = node.names {
                fits &= self.node(index, &Value::String(name.clone()), &place, tell)?;
            }
        }
        Ok(fits)
    }

    fn array(&mut self, node: &'s Node, items: &[Value], at: &str, tell: bool) -> Result<bool, TooMuch> {
        let mut fits = self.range(node.items_range, items.len(), "items", at, tell);
        for (n, item) in items.iter().enumerate() {
            if let Some(index) = node.prefix.get(n).copied().or(node.items) {
                fits &= self.node(index, item, &format!("{at}.{n}"), tell)?;
            }
        }
        if node.unique {
            for (n, item) in items.iter().enumerate() {
                self.steps = self.steps.saturating_add(n as u32);
                if self.steps > STEPS_MAX {
                    return Err(TooMuch);
                }
                if items[..n].iter().any(|other| same(other, item)) {
                    fits = self.fails(tell, at, || "has the same item twice".into());
                    break;
                }
            }
        }
        if let Some((index, range)) = node.contains {
            let mut count = 0;
            for item in items {
                count += usize::from(self.node(index, item, at, false)?);
            }
            fits &= self.range(range, count, "items of the kind it has to contain", at, tell);
        }
        Ok(fits)
    }

    fn string(&mut self, node: &Node, text: &str, at: &str, tell: bool) -> bool {
        let mut fits = true;
        if node.length_range.least.is_some() || node.length_range.most.is_some() {
            fits = self.range(node.length_range, text.chars().count(), "characters", at, tell);
        }
        if let Some(pattern) = &node.pattern
            && !pattern.is_match(text)
        {
            fits = self.fails(tell, at, || format!("does not match {}", pattern.as_str()));
        }
        fits
    }

    fn number(&mut self, node: &Node, number: &Number, at: &str, tell: bool) -> bool {
        let Some(x) = number.as_f64() else { return true };
        let mut fits = true;
        if let Some(least) = node.minimum.filter(|least| x < *least) {
            fits = self.fails(tell, at, || format!("is less than {least}"));
        }
        if let Some(most) = node.maximum.filter(|most| x > *most) {
            fits = self.fails(tell, at, || format!("is more than {most}"));
        }
        if let Some(bound) = node.above.filter(|bound| x <= *bound) {
            fits = self.fails(tell, at, || format!("is not more than {bound}"));
        }
        if let Some(bound) = node.below.filter(|bound| x >= *bound) {
            fits = self.fails(tell, at, || format!("is not less than {bound}"));
        }
        if let Some(part) = node.multiple_of.filter(|part| ((x / part) - (x / part).round()).abs() > 1e-9) {
            fits = self.fails(tell, at, || format!("is no multiple of {part}"));
        }
        fits
    }

    fn combined(&mut self, node: &'s Node, value: &Value, at: &str, tell: bool) -> Result<bool, TooMuch> {
        let mut fits = true;
        if let Some(index) = node.reference {
            fits &= self.node(index, value, at, tell)?;
        }
        for index in &node.all_of {
            fits &= self.node(*index, value, at, tell)?;
        }
        if !node.any_of.is_empty() && self.how_many(&node.any_of, value, at, 1)? == 0 {
            fits = self.fails(tell, at, || "is none of the kinds it may be".into());
        }
        if !node.one_of.is_empty() {
            match self.how_many(&node.one_of, value, at, 2)? {
                1 => {}
                0 => fits = self.fails(tell, at, || "is none of the kinds it may be".into()),
                _ => fits = self.fails(tell, at, || "is several of the kinds of which it may be one".into()),
            }
        }
        if let Some(index) = node.not
            && self.node(index, value, at, false)?
        {
            fits = self.fails(tell, at, || "is what it must not be".into());
        }
        if let Some(condition) = &node.condition {
            let branch =
                if self.node(condition.when, value, at, false)? { condition.then } else { condition.otherwise };
            if let Some(index) = branch {
                fits &= self.node(index, value, at, tell)?;
            }
        }
        Ok(fits)
    }

    fn how_many(&mut self, schemas: &[usize], value: &Value, at: &str, enough: usize) -> Result<usize, TooMuch> {
        let mut count = 0;
        for index in schemas {
            count += usize::from(self.node(*index, value, at, false)?);
            if count >= enough {
                break;
            }
        }
        Ok(count)
    }

    fn range(&mut self, range: Range, count: usize, of: &str, at: &str, tell: bool) -> bool {
        let count = count as u64;
        if let Some(least) = range.least.filter(|least| count < *least) {
            return self.fails(tell, at, || format!("has {count} {of}; at least {least}"));
        }
        if let Some(most) = range.most.filter(|most| count > *most) {
            return self.fails(tell, at, || format!("has {count} {of}; at most {most}"));
        }
        true
    }
}

fn is(value: &Value, kind: Type) -> bool {
    match kind {
        Type::Null => value.is_null(),
        Type::Boolean => value.is_boolean(),
        Type::Integer => value.as_f64().is_some_and(|x| x.fract() == 0.0),
        Type::Number => value.is_number(),
        Type::String => value.is_string(),
        Type::Array => value.is_array(),
        Type::Object => value.is_object(),
    }
}

fn name(kind: Type) -> &'static str {
    match kind {
        Type::Null => "null",
        Type::Boolean => "a boolean",
        Type::Integer => "an integer",
        Type::Number => "a number",
        Type::String => "a string",
        Type::Array => "a list",
        Type::Object => "an object",
    }
}

fn of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Equality as JSON Schema has it: 1 and 1.0 are the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}
