//! Three nodes: senders whose node leads the workspace's shard, and senders whose messages take one hop.

use anyhow::{Context, Result};
use caxton::shard::placement::owner_of;
use caxton_benches::cluster::Cluster;

use super::flow::Senders;
use super::place::{Admin, Folder};
use super::ways::Way;
use super::{Bench, row};

/// How many shards a cluster has unless told.
const SHARDS: std::num::NonZeroU32 = std::num::NonZeroU32::new(8).expect("it is not 0");

pub async fn measure(bench: &Bench<'_>) -> Result<()> {
    let args = bench.args;
    let dir = bench.dir.join("three");
    std::fs::create_dir_all(&dir)?;
    let cluster = Cluster::start(bench.caxton.path(), &dir).await?;
    let admin = Admin::new(cluster.address(0), cluster.token());
    let mut workspaces = Vec::new();
    for number in 0..args.workspaces {
        let name = format!("bench-{number}");
        let folder = Folder::new(dir.join(&name), &name)?;
        folder.add_echoes(args.agents, args.concurrency)?;
        let revision = cluster.deploy_folder(0, &folder.path).await?;
        for node in 0..3 {
            cluster.live(node, &name, revision).await?;
        }
        workspaces.push(name);
    }
    let mut tokens = Vec::new();
    for number in 0..args.senders {
        tokens.push(admin.token(&format!("sender-{number}")).await?);
    }
    let first = workspaces.first().context("a workspace")?.parse()?;
    let leader = cluster.leader_of(owner_of(&first, SHARDS).0 as usize).await?;
    let all: Vec<String> = (0..3).map(|node| cluster.address(node).to_owned()).collect();
    let others: Vec<String> = (0..3).filter(|node| *node != leader).map(|node| all[node].clone()).collect();
    let ways = [("the leader", vec![all[leader].clone()]), ("two that do not lead, one hop", others)];
    for (what, addresses) in ways {
        let senders = Senders::plan(bench, Way::Http, &workspaces, tokens.clone());
        senders.flow(&admin, &addresses, args.time() / 10).await?;
        let flow = senders.flow(&admin, &addresses, args.time()).await?;
        let senders = format!("three nodes, taken over {} at {what}, {} senders", Way::Http.name(), args.senders);
        row(&senders, &flow.taken, "")?;
        flow.say_settled()?;
    }
    Ok(())
}
