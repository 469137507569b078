//! Is a workspace's history, or a memory's, that of one register? The search of Wing and Gong, with Lowe's memory of where it has
//! been.
//!
//! It looks for an order of the operations in which each takes effect between its beginning and its end and every
//! answer is true. What changes nothing (a read, a refused deployment) is placed as soon as it fits: if there is any
//! order, there is one that does so. The search is bounded; past the bound the verdict is "unknown", never "fine".

use std::collections::HashSet;

use crate::history::{Ask, Live, Op, Outcome};

/// How many configurations are looked at before the search gives up.
pub const CONFIGURATIONS_MAX: usize = 400_000;

/// What the search found.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Broken {
        /// The furthest the search came, in operations.
        placed: usize,
        /// What the register held there.
        held: Live,
        /// Operations of which one had to come next, and none could.
        stuck: Vec<Op>,
    },
    /// The bound was reached.
    Unknown,
}

/// What an operation does to the register, and what it says of it.
#[derive(Debug, Clone, Copy)]
enum Effect {
    /// The register holds this.
    Is(Live),
    /// The register's revision is not this one.
    IsNot(u64),
    /// On top of revision `from`, the register becomes `to`.
    Becomes { from: u64, to: Live },
    /// The same, if it happened at all.
    Perhaps { from: u64, to: Live },
    /// The register is empty or holds this already, and holds it then.
    Keeps { to: Live, perhaps: bool },
    /// The register holds something, and holds this, or nothing, then.
    Replaces { to: Live, perhaps: bool },
}

impl Effect {
    /// What nobody can see is left out.
    fn of(op: &Op) -> Option<Effect> {
        match (&op.ask, &op.outcome) {
            (Ask::Read | Ask::Log, Outcome::Ok { live, .. }) => Some(Effect::Is(*live)),
            (Ask::Cas { from, .. }, Outcome::Ok { live, .. }) => Some(Effect::Becomes { from: from.rev, to: *live }),
            (Ask::Cas { .. }, Outcome::Fail { seen: Some(seen), .. }) => Some(Effect::Is(*seen)),
            (Ask::Cas { from, to }, Outcome::Info { .. }) => {
                Some(Effect::Perhaps { from: from.rev, to: Live { rev: from.rev + 1, value: *to } })
            }
            (Ask::Cas { .. }, Outcome::Fail { seen: None, .. })
            | (Ask::Read | Ask::Log, Outcome::Fail { .. } | Outcome::Info { .. })
            | (Ask::Say { .. } | Ask::Mail { .. } | Ask::Look, _) => None,
            _ => Effect::of_memory(op),
        }
    }

    /// A memory is a register that is empty before it was kept and after it was forgotten.
    fn of_memory(op: &Op) -> Option<Effect> {
        let is = |value: u64| Live { rev: 1, value };
        let to = match op.ask {
            Ask::Remember { memory, .. } => is(memory),
            Ask::Edit { to, .. } => is(to),
            Ask::Forget { .. } => Live::default(),
            _ => {
                return match op.outcome {
                    Outcome::Ok { live, .. } => Some(Effect::Is(live)),
                    Outcome::Fail { .. } | Outcome::Info { .. } => None,
                };
            }
        };
        let perhaps = match op.outcome {
            Outcome::Ok { .. } => false,
            Outcome::Info { .. } => true,
            Outcome::Fail { seen, .. } => return seen.map(Effect::Is),
        };
        Some(match op.ask {
            Ask::Remember { .. } => Effect::Keeps { to, perhaps },
            _ => Effect::Replaces { to, perhaps },
        })
    }

    fn step(self, held: Live) -> Option<Live> {
        match self {
            Effect::Is(live) => (live == held).then_some(held),
            Effect::IsNot(rev) => (rev != held.rev).then_some(held),
            Effect::Becomes { from, to } | Effect::Perhaps { from, to } => (from == held.rev).then_some(to),
            Effect::Keeps { to, .. } => (held.rev == 0 || held == to).then_some(to),
            Effect::Replaces { to, .. } => (held.rev != 0).then_some(to),
        }
    }

    fn changes_nothing(self) -> bool {
        matches!(self, Effect::Is(_) | Effect::IsNot(_))
    }

    fn must_happen(self) -> bool {
        match self {
            Effect::Is(_) | Effect::IsNot(_) | Effect::Becomes { .. } => true,
            Effect::Perhaps { .. } => false,
            Effect::Keeps { perhaps, .. } | Effect::Replaces { perhaps, .. } => !perhaps,
        }
    }
}

struct Item<'a> {
    op: &'a Op,
    effect: Effect,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Vec<u64>);

impl Placed {
    fn has(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn with(&self, index: usize) -> Placed {
        let mut more = self.clone();
        more.0[index / 64] |= 1 << (index % 64);
        more
    }

    fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// Checks the operations of one workspace, or of one memory.
pub fn check(ops: &[&Op]) -> Verdict {
    check_within(ops, CONFIGURATIONS_MAX)
}

fn check_within(ops: &[&Op], configurations_max: usize) -> Verdict {
    let mut items: Vec<Item> = Vec::new();
    for op in ops {
        items.extend(Effect::of(op).map(|effect| Item { op, effect }));
        // A conflict says two things: what was live, and that it was not what the client had seen.
        if let (Ask::Cas { from, .. }, Outcome::Fail { seen: Some(seen), .. }) = (&op.ask, &op.outcome)
            && seen.rev == from.rev
        {
            items.push(Item { op, effect: Effect::IsNot(from.rev) });
        }
    }
    items.sort_by_key(|item| item.op.start);
    let start = (Placed(vec![0; items.len().div_ceil(64)]), Live::default());
    let mut seen = HashSet::from([start.clone()]);
    let mut stack = vec![start];
    let mut furthest: Option<(usize, Live, Vec<Op>)> = None;
    while let Some((placed, held)) = stack.pop() {
        let ready = candidates(&items, &placed);
        if !ready.iter().any(|index| items[*index].effect.must_happen()) {
            return Verdict::Linearizable;
        }
        let fitting: Vec<(usize, Live)> =
            ready.iter().filter_map(|index| Some((*index, items[*index].effect.step(held)?))).collect();
        if furthest.as_ref().is_none_or(|best| placed.len() > best.0) {
            let stuck = ready.iter().map(|index| items[*index].op.clone()).collect();
            furthest = Some((placed.len(), held, stuck));
        }
        let free = fitting.iter().find(|(index, _)| items[*index].effect.changes_nothing()).copied();
        let next = free.map_or(fitting, |free| vec![free]);
        // What may not have happened at all comes last: most of it did not.
        for (index, held) in next.into_iter().rev() {
            let configuration = (placed.with(index), held);
            if seen.insert(configuration.clone()) {
                stack.push(configuration);
            }
        }
        if seen.len() > configurations_max {
            return Verdict::Unknown;
        }
    }
    let (placed, held, stuck) = furthest.unwrap_or_default();
    Verdict::Broken { placed, held, stuck }
}

/// The operations that can be next: those that began before any that is not placed had ended.
fn candidates(items: &[Item], placed: &Placed) -> Vec<usize> {
    let mut ready = Vec::new();
    let mut horizon = u64::MAX;
    for (index, item) in items.iter().enumerate() {
        if item.op.start > horizon {
            break;
        }
        if placed.has(index) {
            continue;
        }
        if item.effect.must_happen() {
            horizon = horizon.min(item.op.end);
        }
        ready.push(index);
    }
    ready.retain(|index| items[*index].op.start <= horizon);
    ready.sort_by_key(|index| !items[*index].effect.must_happen());
    ready
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(ask: Ask, start: u64, end: u64, outcome: Outcome) -> Op {
        Op { process: start, key: "w".to_owned(), node: 0, ask, start, end, outcome, attempts: 1 }
    }

    fn live(rev: u64, value: u64) -> Live {
        Live { rev, value }
    }

    fn read(start: u64, end: u64, rev: u64, value: u64) -> Op {
        op(Ask::Read, start, end, Outcome::Ok { live: live(rev, value), event: None, log: Vec::new() })
    }

    fn cas(start: u64, end: u64, from: u64, value: u64) -> Op {
        let ask = Ask::Cas { from: live(from, 0), to: value };
        op(ask, start, end, Outcome::Ok { live: live(from + 1, value), event: None, log: Vec::new() })
    }

    fn lost(start: u64, from: u64, value: u64) -> Op {
        let ask = Ask::Cas { from: live(from, 0), to: value };
        op(ask, start, start + 1, Outcome::Info { why: "no answer".to_owned() })
    }

    fn refused(start: u64, end: u64, from: u64, seen: Live) -> Op {
        let ask = Ask::Cas { from: live(from, 0), to: 99 };
        op(ask, start, end, Outcome::Fail { seen: Some(seen), why: "conflict".to_owned() })
    }

    fn verdict(ops: &[Op]) -> Verdict {
        check(&ops.iter().collect::<Vec<_>>())
    }

    #[test]
    fn good_histories_pass() {
        for (name, ops) in [
            ("nothing", vec![]),
            ("in a row", vec![cas(1, 2, 0, 7), read(3, 4, 1, 7), cas(5, 6, 1, 8), read(7, 8, 2, 8)]),
            ("a read beside a write sees either", vec![cas(1, 10, 0, 7), read(2, 3, 0, 0), read(4, 5, 1, 7)]),
            ("a lost write happened", vec![lost(1, 0, 7), read(5, 6, 1, 7), cas(7, 8, 1, 8)]),
            ("a lost write did not happen", vec![lost(1, 0, 7), read(5, 6, 0, 0), cas(7, 8, 0, 8)]),
            ("a lost write happened late", vec![lost(1, 0, 7), read(5, 6, 0, 0), read(7, 8, 1, 7)]),
            ("a conflict", vec![cas(1, 2, 0, 7), refused(3, 4, 0, live(1, 7))]),
            ("a conflict with one that is not answered yet", vec![cas(1, 9, 0, 7), refused(3, 4, 0, live(1, 7))]),
        ] {
            assert_eq!(verdict(&ops), Verdict::Linearizable, "{name}");
        }
    }

    #[test]
    fn bad_histories_fail() {
        for (name, ops) in [
            ("a stale read", vec![cas(1, 2, 0, 7), read(3, 4, 0, 0)]),
            ("a read from nowhere", vec![read(1, 2, 1, 7)]),
            ("two won", vec![cas(1, 9, 0, 7), cas(2, 8, 0, 8)]),
            ("a write was lost", vec![cas(1, 2, 0, 7), cas(3, 4, 1, 8), read(5, 6, 1, 7)]),
            ("reads go back in time", vec![cas(1, 10, 0, 7), read(2, 3, 1, 7), read(4, 5, 0, 0)]),
            ("a read before the write began", vec![read(1, 2, 1, 7), cas(3, 4, 0, 7)]),
            ("a lost write happened twice", vec![lost(1, 0, 7), read(5, 6, 1, 7), read(7, 8, 0, 0)]),
            ("a conflict with what was not live", vec![cas(1, 2, 0, 7), cas(3, 4, 1, 8), refused(5, 6, 2, live(1, 7))]),
            ("a conflict with the parent itself", vec![cas(1, 2, 0, 7), refused(3, 4, 1, live(1, 7))]),
        ] {
            assert!(matches!(verdict(&ops), Verdict::Broken { .. }), "{name}");
        }
    }

    #[test]
    fn the_bound_is_unknown_and_not_fine() {
        let mut ops: Vec<Op> = (0..12).map(|n| lost(n, 0, n + 1)).collect();
        ops.push(read(50, 51, 9, 77));
        let ops: Vec<&Op> = ops.iter().collect();
        assert_eq!(check_within(&ops, 5), Verdict::Unknown);
        assert!(matches!(check(&ops), Verdict::Broken { .. }));
    }

    /// Every order of every subset, for histories that are short enough: the plain definition.
    fn by_definition(ops: &[Op]) -> bool {
        fn go(left: &mut Vec<&Op>, held: Live) -> bool {
            let must = |op: &Op| Effect::of(op).is_some_and(Effect::must_happen);
            if !left.iter().any(|op| must(op)) {
                return true;
            }
            for index in 0..left.len() {
                let op = left[index];
                if left.iter().any(|other| must(other) && other.end < op.start) {
                    continue;
                }
                let Some(next) = Effect::of(op).and_then(|effect| effect.step(held)) else { continue };
                left.remove(index);
                let good = go(left, next);
                left.insert(index, op);
                if good {
                    return true;
                }
            }
            false
        }
        go(&mut ops.iter().collect(), Live::default())
    }

    #[test]
    fn it_agrees_with_the_definition_on_random_histories() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let count = random.usize(2..7);
            let ops: Vec<Op> = (0..count)
                .map(|n| {
                    let start = random.u64(0..12);
                    let end = start + random.u64(1..8);
                    let from = random.u64(0..3);
                    match random.u8(0..3) {
                        0 => read(start, end, from, if from == 0 { 0 } else { random.u64(1..4) }),
                        1 => cas(start, end, from, n as u64 % 3 + 1),
                        _ => lost(start, from, n as u64 % 3 + 1),
                    }
                })
                .collect();
            let expected = by_definition(&ops);
            let found = verdict(&ops);
            assert_eq!(found == Verdict::Linearizable, expected, "{ops:#?}");
            if expected { good += 1 } else { bad += 1 }
        }
        assert!(good > 500 && bad > 500, "{good} good and {bad} bad histories are no test");
    }

    #[test]
    fn it_agrees_with_the_definition_on_random_memories() {
        let mut random = fastrand::Rng::with_seed(11);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let count = random.usize(2..7);
            let ops: Vec<Op> = (0..count)
                .map(|_| {
                    let start = random.u64(0..12);
                    let end = start + random.u64(1..8);
                    let value = random.u64(1..4);
                    let ask = match random.u8(0..6) {
                        0 => Ask::Remember { memory: 1, id: 1 },
                        1 => Ask::Edit { memory: 1, to: value },
                        2 => Ask::Forget { memory: 1 },
                        3 => Ask::Search { memory: 1 },
                        _ => Ask::Recall { memory: 1 },
                    };
                    let found = if random.bool() { live(1, value) } else { Live::default() };
                    let ok = Outcome::Ok { live: found, event: None, log: Vec::new() };
                    let outcome = match (random.u8(0..4), ask.is_write()) {
                        (0, true) => Outcome::Info { why: "no answer".to_owned() },
                        (1, true) if !matches!(ask, Ask::Remember { .. }) => {
                            Outcome::Fail { seen: Some(Live::default()), why: "not there".to_owned() }
                        }
                        _ => ok,
                    };
                    op(ask, start, end, outcome)
                })
                .collect();
            let expected = by_definition(&ops);
            let found = verdict(&ops);
            assert_eq!(found == Verdict::Linearizable, expected, "{ops:#?}");
            if expected { good += 1 } else { bad += 1 }
        }
        assert!(good > 500 && bad > 500, "{good} good and {bad} bad histories are no test");
    }
}
