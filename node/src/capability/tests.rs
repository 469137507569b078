//! Facts about routing, on small workspaces and on a public set of messages.

use caxton_embed::Embedder;
use semver::{Version, VersionReq};

use super::*;

fn offer(agent: &str, capability: &str, version: (u64, u64), description: &str, phrases: &[&str]) -> Offer {
    Offer {
        agent: agent.parse().unwrap(),
        capability: capability.parse().unwrap(),
        version: Version::new(version.0, version.1, 0),
        description: description.to_owned(),
        phrases: phrases.iter().map(|phrase| (*phrase).to_owned()).collect(),
    }
}

fn office() -> Index {
    let offers = [
        offer("chart-a", "plot_chart", (1, 0), "Draws charts from numbers", &["plot a chart", "draw a histogram"]),
        offer("chart-b", "plot_chart", (2, 1), "Draws charts from numbers", &["plot a chart", "draw a histogram"]),
        offer(
            "linguist",
            "translate",
            (1, 0),
            "Translates between languages",
            &["say this in french", "translate the letter"],
        ),
        offer("support", "zorblax_repair", (1, 0), "Repairs the Zorblax 9000", &["the zorblax makes a noise"]),
        offer("weather", "forecast", (1, 0), "", &["will it rain tomorrow"]),
    ];
    Index::build(offers, &Vectors::default())
}

fn ask(index: &Index, text: &str, version: Option<&str>) -> Ranking {
    let reading = Embedder::shared().read_start(text, MESSAGE_TOKENS_MAX);
    let version = version.map(|version| version.parse::<VersionReq>().unwrap());
    index.rank(&reading, text, &Requirements { version })
}

fn picked(ranking: &Ranking) -> Option<&str> {
    ranking.pick(|_| Some(0)).map(|candidate| candidate.agent.as_str())
}

#[test]
fn a_message_finds_who_can_do_it_without_sharing_a_word() {
    let index = office();
    for (text, agent) in [
        ("show me the sales of last year as bars", "chart-a"),
        ("how do I greet someone politely in Paris?", "linguist"),
        ("do I need an umbrella on Thursday?", "weather"),
        ("Zorblax is smoking", "support"),
    ] {
        let ranking = ask(&index, text, None);
        assert_eq!(ranking.candidates[0].agent.as_str(), agent, "{text}: {ranking:#?}");
    }
}

#[test]
fn the_one_among_hundreds_is_found_by_meaning_and_by_name() {
    let store = |box_number: usize| {
        let phrase = format!("store it in box {box_number}");
        offer(&format!("box-{box_number}"), "store_box", (1, 0), "", &[phrase.as_str()])
    };
    let chart = offer("chart", "plot_chart", (1, 0), "Draws charts from numbers", &["plot a chart"]);
    let more = offer("chart", "read_table", (1, 0), "", &["read a table of numbers"]);
    let offers = (0..200).map(store).chain([chart, more]).chain((200..400).map(store));
    let index = Index::build(offers, &Vectors::default());
    let by_meaning = ask(&index, "show me the sales of last year as bars", None);
    assert_eq!(by_meaning.candidates[0].capability.as_str(), "plot_chart", "{by_meaning:#?}");
    assert!(by_meaning.candidates[0].parts.agent < by_meaning.candidates[0].parts.centre, "{by_meaning:#?}");
    for (name, agents) in [("plot_chart", 1), ("store_box", 400), ("store", 0)] {
        assert_eq!(index.called(name).count(), agents, "{name}");
    }
    assert_eq!(picked(&ask(&index, "read_table", None)), Some("chart"));
}

#[test]
fn nobody_is_an_answer_and_names_the_nearest() {
    let index = office();
    for text in ["transfer 200 euros to my landlord", "who painted the Sistine Chapel", "qwertz uiop"] {
        let ranking = ask(&index, text, None);
        assert_eq!(ranking.choice, Choice::Nobody, "{text}: {ranking:#?}");
        assert_eq!(ranking.candidates.len(), 5);
        assert_eq!(picked(&ranking), None);
    }
}

#[test]
fn equals_share_the_load() {
    let ranking = ask(&office(), "draw a histogram of the ages", None);
    let busy_a = ranking.pick(|agent| Some(if agent.as_str() == "chart-a" { 9 } else { 1 })).unwrap();
    let busy_b = ranking.pick(|agent| Some(if agent.as_str() == "chart-b" { 9 } else { 1 })).unwrap();
    assert_eq!((busy_a.agent.as_str(), busy_b.agent.as_str()), ("chart-b", "chart-a"));
    let gone = ranking.pick(|agent| (agent.as_str() != "chart-a").then_some(0)).unwrap();
    assert_eq!(gone.agent.as_str(), "chart-b");
}

#[test]
fn versions_are_kept_to_and_the_nearest_serves_when_there_is_none() {
    let index = office();
    let text = "draw a histogram of the ages";
    for (wanted, agent, fit) in [
        ("^1", "chart-a", Fit::Matches),
        (">=2", "chart-b", Fit::Matches),
        ("^3", "chart-b", Fit::OtherVersion),
        ("~1.5", "chart-a", Fit::OtherVersion),
        ("=0.9", "chart-a", Fit::OtherVersion),
    ] {
        let ranking = ask(&index, text, Some(wanted));
        let candidate = ranking.pick(|_| Some(0)).unwrap();
        assert_eq!((candidate.agent.as_str(), candidate.fit), (agent, fit), "{wanted}");
    }
}

#[test]
fn a_capability_can_be_called_by_its_name() {
    let ranking = ask(&office(), "zorblax_repair", None);
    assert_eq!(picked(&ranking), Some("support"));
    assert_eq!(ranking.candidates.len(), 1);
}

#[test]
fn an_explanation_names_the_nearest_phrase_and_the_words() {
    let ranking = ask(&office(), "draw a histogram of the ages", None);
    assert_eq!(ranking.candidates[0].nearest_phrase, "draw a histogram");
    assert!(ranking.candidates[0].words.contains(&"histogram".to_owned()), "{:?}", ranking.candidates[0].words);
    let orders: Vec<f32> = ranking.candidates.iter().map(|candidate| candidate.order).collect();
    assert!(orders.is_sorted_by(|a, b| a >= b), "{orders:?}");
}

#[test]
fn an_empty_workspace_has_nobody() {
    let ranking = ask(&Index::build([], &Vectors::default()), "anything", None);
    assert_eq!(ranking, Ranking { choice: Choice::Nobody, candidates: Vec::new() });
}

#[test]
fn a_phrase_is_embedded_once_for_all_revisions() {
    let vectors = Vectors::default();
    let first = offer("a", "translate", (1, 0), "", &["say this in french"]);
    Index::build([first.clone()], &vectors);
    let known = vectors.len();
    Index::build([first, offer("b", "translate", (1, 0), "", &["say this in french"])], &vectors);
    assert_eq!(vectors.len(), known);
}

/// Where there is a public set of messages beside the checkout: every second of the even lines, to which the ranking was
/// fitted. docs/benchmarks.md has the odd ones.
#[test]
fn most_messages_of_a_public_set_find_their_agent() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/clinc150");
    let lines = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>())
    };
    let (Some(capabilities), Some(messages)) = (lines("capabilities.jsonl"), lines("messages.jsonl")) else { return };
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().map(str::to_owned);
    let mut offers: Vec<Offer> = Vec::new();
    for line in &capabilities {
        let (agent, capability) = (text(line, "agent").unwrap(), text(line, "capability").unwrap());
        let phrases: Vec<&str> = line["examples"].as_array().unwrap().iter().filter_map(|it| it.as_str()).collect();
        offers.push(offer(&agent, &capability, (1, 0), "", &phrases));
    }
    offers.sort_by(|a, b| a.agent.cmp(&b.agent));
    let index = Index::build(offers, &Vectors::default());
    let (mut asked, mut agents, mut found) = (0, 0, 0);
    for line in messages.iter().step_by(4) {
        let (Some(agent), Some(capability)) = (text(line, "agent"), text(line, "capability")) else { continue };
        let ranking = ask(&index, line["text"].as_str().unwrap(), None);
        asked += 1;
        agents += usize::from(ranking.candidates[0].agent.as_str() == agent);
        found += usize::from(ranking.candidates[0].capability.as_str() == capability);
    }
    let (agents, found) = (f64::from(agents as u32) / f64::from(asked), f64::from(found as u32) / f64::from(asked));
    println!("of {asked} messages {agents:.4} find their agent and {found:.4} their capability");
    assert!(agents >= 0.962 && found >= 0.875, "{agents} {found}");
}
