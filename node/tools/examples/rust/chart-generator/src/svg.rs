//! The few SVG elements that a chart needs. All text is escaped: labels come from strangers.

use std::fmt::Write;

/// Which end of a text is at its point.
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture being written.
pub struct Svg {
    out: String,
}

impl Svg {
    pub fn new(width: u32, height: u32, title: &str) -> Svg {
        let mut out = String::with_capacity(8192);
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\" fill=\"#222222\">\n\
             <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            escaped(title)
        );
        Svg { out }
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let (x1, y1, x2, y2) = (from.0, from.1, to.0, to.1);
        let _ = writeln!(
            self.out,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
        );
    }

    pub fn bar(&mut self, at: (f64, f64), size: (f64, f64), colour: &str, hint: &str) {
        let (x, y, width, height) = (at.0, at.1, size.0, size.1);
        let _ = writeln!(
            self.out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\">\
             <title>{}</title></rect>",
            escaped(hint)
        );
    }

    pub fn dot(&mut self, at: (f64, f64), colour: &str, hint: &str) {
        let (x, y) = at;
        let _ = writeln!(
            self.out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"><title>{}</title></circle>",
            escaped(hint)
        );
    }

    pub fn polyline(&mut self, points: &[(f64, f64)], colour: &str) {
        if points.len() < 2 {
            return;
        }
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>",
            points.join(" ")
        );
    }

    pub fn text(&mut self, x: f64, y: f64, size: u32, anchor: Anchor, angle: f64, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let turned =
            if angle == 0.0 { String::new() } else { format!(" transform=\"rotate({angle:.0} {x:.1} {y:.1})\"") };
        let text = escaped(text);
        let _ = writeln!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\"{turned}>{text}</text>"
        );
    }

    pub fn end(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML 1.0 has no way to write other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
    out
}
