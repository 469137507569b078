//! How problems are found again, sorted and shown.

use super::*;

#[test]
fn a_key_and_an_item_of_its_list_are_found_again() {
    let at = |keys: &[&str], item| locate(FLAT, keys, item).map(|span| &FLAT[span]);
    assert_eq!(at(&["tools"], Some("csv")), Some("\"csv\""));
    assert_eq!(at(&["tools"], Some("gone")), Some("tools"));
    assert_eq!(at(&["limits", "wall_time"], None), Some("\"30s\""));
    assert_eq!(at(&["limits", "nothing"], None), None);
    assert_eq!(locate("= broken", &["a"], None), None);
}

#[test]
fn problems_are_sorted_and_counted() {
    let error = |path: &str| Diagnostic::error("x", path, "m");
    let mut found = vec![error("b"), Diagnostic::warning("x", "a", "m"), error("a")];
    diagnostic::sort(&mut found);
    let paths: Vec<_> = found.iter().map(|d| (d.path.as_str(), d.severity)).collect();
    assert_eq!(paths, [("a", found[0].severity), ("a", found[1].severity), ("b", found[2].severity)]);
    assert!(found[0].severity < found[1].severity);
    assert_eq!(diagnostic::count(&found), "2 errors and 1 warning in 2 files");
    assert_eq!(diagnostic::count(&[]), "no problems");
}

#[test]
fn a_terminal_is_safe_from_what_a_file_holds() {
    let long = format!("name = \"a\"\ncapabilities = [\"x\"]\n\"\\u001b[2Jbad\" = \"{}\"\n", "y".repeat(500));
    let shown = agent(&long);
    assert!(!shown.contains('\x1b'), "{shown:?}");
    assert!(shown.lines().all(|line| line.chars().count() < 320), "{shown}");
    let colored = AgentManifest::read(&path("agents/a.toml"), &long).1[0].render(Color::Always);
    assert!(colored.starts_with("\x1b[1;31merror[unknown_key]\x1b[0m"), "{colored:?}");
}

#[test]
fn a_mark_stands_below_what_it_marks_also_after_tabs_and_wide_letters() {
    assert_snapshot!(agent("name = \"a\"\ncapabilities = [\"日本\",\t1, \"x\"]\n"), @r#"
    error[bad_value]: `日本` is not a capability's name
     --> agents/a.toml:2:17
      |
    2 | capabilities = ["日本",    1, "x"]
      |                 ^^^^^^ the capability name `日本` has '日' in it; use lower-case letters, digits and `-`, and start with a letter or digit

    error[wrong_type]: `capabilities` has to be text
     --> agents/a.toml:2:23
      |
    2 | capabilities = ["日本",    1, "x"]
      |                            ^ this is an integer

    2 errors in 1 file
    "#);
}

#[test]
fn a_diagnostic_crosses_the_wire() {
    let found = AgentManifest::read(&path("agents/a.toml"), "nam = 1\n").1;
    let text = serde_json::to_string(&found).expect("json");
    assert_eq!(serde_json::from_str::<Vec<Diagnostic>>(&text).expect("diagnostics"), found);
    let newer = r#"{"severity":"error","code":"from_the_future","message":"m","path":"p","more":1}"#;
    assert!(serde_json::from_str::<Diagnostic>(newer).is_ok());
}
