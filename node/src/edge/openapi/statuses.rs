//! What holds for every operation alike: an id of its own, and the statuses that no handler has to write down, because they come
//! from what is around it: the token, the body, the limits, the time, and the node's state.

use std::collections::HashMap;

use axum::http::Method;
use utoipa::PartialSchema;
use utoipa::openapi::path::{HttpMethod, Operation, PathItem};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::edge::extract::Needs;
use crate::edge::routes::{Owner, Route, TimeLimit};

/// The methods that the API has, as the description and the table of routes write them.
const METHODS: [(HttpMethod, Method); 4] = [
    (HttpMethod::Get, Method::GET),
    (HttpMethod::Post, Method::POST),
    (HttpMethod::Put, Method::PUT),
    (HttpMethod::Delete, Method::DELETE),
];

/// Completes a description.
pub fn complete(document: &mut utoipa::openapi::OpenApi) {
    let (_, table) = crate::edge::all_routes().into_parts();
    // A part that takes slashes is written with a star for axum only.
    let routes: HashMap<(String, Method), &Route> =
        table.all().map(|route| ((route.path.replace("{*", "{"), route.method.clone()), route)).collect();
    let mut ids: HashMap<String, usize> = HashMap::new();
    for item in document.paths.paths.values_mut() {
        for (method, _) in &METHODS {
            if let Some(id) = operation(item, method).and_then(|operation| operation.operation_id.clone()) {
                *ids.entry(id).or_default() += 1;
            }
        }
    }
    for (path, item) in &mut document.paths.paths {
        for (method, name) in &METHODS {
            let Some(operation) = operation(item, method) else { continue };
            let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
            if let Some(id) = operation.operation_id.as_mut().filter(|id| ids.get(*id).is_some_and(|count| *count > 1))
            {
                *id = format!("{tag}_{id}");
            }
            if let Some(route) = routes.get(&(path.clone(), name.clone())) {
                add_statuses(operation, route, path.starts_with("/v1/"));
            }
        }
    }
}

fn operation<'a>(item: &'a mut PathItem, method: &HttpMethod) -> Option<&'a mut Operation> {
    match method {
        HttpMethod::Get => item.get.as_mut(),
        HttpMethod::Post => item.post.as_mut(),
        HttpMethod::Put => item.put.as_mut(),
        HttpMethod::Delete => item.delete.as_mut(),
        _ => None,
    }
}

fn add_statuses(operation: &mut Operation, route: &Route, is_foreign: bool) {
    let has_token = route.needs != Needs::Nothing;
    let has_body = operation.request_body.is_some();
    let has_input = has_body || operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty());
    let has_place = route.path.contains('{') || is_foreign;
    let is_led = route.owner != Owner::Anyone;
    let changes = route.method != Method::GET;
    let probes = [crate::api::paths::HEALTH.text(), crate::api::paths::READY.text()];
    let is_probe = probes.contains(&route.path);
    let statuses: [(&str, bool, &str); 12] = [
        ("400", has_input, "The request is not valid: `invalid_request`."),
        ("401", has_token, "No token, or one that is not valid: `unauthorized`."),
        ("403", has_token && route.needs != Needs::Token, "The token does not allow this: `forbidden`."),
        ("404", has_place, "There is none of that name: `not_found`."),
        ("409", has_body && is_led, "Something else came first: `conflict`."),
        ("413", has_body, "The body is too large: `body_too_large`."),
        ("415", has_body, "The body has a format that is not taken: `unsupported_media_type`."),
        ("429", !is_probe, "Too many at once: `too_many_requests`, with `Retry-After`."),
        ("500", true, "The server failed: `internal`."),
        ("503", true, "Not now: `unavailable`, with `Retry-After` where nothing was done."),
        ("504", route.time == TimeLimit::Usual, "It took too long: `timeout`."),
        ("507", changes && is_led, "The disk is full: `disk_full`."),
    ];
    for (status, holds, description) in statuses {
        if holds && !operation.responses.responses.contains_key(status) {
            let response = RefOr::T(problem(description, is_foreign));
            operation.responses.responses.insert(status.to_owned(), response);
        }
    }
}

fn problem(description: &str, is_foreign: bool) -> Response {
    let (media_type, schema) = match is_foreign {
        true => ("application/json", serde_json::Value::schema()),
        false => ("application/problem+json", RefOr::Ref(Ref::from_schema_name("Problem"))),
    };
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content(media_type, content).build()
}
