//! Starts what goes on by itself once everything is open: the work behind the requests, the node's part in its cluster, and
//! last the port.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caxton_proto::log::cluster::NodeFacts;
use tracing::warn;

use super::{Parts, StartError};
use crate::app::dispatch::Dispatcher;
use crate::app::schedules::Scheduler;
use crate::cluster::hearsay::Hearsay;
use crate::cluster::reconcile::Voters;
use crate::cluster::retire::Retirements;
use crate::cluster::service::Service;
use crate::cluster::spread::Spread;
use crate::cluster::watch::Watch;
use crate::deploy::collect::Collector;
use crate::deploy::pins::Pins;
use crate::deploy::reconcile::Reconciler;
use crate::edge::listen::Edge;
use crate::edge::{self, Services};
use crate::invoke::deletion::Deletions;
use crate::invoke::retention::Retention;
use crate::invoke::takeover::Takeover;
use crate::memory_backend::feed::Feeder;
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
pub fn start_workers(workers: &Tasks, parts: &Parts, pins: Pins) {
    let (log, catalogs, artifacts) = (parts.log.clone(), parts.catalogs.clone(), parts.artifacts.clone());
    let stop = workers.stop_token();
    let reconciler = Reconciler::new(
        log.clone(),
        catalogs.clone(),
        artifacts.clone(),
        parts.activity.clone(),
        parts.replicas.clone(),
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
    let preparing = parts.routing.clone().follow(parts.catalogs.clone(), stop.clone());
    workers.spawn("capabilities", async move {
        preparing.await;
        Ok::<_, std::convert::Infallible>(())
    });
    let (metrics, upkeep_stop) = (parts.metrics.clone(), stop.clone());
    workers.spawn("metrics", async move {
        // Samples pile up until somebody scrapes, or this sorts them into their buckets.
        while upkeep_stop.run_until_cancelled(tokio::time::sleep(METRICS_EVERY)).await.is_some() {
            metrics.run_upkeep();
        }
        Ok::<_, std::convert::Infallible>(())
    });
    let shards = parts.invoker.conversations().shards();
    let count = shards.count();
    let (deploy_log, shards_stop) = (log.clone(), stop.clone());
    workers.spawn("shards watch", async move {
        let contradicted = placement::contradicted(deploy_log, count);
        shards_stop.run_until_cancelled(contradicted).await.map_or(Ok(()), Err)
    });
    let (extracting, extract_stop) = (parts.invoker.clone(), stop.clone());
    workers.spawn("extract", async move {
        extracting.extract(extract_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    for shard in shards.all() {
        let retention = Retention::new(parts.invoker.clone(), shard);
        let retention_stop = stop.clone();
        workers.spawn("retention", async move {
            retention.run(retention_stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        let deletions = Deletions::new(parts.invoker.clone(), log.clone(), shard);
        let deletions_stop = stop.clone();
        workers.spawn("deletions", async move {
            deletions.run(deletions_stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        let takeover = Takeover::new(parts.invoker.clone(), shard);
        let stop = stop.clone();
        workers.spawn("takeover", async move {
            takeover.run(stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    for memories in parts.invoker.memories().all() {
        let feeder = Feeder::new(parts.invoker.memory_backends().clone(), memories.clone());
        let feeder_stop = stop.clone();
        workers.spawn("memory backends", async move {
            feeder.run(feeder_stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        let stop = stop.clone();
        workers.spawn("memories", async move {
            memories.keep_up(stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    for mailboxes in parts.mailboxes.all() {
        let (measured, measured_stop) = (mailboxes.clone(), stop.clone());
        workers.spawn("mailbox gauges", async move {
            measured.measure(measured_stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        let scheduler = Scheduler::new(parts.invoker.clone(), mailboxes.clone());
        let scheduler_stop = stop.clone();
        workers.spawn("schedules", async move {
            scheduler.run(scheduler_stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        let dispatcher = Dispatcher::new(parts.invoker.clone(), mailboxes, parts.post.clone());
        let stop = stop.clone();
        workers.spawn("mailboxes", async move {
            dispatcher.run(stop).await;
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
pub fn start_cluster(workers: &Tasks, parts: &Parts, service: Service, facts: NodeFacts, hearsay: Option<Hearsay>) {
    let (cluster, log, stop) = (&parts.cluster, &parts.log, workers.stop_token());
    for (id, group) in cluster.groups() {
        let (id, group) = (*id, group.clone());
        let voters_max = parts.config.cluster.voters_max as usize;
        let voters = Voters { group, id, log: log.clone(), own: cluster.own(), voters_max };
        let stop = stop.clone();
        workers.spawn("voters", async move {
            voters.run(stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    let (watching, watching_stop) = (cluster.clone(), stop.clone());
    workers.spawn("majorities", async move {
        watching.watch_majorities(watching_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let retirements = Retirements { cluster: cluster.clone(), log: log.clone(), replicas: parts.replicas.clone() };
    let retirements_stop = stop.clone();
    workers.spawn("retirements", async move {
        retirements.run(retirements_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let voters_max = parts.config.cluster.voters_max as usize;
    let spread = Spread { cluster: cluster.clone(), log: log.clone(), voters_max };
    let spread_stop = stop.clone();
    workers.spawn("spread", async move {
        spread.run(spread_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let peers = cluster.peers().clone();
    let holds = parts.keyring.holds();
    let (departure, dir) = (cluster.departure().clone(), parts.config.data.dir.clone());
    let watch = Watch { log: log.clone(), peers: peers.clone(), service, own: facts, holds, departure, dir };
    let (keyring, keyring_stop) = (parts.keyring.clone(), stop.clone());
    workers.spawn("keyring", async move {
        keyring.run(keyring_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    workers.spawn("cluster watch", watch.run(stop.clone()));
    if let Some(hearsay) = hearsay {
        let (invoker, stop) = (parts.invoker.clone(), stop.clone());
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
    parts: &Parts,
    services: Services,
    listener: tokio::net::TcpListener,
    api: &OnceLock<axum::Router>,
) -> Result<(), StartError> {
    let config = &parts.config;
    let tls = tls::is_wanted(config).then(|| Tls::open(config, &parts.identity.cluster.to_string())).transpose()?;
    let router = edge::router(services);
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
        let credentials = parts.cluster.peers().credentials().clone();
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
