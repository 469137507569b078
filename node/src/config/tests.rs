//! The settings' rules, as facts.

use super::*;

fn here() -> Home {
    Home { home: Some("/home/ada".into()), data: None }
}

fn file(text: &str) -> Draft {
    let mut draft = Draft::default();
    draft.text(Path::new("node.toml"), text);
    draft
}

fn problems(draft: Draft) -> Vec<String> {
    let Err(problems) = draft.check(&here()) else { return Vec::new() };
    let line = |it: &Problem| match &it.help {
        Some(help) => format!("{}: {} ({help})", it.source, it.message),
        None => format!("{}: {}", it.source, it.message),
    };
    problems.0.iter().map(line).collect()
}

#[test]
fn a_node_needs_no_settings() {
    let config = Draft::default().check(&here()).expect("defaults are whole");
    assert!(config.http.bind.ip().is_loopback());
    assert_eq!(config.data.dir, Path::new("/home/ada/.local/share/caxton"));
    assert_eq!(config.disk.reserve_bytes, ByteSize(128 << 20));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let mut draft = file("[http]\nbind = '127.0.0.1:1'\nrequests_max = 5\n[stop]\ngrace = '1s'\n");
    draft.environment([("CAXTON_HTTP_BIND".to_owned(), "127.0.0.1:2".to_owned())]);
    draft.environment([("CAXTON_STOP_GRACE".to_owned(), "2s".to_owned())]);
    draft.flag("--bind", "http.bind", "127.0.0.1:3".to_owned());
    let config = draft.check(&here()).expect("all are right");
    let seen = (config.http.bind.port(), config.http.requests_max, config.stop.grace.as_secs());
    assert_eq!(seen, (3, 5, 2));
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let mut draft = file("[http]\nbnd = 'x'\ntimeout = 30\n\n[raft]\nelection_max = '1d'\n[deplo]\nfiles_max = 1\n");
    draft.environment([
        ("CAXTON_HTTP_BIDN".to_owned(), "127.0.0.1:2".to_owned()),
        ("CAXTON_TLS_MODE".to_owned(), "never".to_owned()),
    ]);
    draft.set("http.requests_max=lots");
    draft.set("nonsense");
    let expected = [
        "node.toml:2: there is no setting `http.bnd` (did you mean `http.bind`?)",
        "node.toml:8: there is no setting `deplo.files_max` (did you mean `deploy.files_max`?)",
        "environment variable CAXTON_HTTP_BIDN: there is no setting `CAXTON_HTTP_BIDN` (did you mean `CAXTON_HTTP_BIND`?)",
        "flag --set: \"nonsense\" has no `=` (write it as in `--set http.timeout=10s`)",
        "flag --set http.requests_max: `http.requests_max` is \"lots\", and a whole number is wanted (the default is `1024`)",
        "node.toml:3: `http.timeout` is \"30\", and a duration is wanted: a whole number with `ms`, `s`, `m`, `h` or `d` (the default is `30s`)",
        "environment variable CAXTON_TLS_MODE: `tls.mode` is \"never\", and one of `auto`, `always` is wanted (the default is `auto`)",
        "node.toml:6: `raft.election_max` is 1d, and has to be between 100ms and 120s",
    ];
    assert_eq!(problems(draft), expected);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let draft = file(
        "[raft]\nheartbeat = '400ms'\n[tls]\nkey_file = 'k.pem'\n[telemetry]\notlp_endpoint = 'here'\nfilter = 'a=b=c'\n",
    );
    let found = problems(draft);
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("default: `raft.election_min` is less than three times"), "{found:#?}");
    assert!(found[1].starts_with("default: `tls.certificate_file` is missing"), "{found:#?}");
}

#[test]
fn the_settings_of_a_cluster_fit_together() {
    let found = problems(file("[cluster]\nbind = '0.0.0.0:7412'\njoin = ['node1']\n"));
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("`cluster.advertise` is missing"), "{found:#?}");
    assert!(found[1].contains("`cluster.join` has \"node1\" in it, which has no port"), "{found:#?}");
    assert!(found[2].contains("`cluster.token_file` is missing"), "{found:#?}");
    let good = "[cluster]\nbind = '0.0.0.0:7412'\nadvertise = 'a:1'\njoin = ['b:1']\nsecret_file = 's'\n";
    assert!(problems(file(good)).is_empty());
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_line() {
    let found = problems(file("[http]\nbind = \n"));
    assert!(found[0].starts_with("node.toml:2: "), "{found:?}");
}

#[test]
fn what_kubernetes_puts_into_the_environment_is_no_problem() {
    let mut draft = Draft::default();
    draft.environment([("CAXTON_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned())]);
    draft.environment([("CAXTON_PORT_7411_TCP".to_owned(), "tcp://10.0.0.1:7411".to_owned())]);
    draft.environment([("CAXTON_TOKEN".to_owned(), "the client's".to_owned())]);
    assert_eq!(draft.warnings().len(), 2);
    assert!(draft.check(&here()).is_ok());
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let mut draft = file("[http]\nbind = '[::1]:9'\n[tls]\nnames = ['a', 'b']\n");
    draft.set("stop.grace=90s");
    let printed = print(&draft.check(&here()).expect("all are right"));
    let again = print(&file(&printed).check(&here()).expect("what was printed is right"));
    assert_eq!(printed, again);
    assert!(printed.contains("names = \"a,b\"") && printed.contains("grace = \"90s\""), "{printed}");
}

#[test]
fn every_default_lies_in_its_bounds_and_no_two_settings_share_a_variable() {
    assert!(problems(Draft::default()).is_empty());
    let names: std::collections::HashSet<_> = SETTINGS.iter().map(Setting::variable).collect();
    assert_eq!(names.len(), SETTINGS.len());
}

#[test]
fn docs_config_md_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let expected = markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("docs/ can be made");
        std::fs::write(&path, &expected).expect("docs/config.md can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/config.md is not what the table says: run UPDATE_DOCS=1 cargo test -p caxton --lib config"
    );
}
