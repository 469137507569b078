//! The table of routes: each says which node has to answer it, its owner, and what its requests need.
//!
//! There is no other way to register a route than [`Routes::on`], so that none becomes "any node" by being forgotten; what
//! is needed is in the type of the handler's first argument, so that none becomes "anybody" either.

use std::collections::HashMap;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter};

use super::Services;
use super::extract::{Gated, Needs};
use crate::api::paths::PathTemplate;

/// Which node has to answer a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Any node: it has what the answer needs.
    Anyone,
    /// The leader of the deploy log.
    Control,
    /// The leader of the group that the query's `group` names, and of the deploy log where it names none.
    Group,
    /// The leader of the shard of the path's `{workspace}`.
    Shard,
    /// The node that the handler names: what the request is about is in its body.
    Named,
}

/// Which setting limits the bodies of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    Usual,
    Message,
    Deployment,
}

/// What limits the time from a request to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    Usual,
    /// What is asked for has a time of its own, as a turn and a tool's call have; `http.timeout` is for the request's body.
    Own,
}

/// A method of a path, and what holds for the requests to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    filter: MethodFilter,
    method: Method,
    path: &'static str,
    may_be_stale: bool,
    body: BodyLimit,
    time: TimeLimit,
}

impl Endpoint {
    fn new<const PARTS: usize>(filter: MethodFilter, method: Method, path: PathTemplate<PARTS>) -> Endpoint {
        Endpoint {
            filter,
            method,
            path: path.text(),
            may_be_stale: false,
            body: BodyLimit::Usual,
            time: TimeLimit::Usual,
        }
    }

    /// With `?stale=true` any node answers, from a state that may be behind.
    pub fn or_stale(mut self) -> Endpoint {
        self.may_be_stale = true;
        self
    }

    /// What is asked for has a time of its own.
    pub fn own_time(mut self) -> Endpoint {
        self.time = TimeLimit::Own;
        self
    }

    /// Bodies have another limit than the usual one.
    pub fn body(mut self, limit: BodyLimit) -> Endpoint {
        self.body = limit;
        self
    }
}

/// `GET` of a path.
pub fn get<const PARTS: usize>(path: PathTemplate<PARTS>) -> Endpoint {
    Endpoint::new(MethodFilter::GET, Method::GET, path)
}

/// `POST` to a path.
pub fn post<const PARTS: usize>(path: PathTemplate<PARTS>) -> Endpoint {
    Endpoint::new(MethodFilter::POST, Method::POST, path)
}

/// `PUT` to a path.
pub fn put<const PARTS: usize>(path: PathTemplate<PARTS>) -> Endpoint {
    Endpoint::new(MethodFilter::PUT, Method::PUT, path)
}

/// `DELETE` of a path.
pub fn delete<const PARTS: usize>(path: PathTemplate<PARTS>) -> Endpoint {
    Endpoint::new(MethodFilter::DELETE, Method::DELETE, path)
}

/// What is known of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub method: Method,
    /// The path's template, as in [`paths`](crate::api::paths).
    pub path: &'static str,
    /// Which node has to answer.
    pub owner: Owner,
    /// Whether any node answers a request with `?stale=true`.
    pub may_be_stale: bool,
    /// What limits the bodies of its requests.
    pub body: BodyLimit,
    /// What limits the time to its answers.
    pub time: TimeLimit,
    /// What its requests need.
    pub needs: Needs,
}

/// Routes with their handlers, and the table of them.
#[derive(Default)]
pub struct Routes {
    router: Router<Services>,
    table: Table,
}

impl Routes {
    pub fn new() -> Routes {
        Routes::default()
    }

    /// Adds a route. Two routes of one method and path are a defect of the program, which axum answers with a panic.
    pub fn on<H, T>(mut self, endpoint: Endpoint, owner: Owner, handler: H) -> Routes
    where
        H: Handler<T, Services>,
        T: Gated + 'static,
    {
        let Endpoint { filter, method, path, may_be_stale, body, time } = endpoint;
        self.router = self.router.route(path, MethodRouter::new().on(filter, handler));
        self.table.add(Route { method, path, owner, may_be_stale, body, time, needs: T::NEEDS });
        self
    }

    /// Adds the routes of another part.
    pub fn merge(mut self, other: Routes) -> Routes {
        self.router = self.router.merge(other.router);
        other.table.0.into_values().flatten().for_each(|route| self.table.add(route));
        self
    }

    /// The handlers as axum takes them, and the table.
    pub fn into_parts(self) -> (Router<Services>, Table) {
        (self.router, self.table)
    }
}

/// Every route by its path.
#[derive(Debug, Default)]
pub struct Table(HashMap<&'static str, Vec<Route>>);

impl Table {
    fn add(&mut self, route: Route) {
        self.0.entry(route.path).or_default().push(route);
    }

    /// The route that a request matched: `path` is the template that axum says. `HEAD` is answered as `GET` is.
    pub fn find(&self, method: &Method, path: &str) -> Option<&Route> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.get(path)?.iter().find(|route| route.method == *method)
    }

    /// Every route, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Route> {
        self.0.values().flatten()
    }
}
