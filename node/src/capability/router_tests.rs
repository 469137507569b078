//! The router over real catalogs: new revisions, remembered answers, agents that went away.

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use caxton_embed::Model;
use caxton_proto::Digest;
use caxton_proto::tree::{File, Tree};

use super::super::rank::Choice;
use super::*;
use crate::artifacts::{Artifacts, Space};

struct Store {
    artifacts: Artifacts,
    workspace: WorkspaceId,
    _dir: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(&dir.path().join("artifacts"), Space::new(dir.path(), 0)).unwrap();
        Self { artifacts, workspace: "office".parse().unwrap(), _dir: dir }
    }

    /// A catalog whose agents each offer one capability with the given patterns.
    fn catalog(&self, revision: u64, agents: &[(&str, &[&str])], previous: Option<&Catalog>) -> Arc<Catalog> {
        let mut tree = Tree::default();
        for (name, patterns) in agents {
            let text = format!("name = {name:?}\ncapabilities = {patterns:?}\nsystem_prompt = \"Be brief.\"\n");
            let digest = Digest::of(text.as_bytes());
            self.artifacts.put(&self.workspace, vec![(digest, Bytes::from(text.clone()))]).unwrap();
            let file = File { digest, bytes: text.len() as u64, chunks: None };
            tree.insert(format!("agents/{name}.toml").parse().unwrap(), file);
        }
        let (root, tree) = (tree.root(), Arc::new(tree));
        Arc::new(Catalog::new(&self.workspace, Revision(revision), root, tree, previous, &self.artifacts))
    }
}

fn router(dir: &Path) -> Router {
    // A busy machine takes its time to prepare a new revision, and an older index answers after the usual wait.
    let limits = RouterLimits { newer_index_wait: Duration::from_secs(60), ..RouterLimits::default() };
    Router::new(Vectors::at(dir, Model::built_in()), limits)
}

async fn route(router: &Router, catalog: &Arc<Catalog>, text: &str) -> Routed {
    router.route(catalog, text, &Requirements::default()).await.unwrap()
}

fn agent(routed: &Routed) -> Option<String> {
    routed.pick(|_| 0).map(|candidate| candidate.agent.to_string())
}

#[tokio::test]
async fn a_deployment_empties_what_is_remembered() {
    let (store, dir) = (Store::new(), tempfile::tempdir().unwrap());
    let router = router(dir.path());
    let first = store.catalog(1, &[("linguist", &["translate-text"])], None);
    let text = "translate this letter, please";
    let routed = route(&router, &first, text).await;
    assert_eq!((agent(&routed).as_deref(), routed.cached), (Some("linguist"), false));
    let started = Instant::now();
    assert!(route(&router, &first, text).await.cached, "the same message again");
    println!("remembered in {:?}", started.elapsed());

    let second = store.catalog(2, &[("linguist", &["translate-text"]), ("painter", &["draw-chart"])], Some(&first));
    let routed = route(&router, &second, text).await;
    assert_eq!((routed.revision, routed.cached), (Revision(2), false));
    let routed = route(&router, &second, "draw a chart of the sales").await;
    assert_eq!(agent(&routed).as_deref(), Some("painter"));
}

/// A core is handed on in the order in which it was waited for, and all that happens between two messages happens in
/// this thread: so the count of vectors says what was embedded before each message, whatever the machine does.
#[tokio::test]
async fn a_message_waits_for_one_phrase_of_a_deployment_at_most() {
    let (store, dir) = (Store::new(), tempfile::tempdir().unwrap());
    let mut shared = Arc::into_inner(router(dir.path()).0).unwrap();
    shared.cores = Arc::new(Semaphore::new(1));
    let router = Router(Arc::new(shared));
    let first = store.catalog(1, &[("linguist", &["translate-text"])], None);
    route(&router, &first, "translate this letter").await;

    let core = router.0.cores.clone().acquire_owned().await.unwrap();
    let names: Vec<String> = (0..40).map(|turn| format!("agent-{turn}")).collect();
    let patterns: Vec<[String; 1]> = (0..40).map(|turn| [format!("prepare-dish-{turn}")]).collect();
    let patterns: Vec<Vec<&str>> = patterns.iter().map(|one| one.iter().map(String::as_str).collect()).collect();
    let agents: Vec<(&str, &[&str])> =
        names.iter().zip(&patterns).map(|(name, patterns)| (name.as_str(), patterns.as_slice())).collect();
    let second = store.catalog(2, &agents, Some(&first));
    let known = router.0.vectors.len();
    let mut preparing = std::pin::pin!(router.prepared(&second));
    assert!(futures::poll!(&mut preparing).is_pending());
    let messages: Vec<String> = (0..20).map(|turn| format!("translate letter {turn}")).collect();
    let anything = Requirements::default();
    let mut asked: Vec<_> = messages.iter().map(|text| Box::pin(router.route(&first, text, &anything))).collect();
    for message in &mut asked {
        assert!(futures::poll!(message).is_pending(), "there is no core");
    }
    drop(core);
    let last = asked.pop().unwrap();
    for message in asked {
        message.await.unwrap();
        let made = router.0.vectors.len() - known;
        assert!(made <= 1, "{made} phrases were embedded while messages waited");
    }
    last.await.unwrap();
    preparing.await.unwrap();
    assert!(router.0.vectors.len() - known >= 40, "each agent has a phrase of its own");
    assert_eq!(router.slot(&store.workspace).0.unwrap().revision, Revision(2));
}

#[tokio::test]
async fn what_was_prepared_before_is_not_embedded_again() {
    let (store, dir) = (Store::new(), tempfile::tempdir().unwrap());
    let first = store.catalog(1, &[("linguist", &["translate-text"]), ("painter", &["draw-chart"])], None);
    let vectors = Vectors::at(dir.path(), Model::built_in());
    let turns = std::cell::Cell::new(0);
    let core = || {
        turns.set(turns.get() + 1);
        Some(())
    };
    assert_eq!(build(&first, &vectors, core).unwrap().len(), 2);
    let phrases = turns.get() - 1;
    assert_eq!(phrases, vectors.len(), "a turn for each phrase, and one for the index");
    save(&vectors);
    let second = store.catalog(2, &[("linguist", &["translate-text"]), ("cook", &["draw-chart"])], Some(&first));
    for vectors in [vectors, Vectors::at(dir.path(), Model::built_in())] {
        turns.set(0);
        assert_eq!(build(&second, &vectors, core).unwrap().len(), 2);
        assert_eq!(turns.get(), 1, "nothing but the index is new");
    }
    assert!(build(&second, &Vectors::default(), || None::<()>).is_none(), "a router that stopped");
}

#[tokio::test]
async fn of_equals_the_one_with_the_fewest_turns_is_taken() {
    let (store, dir) = (Store::new(), tempfile::tempdir().unwrap());
    let router = router(dir.path());
    let catalog = store.catalog(1, &[("one", &["plot-chart"]), ("two", &["plot-chart"])], None);
    let routed = route(&router, &catalog, "plot-chart").await;
    let picked = || routed.pick_by(router.load()).map(|it| it.agent.clone()).unwrap();
    let first = picked();
    drop(router.load().begin(&catalog.workspace, &first));
    let next = picked();
    assert_ne!(next, first, "nobody is busy, and the other has had nothing to do");
    drop(router.load().begin(&catalog.workspace, &next));
    assert_eq!(picked(), first, "in turn");
    let _busy = router.load().begin(&catalog.workspace, &first);
    let second = picked();
    assert_ne!(second, first);
    let _busier = [(); 2].map(|()| router.load().begin(&catalog.workspace, &second));
    assert_eq!(picked(), first);
}

#[tokio::test]
async fn an_agent_that_went_away_is_not_picked_from_an_older_index() {
    let (store, dir) = (Store::new(), tempfile::tempdir().unwrap());
    let limits = RouterLimits { newer_index_wait: Duration::ZERO, ..RouterLimits::default() };
    let router = Router::new(Vectors::at(dir.path(), Model::built_in()), limits);
    let first = store.catalog(1, &[("linguist", &["translate-text"])], None);
    assert_eq!(agent(&route(&router, &first, "translate this letter").await).as_deref(), Some("linguist"));
    // Nothing waits for the new index, so the older one may well answer: it must not name who is gone.
    let second = store.catalog(2, &[("painter", &["draw-chart"])], None);
    assert_eq!(agent(&route(&router, &second, "translate this letter").await), None);
}

#[tokio::test]
async fn an_empty_message_and_an_empty_workspace_are_told_apart() {
    let (store, dir) = (Store::new(), tempfile::tempdir().unwrap());
    let router = router(dir.path());
    let empty = store.catalog(1, &[], None);
    let refused = router.route(&empty, " \n", &Requirements::default()).await;
    assert!(matches!(refused, Err(RouteError::Empty)));
    assert_eq!(agent(&route(&router, &empty, "translate this letter").await), None);
}

#[tokio::test]
async fn live_catalogs_are_prepared_without_being_asked_and_vectors_written_down() {
    let (store, dir) = (Store::new(), tempfile::tempdir().unwrap());
    let (router, catalogs, stop) = (router(dir.path()), Catalogs::default(), CancellationToken::new());
    let following = tokio::spawn(router.clone().follow(catalogs.clone(), stop.clone()));
    catalogs.swap(store.catalog(1, &[("linguist", &["translate-text"])], None));
    let written = async {
        while !dir.path().join("vectors.bin").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), written).await.expect("the vectors are written down");
    assert!(router.slot(&store.workspace).0.is_some(), "the index is ready");
    stop.cancel();
    following.await.unwrap();
}

#[test]
fn answers_in_use_stay_and_others_go() {
    let answer = Arc::new(Ranking { choice: Choice::Nobody, candidates: Vec::new() });
    let mut answers = Answers::default();
    for turn in 0..1_000 {
        answers.put(format!("message {turn}"), answer.clone(), 10);
        answers.get("message 0").expect("a message that keeps coming is remembered");
        assert!(answers.young.len() + answers.old.len() <= 12);
    }
    assert!(answers.get("message 17").is_none());
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!(head("größe", 4), "gr\u{f6}");
    assert_eq!(head("größe", 3), "gr");
    assert_eq!(head("ab", 10), "ab");
}
