//! deny.toml held without `cargo deny`, which is a program of its own: what licences dependencies have, which of them must not be
//! there, and where they come from. Advisories need a list from outside, and are looked up by `cargo deny check advisories`.

use serde::Deserialize;

/// What deny.toml says, as far as it is held here.
#[derive(Deserialize)]
pub struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// What `cargo metadata` says of all packages.
#[derive(Deserialize)]
pub struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// Nothing for the workspace's own.
    source: Option<String>,
}

/// What is wrong with the dependencies.
pub fn problems(rules: &Rules, metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let name = format!("{} {}", package.name, package.version);
        if let Some(ban) = rules.bans.deny.iter().find(|ban| ban.name == package.name) {
            problems.push(format!("{name} must not be there: {}", ban.reason));
        }
        let Some(source) = &package.source else { continue };
        if !source.starts_with("registry+") && !source.starts_with("sparse+") {
            problems.push(format!("{name} comes from {source}, and not from a registry"));
        }
        match &package.license {
            None => {
                problems.push(format!("{name} says no licence: read its files, and say in deny.toml what they are"))
            }
            Some(licence) if !is_allowed(licence, &rules.licenses.allow) => {
                problems.push(format!("{name} has the licence `{licence}`, which deny.toml does not allow"));
            }
            Some(_) => {}
        }
    }
    problems
}

/// Whether one may choose licences of the allowed ones under which the expression holds.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    // Crates of old write a slash for OR, which SPDX does not know.
    let parsed = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX);
    let allows = |required: &spdx::LicenseReq| {
        let required = required.to_string();
        allowed.contains(&required)
    };
    parsed.is_ok_and(|expression| expression.evaluate(allows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(packages: &str) -> Metadata {
        serde_json::from_str(&format!(r#"{{ "packages": [{packages}] }}"#)).expect("packages")
    }

    fn rules() -> Rules {
        toml::from_str(
            "[licenses]\nallow = [\"MIT\", \"Apache-2.0 WITH LLVM-exception\"]\n[bans]\ndeny = [{ crate = \"openssl\", reason = \"ring\" }]\n",
        )
        .expect("rules")
    }

    #[test]
    fn what_the_rules_do_not_allow_is_found() {
        let registry = r#""source": "registry+https://example.com/index", "version": "1""#;
        for (package, problem) in [
            (format!(r#"{{ "name": "a", "license": "MIT OR GPL-3.0-only", {registry} }}"#), None),
            (format!(r#"{{ "name": "a", "license": "GPL-3.0-only/MIT", {registry} }}"#), None),
            (format!(r#"{{ "name": "a", "license": "Apache-2.0 WITH LLVM-exception", {registry} }}"#), None),
            (format!(r#"{{ "name": "a", "license": "Apache-2.0", {registry} }}"#), Some("does not allow")),
            (format!(r#"{{ "name": "a", "license": "MIT AND ISC", {registry} }}"#), Some("does not allow")),
            (format!(r#"{{ "name": "a", "license": "a licence", {registry} }}"#), Some("does not allow")),
            (format!(r#"{{ "name": "a", "license": null, {registry} }}"#), Some("says no licence")),
            (format!(r#"{{ "name": "openssl", "license": "MIT", {registry} }}"#), Some("must not be there: ring")),
            (
                r#"{ "name": "a", "license": "MIT", "version": "1", "source": "git+https://example.com/a" }"#
                    .to_owned(),
                Some("not from a registry"),
            ),
            (r#"{ "name": "own", "license": null, "version": "1", "source": null }"#.to_owned(), None),
        ] {
            let found = problems(&rules(), &metadata(&package));
            match problem {
                None => assert!(found.is_empty(), "{package}: {found:?}"),
                Some(problem) => assert!(found.len() == 1 && found[0].contains(problem), "{package}: {found:?}"),
            }
        }
    }
}
