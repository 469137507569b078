//! What an HTTP server that wants a token says of where to get one (RFC 6750, RFC 9728), in words for whoever deploys it.

use caxton_proto::manifest::address::HostPattern;
use serde_json::Value;
use std::time::Duration;

use crate::network::{FetchRequest, Fetcher};

/// How long the server is asked where tokens come from.
const METADATA_TIME_MAX: Duration = Duration::from_secs(5);
/// Characters of anything that the server says.
const TOLD_CHARS_MAX: usize = 200;

/// Says what is missing. `challenge` is the header `WWW-Authenticate`; the server's own words about its tokens are fetched
/// if the workspace may reach them.
pub(super) async fn explain(
    challenge: &str,
    url: &str,
    has_token: bool,
    rules: &[HostPattern],
    fetcher: &Fetcher,
) -> String {
    let mut what = match (has_token, parameter(challenge, "error_description")) {
        (false, _) => "it wants a token, and tool.toml names none".to_owned(),
        (true, None) => "it wants a token that it accepts, and refuses the one that it is given".to_owned(),
        (true, Some(why)) => format!("it wants a token that it accepts, and refuses the one that it is given ({why})"),
    };
    let named = parameter(challenge, "resource_metadata");
    let place = named.clone().or_else(|| well_known(url));
    let metadata = match &place {
        Some(place) => fetch(place, rules, fetcher).await,
        None => None,
    };
    let issuers = metadata.as_ref().map(|metadata| list(metadata, "authorization_servers")).unwrap_or_default();
    let scopes = match parameter(challenge, "scope") {
        Some(scope) => Some(scope),
        None => metadata.as_ref().map(|metadata| list(metadata, "scopes_supported")).filter(|list| !list.is_empty()),
    };
    match (issuers.as_str(), named) {
        ("", None) => {}
        ("", Some(place)) => what.push_str(&format!("; {place} says who gives tokens for it")),
        (issuers, _) => what.push_str(&format!("; {issuers} gives tokens for it (OAuth)")),
    }
    if let Some(scopes) = scopes {
        what.push_str(&format!(", with the scope {scopes}"));
    }
    what.push_str(
        ". Get one there, keep it with `caxton secrets set NAME`, and name it in tool.toml as bearer = \"secret:NAME\"",
    );
    what
}

/// A parameter of the challenge, quoted or not.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    loop {
        let at = rest.find(name)?;
        let before = rest[..at].chars().next_back();
        let after = rest[at + name.len()..].trim_start();
        if before.is_none_or(|c| c == ' ' || c == ',' || c == '\t')
            && let Some(value) = after.strip_prefix('=')
        {
            let value = value.trim_start();
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => value.split([',', ' ']).next(),
            };
            return value.map(clean).filter(|value| !value.is_empty());
        }
        rest = &rest[at + name.len()..];
    }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TOLD_CHARS_MAX).collect()
}

/// Where a server says who gives its tokens when it does not name the place.
fn well_known(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    Some(format!("{scheme}://{host}/.well-known/oauth-protected-resource{path}"))
}

async fn fetch(url: &str, rules: &[HostPattern], fetcher: &Fetcher) -> Option<Value> {
    let request = FetchRequest { method: "GET".into(), url: url.to_owned(), headers: Vec::new(), body: Vec::new() };
    let fetched = tokio::time::timeout(METADATA_TIME_MAX, fetcher.fetch(request, rules)).await.ok()?.ok()?;
    (fetched.status == 200).then(|| serde_json::from_slice(&fetched.body).ok())?
}

fn list(metadata: &Value, key: &str) -> String {
    let entries = metadata.get(key).and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(Value::as_str).take(4).map(clean).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_as_servers_write_them() {
        let challenge = "Bearer realm=\"x scope=y\", error=\"invalid_token\", error_description=\"it is expired\", \
                         resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource\", scope=read";
        for (name, value) in [
            ("error", Some("invalid_token")),
            ("error_description", Some("it is expired")),
            ("resource_metadata", Some("https://mcp.example.com/.well-known/oauth-protected-resource")),
            ("missing", None),
        ] {
            assert_eq!(parameter(challenge, name).as_deref(), value, "{name}");
        }
        assert_eq!(parameter("Bearer", "scope"), None);
        assert_eq!(parameter("Bearer scope=\"a b\"", "scope").as_deref(), Some("a b"));
        assert_eq!(parameter("scope", "scope"), None);
    }

    #[test]
    fn the_well_known_place_has_the_path_behind_it() {
        let place = "https://mcp.example.com/.well-known/oauth-protected-resource";
        assert_eq!(well_known("https://mcp.example.com").as_deref(), Some(place));
        assert_eq!(well_known("https://mcp.example.com/a/mcp?x=1"), Some(format!("{place}/a/mcp")));
    }
}
