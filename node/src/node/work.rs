//! Starts what goes on by itself once everything is open: the work behind the requests, the node's part in its cluster, and
//! last the port.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caxton_proto::log::cluster::NodeFacts;
use tracing::warn;

use super::StartError;
use crate::cluster::hearsay::Hearsay;
use crate::cluster::reconcile::Voters;
use crate::cluster::service::Service;
use crate::cluster::spread::Spread;
use crate::cluster::watch::Watch;
use crate::deploy::collect::Collector;
use crate::deploy::pins::Pins;
use crate::deploy::reconcile::Reconciler;
use crate::http::listen::Edge;
use crate::http::{self, Services};
use crate::invoke::takeover::Takeover;
use crate::replicas::Replicas;
use crate::shard::placement;
use crate::tasks::Tasks;
use crate::tls::{self, Tls};

/// How often samples of metrics are sorted into their buckets.
const METRICS_EVERY: Duration = Duration::from_secs(5);

/// The log stopped for good on this node.
#[derive(Debug, thiserror::Error)]
#[error("the deploy log has stopped: {0}")]
struct LogStopped(Arc<str>);

/// What goes on behind the requests.
pub fn start_workers(workers: &Tasks, services: &Services, pins: Pins, replicas: Replicas) {
    let (log, catalogs, artifacts) = (services.log.clone(), services.catalogs.clone(), services.artifacts.clone());
    let stop = workers.stop_token();
    let reconciler = Reconciler::new(
        log.clone(),
        catalogs.clone(),
        artifacts.clone(),
        services.activity.clone(),
        replicas,
        stop.clone(),
    );
    workers.spawn("reconciler", async move {
        reconciler.run().await;
        Ok::<_, std::convert::Infallible>(())
    });
    let collector = Collector::new(log.clone(), catalogs, artifacts, pins);
    let collector_stop = stop.clone();
    workers.spawn("collector", async move {
        collector.run(collector_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let preparing = services.routing.clone().follow(services.catalogs.clone(), stop.clone());
    workers.spawn("capabilities", async move {
        preparing.await;
        Ok::<_, std::convert::Infallible>(())
    });
    let (metrics, upkeep_stop) = (services.metrics.clone(), stop.clone());
    workers.spawn("metrics", async move {
        // Samples pile up until somebody scrapes, or this sorts them into their buckets.
        while upkeep_stop.run_until_cancelled(tokio::time::sleep(METRICS_EVERY)).await.is_some() {
            metrics.run_upkeep();
        }
        Ok::<_, std::convert::Infallible>(())
    });
    let shards = services.invoker.conversations().shards();
    let count = shards.count();
    let (deploy_log, shards_stop) = (log.clone(), stop.clone());
    workers.spawn("shards watch", async move {
        let contradicted = placement::contradicted(deploy_log, count);
        shards_stop.run_until_cancelled(contradicted).await.map_or(Ok(()), Err)
    });
    for shard in shards.all() {
        let takeover = Takeover::new(services.invoker.clone(), shard);
        let stop = stop.clone();
        workers.spawn("takeover", async move {
            takeover.run(stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    let mut status = log.status();
    workers.spawn("log watch", async move {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            fatal = status.wait_for(|status| status.fatal.is_some()) => {
                let why = fatal.ok().and_then(|status| status.fatal.clone());
                Err(LogStopped(why.unwrap_or_else(|| "nobody says why".into())))
            }
        }
    });
}

/// What keeps the node in its cluster.
pub fn start_cluster(
    workers: &Tasks,
    services: &Services,
    service: Service,
    facts: NodeFacts,
    hearsay: Option<Hearsay>,
) {
    let (cluster, log, stop) = (&services.cluster, &services.log, workers.stop_token());
    for (id, group) in cluster.groups() {
        let (id, group) = (*id, group.clone());
        let voters_max = services.config.cluster.voters_max as usize;
        let voters = Voters { group, id, log: log.clone(), own: cluster.own(), voters_max };
        let stop = stop.clone();
        workers.spawn("voters", async move {
            voters.run(stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    let voters_max = services.config.cluster.voters_max as usize;
    let spread = Spread { cluster: cluster.clone(), log: log.clone(), voters_max };
    let spread_stop = stop.clone();
    workers.spawn("spread", async move {
        spread.run(spread_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let peers = cluster.peers().clone();
    let holds = services.keyring.holds();
    let watch = Watch { log: log.clone(), peers: peers.clone(), service, own: facts, holds };
    let (keyring, keyring_stop) = (services.keyring.clone(), stop.clone());
    workers.spawn("keyring", async move {
        keyring.run(keyring_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    workers.spawn("cluster watch", watch.run(stop.clone()));
    if let Some(hearsay) = hearsay {
        let (invoker, stop) = (services.invoker.clone(), stop.clone());
        workers.spawn("gossip", async move {
            hearsay.run(move || invoker.load(), stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    workers.spawn("peer certificates", async move {
        while stop.run_until_cancelled(tokio::time::sleep(tls::RENEW_EVERY)).await.is_some() {
            // The certificate that is there goes on for weeks, and the next attempt is half a day away.
            if let Err(error) = peers.credentials().renew() {
                warn!(error = %crate::errors::chain(&error), "the certificate for peers could not be renewed");
            }
        }
        Ok::<_, std::convert::Infallible>(())
    });
}

/// Opens the port to requests.
pub fn start_edges(
    edges: &Tasks,
    services: &Services,
    listener: tokio::net::TcpListener,
    api: &OnceLock<axum::Router>,
) -> Result<(), StartError> {
    let config = &services.config;
    let tls = tls::is_wanted(config).then(|| Tls::open(config, &services.identity.cluster.to_string())).transpose()?;
    let router = http::router(services.clone());
    // Set once, here.
    _ = api.set(router.clone());
    let edge = Edge {
        listener,
        tls: tls.as_ref().map(Tls::acceptor),
        router,
        limits: config.http.clone(),
        grace: config.stop.grace,
    };
    edges.spawn("http", edge.run(edges.stop_token()));
    if let Some(tls) = tls {
        let stop = edges.stop_token();
        let credentials = services.cluster.peers().credentials().clone();
        edges.spawn("certificates", async move {
            let mut renewed = credentials.renewed();
            // When the authority was rotated, or when it is time.
            while stop.run_until_cancelled(tokio::time::timeout(tls::RENEW_EVERY, renewed.changed())).await.is_some() {
                // The certificate that is there goes on serving, and the next attempt is half a day away.
                if let Err(error) = tls.renew() {
                    warn!(error = %crate::errors::chain(&error), "the certificate could not be renewed");
                }
            }
            Ok::<_, std::convert::Infallible>(())
        });
    }
    Ok(())
}
