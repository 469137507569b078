//! A table as csv-reader returns it, and what can be computed of its columns.

use serde::Deserialize;
use serde_json::Value;

/// Columns' names, and rows with a value for each.
#[derive(Deserialize)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

/// How the values of a group become one.
#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    #[default]
    Sum,
    Mean,
    Min,
    Max,
    Count,
}

impl Aggregate {
    pub fn name(self) -> &'static str {
        match self {
            Aggregate::Sum => "sum",
            Aggregate::Mean => "mean",
            Aggregate::Min => "min",
            Aggregate::Max => "max",
            Aggregate::Count => "count",
        }
    }
}

impl Table {
    /// The index of a column.
    pub fn column(&self, name: &str) -> Result<usize, String> {
        self.columns
            .iter()
            .position(|column| column == name)
            .ok_or_else(|| format!("there is no column `{name}`; there are: {}", self.columns.join(", ")))
    }

    /// A column's numbers; what is not a number is left out.
    pub fn numbers(&self, column: usize) -> Vec<f64> {
        self.rows.iter().filter_map(|row| number(row.get(column)?)).collect()
    }

    /// Rows by the value of a column, in the order in which the values first appear.
    pub fn groups(&self, column: usize) -> Vec<(String, Vec<usize>)> {
        let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
        let mut index = std::collections::BTreeMap::new();
        for (n, row) in self.rows.iter().enumerate() {
            let label = label(row.get(column));
            let at = *index.entry(label.clone()).or_insert_with(|| {
                groups.push((label, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(n);
        }
        groups
    }

    /// One number for some rows; none when none of them has one.
    pub fn aggregate(&self, rows: &[usize], column: Option<usize>, how: Aggregate) -> Option<f64> {
        let Some(column) = column else { return Some(rows.len() as f64) };
        let numbers: Vec<f64> = rows.iter().filter_map(|row| number(self.rows[*row].get(column)?)).collect();
        if how == Aggregate::Count {
            return Some(numbers.len() as f64);
        }
        if numbers.is_empty() {
            return None;
        }
        let summary = Summary::of(&numbers);
        Some(match how {
            Aggregate::Sum => summary.sum,
            Aggregate::Mean => summary.mean,
            Aggregate::Min => summary.min,
            Aggregate::Max => summary.max,
            Aggregate::Count => numbers.len() as f64,
        })
    }
}

/// What describes some numbers; there is at least one.
pub struct Summary {
    pub sum: f64,
    pub mean: f64,
    pub deviation: f64,
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Summary {
    pub fn of(numbers: &[f64]) -> Summary {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let sum: f64 = sorted.iter().sum();
        let mean = sum / n as f64;
        let squares: f64 = sorted.iter().map(|x| (x - mean) * (x - mean)).sum();
        let deviation = if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 };
        let median = if n % 2 == 1 { sorted[n / 2] } else { (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0 };
        Summary { sum, mean, deviation, min: sorted[0], median, max: sorted[n - 1] }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok().filter(|x: &f64| x.is_finite()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn label(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "(empty)".into(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}
