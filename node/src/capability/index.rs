//! What a revision's agents can do, prepared for ranking.

use std::sync::Arc;

use caxton_embed::{Vector, dot};
use caxton_proto::manifest::AgentManifest;
use caxton_proto::{AgentName, CapabilityName};
use semver::Version;

use super::keywords::Keywords;
use super::vectors::{Packed, Vectors};

/// One capability of one agent, as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Whose.
    pub agent: AgentName,
    /// Which.
    pub capability: CapabilityName,
    /// Its version.
    pub version: Version,
    /// What it is, in a sentence; may be empty.
    pub description: String,
    /// What is asked for: patterns and examples.
    pub phrases: Vec<String>,
}

impl Offer {
    /// All that an agent offers. An agent's own description stands in for those of its capabilities.
    pub fn of_agent(agent: &AgentManifest) -> impl Iterator<Item = Self> + '_ {
        agent.capabilities.iter().map(|capability| Self {
            agent: agent.name.clone(),
            capability: capability.name.clone(),
            version: capability.version.clone(),
            description: if capability.description.is_empty() {
                agent.description.clone()
            } else {
                capability.description.clone()
            },
            phrases: capability.patterns.iter().chain(&capability.examples).cloned().collect(),
        })
    }

    /// The name in words.
    fn title(&self) -> String {
        self.capability.as_str().replace(['_', '-'], " ")
    }

    /// What it is called, in one phrase.
    fn summary(&self) -> String {
        match self.description.as_str() {
            "" => self.title(),
            description => format!("{}: {description}", self.title()),
        }
    }
}

/// An offer with its vectors.
pub(super) struct Prepared {
    pub offer: Offer,
    /// Of each phrase, in the offer's order; of the summary, if there is no phrase.
    pub phrases: Vec<Arc<Packed>>,
    /// Of the name and the description.
    pub summary: Arc<Packed>,
    /// The direction in the middle of the phrases.
    pub centre: Arc<Packed>,
    /// The same, as it stands to the middle of all that the workspace's agents offer.
    pub from_middle: FromMiddle,
    /// Which of [`Index::agents`] it belongs to.
    pub agent: usize,
}

/// What the agents of one revision offer.
#[derive(Default)]
pub struct Index {
    pub(super) offers: Vec<Prepared>,
    /// The direction in the middle of each agent's capabilities.
    pub(super) agents: Vec<Arc<Packed>>,
    /// The middle of all capabilities: what is common to them, which tells none from another. Short of 1, because few
    /// phrases say little of it.
    middle: Vec<f32>,
    pub(super) keywords: Keywords,
}

/// How a direction stands to the middle of all capabilities. With the cosine of two directions, it gives the cosine of the
/// two as they look from there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FromMiddle {
    /// The product of the direction and the middle.
    along: f32,
    /// How far apart they are.
    away: f32,
}

impl FromMiddle {
    fn of(direction: &Vector, middle: &[f32]) -> FromMiddle {
        let along = dot(direction.as_slice(), middle);
        let squared = dot(direction.as_slice(), direction.as_slice()) - 2.0 * along + dot(middle, middle);
        FromMiddle { along, away: squared.max(0.0).sqrt() }
    }
}

/// So many phrases halve the doubt about what is common to a workspace's capabilities.
const MIDDLE_DOUBT: f32 = 100.0;

impl Index {
    /// Prepares offers; those of one agent must follow one another. Embeds what `vectors` does not know: about a
    /// millisecond a phrase.
    pub fn build(offers: impl IntoIterator<Item = Offer>, vectors: &Vectors) -> Self {
        let mut prepared: Vec<Prepared> = Vec::new();
        let mut agents: Vec<Arc<Packed>> = Vec::new();
        let mut centres: Vec<Arc<Packed>> = Vec::new();
        for offer in offers {
            let summary = vectors.of(&offer.summary());
            let mut phrases: Vec<_> = offer.phrases.iter().map(|phrase| vectors.of(phrase)).collect();
            if phrases.is_empty() {
                phrases.push(summary.clone());
            }
            if prepared.last().is_some_and(|last| last.offer.agent != offer.agent) {
                agents.push(middle(&centres));
                centres.clear();
            }
            let centre = middle(&phrases);
            centres.push(centre.clone());
            let from_middle = FromMiddle::default();
            prepared.push(Prepared { offer, phrases, summary, centre, from_middle, agent: agents.len() });
        }
        if !centres.is_empty() {
            agents.push(middle(&centres));
        }
        prepared.shrink_to_fit();
        agents.shrink_to_fit();
        let middle = common(&prepared);
        for prepared in &mut prepared {
            prepared.from_middle = FromMiddle::of(&prepared.centre.unpacked(), &middle);
        }
        let documents: Vec<Vec<String>> = prepared.iter().map(|prepared| texts(&prepared.offer)).collect();
        let keywords = Keywords::build(documents.iter().map(|texts| texts.iter().map(String::as_str)));
        Self { offers: prepared, agents, middle, keywords }
    }

    /// How a direction stands to the middle of all capabilities.
    pub(super) fn to_middle(&self, meaning: &Vector) -> FromMiddle {
        FromMiddle::of(meaning, &self.middle)
    }

    /// The cosine of two directions as they look from the middle of all capabilities, where `cosine` is their own.
    pub(super) fn apart(&self, cosine: f32, one: FromMiddle, other: FromMiddle) -> f32 {
        let product = cosine - one.along - other.along + dot(&self.middle, &self.middle);
        let lengths = one.away * other.away;
        if lengths > 0.0 { product / lengths } else { 0.0 }
    }

    /// How many capabilities there are.
    pub fn len(&self) -> usize {
        self.offers.len()
    }

    /// Whether nobody offers anything.
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }
}

/// The mean of the capabilities' directions, the nearer to nothing the fewer phrases there are.
fn common(offers: &[Prepared]) -> Vec<f32> {
    let mut sum = Sum::default();
    offers.iter().for_each(|prepared| sum.add(&prepared.centre.unpacked()));
    let phrases = offers.iter().map(|prepared| prepared.phrases.len()).sum::<usize>() as f32;
    let factor = phrases / (phrases + MIDDLE_DOUBT) / offers.len().max(1) as f32;
    sum.0.iter().map(|value| value * factor).collect()
}

/// What keywords are taken from; the name counts twice.
fn texts(offer: &Offer) -> Vec<String> {
    let title = offer.title();
    let mut texts = vec![title.clone(), title, offer.description.clone()];
    texts.extend(offer.phrases.iter().cloned());
    texts
}

/// The direction in the middle of at least one; one that stands alone is shared.
fn middle(vectors: &[Arc<Packed>]) -> Arc<Packed> {
    if let [only] = vectors {
        return only.clone();
    }
    let mut sum = Sum::default();
    vectors.iter().for_each(|vector| sum.add(&vector.unpacked()));
    Arc::new(Packed::from(&Vector::new(sum.0)))
}

/// Directions added up.
#[derive(Default)]
struct Sum(Vec<f32>);

impl Sum {
    fn add(&mut self, vector: &Vector) {
        if self.0.is_empty() {
            self.0.extend_from_slice(vector.as_slice());
        } else {
            self.0.iter_mut().zip(vector.as_slice()).for_each(|(sum, value)| *sum += value);
        }
    }
}
