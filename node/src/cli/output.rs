//! Everything that a command prints: text or one JSON document, colours on a terminal alone, errors that end in help.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::cli::CliError;

/// New things, and success.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Changed things, and warnings.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Removed things, and errors.
pub const BAD: Style = AnsiColor::Red.on_default();
/// Names that matter.
pub const BOLD: Style = Style::new().bold();
/// What can be skipped while reading.
pub const DIM: Style = Style::new().dimmed();
/// The word in front of what to do next.
pub const HELP: Style = AnsiColor::Cyan.on_default().bold();

/// Nothing is drawn for work that takes less than this.
const PROGRESS_AFTER: Duration = Duration::from_millis(700);

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Not at all.
    Never,
}

/// Where a command prints.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
    color: anstream::ColorChoice,
}

/// `text` in `style`; the stream takes the colours out where they do not belong.
pub fn paint<T: Display>(style: Style, text: T) -> StyledText<T> {
    StyledText { style, text }
}

/// Text with a style.
pub struct StyledText<T> {
    style: Style,
    text: T,
}

impl<T: Display> Display for StyledText<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.style.render(), self.text, self.style.render_reset())
    }
}

impl Output {
    /// As the flags say.
    pub fn new(json: bool, color: ColorWhen) -> Output {
        let color = match color {
            ColorWhen::Auto => anstream::ColorChoice::Auto,
            ColorWhen::Always => anstream::ColorChoice::Always,
            ColorWhen::Never => anstream::ColorChoice::Never,
        };
        color.write_global();
        Output { json, color }
    }

    /// The caller wants one JSON document.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A person is there to answer a question.
    pub fn can_ask(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Prints a line of text on stdout. With `--json` nothing is printed: the document says it all.
    pub fn line(&self, text: impl Display) -> Result<(), CliError> {
        if self.json { Ok(()) } else { self.write(format_args!("{text}\n")) }
    }

    /// Prints a table, as wide as the terminal at most. Into a file or a pipe it goes whole.
    pub fn table(&self, table: Table) -> Result<(), CliError> {
        match terminal_width() {
            Some(width) => self.line(table.within(width)),
            None => self.line(table),
        }
    }

    /// Prints a line of text behind `prefix`, folded between its words where the terminal ends; the lines that follow begin below
    /// the text. Into a file or a pipe it goes in one line.
    pub fn hanging(&self, prefix: impl Display, text: impl Display) -> Result<(), CliError> {
        let (prefix, text) = (prefix.to_string(), text.to_string());
        self.line(match terminal_width() {
            Some(width) => fold(&prefix, &text, width),
            None => prefix + &text,
        })
    }

    /// Prints text on stdout as it is, without a line's end.
    pub fn text(&self, text: impl Display) -> Result<(), CliError> {
        if self.json { Ok(()) } else { self.write(format_args!("{text}")) }
    }

    /// Prints text on stdout also with `--json`: a script, or a stream of documents.
    pub fn raw(&self, text: impl Display) -> Result<(), CliError> {
        self.write(format_args!("{text}"))
    }

    /// Prints the document, if the caller wants one.
    pub fn json(&self, document: &impl Serialize) -> Result<(), CliError> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| CliError::new("internal", "the answer cannot be written as JSON").source(error))?;
        self.write(format_args!("{text}\n"))
    }

    /// Says something on stderr that is not part of the result. With `--json` nothing is said.
    pub fn note(&self, text: impl Display) {
        if !self.json {
            // A note that cannot be printed is not worth failing for.
            let _ = writeln!(self.stderr(), "{text}");
        }
    }

    /// A warning on stderr.
    pub fn warn(&self, text: impl Display) {
        self.note(format_args!("{}: {text}", paint(WARN.bold(), "warning")));
    }

    /// Asks for a yes or a no; anything but `y` and `yes` is a no.
    pub fn confirm(&self, question: impl Display) -> Result<bool, CliError> {
        let answer = self.ask(format_args!("{question} {}", paint(DIM, "[y/N]")))?;
        Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for a line of text, which comes without the spaces around it.
    pub fn ask(&self, question: impl Display) -> Result<String, CliError> {
        let mut answer = String::new();
        let read = write!(self.stderr(), "{question} ")
            .and_then(|()| self.stderr().flush())
            .and_then(|()| io::stdin().read_line(&mut answer));
        read.map_err(|error| CliError::new("io", "the terminal cannot be read").source(error))?;
        Ok(answer.trim().to_owned())
    }

    /// Shows that something is under way, once it has taken a while and if a person watches.
    pub fn progress(&self, what: &str, total: Option<u64>) -> Progress {
        let wanted = !self.json && io::stderr().is_terminal();
        let bar = match total {
            Some(total) => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()),
            None => ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
        };
        let template = if total.is_some() { "{msg} [{bar:30}] {percent}%" } else { "{spinner} {msg} {elapsed}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        Progress { bar, since: Instant::now(), wanted, shown: false }
    }

    /// Prints a command's failure and gives its exit code.
    pub fn fail(&self, error: &CliError) -> ExitCode {
        if error.quiet {
            return ExitCode::SUCCESS;
        }
        if error.said {
            return error.exit.into();
        }
        // Nobody is left to tell when the error itself cannot be printed; the exit code still says it.
        let _ = if self.json {
            self.write(format_args!("{:#}\n", error.to_json())).map_err(|_| io::ErrorKind::Other.into())
        } else {
            self.print_failure(error)
        };
        error.exit.into()
    }

    fn print_failure(&self, error: &CliError) -> io::Result<()> {
        let mut err = self.stderr();
        if let Some(body) = &error.body {
            writeln!(err, "{}", body.trim_end())?;
        }
        writeln!(err, "{}: {}", paint(BAD.bold(), "error"), error.message)?;
        for cause in error.shown_causes() {
            writeln!(err, "  {} {cause}", paint(DIM, "because:"))?;
        }
        if let Some(help) = &error.help {
            writeln!(err, "{}: {help}", paint(HELP, "help"))?;
        }
        Ok(())
    }

    fn stderr(&self) -> AutoStream<io::StderrLock<'static>> {
        AutoStream::new(io::stderr().lock(), self.choice(&io::stderr()))
    }

    fn write(&self, text: fmt::Arguments<'_>) -> Result<(), CliError> {
        let mut stdout = AutoStream::new(io::stdout().lock(), self.choice(&io::stdout()));
        stdout.write_fmt(text).and_then(|()| stdout.flush()).map_err(|error| {
            let quiet = error.kind() == io::ErrorKind::BrokenPipe;
            CliError { quiet, ..CliError::new("io", "the output cannot be written").source(error) }
        })
    }

    fn choice(&self, stream: &impl anstream::stream::RawStream) -> anstream::ColorChoice {
        match self.color {
            anstream::ColorChoice::Auto => AutoStream::choice(stream),
            anstream::ColorChoice::Always | anstream::ColorChoice::AlwaysAnsi | anstream::ColorChoice::Never => {
                self.color
            }
        }
    }
}

/// How many characters a line of the terminal has; nothing where stdout is none.
fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// `text` behind `prefix` in lines of `width` characters. Only a word that is longer than a line goes beyond it.
fn fold(prefix: &str, text: &str, width: usize) -> String {
    let indent = visible(prefix).min(width / 3);
    let (mut folded, mut at, mut begins) = (prefix.to_owned(), visible(prefix), true);
    for word in text.split(' ') {
        let room = visible(word);
        if at > indent && at + usize::from(!begins) + room > width {
            at = indent.min(width.saturating_sub(room));
            folded.truncate(folded.trim_end_matches(' ').len());
            folded.push('\n');
            folded.extend(std::iter::repeat_n(' ', at));
        } else if !begins {
            folded.push(' ');
            at += 1;
        }
        folded.push_str(word);
        at += room;
        begins = false;
    }
    folded
}

/// How many characters of a text take room on a terminal.
fn visible(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

/// The least that a column is cut to, in characters, unless its head is longer. What is shorter is never cut: a time or a number
/// of which a part is missing says nothing.
const COLUMN_MIN: usize = 16;
/// Between two columns.
const GAP: usize = 2;

/// Rows in columns that line up; the last column is never padded.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    /// A table with these words above its columns.
    pub fn new<'a>(heads: impl IntoIterator<Item = &'a str>) -> Table {
        Table { rows: vec![heads.into_iter().map(|head| (DIM, head.to_owned())).collect()] }
    }

    /// A row without styles.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(|cell| (Style::new(), cell.into())).collect());
    }

    /// A row whose cells have styles.
    pub fn styled(&mut self, cells: impl IntoIterator<Item = (Style, String)>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table in lines of `width` characters. What has too many columns for that becomes a block of lines for each row.
    /// The first column, by which a row is named, is never cut, and neither is a head.
    pub fn within(mut self, width: usize) -> Table {
        let mut widths = self.widths();
        let columns = widths.len();
        let head = |column: usize| {
            self.rows.first().and_then(|heads| heads.get(column)).map_or(0, |(_, head)| head.chars().count())
        };
        let least: Vec<usize> = (0..columns).map(|column| head(column).max(COLUMN_MIN)).collect();
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        while total(&widths) > width {
            let can_be_cut = |column: &usize| widths[*column] > least[*column];
            let cut = (1..columns).filter(can_be_cut).max_by_key(|column| widths[*column]);
            let Some(column) = cut else { return self.in_blocks(width) };
            let over = total(&widths) - width;
            widths[column] = widths[column].saturating_sub(over).max(least[column]);
        }
        for row in &mut self.rows {
            for ((_, cell), width) in row.iter_mut().zip(&widths) {
                shorten(cell, *width);
            }
        }
        self
    }

    /// A line for each cell: the column's head, and the cell. Where the row's name has no room beside its head it stands alone.
    fn in_blocks(self, width: usize) -> Table {
        let mut rows = self.rows.into_iter();
        let heads: Vec<String> = rows.next().unwrap_or_default().into_iter().map(|(_, head)| head).collect();
        let room = heads.iter().map(|head| head.chars().count()).max().unwrap_or(0) + GAP;
        let mut blocks = Table::default();
        for (at, row) in rows.enumerate() {
            if at > 0 {
                blocks.rows.push(vec![(Style::new(), String::new())]);
            }
            for (column, ((style, mut cell), head)) in row.into_iter().zip(&heads).enumerate() {
                if column == 0 && room + cell.chars().count() > width {
                    blocks.rows.push(vec![(style, cell)]);
                    continue;
                }
                if column > 0 {
                    shorten(&mut cell, width.saturating_sub(room).max(COLUMN_MIN));
                }
                blocks.rows.push(vec![(DIM, head.clone()), (style, cell)]);
            }
        }
        blocks
    }

    /// How wide each column is by the cells that others stand behind: the last of a row is never padded.
    fn padded(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let rows = self.rows.iter().filter(|row| column + 1 < row.len());
            rows.map(|row| row[column].1.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|(_, cell)| cell.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }
}

/// Cuts a cell to `width` characters, with dots where something is missing.
fn shorten(cell: &mut String, width: usize) {
    if cell.chars().count() > width {
        let kept: String = cell.chars().take(width.saturating_sub(3)).collect();
        *cell = format!("{}...", kept.trim_end());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.padded();
        for (at, row) in self.rows.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            for (column, (style, cell)) in row.iter().enumerate() {
                paint(*style, cell).fmt(f)?;
                if column + 1 < row.len() {
                    write!(f, "{:1$}  ", "", widths[column] - cell.chars().count())?;
                }
            }
        }
        Ok(())
    }
}

/// A bar or a spinner that appears once the work has taken a while.
pub struct Progress {
    bar: ProgressBar,
    since: Instant,
    wanted: bool,
    shown: bool,
}

impl Progress {
    /// So much more is done.
    pub fn advance(&mut self, by: u64) {
        self.bar.inc(by);
        self.tick();
    }

    /// Draws again, if it is time to draw at all.
    pub fn tick(&mut self) {
        if self.wanted && !self.shown && self.since.elapsed() >= PROGRESS_AFTER {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if self.shown {
            self.bar.tick();
        }
    }

    /// Waits for `work` and keeps drawing.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = beat.tick() => self.tick(),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A size as people write it: `17 B`, `1.5 KB`, `20.0 MB` (powers of 1,000).
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    let mut unit = "B";
    let mut amount = bytes as f64;
    for next in UNITS {
        if amount < 1000.0 {
            break;
        }
        amount /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

/// `1 agent`, `2 agents`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let mut table = Table::new(["NAME", "WHAT"]);
        table.row(["a", "first"]);
        table.row(["longer", "second"]);
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(text, "NAME    WHAT\na       first\nlonger  second");
    }

    #[test]
    fn a_table_fits_the_terminal_and_its_first_column_is_whole() {
        let table = || {
            let mut table = Table::new(["CONVERSATION", "ANSWERED", "AGENT", "BEGAN WITH"]);
            table.row([
                "0199f2c45d6e7a81b2c3d4e5f6071829",
                "2 minutes ago",
                "data-analyzer",
                "What is the average order value by country?",
            ]);
            table.row(["0199f2c45d6e7a81b2c3d4e5f607182a", "just now", "a", "hi"]);
            table
        };
        let plain = |table: Table| anstream::adapter::strip_str(&table.to_string()).to_string();
        let wide = plain(table().within(200));
        assert_eq!(wide, plain(table()));
        for width in [100, 80] {
            let text = plain(table().within(width));
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert!(text.contains("0199f2c45d6e7a81b2c3d4e5f6071829  ") && text.contains("..."), "{text}");
            // A time is whole, and so are the heads.
            assert!(text.contains("  2 minutes ago  ") && text.contains("  BEGAN WITH"), "{text}");
        }
        for width in [72, 60] {
            let text = plain(table().within(width));
            let begins = "CONVERSATION  0199f2c45d6e7a81b2c3d4e5f6071829\nANSWERED      2 minutes ago\n";
            assert!(text.starts_with(begins), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert_eq!(text.lines().count(), 9, "{text}");
        }
        let narrow = plain(table().within(40));
        let begins = "0199f2c45d6e7a81b2c3d4e5f6071829\nANSWERED    2 minutes ago\n";
        assert!(narrow.starts_with(begins), "{narrow}");
        assert_eq!(narrow.lines().count(), 9, "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    }

    #[test]
    fn text_is_folded_between_words_and_none_is_lost() {
        let text =
            format!("{} means what it says, and `caxton errors CODE` says what to do about it", paint(BOLD, "it"));
        for width in [80, 40, 20, 3] {
            let folded = fold("  code         ", &text, width);
            let plain = anstream::adapter::strip_str(&folded).to_string();
            let words: Vec<&str> = plain.split_whitespace().collect();
            assert_eq!(words[0], "code");
            assert_eq!(words[1..].join(" "), anstream::adapter::strip_str(&text).to_string(), "{width}");
            if width >= 20 {
                assert!(plain.lines().all(|line| line.chars().count() <= width), "{width}: {plain}");
            }
        }
        assert_eq!(fold("a  ", "b c", 80), "a  b c");
        assert_eq!(fold("ab  ", "cd ef", 6), "ab  cd\n  ef");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([size(0), size(999), size(1500), size(20_000_000)], ["0 B", "999 B", "1.5 KB", "20.0 MB"]);
        assert_eq!([count(1, "agent"), count(0, "agent")], ["1 agent", "0 agents"]);
    }
}
