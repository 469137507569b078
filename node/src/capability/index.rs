//! What a revision's agents can do, prepared for ranking.

use std::sync::Arc;

use caxton_embed::{Vector, dot};
use caxton_proto::manifest::AgentManifest;
use caxton_proto::{AgentName, CapabilityName};
use semver::Version;

use super::keywords::Keywords;
use super::vectors::{PackedVector, Rows, Vectors};

/// One capability of one agent, as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub agent: AgentName,
    pub capability: CapabilityName,
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

    /// All that its vectors are made of.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> + '_ {
        std::iter::once(self.summary()).chain(self.phrases.iter().cloned())
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
pub(super) struct PreparedOffer {
    pub offer: Offer,
    /// Of each phrase, in the offer's order; of the summary, if there is no phrase.
    pub phrases: Vec<Arc<PackedVector>>,
    /// Of the name and the description.
    pub summary: Arc<PackedVector>,
    /// How the middle of its phrases stands to the middle of all that the workspace's agents offer.
    pub from_middle: FromMiddle,
}

/// What the agents of one revision offer.
#[derive(Default)]
pub struct Index {
    pub(super) offers: Vec<PreparedOffer>,
    /// The direction in the middle of each offer's phrases.
    pub(super) centres: Rows,
    /// The direction in the middle of each agent's capabilities, where it has several.
    pub(super) agents: Rows,
    /// Which of `agents` each offer belongs to; none where it is all that its agent offers.
    pub(super) agent_of: Vec<Option<u32>>,
    /// Places of the offers, in the order of their capabilities' names.
    by_name: Vec<u32>,
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
        let dimensions = vectors.model().dimensions();
        let mut index = Index { centres: Rows::new(dimensions), agents: Rows::new(dimensions), ..Index::default() };
        let mut centres: Vec<Arc<PackedVector>> = Vec::new();
        for offer in offers {
            let summary = vectors.of(&offer.summary());
            let mut phrases: Vec<_> = offer.phrases.iter().map(|phrase| vectors.of(phrase)).collect();
            if phrases.is_empty() {
                phrases.push(summary.clone());
            }
            if index.offers.last().is_some_and(|last| last.offer.agent != offer.agent) {
                index.end_agent(&mut centres);
            }
            let centre = middle(&phrases);
            index.centres.push(&centre);
            centres.push(centre);
            index.offers.push(PreparedOffer { offer, phrases, summary, from_middle: FromMiddle::default() });
        }
        index.end_agent(&mut centres);
        index.offers.shrink_to_fit();
        index.centres.shrink_to_fit();
        index.agents.shrink_to_fit();
        index.middle = index.common();
        for (prepared, centre) in index.offers.iter_mut().zip(index.centres.unpacked()) {
            prepared.from_middle = FromMiddle::of(&centre, &index.middle);
        }
        index.by_name = (0..index.offers.len() as u32).collect();
        index.by_name.sort_by_key(|at| index.offers[*at as usize].offer.capability.as_str());
        let documents: Vec<Vec<String>> = index.offers.iter().map(|prepared| texts(&prepared.offer)).collect();
        index.keywords = Keywords::build(documents.iter().map(|texts| texts.iter().map(String::as_str)));
        index
    }

    /// Notes the middle of an agent's capabilities, which are the last offers.
    fn end_agent(&mut self, centres: &mut Vec<Arc<PackedVector>>) {
        let agent = (centres.len() > 1).then_some(self.agents.len() as u32);
        if agent.is_some() {
            self.agents.push(&middle(centres));
        }
        self.agent_of.extend(centres.drain(..).map(|_| agent));
    }

    /// The mean of the capabilities' directions, the nearer to nothing the fewer phrases there are.
    fn common(&self) -> Vec<f32> {
        let mut sum = Sum::default();
        self.centres.unpacked().for_each(|centre| sum.add(&centre));
        let phrases = self.offers.iter().map(|prepared| prepared.phrases.len()).sum::<usize>() as f32;
        let factor = phrases / (phrases + MIDDLE_DOUBT) / self.offers.len().max(1) as f32;
        sum.0.iter().map(|value| value * factor).collect()
    }

    /// The offers whose capability has the text as its name, in their order.
    pub(super) fn called(&self, name: &str) -> impl Iterator<Item = usize> {
        let name_of = |at: &u32| self.offers[*at as usize].offer.capability.as_str();
        let first = self.by_name.partition_point(|at| name_of(at) < name);
        self.by_name[first..].iter().take_while(move |at| name_of(at) == name).map(|at| *at as usize)
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

/// What keywords are taken from; the name counts twice.
fn texts(offer: &Offer) -> Vec<String> {
    let title = offer.title();
    let mut texts = vec![title.clone(), title, offer.description.clone()];
    texts.extend(offer.phrases.iter().cloned());
    texts
}

/// The direction in the middle of at least one; one that stands alone is shared.
fn middle(vectors: &[Arc<PackedVector>]) -> Arc<PackedVector> {
    if let [only] = vectors {
        return only.clone();
    }
    let mut sum = Sum::default();
    vectors.iter().for_each(|vector| sum.add(&vector.unpacked()));
    Arc::new(PackedVector::from(&Vector::new(sum.0)))
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
