//! What each command prints, word for word; times, addresses, sizes and digests are put into brackets.

use insta::assert_snapshot;

use crate::run::{Node, Place, Workspace, agent};

/// Takes out what differs from run to run.
fn filtered(check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"http://127\.0\.0\.1:\d+", "[url]");
    settings.add_filter(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "[time stamp]");
    settings.add_filter(r"just now|\d+ (second|minute)s? ago", "[age]");
    settings.add_filter(r"[\d.]+ (B|KB|MB) sent", "[size] sent");
    settings.add_filter(r"\b[\d.]+ (ms|s)\b", "[duration]");
    settings.add_filter(r"\b[0-9a-f]{64}\b", "[digest]");
    settings.add_filter(r"/\S*/caxton-process-\w+", "[place]");
    settings.add_filter(r"; deployment \d+", "; deployment [id]");
    settings.bind(check);
}

/// Two deployments: one agent, then a change to it, another agent and a prompt.
fn deployed_twice(workspace: &Workspace) {
    workspace.run(&["deploy", "--yes", "-m", "the first agent"]).ok();
    workspace.write("agents/greeter.toml", agent("greeter", "1.1.0"));
    workspace.write("agents/helper.toml", agent("helper", "0.1.0"));
    workspace.run(&["deploy", "--yes"]).ok();
}

#[test]
fn a_deployment_shows_its_plan_and_what_became_of_it() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    let dry = workspace.run(&["deploy", "--dry-run"]).shown();
    let unasked = workspace.run(&["deploy"]).shown();
    let first = workspace.run(&["deploy", "--yes", "-m", "the first agent"]).shown();
    let again = workspace.run(&["deploy", "--yes"]).shown();
    filtered(|| {
        assert_snapshot!(dry, @r"
        Plan for demo at [url] (nothing is live yet)
          + agent greeter
          + file caxton.toml
        2 new
        Dry run: everything was checked and nothing was sent.
        [exit 0]
        ");
        assert_snapshot!(unasked, @r"
        Plan for demo at [url] (nothing is live yet)
          + agent greeter
          + file caxton.toml
        2 new
        error: nobody is there to agree to the plan
        help: agree beforehand with --yes, or look at the plan alone with --dry-run
        [exit 2]
        ");
        assert_snapshot!(first, @r"
        Plan for demo at [url] (nothing is live yet)
          + agent greeter
          + file caxton.toml
        2 new
        r1 of demo is live
        2 files, [size] sent, [duration]
        no commit; deployment [id]
        [exit 0]
        ");
        assert_snapshot!(again, @r"
        Nothing to deploy: r1 is live and is the same.
        [exit 0]
        ");
    });
}

#[test]
fn the_history_and_the_state_read_well() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    let before = workspace.run(&["log"]).shown();
    deployed_twice(&workspace);
    workspace.write("agents/greeter.toml", agent("greeter", "2.0.0"));
    std::fs::remove_file(workspace.root.join("agents/helper.toml")).expect("removed");
    let (log, status) = (workspace.run(&["log"]).shown(), workspace.run(&["status"]).shown());
    let agents = workspace.run(&["agents", "list"]).shown();
    let agent = workspace.run(&["agents", "show", "helper"]).shown();
    filtered(|| {
        assert_snapshot!(before, @r"
        Nothing was deployed to demo yet.
        [exit 0]
        ");
        assert_snapshot!(log, @r"
        REV  TIME (UTC)           WHO                             COMMIT  WHAT
        r2   [time stamp]  Ada Lovelace <ada@example.com>  -       1 new, 1 changed
        r1   [time stamp]  Ada Lovelace <ada@example.com>  -       the first agent
        [exit 0]
        ");
        assert_snapshot!(status, @r"
        demo at [url]
        r2 is live, deployed by Ada Lovelace <ada@example.com> [age]: 1 new, 1 changed
          2 agents, 0 tools
          greeter  r2, [age]
          helper   r2, [age]

        changes here that are not deployed:
          ~ agent greeter
          - agent helper
        put them live with `caxton deploy`
        [exit 0]
        ");
        assert_snapshot!(agents, @r"
        AGENT    STATE  VERSION  CAPABILITIES  DESCRIPTION
        greeter  -      1.1.0    greeter       Greets people
        helper   -      0.1.0    helper        Greets people
        2 agents
        [exit 0]
        ");
        assert_snapshot!(agent, @r#"
        helper 0.1.0
        Greets people
        agents/helper.toml of r2
        capabilities: helper

        [agent]
        name = "helper"
        version = "0.1.0"
        description = "Greets people"

        [capabilities]
        patterns = ["say hello to someone"]

        [prompts]
        system = "You greet people."
        [exit 0]
        "#);
    });
}

#[test]
fn a_rollback_shows_what_it_changes_and_pull_brings_it_here() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    deployed_twice(&workspace);
    let dry = workspace.run(&["rollback", "r1", "--dry-run"]).shown();
    let done = workspace.run(&["rollback", "1", "--yes", "-m", "the new tone is wrong"]).shown();
    let status = workspace.run(&["status"]).shown();
    let deploy = workspace.run(&["deploy", "--yes"]).shown();
    let same = workspace.run(&["rollback", "r1", "--yes"]).shown();
    let unknown = workspace.run(&["rollback", "r77", "--yes"]).shown();
    let pull = workspace.run(&["pull"]).shown();
    filtered(|| {
        assert_snapshot!(dry, @r"
        Back from r2 to r1 of demo ([time stamp]: the first agent)
          ~ agent greeter
          - agent helper
        1 changed, 1 removed
        Dry run: nothing was sent.
        [exit 0]
        ");
        assert_snapshot!(done, @r"
        Back from r2 to r1 of demo ([time stamp]: the first agent)
          ~ agent greeter
          - agent helper
        1 changed, 1 removed
        r3 of demo is live, with the content of r1
        [duration]; the files here were not touched: `caxton pull` brings them back too
        [exit 0]
        ");
        assert_snapshot!(status, @r"
        demo at [url]
        r3 is live, deployed by Ada Lovelace <ada@example.com> [age]: the new tone is wrong
          1 agent, 0 tools
          greeter  r3, [age]

        1 deployment since r2, which these files are based on:
          ~ agent greeter
          - agent helper
        get them with `caxton pull`

        no changes here
        [exit 0]
        ");
        assert_snapshot!(deploy, @r"
        r3 was deployed by Ada Lovelace <ada@example.com> [age]: the new tone is wrong
          ~ agent greeter
          - agent helper
        error: r3 is live; your files are based on r2
        help: get it with `caxton pull`, look at what it changes, and run `caxton deploy` again
        [exit 4]
        ");
        assert_snapshot!(same, @r"
        Nothing to do: r3 already has the content of r1.
        [exit 0]
        ");
        assert_snapshot!(unknown, @r"
        error: demo has no revision r77
        help: `caxton log` lists the revisions
        [exit 1]
        ");
        assert_snapshot!(pull, @r"
          < agents/greeter.toml
          - agents/helper.toml
        Now at r3: 1 file taken, 1 removed.
        [exit 0]
        ");
    });
    assert_eq!(workspace.run(&["status", "--json"]).json()["local"], serde_json::json!([]));
}

#[test]
fn two_people_deploy_and_the_second_is_told() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let (ada, bob) = (place.workspace("ada"), place.workspace("bob"));
    ada.run(&["deploy", "--yes"]).ok();
    bob.run(&["pull"]).ok();
    ada.write("agents/greeter.toml", agent("greeter", "2.0.0"));
    ada.write("agents/added.toml", agent("added", "1.0.0"));
    ada.run(&["deploy", "--yes", "-m", "for the fair"]).ok();
    bob.write("agents/greeter.toml", agent("greeter", "3.0.0"));
    bob.write("agents/own.toml", agent("own", "1.0.0"));
    let refused = bob.run(&["deploy", "--yes"]).shown();
    let pulled = bob.run(&["pull"]).shown();
    let settled = bob.run(&["pull", "--ours"]).shown();
    let deployed = bob.run(&["deploy", "--yes"]).shown();
    filtered(|| {
        assert_snapshot!(refused, @r"
        r2 was deployed by Ada Lovelace <ada@example.com> [age]: for the fair
          + agent added
          ~ agent greeter
        error: r2 is live; your files are based on r1
        help: get it with `caxton pull`, look at what it changes, and run `caxton deploy` again
        [exit 4]
        ");
        assert_snapshot!(pulled, @r"
          < agents/added.toml
          ! agents/greeter.toml
        error: 1 file changed here and in r2, and left alone
        help: the live versions are in .caxton/theirs/: merge them by hand and say `caxton pull --ours`, or take them all with `caxton pull --theirs`
        [exit 4]
        ");
        assert_snapshot!(settled, @r"
        Up to date with r2.
        [exit 0]
        ");
        assert_snapshot!(deployed, @r"
        Plan for demo at [url] (r2 is live)
          ~ agent greeter
          + agent own
        1 new, 1 changed
        r3 of demo is live
        4 files, [size] sent, [duration]
        no commit; deployment [id]
        [exit 0]
        ");
    });
    let theirs = std::fs::read_to_string(bob.root.join(".caxton/theirs/agents/greeter.toml")).expect("kept aside");
    assert!(theirs.contains("2.0.0"));
}

#[test]
fn a_status_without_a_server_says_so() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    workspace.run(&["deploy", "--yes"]).ok();
    let health = workspace.run(&["health"]).shown();
    node.kill();
    workspace.write("prompts/new.md", "x");
    let status = workspace.run(&["status"]).shown();
    let asked = workspace.run(&["status", "--offline"]).shown();
    let json = workspace.run(&["status", "--json"]).json();
    assert_eq!((&json["offline"], &json["base"]), (&true.into(), &1.into()));
    filtered(|| {
        assert_snapshot!(health, @r"
        alive  yes  [url] in [duration]
        ready  yes
          deployments  ok
          log          ok
          membership   ok
          shards       ok
        [exit 0]
        ");
        assert_snapshot!(status, @r"
        demo at [url] (offline)
        r1 is live, deployed by Ada Lovelace <ada@example.com> [age]: 2 new

        changes here that are not deployed:
          + file prompts/new.md
        put them live with `caxton deploy`
        warning: no Caxton server answers at [url]; what follows is from the last time it was asked
        [exit 0]
        ");
        assert_snapshot!(asked, @r"
        demo at [url] (offline)
        r1 is live, deployed by Ada Lovelace <ada@example.com> [age]: 2 new

        changes here that are not deployed:
          + file prompts/new.md
        put them live with `caxton deploy`
        [exit 0]
        ");
    });
}

#[test]
fn a_workspace_is_deleted_by_its_name_and_the_folder_can_be_deployed_again() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    workspace.run(&["deploy", "--yes"]).ok();
    let unasked = workspace.run(&["workspaces", "delete", "demo"]).shown();
    let other = workspace.run(&["workspaces", "delete", "nobody", "--yes"]).shown();
    let deleted = workspace.run(&["workspaces", "delete", "demo", "--yes"]).shown();
    let listed = workspace.run(&["workspaces", "list"]).shown();
    let again = workspace.run(&["deploy", "--yes"]).shown();
    filtered(|| {
        assert_snapshot!(unasked, @r"
        error: `caxton workspaces delete demo` asks for the name, and nobody is there
        help: agree beforehand: `caxton workspaces delete demo --yes`
        [exit 2]
        ");
        assert_snapshot!(other, @r"
        error: there is no workspace `nobody`
        help: `caxton workspaces list` shows the ones there are
        [exit 1]
        ");
        assert!(
            deleted.contains("demo goes for good: 1 deployment, ") && deleted.contains("deleted workspace demo"),
            "{deleted}"
        );
        assert_snapshot!(listed, @r"
        There is no workspace yet: `caxton init` makes one, and `caxton deploy` puts it live.
        [exit 0]
        ");
        assert!(again.contains("r2 of demo is live"), "{again}");
    });
}
