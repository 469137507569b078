//! Who may do what, asked of every route that the router has with every kind of token; and whose conversation it is.

use caxton::authz::Permission;
use caxton::edge::all_routes;
use caxton::edge::extract::Needs;
use caxton_proto::log::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read, refused};
use crate::deploy::at;
use crate::messages::{talker, with};

/// For what a token is good.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reach {
    Everywhere,
    Demo,
    Elsewhere,
}

/// Somebody who asks.
struct Caller {
    role: Role,
    reach: Reach,
    token: String,
}

pub async fn token(bench: &Bench, subject: &str, role: Role, workspaces: &[&str]) -> String {
    let body = json!({ "subject": subject, "role": role.as_str(), "workspaces": workspaces, "ttl_s": 3600 });
    let (status, issued) = read(bench.request(Method::POST, "/api/v1/tokens").json(&body)).await;
    assert_eq!(status, 201, "{issued}");
    issued["token"].as_str().expect("a token").to_owned()
}

async fn callers(bench: &Bench) -> Vec<Caller> {
    let mut callers = Vec::new();
    for role in Role::ALL {
        for (reach, workspaces) in
            [(Reach::Everywhere, &[] as &[&str]), (Reach::Demo, &["demo"]), (Reach::Elsewhere, &["elsewhere"])]
        {
            callers.push(Caller { role, reach, token: token(bench, "somebody", role, workspaces).await });
        }
    }
    callers
}

/// A request of this route about the workspace `demo`. What its body says is no JSON, so that whoever is let in changes
/// nothing, but where the body names the workspace.
fn request(bench: &Bench, token: Option<&str>, method: &Method, path: &str) -> reqwest::RequestBuilder {
    let named = [("{workspace}", "demo"), ("{*id}", "demo/nobody")];
    let mut filled = named.iter().fold(path.to_owned(), |path, (part, value)| path.replace(part, value));
    while let Some((before, rest)) = filled.split_once('{') {
        filled = format!("{before}none-such{}", rest.split_once('}').map_or("", |(_, behind)| behind));
    }
    // Whoever may delete the workspace has not seen what is live there, and so deletes nothing.
    if (method.as_str(), path) == ("DELETE", "/api/v1/workspaces/{workspace}") {
        filled.push_str("?revision=1000");
    }
    let request = bench.client.request(method.clone(), format!("{}{filled}", bench.node.url()));
    let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
    match (method.as_str(), path) {
        ("GET" | "DELETE", _) => request,
        (_, "/v1/chat/completions") => {
            request.json(&json!({ "model": "demo/nobody", "messages": [{ "role": "user", "content": "x" }] }))
        }
        _ => request.header("content-type", "application/json").body("no JSON"),
    }
}

/// What the policy says of a request about `demo`.
fn is_let_in(needs: Needs, path: &str, caller: &Caller) -> bool {
    let in_demo = |permission: Permission| permission.is_of(caller.role) && caller.reach != Reach::Elsewhere;
    let names_a_workspace = ["/v1/chat/completions", "/v1/models/{*id}"].contains(&path);
    match needs {
        Needs::Nothing | Needs::Token => true,
        Needs::Workspace(permission) => in_demo(permission),
        Needs::Named(permission) => permission.is_of(caller.role) && (!names_a_workspace || in_demo(permission)),
        Needs::Cluster(permission) => permission.is_of(caller.role) && caller.reach == Reach::Everywhere,
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_the_policy_lets_in_and_nobody_else() {
    let bench = Bench::new(&[]).await;
    let callers = callers(&bench).await;
    let (_, table) = all_routes().into_parts();
    let mut wrong = Vec::new();
    for route in table.all() {
        let status = |token: Option<String>| {
            let request = request(&bench, token.as_deref(), &route.method, route.path);
            async move { request.send().await.expect("an answer").status().as_u16() }
        };
        let open = route.needs == Needs::Nothing;
        for bad in [None, Some("caxton_admin_0000".to_owned())] {
            let found = status(bad).await;
            if (found != 401) != open {
                wrong.push(format!("{} {}: {found} without a good token", route.method, route.path));
            }
        }
        for caller in &callers {
            let found = status(Some(caller.token.clone())).await;
            if (found != 401 && found != 403) != is_let_in(route.needs, route.path, caller) {
                let Caller { role, reach, .. } = caller;
                wrong.push(format!("{} {}: {found} for {role}, {reach:?}", route.method, route.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    bench.stop().await;
}

#[test]
fn every_permission_is_needed_by_a_route_or_widens_another() {
    let (_, table) = all_routes().into_parts();
    let needed: Vec<Permission> = table
        .all()
        .filter_map(|route| match route.needs {
            Needs::Workspace(permission) | Needs::Named(permission) | Needs::Cluster(permission) => Some(permission),
            Needs::Nothing | Needs::Token => None,
        })
        .collect();
    // These let somebody do to others' turns what `Converse` allows with one's own.
    let widening = [Permission::ReadConversations, Permission::StopTurns];
    for permission in Permission::ALL {
        assert!(needed.contains(permission) != widening.contains(permission), "{permission:?}");
    }
    let open: Vec<&str> = table.all().filter(|it| it.needs == Needs::Nothing).map(|it| it.path).collect();
    // Health in HTTP and gRPC, the descriptions of both, and the WebSocket, whose first frame may have the token.
    assert_eq!(open.len(), 9, "what is open to all: {open:?}");
    for route in table.all().filter(|it| matches!(it.needs, Needs::Workspace(_))) {
        assert!(route.path.contains("/{workspace}"), "{} names no workspace", route.path);
    }
}

#[tokio::test]
async fn a_conversation_belongs_to_whoever_began_it() {
    let bench = with(&talker("[[rule]]\nsay = \"hello\"\n", "")).await;
    let ada = token(&bench, "ada", Role::Caller, &["demo"]).await;
    let eve = token(&bench, "eve", Role::Caller, &["demo"]).await;
    let viewer = token(&bench, "victor", Role::Viewer, &["demo"]).await;
    let operator = token(&bench, "ops", Role::Deployer, &["demo"]).await;
    let say = |token: &str, conversation: &str| {
        let message = json!({ "text": "hi", "agent": "talker", "conversation": conversation, "create": true });
        bench.request_as(token, Method::POST, &at("/messages")).json(&message)
    };
    let get = |token: &str, path: &str| bench.request_as(token, Method::GET, &at(path));
    let (status, answer) = read(say(&ada, "hers")).await;
    assert_eq!(status, 200, "{answer}");
    let turn = format!("/turns/{}", answer["turn"].as_str().expect("an id"));
    assert_eq!(read(say(&eve, "evil")).await.0, 200);

    let problem = refused(say(&eve, "hers"), 403, "forbidden").await;
    assert!(problem["help"].as_str().is_some_and(|help| help.contains("conversation")), "{problem}");
    refused(say(&operator, "hers"), 403, "forbidden").await;
    assert_eq!(read(say(&ada, "hers")).await.0, 200, "she goes on with it");

    let listed = |body: &Value| -> Vec<String> {
        let ids = body["conversations"].as_array().expect("a list").iter();
        ids.map(|it| it["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(listed(&read(get(&ada, "/conversations")).await.1), ["hers"]);
    assert_eq!(listed(&read(get(&eve, "/conversations?limit=1")).await.1), ["evil"]);
    assert_eq!(listed(&read(get(&operator, "/conversations")).await.1).len(), 2);
    for path in ["/conversations/hers", turn.as_str()] {
        assert_eq!(read(get(&ada, path)).await.0, 200, "{path}");
        assert_eq!(read(get(&operator, path)).await.0, 200, "{path}");
        refused(get(&eve, path), 404, "not_found").await;
        refused(get(&viewer, path), 403, "forbidden").await;
    }
    refused(bench.request_as(&eve, Method::DELETE, &at(&turn)), 404, "not_found").await;
    let (status, over) = read(bench.request_as(&operator, Method::DELETE, &at(&turn))).await;
    assert_eq!((status, over["outcome"].as_str()), (200, Some("answered")), "it was over: {over}");
    bench.stop().await;
}
