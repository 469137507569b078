//! The graph of entities and relations, in memory: neighbours, paths and subgraphs, inside a permit and within limits.

use std::collections::{BTreeSet, VecDeque};

use caxton_proto::memory::{EntityId, RelationId, Scope};

use crate::filter::{Permit, is_true};
use crate::{Map, MemoryEntity, MemoryRelation};

/// So much may be gone before the arrays are made smaller.
const GONE_MIN: usize = 1_024;

/// Which way relations are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// From where they begin to where they end.
    Out,
    /// From where they end to where they begin.
    In,
    /// Both ways.
    #[default]
    Both,
}

/// How far a look at the graph goes; what is beyond is left out, and the answer says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphLimits {
    /// Relations between the beginning and an entity.
    pub depth_max: u32,
    /// Entities in an answer.
    pub entities_max: usize,
    /// Relations in an answer.
    pub relations_max: usize,
    /// Relations that are looked at.
    pub visits_max: usize,
}

impl Default for GraphLimits {
    fn default() -> Self {
        Self { depth_max: 3, entities_max: 1_000, relations_max: 5_000, visits_max: 200_000 }
    }
}

/// What of the graph to look at.
#[derive(Debug, Clone, Default)]
pub struct GraphQuery {
    /// Only relations of these kinds; none stands for all.
    pub relation_kinds: BTreeSet<String>,
    /// Only entities of these kinds, beside where it begins; none stands for all.
    pub entity_kinds: BTreeSet<String>,
    /// Which way.
    pub direction: Direction,
    /// What was true at this time; nothing finds what was ever true.
    pub as_of_ms: Option<i64>,
    /// How far.
    pub limits: GraphLimits,
}

/// An entity in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphNode {
    /// Its id.
    pub id: EntityId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Relations between the beginning and it.
    pub depth: u32,
}

/// A relation in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphEdge {
    /// Its id.
    pub id: RelationId,
    /// Where it begins.
    pub from: EntityId,
    /// Its kind.
    pub kind: String,
    /// Where it ends.
    pub to: EntityId,
}

/// A part of the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphView {
    /// The entities, the nearest first.
    pub entities: Vec<GraphNode>,
    /// The relations between them.
    pub relations: Vec<GraphEdge>,
    /// A limit was reached: there is more.
    pub more: bool,
}

/// A way from one entity to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The entities, from the first to the last.
    pub entities: Vec<GraphNode>,
    /// The relations between each and the next, in whichever way they go.
    pub relations: Vec<GraphEdge>,
}

struct Node {
    id: EntityId,
    name: Box<str>,
    kind: u32,
    scope: Scope,
    live: bool,
    edges: Vec<End>,
}

/// A relation as one of its entities sees it. Most walks need no more of it: where it leads, they were already or do not go.
#[derive(Clone, Copy)]
struct End {
    edge: u32,
    /// The entity at its other end.
    other: u32,
}

#[derive(Clone, Copy)]
struct Edge {
    valid_from_ms: i64,
    valid_to_ms: i64,
    id: RelationId,
    from: u32,
    to: u32,
    kind: u32,
    live: bool,
}

/// The entities and relations of a workspace. A relation is in its entities' scope, so a permit for these is one for it.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// Nodes, edges and kinds that something else took the place of, or nothing.
    gone: usize,
    by_id: Map<EntityId, u32>,
    by_relation: Map<RelationId, u32>,
    kinds: Map<Box<str>, u32>,
    kind_names: Vec<Box<str>>,
}

impl Graph {
    fn kind(&mut self, name: &str) -> u32 {
        if let Some(kind) = self.kinds.get(name) {
            return *kind;
        }
        self.kind_names.push(name.into());
        let kind = self.kind_names.len() as u32 - 1;
        self.kinds.insert(name.into(), kind);
        kind
    }

    pub fn put_entity(&mut self, entity: &MemoryEntity) {
        let (id, kind) = (entity.what.id(), self.kind(&entity.what.kind));
        if let Some(node) = self.by_id.get(&id) {
            let before = std::mem::replace(&mut self.nodes[*node as usize].kind, kind);
            self.lose(usize::from(before != kind));
            return;
        }
        self.by_id.insert(id, self.nodes.len() as u32);
        let (name, scope) = (entity.what.name.as_str().into(), entity.what.scope.clone());
        self.nodes.push(Node { id, name, kind, scope, live: true, edges: Vec::new() });
    }

    pub fn drop_entity(&mut self, id: &EntityId) {
        let Some(node) = self.by_id.remove(id) else { return };
        self.nodes[node as usize].live = false;
        let edges = std::mem::take(&mut self.nodes[node as usize].edges);
        let ids: Vec<RelationId> = edges.iter().map(|end| self.edges[end.edge as usize].id).collect();
        for id in &ids {
            self.unlink(id);
        }
        self.lose(1 + ids.len());
    }

    pub fn put_relation(&mut self, relation: &MemoryRelation) {
        let what = &relation.what;
        let of = |name: &str| self.by_id.get(&EntityId::of(&what.scope, name)).copied();
        let (Some(from), Some(to)) = (of(&what.from), of(&what.to)) else { return };
        let edge = Edge {
            valid_from_ms: what.valid_from_ms,
            valid_to_ms: what.valid_to_ms.unwrap_or(i64::MAX),
            id: what.id,
            from,
            to,
            kind: self.kind(&what.kind),
            live: true,
        };
        if let Some(known) = self.by_relation.get(&what.id).copied() {
            let before = self.edges[known as usize];
            if (before.from, before.to) == (from, to) {
                self.edges[known as usize] = edge;
                self.lose(usize::from(before.kind != edge.kind));
                return;
            }
            self.unlink(&what.id);
            self.gone += 1;
        }
        self.edges.push(edge);
        let number = self.edges.len() as u32 - 1;
        self.by_relation.insert(what.id, number);
        self.nodes[from as usize].edges.push(End { edge: number, other: to });
        if to != from {
            self.nodes[to as usize].edges.push(End { edge: number, other: from });
        }
    }

    pub fn drop_relation(&mut self, id: &RelationId) {
        let found = self.unlink(id);
        self.lose(usize::from(found));
    }

    /// Takes a relation out of the walks; its place in the arrays goes when these are made smaller.
    fn unlink(&mut self, id: &RelationId) -> bool {
        let Some(number) = self.by_relation.remove(id) else { return false };
        let Edge { from, to, .. } = self.edges[number as usize];
        self.edges[number as usize].live = false;
        for node in [from, to] {
            self.nodes[node as usize].edges.retain(|end| end.edge != number);
        }
        true
    }

    /// Notes that so much is gone, and makes the arrays smaller once that is most of what they hold.
    fn lose(&mut self, gone: usize) {
        self.gone += gone;
        if self.gone > GONE_MIN && self.gone > self.by_id.len() + self.by_relation.len() {
            self.shrink();
        }
    }

    /// Makes the arrays smaller: what is gone takes no room any more, and no kind stays that nothing has.
    fn shrink(&mut self) {
        let names = std::mem::take(&mut self.kind_names);
        self.kinds.clear();
        let mut nodes = vec![u32::MAX; self.nodes.len()];
        let mut kept: Vec<Node> = Vec::with_capacity(self.by_id.len());
        for (at, mut node) in std::mem::take(&mut self.nodes).into_iter().enumerate().filter(|(_, node)| node.live) {
            nodes[at] = kept.len() as u32;
            node.kind = self.kind(&names[node.kind as usize]);
            kept.push(node);
        }
        let mut edges = vec![u32::MAX; self.edges.len()];
        let mut kept_edges = Vec::with_capacity(self.by_relation.len());
        for (at, edge) in std::mem::take(&mut self.edges).into_iter().enumerate().filter(|(_, edge)| edge.live) {
            edges[at] = kept_edges.len() as u32;
            let (from, to) = (nodes[edge.from as usize], nodes[edge.to as usize]);
            kept_edges.push(Edge { from, to, kind: self.kind(&names[edge.kind as usize]), ..edge });
        }
        for node in &mut kept {
            for End { edge, other } in &mut node.edges {
                (*edge, *other) = (edges[*edge as usize], nodes[*other as usize]);
            }
            node.edges.shrink_to_fit();
        }
        self.by_id = kept.iter().enumerate().map(|(at, node)| (node.id, at as u32)).collect();
        self.by_relation = kept_edges.iter().enumerate().map(|(at, edge)| (edge.id, at as u32)).collect();
        (self.nodes, self.edges, self.gone) = (kept, kept_edges, 0);
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let names = |names: usize, count: usize| names + count * 48;
        let kinds = names(self.kind_names.iter().map(|name| 2 * name.len()).sum(), self.kind_names.len());
        let ends: usize =
            self.nodes.iter().map(|node| node.edges.capacity() * size_of::<End>() + node.name.len()).sum();
        let scopes: usize = self.nodes.iter().map(|node| node.scope.name().len()).sum();
        let maps = self.by_id.capacity() * 21 + self.by_relation.capacity() * 21;
        self.nodes.capacity() * size_of::<Node>()
            + self.edges.capacity() * size_of::<Edge>()
            + ends
            + scopes
            + kinds
            + maps
    }

    fn node(&self, node: u32, depth: u32) -> GraphNode {
        let it = &self.nodes[node as usize];
        let (name, kind) = (it.name.to_string(), self.kind_names[it.kind as usize].to_string());
        GraphNode { id: it.id, name, kind, depth }
    }

    fn edge(&self, edge: u32) -> GraphEdge {
        let it = &self.edges[edge as usize];
        let id = |node: u32| self.nodes[node as usize].id;
        GraphEdge { id: it.id, from: id(it.from), kind: self.kind_names[it.kind as usize].to_string(), to: id(it.to) }
    }
}

/// One walk through the graph.
struct Walk<'a> {
    graph: &'a Graph,
    permit: &'a Permit,
    query: &'a GraphQuery,
    relation_kinds: Vec<u32>,
    entity_kinds: Vec<u32>,
    visits: usize,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a Graph, permit: &'a Permit, query: &'a GraphQuery) -> Walk<'a> {
        let number = |name: &String| graph.kinds.get(name.as_str()).copied();
        let relation_kinds = query.relation_kinds.iter().filter_map(number).collect();
        let entity_kinds = query.entity_kinds.iter().filter_map(number).collect();
        Walk { graph, permit, query, relation_kinds, entity_kinds, visits: 0 }
    }

    /// Where a walk may begin: an entity that the permit reaches.
    fn start(&self, id: &EntityId) -> Option<u32> {
        let node = *self.graph.by_id.get(id)?;
        self.permit.allows(&self.graph.nodes[node as usize].scope).then_some(node)
    }

    /// Whether the walk may come to an entity.
    fn may(&self, node: u32) -> bool {
        let node = &self.graph.nodes[node as usize];
        node.live
            && self.permit.allows(&node.scope)
            && (self.query.entity_kinds.is_empty() || self.entity_kinds.contains(&node.kind))
    }

    /// Whether an edge may be followed from an entity.
    fn follow(&mut self, edge: u32, from: u32) -> bool {
        self.visits += 1;
        let it = &self.graph.edges[edge as usize];
        let (out, other) = if it.from == from { (true, it.to) } else { (false, it.from) };
        let direction = match self.query.direction {
            Direction::Out => out,
            Direction::In => !out || it.from == it.to,
            Direction::Both => true,
        };
        let valid_to_ms = (it.valid_to_ms != i64::MAX).then_some(it.valid_to_ms);
        let now = self.query.as_of_ms.is_none_or(|at| is_true(it.valid_from_ms, valid_to_ms, at));
        let kind = self.query.relation_kinds.is_empty() || self.relation_kinds.contains(&it.kind);
        it.live && direction && now && kind && self.may(other)
    }

    fn exhausted(&self) -> bool {
        self.visits >= self.query.limits.visits_max
    }
}

impl Graph {
    /// The part of the graph around some entities, as far as the limits go: with a depth of 1, their neighbours. Entities
    /// that are not there, or outside the permit, are passed over.
    pub fn subgraph(&self, permit: &Permit, from: &[EntityId], query: &GraphQuery) -> GraphView {
        let (graph, limits) = (self, query.limits);
        let mut walk = Walk::new(graph, permit, query);
        let mut view = GraphView::default();
        let mut reached: Map<u32, ()> = Map::default();
        let mut queue = VecDeque::new();
        for node in from.iter().filter_map(|id| walk.start(id)) {
            if reached.len() < limits.entities_max && reached.insert(node, ()).is_none() {
                view.entities.push(graph.node(node, 0));
                queue.push_back((node, 0));
            }
        }
        let mut seen: Map<u32, ()> = Map::default();
        while let Some((node, depth)) = queue.pop_front() {
            for &End { edge, other } in &graph.nodes[node as usize].edges {
                if walk.exhausted() {
                    view.more = true;
                    return view;
                }
                let known = reached.contains_key(&other);
                if (!known && depth >= limits.depth_max) || seen.contains_key(&edge) {
                    walk.visits += 1;
                    continue;
                }
                if !walk.follow(edge, node) {
                    continue;
                }
                if !known && reached.len() >= limits.entities_max {
                    view.more = true;
                    continue;
                }
                if !known {
                    reached.insert(other, ());
                    view.entities.push(graph.node(other, depth + 1));
                    queue.push_back((other, depth + 1));
                }
                seen.insert(edge, ());
                match view.relations.len() < limits.relations_max {
                    true => view.relations.push(graph.edge(edge)),
                    false => view.more = true,
                }
            }
        }
        view
    }

    /// A shortest way from one entity to another, if there is one within the limits.
    pub fn path(&self, permit: &Permit, from: &EntityId, to: &EntityId, query: &GraphQuery) -> Option<Path> {
        let graph = self;
        let mut walk = Walk::new(graph, permit, query);
        let (start, end) = (walk.start(from)?, walk.start(to)?);
        let mut came: Map<u32, (u32, u32)> = Map::default();
        let mut queue = VecDeque::from([(start, 0)]);
        while let Some((node, depth)) = queue.pop_front() {
            if node == end {
                break;
            }
            if depth >= query.limits.depth_max {
                continue;
            }
            for &End { edge, other } in &graph.nodes[node as usize].edges {
                if walk.exhausted() {
                    return None;
                }
                if other == start || came.contains_key(&other) {
                    walk.visits += 1;
                    continue;
                }
                // The end is where it was asked to come to, whatever its kind.
                if walk.follow(edge, node) || (other == end && walk.last(edge, node)) {
                    came.insert(other, (node, edge));
                    queue.push_back((other, depth + 1));
                }
            }
        }
        let (mut nodes, mut edges, mut at) = (vec![end], Vec::new(), end);
        while at != start {
            let (before, edge) = came.get(&at)?;
            edges.push(graph.edge(*edge));
            nodes.push(*before);
            at = *before;
        }
        nodes.reverse();
        edges.reverse();
        let entities = nodes.iter().enumerate().map(|(depth, node)| graph.node(*node, depth as u32)).collect();
        Some(Path { entities, relations: edges })
    }
}

impl Walk<'_> {
    /// Whether an edge may be followed to the end of a path, which needs no kind that was asked for.
    fn last(&self, edge: u32, from: u32) -> bool {
        if self.query.entity_kinds.is_empty() {
            return false;
        }
        let any = GraphQuery { entity_kinds: BTreeSet::new(), ..self.query.clone() };
        Walk::new(self.graph, self.permit, &any).follow(edge, from)
    }
}

#[cfg(test)]
mod tests {
    use caxton_proto::WorkspaceId;
    use caxton_proto::memory::{NewEntity, NewRelation};

    use super::*;

    fn entity(number: u32, kind: &str) -> MemoryEntity {
        let (scope, name, kind) = (Scope::Workspace, number.to_string(), kind.to_owned());
        let what = NewEntity { scope, name, kind, metadata: None, sources: Vec::new(), created_ms: 0 };
        MemoryEntity { what, changed_ms: 0, untrusted: false }
    }

    fn relation(number: u32, kind: &str, from: u32, to: u32) -> MemoryRelation {
        let what = NewRelation {
            id: RelationId::from_bytes(u128::from(number).to_be_bytes()),
            scope: Scope::Workspace,
            from: from.to_string(),
            kind: kind.to_owned(),
            to: to.to_string(),
            metadata: None,
            sources: Vec::new(),
            created_ms: 0,
            valid_from_ms: 0,
            valid_to_ms: None,
        };
        MemoryRelation { what, changed_ms: 0, untrusted: false }
    }

    /// Entities, relations and kinds come and go by the thousand: the arrays follow, and the walks are those of a graph in
    /// which nothing was ever lost.
    #[test]
    fn what_comes_and_goes_takes_no_room_and_changes_no_walk() {
        let (mut graph, mut plain) = (Graph::default(), Graph::default());
        for number in 0..100 {
            graph.put_entity(&entity(number, "old"));
            plain.put_entity(&entity(number, "person"));
        }
        for round in 0..200_u32 {
            let first = 1_000 + round * 50;
            for number in first..first + 50 {
                graph.put_entity(&entity(number, &format!("kind {number}")));
                graph.put_relation(&relation(number, &format!("relates {number}"), number, number % 100));
            }
            for number in first..first + 50 {
                graph.drop_relation(&relation(number, "", 0, 0).what.id);
                graph.drop_entity(&entity(number, "").what.id());
            }
        }
        for (number, kind) in (0..100).map(|number| (number, format!("passing {number}"))) {
            graph.put_entity(&entity(number, &kind));
        }
        for number in 0..100 {
            graph.put_entity(&entity(number, "person"));
            for it in [&mut graph, &mut plain] {
                it.put_relation(&relation(number, "knows", number, (number * 7 + 1) % 100));
            }
        }
        assert!(graph.nodes.len() + graph.edges.len() + graph.kind_names.len() < 3 * GONE_MIN);
        assert_eq!(graph.kinds.len(), graph.kind_names.len());
        let permit = Permit::everything("w".parse::<WorkspaceId>().unwrap());
        for number in 0..100 {
            let (from, query) = ([entity(number, "").what.id()], GraphQuery::default());
            let (mut ours, mut theirs) =
                (graph.subgraph(&permit, &from, &query), plain.subgraph(&permit, &from, &query));
            for view in [&mut ours, &mut theirs] {
                view.relations.sort_by_key(|edge| edge.id);
                view.entities.sort_by_key(|node| node.id);
            }
            assert_eq!(ours, theirs);
            assert!(ours.entities.len() > 1);
        }
        for number in 0..100 {
            graph.drop_entity(&entity(number, "").what.id());
        }
        assert!(graph.is_empty() && graph.by_relation.is_empty());
    }
}
