//! Settings as text: docs/config.md, and what `caxton serve --print-config` prints.

use std::fmt::Write;

use super::{Config, SECTIONS, SETTINGS, Setting};

/// docs/config.md, made from the table of settings; a test holds the file to it.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         <!-- Made from node/src/config/settings.rs by `UPDATE_DOCS=1 cargo test -p caxton --lib config`; a test compares. -->\n\n\
         A node needs none of these: every setting has a default. A setting is written\n\n\
         - in a TOML file that `caxton serve --config FILE` names, as `bind = \"127.0.0.1:7411\"` under `[http]`;\n\
         - or in an environment variable, as `CAXTON_HTTP_BIND=127.0.0.1:7411`;\n\
         - or in a flag, as `--set http.bind=127.0.0.1:7411` (`--bind`, `--data-dir`, `--tls`, `--log` and `--log-format` are short for the common ones).\n\n\
         A flag wins over the environment, the environment over the file, and the file over the default. A name that does not exist \
         or a value that cannot be is refused, and everything that is wrong is told at once. `caxton serve --print-config` \
         prints the settings in effect and starts nothing.\n\n\
         A size is a whole number with `B`, `KiB`, `MiB`, `GiB` or `TiB`; a duration one with `ms`, `s`, `m`, `h` or `d`; \
         a list is a TOML array, or text with commas.\n",
    );
    for (section, about) in SECTIONS {
        let about = paragraph(about);
        let columns = "setting | environment variable | type | default | bounds | meaning";
        _ = write!(out, "\n## {section}\n\n{about}\n\n| {columns} |\n|---|---|---|---|---|---|\n");
        let own = |setting: &&Setting| setting.key.split('.').next() == Some(*section);
        SETTINGS.iter().filter(own).for_each(|setting| row(&mut out, setting));
    }
    out
}

fn row(out: &mut String, setting: &Setting) {
    let default = if setting.default.is_empty() { "empty".to_owned() } else { format!("`{}`", setting.default) };
    let bounds = setting.bounds.map(|(min, max)| format!("`{min}` to `{max}`")).unwrap_or_default();
    let meaning = paragraph(setting.meaning);
    _ = writeln!(
        out,
        "| `{}` | `{}` | {} | {default} | {bounds} | {meaning} |",
        setting.key,
        setting.variable(),
        setting.kind
    );
}

/// The settings in effect, as a TOML file that would set them again. There are no secrets among them: settings name
/// the files that hold secrets.
pub fn print(config: &Config) -> String {
    let mut out = String::new();
    let mut section = "";
    for (setting, value) in config.shown() {
        let (this, name) = setting.key.split_once('.').unwrap_or((setting.key, ""));
        if this != section {
            section = this;
            _ = writeln!(out, "{}[{section}]", if out.is_empty() { "" } else { "\n" });
        }
        let bare = matches!(setting.kind, "number" | "true or false");
        let value = if bare { value } else { toml::Value::String(value).to_string() };
        _ = writeln!(out, "{name} = {value}");
    }
    out
}

fn paragraph(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
