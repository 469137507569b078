//! What a chart is, and where everything on it goes.

use crate::svg::{Anchor, Svg};
use serde::Deserialize;
use serde_json::Value;

const COLOURS: [&str; 12] = [
    "#3b6fb6", "#e08a3c", "#4d9a5b", "#c4504f", "#7c66a9", "#8c6a56", "#cf79b0", "#7a7a7a", "#a8a63c", "#3fa6b5",
    "#5a4fcf", "#b5893f",
];
const INK: &str = "#222222";
const GRID: &str = "#dddddd";
const TICKS: f64 = 5.0;

#[derive(Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Bar,
    Line,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bar => "bar",
            Kind::Line => "line",
        }
    }
}

#[derive(Deserialize)]
pub struct Series {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

#[derive(Deserialize)]
pub struct Chart {
    #[serde(default)]
    pub kind: Kind,
    #[serde(default)]
    title: String,
    labels: Vec<Value>,
    #[serde(default)]
    values: Vec<f64>,
    #[serde(default)]
    pub series: Vec<Series>,
    #[serde(default)]
    x_label: String,
    #[serde(default)]
    y_label: String,
    #[serde(default = "width")]
    pub width: u32,
    #[serde(default = "height")]
    pub height: u32,
}

fn width() -> u32 {
    800
}

fn height() -> u32 {
    450
}

/// The plot's rectangle, and the scale of its values.
struct Plot {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    low: f64,
    high: f64,
    step: f64,
    /// The width of one label's share.
    slot: f64,
}

impl Plot {
    fn y(&self, value: f64) -> f64 {
        self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - self.top)
    }

    fn middle(&self, index: usize) -> f64 {
        self.left + self.slot * (index as f64 + 0.5)
    }
}

impl Chart {
    /// One list of series, each as long as the labels.
    pub fn checked(mut self) -> Result<Chart, String> {
        if !self.values.is_empty() {
            let values = std::mem::take(&mut self.values).into_iter().map(Some).collect();
            self.series.insert(0, Series { name: self.y_label.clone(), values });
        }
        if self.series.is_empty() {
            return Err("there is nothing to draw: give `values`, or `series`".into());
        }
        match self.series.iter().find(|series| series.values.len() != self.labels.len()) {
            Some(s) => Err(format!("`{}` has {} values for {} labels", s.name, s.values.len(), self.labels.len())),
            None => Ok(self),
        }
    }

    /// The whole picture.
    pub fn draw(&self) -> String {
        let mut svg = Svg::new(self.width, self.height, &self.title);
        let plot = self.plot();
        self.draw_frame(&mut svg, &plot);
        self.draw_labels(&mut svg, &plot);
        match self.kind {
            Kind::Bar => self.draw_bars(&mut svg, &plot),
            Kind::Line => self.draw_lines(&mut svg, &plot),
        }
        if self.series.len() > 1 {
            self.draw_legend(&mut svg, &plot);
        }
        svg.end()
    }

    fn plot(&self) -> Plot {
        let values = || self.series.iter().flat_map(|series| series.values.iter().flatten().copied());
        let (mut low, mut high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if !low.is_finite() || !high.is_finite() {
            (low, high) = (0.0, 1.0);
        }
        // A bar stands on zero; a line may start where its values do, unless zero is near.
        if self.kind == Kind::Bar || (low > 0.0 && low < high / 2.0) {
            low = low.min(0.0);
        }
        if self.kind == Kind::Bar {
            high = high.max(0.0);
        }
        if high - low < f64::EPSILON * high.abs().max(1.0) {
            (low, high) = (low - 0.5, high + 0.5);
        }
        let step = nice_step((high - low) / TICKS);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        let widest = [low, high].into_iter().map(|v| number(v, step).len()).max().unwrap_or(1) as f64;
        let left = 16.0 + widest * 7.0 + if self.y_label.is_empty() { 0.0 } else { 22.0 };
        let right = f64::from(self.width) - 20.0;
        let legend = if self.series.len() > 1 { 22.0 } else { 0.0 };
        let top = 20.0 + if self.title.is_empty() { 0.0 } else { 28.0 } + legend;
        let slot = (right - left) / self.labels.len() as f64;
        let tilted = if self.tilted(slot) { 44.0 } else { 0.0 };
        let bottom = f64::from(self.height) - 32.0 - tilted - if self.x_label.is_empty() { 0.0 } else { 22.0 };
        Plot { left, right, top, bottom: bottom.max(top + 20.0), low, high, step, slot }
    }

    fn label(&self, index: usize) -> String {
        let text = match &self.labels[index] {
            Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        if text.chars().count() > 16 { text.chars().take(15).chain(['…']).collect() } else { text }
    }

    fn tilted(&self, slot: f64) -> bool {
        (0..self.labels.len()).map(|i| self.label(i).chars().count()).max().unwrap_or(0) as f64 * 7.0 > slot
    }

    fn draw_frame(&self, svg: &mut Svg, plot: &Plot) {
        let middle = f64::from(self.width) / 2.0;
        if !self.title.is_empty() {
            svg.text(middle, 28.0, 18, Anchor::Middle, 0.0, &self.title);
        }
        let ticks = ((plot.high - plot.low) / plot.step).round() as u32;
        for tick in 0..=ticks {
            let value = plot.low + f64::from(tick) * plot.step;
            let y = plot.y(value);
            let colour = if value.abs() < plot.step / 2.0 { INK } else { GRID };
            svg.line((plot.left, y), (plot.right, y), colour);
            svg.text(plot.left - 6.0, y + 4.0, 12, Anchor::End, 0.0, &number(value, plot.step));
        }
        if !self.y_label.is_empty() {
            svg.text(16.0, (plot.top + plot.bottom) / 2.0, 13, Anchor::Middle, -90.0, &self.y_label);
        }
        if !self.x_label.is_empty() {
            let y = f64::from(self.height) - 10.0;
            svg.text((plot.left + plot.right) / 2.0, y, 13, Anchor::Middle, 0.0, &self.x_label);
        }
    }

    fn draw_labels(&self, svg: &mut Svg, plot: &Plot) {
        // Labels that would touch are left out, at even distances.
        let every = (14.0 / plot.slot).ceil().max(1.0) as usize;
        let tilted = self.tilted(plot.slot);
        for index in (0..self.labels.len()).step_by(every) {
            let (anchor, angle) = if tilted { (Anchor::End, -40.0) } else { (Anchor::Middle, 0.0) };
            svg.text(plot.middle(index), plot.bottom + 18.0, 12, anchor, angle, &self.label(index));
        }
    }

    fn draw_bars(&self, svg: &mut Svg, plot: &Plot) {
        let width = plot.slot * 0.8 / self.series.len() as f64;
        let zero = plot.y(0.0);
        for (s, series) in self.series.iter().enumerate() {
            for (index, value) in series.values.iter().enumerate() {
                let Some(value) = value else { continue };
                let x = plot.left + plot.slot * (index as f64 + 0.1) + width * s as f64;
                let y = plot.y(*value);
                let hint = format!("{}: {}", self.label(index), number(*value, plot.step / 100.0));
                svg.bar((x, y.min(zero)), (width, (y - zero).abs()), COLOURS[s % COLOURS.len()], &hint);
            }
        }
    }

    fn draw_lines(&self, svg: &mut Svg, plot: &Plot) {
        for (s, series) in self.series.iter().enumerate() {
            let colour = COLOURS[s % COLOURS.len()];
            let mut run = Vec::new();
            for (index, value) in series.values.iter().enumerate() {
                match value {
                    Some(value) => run.push((plot.middle(index), plot.y(*value))),
                    None => svg.polyline(&std::mem::take(&mut run), colour),
                }
            }
            svg.polyline(&run, colour);
            if self.labels.len() <= 60 {
                for (index, value) in series.values.iter().enumerate() {
                    let Some(value) = value else { continue };
                    let hint = format!("{}: {}", self.label(index), number(*value, plot.step / 100.0));
                    svg.dot((plot.middle(index), plot.y(*value)), colour, &hint);
                }
            }
        }
    }

    fn draw_legend(&self, svg: &mut Svg, plot: &Plot) {
        let mut x = plot.left;
        for (s, series) in self.series.iter().enumerate() {
            svg.bar((x, plot.top - 24.0), (12.0, 12.0), COLOURS[s % COLOURS.len()], &series.name);
            svg.text(x + 17.0, plot.top - 14.0, 12, Anchor::Start, 0.0, &series.name);
            x += 32.0 + series.name.chars().count() as f64 * 7.0;
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least as large as `rough`.
fn nice_step(rough: f64) -> f64 {
    let magnitude = 10_f64.powf(rough.log10().floor());
    let lead = rough / magnitude;
    magnitude
        * if lead <= 1.0 {
            1.0
        } else if lead <= 2.0 {
            2.0
        } else if lead <= 5.0 {
            5.0
        } else {
            10.0
        }
}

/// As many digits as steps of this size need; k, M and G for large numbers.
fn number(value: f64, step: f64) -> String {
    let (value, step, unit) = match step.abs() {
        s if s >= 1e9 => (value / 1e9, step / 1e9, "G"),
        s if s >= 1e6 => (value / 1e6, step / 1e6, "M"),
        s if s >= 1e4 => (value / 1e3, step / 1e3, "k"),
        _ => (value, step, ""),
    };
    let digits = if step >= 1.0 { 0 } else { (-step.log10()).ceil().clamp(0.0, 9.0) as usize };
    let mut text = format!("{value:.digits$}");
    if digits > 0 && text.contains('.') {
        text = text.trim_end_matches('0').trim_end_matches('.').to_string();
    }
    if text == "-0" { "0".into() } else { text + unit }
}
