//! Who answers in a new workspace: asked for, named with `--provider`, or whoever can be found from here.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::cli::context::Makers;
use crate::cli::{CliError, Context};
use crate::templates::ModelSource;

/// How long a local Ollama may take to answer.
const OLLAMA_WAIT: Duration = Duration::from_secs(2);
/// The longest answer that is read of it, in bytes.
const OLLAMA_BYTES_MAX: u64 = 1 << 20;
/// Where Ollama listens unless told otherwise.
const OLLAMA_ADDRESS: &str = "127.0.0.1:11434";
/// The models that are written where nobody says another one.
const OPENAI_MODEL: &str = "gpt-5-mini";
const ANTHROPIC_MODEL: &str = "claude-sonnet-4-5";
const OLLAMA_MODEL: &str = "llama3.2";

/// Who answers the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Maker {
    /// OpenAI, with the key in the node's OPENAI_API_KEY.
    #[value(name = "openai")]
    OpenAi,
    /// Anthropic, with the key in the node's ANTHROPIC_API_KEY.
    Anthropic,
    /// Ollama on the node's machine; no key.
    Ollama,
    /// The examples of the templates; no model and no key.
    Demo,
}

/// What was found from here.
#[derive(Debug, Default)]
struct Found {
    openai_key: bool,
    anthropic_key: bool,
    /// The models of a local Ollama that can answer, the best known first, if there is an Ollama.
    ollama: Option<Vec<String>>,
}

impl Found {
    fn look(makers: &Makers) -> Found {
        let address = makers.ollama_host.as_deref().unwrap_or(OLLAMA_ADDRESS);
        Found {
            openai_key: makers.openai_key,
            anthropic_key: makers.anthropic_key,
            ollama: models_of_ollama(&address_of(address)),
        }
    }

    /// Whoever can answer without anything more.
    fn best(&self) -> Maker {
        match self {
            Found { openai_key: true, .. } => Maker::OpenAi,
            Found { anthropic_key: true, .. } => Maker::Anthropic,
            Found { ollama: Some(models), .. } if !models.is_empty() => Maker::Ollama,
            Found { .. } => Maker::Demo,
        }
    }

    fn source(&self, maker: Maker) -> ModelSource {
        match maker {
            Maker::OpenAi => ModelSource::OpenAi { model: OPENAI_MODEL.to_owned() },
            Maker::Anthropic => ModelSource::Anthropic { model: ANTHROPIC_MODEL.to_owned() },
            Maker::Ollama => {
                let first = self.ollama.iter().flatten().next().map_or(OLLAMA_MODEL, String::as_str);
                ModelSource::Ollama { model: first.to_owned() }
            }
            Maker::Demo => ModelSource::Demo,
        }
    }

    /// What is known of a maker, in a few words.
    fn known(&self, maker: Maker) -> String {
        match (maker, &self.ollama) {
            (Maker::OpenAi, _) if self.openai_key => "OPENAI_API_KEY is set here".to_owned(),
            (Maker::OpenAi, _) => "needs OPENAI_API_KEY".to_owned(),
            (Maker::Anthropic, _) if self.anthropic_key => "ANTHROPIC_API_KEY is set here".to_owned(),
            (Maker::Anthropic, _) => "needs ANTHROPIC_API_KEY".to_owned(),
            (Maker::Ollama, Some(models)) if models.is_empty() => {
                "it runs here, and has no model that answers yet".to_owned()
            }
            (Maker::Ollama, Some(models)) => format!("it runs here, with {}", models[0]),
            (Maker::Ollama, None) => "it does not answer here".to_owned(),
            (Maker::Demo, _) => "answers from the templates' examples; no model, no key".to_owned(),
        }
    }

    /// What is still to be done before the first question.
    fn next(&self, maker: Maker) -> Option<String> {
        match (maker, &self.ollama) {
            (Maker::OpenAi, _) => Some(key("OPENAI_API_KEY", self.openai_key)),
            (Maker::Anthropic, _) => Some(key("ANTHROPIC_API_KEY", self.anthropic_key)),
            (Maker::Ollama, Some(models)) if models.is_empty() => Some(format!("`ollama pull {OLLAMA_MODEL}`")),
            (Maker::Ollama, None) => Some(format!("start Ollama, and `ollama pull {OLLAMA_MODEL}`")),
            (Maker::Ollama, Some(_)) | (Maker::Demo, _) => None,
        }
    }
}

fn key(name: &str, set: bool) -> String {
    let here = if set { "it is set here" } else { "set it" };
    format!("the node reads {name} when it starts: {here}, and start `caxton serve` from the same shell")
}

/// A provider for a new workspace.
pub struct Choice {
    /// What is written.
    pub source: ModelSource,
    /// Its name for `--provider`.
    pub name: &'static str,
    /// What a person has to do before it answers, if anything.
    pub next: Option<String>,
}

/// The one that is named; else the one that a person chooses; else whoever can be found.
pub fn choose(named: Option<Maker>, context: &Context) -> Result<Choice, CliError> {
    let found = Found::look(&context.makers);
    let maker = match named {
        Some(maker) => maker,
        None if context.out.can_ask() => ask(&found, context)?,
        None => found.best(),
    };
    Ok(Choice { source: found.source(maker), name: name(maker), next: found.next(maker) })
}

const ALL: [Maker; 4] = [Maker::OpenAi, Maker::Anthropic, Maker::Ollama, Maker::Demo];

fn name(maker: Maker) -> &'static str {
    match maker {
        Maker::OpenAi => "openai",
        Maker::Anthropic => "anthropic",
        Maker::Ollama => "ollama",
        Maker::Demo => "demo",
    }
}

fn ask(found: &Found, context: &Context) -> Result<Maker, CliError> {
    let best = found.best();
    context.out.note("Who answers in this workspace?");
    for (at, maker) in ALL.into_iter().enumerate() {
        context.out.note(format_args!("  {}  {:<10}  {}", at + 1, name(maker), found.known(maker)));
    }
    loop {
        context.out.note(format_args!("Type a number or a name, or nothing for {}:", name(best)));
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        let bytes = read.map_err(|error| CliError::new("io", "the terminal cannot be read").source(error))?;
        let answer = answer.trim();
        let by_number = answer.parse::<usize>().ok().and_then(|number| ALL.get(number.checked_sub(1)?)).copied();
        match by_number.or_else(|| ALL.into_iter().find(|maker| name(*maker) == answer)) {
            Some(maker) => return Ok(maker),
            None if answer.is_empty() || bytes == 0 => return Ok(best),
            None => context.out.note(format_args!("`{answer}` is none of them.")),
        }
    }
}

/// Host and port of what OLLAMA_HOST says.
fn address_of(text: &str) -> String {
    let bare = text.trim().trim_start_matches("http://").split('/').next().unwrap_or_default();
    let bare = bare.replace("0.0.0.0", "127.0.0.1");
    if bare.contains(':') { bare } else { format!("{bare}:11434") }
}

/// The names of its models that can answer, if an Ollama is there at once; the one that we would name comes first.
fn models_of_ollama(address: &str) -> Option<Vec<String>> {
    let target = address.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&target, OLLAMA_WAIT).ok()?;
    stream.set_read_timeout(Some(OLLAMA_WAIT)).ok()?;
    stream.set_write_timeout(Some(OLLAMA_WAIT)).ok()?;
    write!(stream, "GET /api/tags HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(OLLAMA_BYTES_MAX).read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.") || head.split(' ').nth(1) != Some("200") {
        return None;
    }
    let tags: serde_json::Value = serde_json::from_str(body.trim()).ok()?;
    let name = |model: &serde_json::Value| model["name"].as_str().filter(|name| is_plain(name)).map(str::to_owned);
    let answering = tags["models"].as_array()?.iter().filter(|model| !only_embeds(model));
    let mut names: Vec<String> = answering.filter_map(name).collect();
    names.sort_by_key(|name| name.split(':').next() != Some(OLLAMA_MODEL));
    Some(names)
}

/// Whether a model of Ollama's list makes vectors of texts and answers nothing.
fn only_embeds(model: &serde_json::Value) -> bool {
    let texts = [&model["name"], &model["details"]["family"]].map(|text| text.as_str().unwrap_or_default());
    let [name, family] = texts.map(str::to_ascii_lowercase);
    ["embed", "minilm", "bge-"].iter().any(|part| name.contains(part)) || family.contains("bert")
}

/// Whether a model's name can be written into a file as it is.
fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    (1..=200).contains(&name.len()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An Ollama that answers one question.
    fn ollama(body: &'static str) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let answer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut asked = [0; 512];
            let read = stream.read(&mut asked).expect("a request");
            assert!(asked[..read].starts_with(b"GET /api/tags"));
            write!(stream, "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}").expect("answered");
        });
        (address, answer)
    }

    #[test]
    fn a_local_ollama_says_its_models() {
        let (address, answered) =
            ollama(r#"{"models":[{"name":"qwen3:8b"},{"name":"bad\"name"},{"name":"llama3.2:latest"}]}"#);
        let makers = Makers { ollama_host: Some(format!("http://{address}/")), ..Makers::default() };
        let found = Found::look(&makers);
        answered.join().expect("asked");
        assert_eq!(found.ollama.as_deref(), Some(["llama3.2:latest".to_owned(), "qwen3:8b".to_owned()].as_slice()));
        assert_eq!(found.best(), Maker::Ollama);
        assert_eq!(found.source(Maker::Ollama), ModelSource::Ollama { model: "llama3.2:latest".to_owned() });
        assert_eq!(found.next(Maker::Ollama), None);
    }

    #[test]
    fn a_model_that_only_embeds_is_not_asked() {
        let found = |body| {
            let (address, answered) = ollama(body);
            let found = Found::look(&Makers { ollama_host: Some(address), ..Makers::default() });
            answered.join().expect("asked");
            found
        };
        let both = found(
            r#"{"models":[{"name":"nomic-embed-text:latest"},{"name":"x","details":{"family":"nomic-bert"}},{"name":"qwen3:8b"}]}"#,
        );
        assert_eq!(both.source(Maker::Ollama), ModelSource::Ollama { model: "qwen3:8b".to_owned() });
        let none = found(r#"{"models":[{"name":"mxbai-embed-large"}]}"#);
        assert_eq!(none.best(), Maker::Demo, "nobody here can answer");
        assert!(none.next(Maker::Ollama).is_some_and(|next| next.contains("ollama pull llama3.2")));
    }

    #[test]
    fn without_anything_the_demo_answers_and_a_key_comes_first() {
        let (address, answered) = ollama("no json");
        let makers = Makers { ollama_host: Some(address), ..Makers::default() };
        let nothing = Found::look(&makers);
        answered.join().expect("asked");
        assert_eq!((nothing.best(), nothing.ollama.as_ref()), (Maker::Demo, None));
        assert!(nothing.next(Maker::Ollama).is_some_and(|next| next.contains("ollama pull")));
        let keys = Found { openai_key: false, anthropic_key: true, ollama: Some(vec!["m".to_owned()]) };
        assert_eq!(keys.best(), Maker::Anthropic);
        assert!(keys.next(Maker::Anthropic).is_some_and(|next| next.contains("it is set here")));
        assert_eq!(address_of("0.0.0.0"), "127.0.0.1:11434");
    }
}
