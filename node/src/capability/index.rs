//! What a revision's agents can do, prepared for ranking.

use std::sync::Arc;

use caxton_embed::{DIMENSIONS, Vector};
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
    /// Which of [`Index::agents`] it belongs to.
    pub agent: usize,
}

/// What the agents of one revision offer.
#[derive(Default)]
pub struct Index {
    pub(super) offers: Vec<Prepared>,
    /// The direction in the middle of each agent's capabilities.
    pub(super) agents: Vec<Arc<Packed>>,
    pub(super) keywords: Keywords,
}

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
            prepared.push(Prepared { offer, phrases, summary, centre, agent: agents.len() });
        }
        if !centres.is_empty() {
            agents.push(middle(&centres));
        }
        prepared.shrink_to_fit();
        agents.shrink_to_fit();
        let documents: Vec<Vec<String>> = prepared.iter().map(|prepared| texts(&prepared.offer)).collect();
        let keywords = Keywords::build(documents.iter().map(|texts| texts.iter().map(String::as_str)));
        Self { offers: prepared, agents, keywords }
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
fn middle(vectors: &[Arc<Packed>]) -> Arc<Packed> {
    if let [only] = vectors {
        return only.clone();
    }
    let mut sum = [0.0; DIMENSIONS];
    for vector in vectors {
        sum.iter_mut().zip(vector.unpacked().as_slice()).for_each(|(sum, value)| *sum += value);
    }
    Arc::new(Packed::from(&Vector::new(sum)))
}
