//! The description and the router agree, and docs/openapi.json is what the code says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::edge::routes::Route;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every `METHOD path` of the router's own table but the calls of gRPC, which the published .proto files describe.
fn routed() -> BTreeSet<String> {
    let (_, table) = crate::edge::all_routes().into_parts();
    // A part that takes slashes is written with a star for axum only.
    let line = |route: &Route| {
        format!("{} {}", route.method, route.path.replace("{*", "{")).replacen(
            route.method.as_str(),
            &route.method.as_str().to_lowercase(),
            1,
        )
    };
    let (_, described) = crate::edge::grpc::routes().into_parts();
    table.all().filter(|route| described.find(&route.method, route.path).is_none()).map(line).collect()
}

fn documented() -> BTreeSet<String> {
    let document = serde_json::to_value(document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").iter();
    paths
        .flat_map(|(path, item)| item.as_object().expect("methods").keys().map(move |m| format!("{m} {path}")))
        .collect()
}

#[test]
fn every_route_is_in_the_description_and_the_other_way_round() {
    let (routed, documented) = (routed(), documented());
    assert_eq!(routed, documented);
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    let json = json();
    let document: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let names: BTreeSet<&str> =
        json.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.contains("Problem"));
    for name in names {
        assert!(document["components"]["schemas"][name].is_object(), "no schema {name}");
    }
}

/// Of two types with one name the description would have only one, and clients that are made from it would read the other wrong.
#[test]
fn no_two_types_have_one_name() {
    let mut known = std::collections::BTreeMap::new();
    for part in parts() {
        for (name, schema) in part.components.map(|components| components.schemas).unwrap_or_default() {
            let schema = serde_json::to_value(&schema).expect("JSON");
            let before = known.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*before, schema, "two types are called {name}");
        }
    }
    assert!(known.contains_key("Problem"), "{:?}", known.keys());
}

#[test]
fn the_page_shows_every_route_and_fetches_nothing() {
    let page = PAGE.as_str();
    for route in documented() {
        let (_, path) = route.split_once(' ').expect("two words");
        assert!(page.contains(&format!("<code>{path}</code>")), "{path} is not on the page");
    }
    for fetched in ["<script", "http://", "https://"] {
        let found = page.split_once(fetched).map(|(_, after)| after.chars().take(60).collect::<String>());
        assert_eq!(found, None, "{fetched} is on the page");
    }
}

#[test]
fn docs_openapi_json_is_what_the_code_says() {
    let path = root().join("docs/openapi.json");
    let expected = json();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("docs/ can be made");
        std::fs::write(&path, &expected).expect("docs/openapi.json can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/openapi.json is old: run UPDATE_DOCS=1 cargo test -p caxton --lib openapi");
}
