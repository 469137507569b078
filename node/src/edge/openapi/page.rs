//! The API's description as one page of HTML: no script, nothing fetched from elsewhere.

use std::fmt::Write;

use serde_json::Value;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1,h2,h3{line-height:1.2}h2{border-bottom:1px solid #ccc;padding-bottom:.2rem;margin-top:2.5rem}\
code,pre{font:14px/1.45 ui-monospace,monospace}summary{cursor:pointer;padding:.4rem 0}\
details{border-bottom:1px solid #eee}details>div{padding:0 0 1rem 1.2rem}table{border-collapse:collapse;width:100%}\
td,th{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #eee}\
.m{display:inline-block;min-width:4.5rem;font-weight:700;text-transform:uppercase}nav a{margin-right:1rem}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#16181c}a{color:#8ab4f8}\
h2,details,td,th{border-color:#3a3d44}}";

/// The page for an OpenAPI document.
pub fn page(document: &Value) -> String {
    let mut out = String::new();
    let title = text(&document["info"]["title"]);
    let tags: Vec<&str> = list(&document["tags"]).filter_map(|tag| tag["name"].as_str()).collect();
    _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title} API</title><style>{STYLE}</style></head><body><h1>{title} API</h1>\
         <p>{}</p><p>Version {}. The same for programs: <a href=\"/api/v1/openapi.json\">openapi.json</a>.</p><nav>",
        prose(&document["info"]["description"]),
        text(&document["info"]["version"])
    );
    tags.iter().for_each(|tag| _ = write!(out, "<a href=\"#{tag}\">{tag}</a>"));
    out.push_str("<a href=\"#schemas\">schemas</a></nav>");
    for tag in list(&document["tags"]) {
        section(&mut out, document, tag);
    }
    out.push_str("<h2 id=\"schemas\">schemas</h2>");
    let schemas = document["components"]["schemas"].as_object();
    for (name, schema) in schemas.into_iter().flatten() {
        let name = escape(name);
        _ = write!(out, "<details id=\"schema-{name}\"><summary><code>{name}</code></summary><div>");
        _ = write!(out, "<p>{}</p>", prose(&schema["description"]));
        let pretty = serde_json::to_string_pretty(schema).unwrap_or_default();
        if schema["properties"].is_object() {
            properties(&mut out, schema)
        } else {
            _ = write!(out, "<pre>{}</pre>", escape(&pretty))
        }
        out.push_str("</div></details>");
    }
    out.push_str("</body></html>\n");
    out
}

fn section(out: &mut String, document: &Value, tag: &Value) {
    let name = text(&tag["name"]);
    _ = write!(out, "<h2 id=\"{name}\">{name}</h2><p>{}</p>", prose(&tag["description"]));
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            let operation = &item[method];
            if list(&operation["tags"]).any(|own| own == &tag["name"]) {
                route(out, method, path, operation);
            }
        }
    }
}

fn route(out: &mut String, method: &str, path: &str, operation: &Value) {
    _ = write!(
        out,
        "<details><summary><span class=\"m\">{method}</span> <code>{}</code> &ndash; {}</summary><div><p>{}</p>",
        escape(path),
        prose(&operation["summary"]),
        prose(&operation["description"])
    );
    if list(&operation["parameters"]).next().is_some() {
        out.push_str("<h3>Parameters</h3><table>");
        for parameter in list(&operation["parameters"]) {
            _ = write!(
                out,
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                text(&parameter["name"]),
                text(&parameter["in"]),
                prose(&parameter["description"])
            );
        }
        out.push_str("</table>");
    }
    for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        _ = write!(out, "<h3>Body</h3><p><code>{}</code> {}</p>", escape(kind), reference(&content["schema"]));
    }
    out.push_str("<h3>Answers</h3><table>");
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        _ = write!(out, "<tr><td>{}</td><td>{}</td><td>", escape(status), prose(&answer["description"]));
        for (kind, content) in answer["content"].as_object().into_iter().flatten() {
            _ = write!(out, "<code>{}</code> {} ", escape(kind), reference(&content["schema"]));
        }
        out.push_str("</td></tr>");
    }
    out.push_str("</table></div></details>");
}

fn properties(out: &mut String, schema: &Value) {
    out.push_str("<table>");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let wanted = list(&schema["required"]).any(|required| required == name);
        let wanted = if wanted { "" } else { " (may be left out)" };
        let (name, kind, about) = (escape(name), reference(property), prose(&property["description"]));
        _ = write!(out, "<tr><td><code>{name}</code></td><td>{kind}{wanted}</td><td>{about}</td></tr>");
    }
    out.push_str("</table>");
}

/// A schema in a word or two, with a link when it has a name.
fn reference(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    let options = ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|key| list(&schema[key]));
    let options: Vec<_> = options.filter(|option| option["type"] != "null").map(reference).collect();
    if !options.is_empty() {
        return options.join(" or ");
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => format!("list of {}", reference(&schema["items"])),
        Value::String(kind) => escape(kind),
        Value::Array(kinds) => {
            let kinds: Vec<_> = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
            if kinds == ["array"] {
                format!("list of {}", reference(&schema["items"]))
            } else {
                escape(&kinds.join(" or "))
            }
        }
        _ => "any".to_owned(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

/// Text with `code` in backquotes.
fn prose(value: &Value) -> String {
    let escaped = text(value);
    let parts: Vec<&str> = escaped.split('`').collect();
    let last = parts.len() - 1;
    let mark = |(at, part): (usize, &&str)| {
        if at % 2 == 1 && at < last { format!("<code>{part}</code>") } else { (*part).to_owned() }
    };
    parts.iter().enumerate().map(mark).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
