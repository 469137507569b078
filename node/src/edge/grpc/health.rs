//! Whether the node can serve, as gRPC's own protocol for health asks it. Open to all, as `/ready` is: probes have no token.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use caxton_proto::v1::DESCRIPTORS;
use futures::Stream;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::sync::OwnedSemaphorePermit;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call;
use crate::addresses::counted;
use crate::api::paths;
use crate::edge::Services;
use crate::edge::caps::{CameFrom, Place};
use crate::edge::extract::Open;
use crate::edge::feeds::stopping;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, post};

/// How many watch at once, of all who do so without a token.
pub const HEALTH_WATCHES_MAX: usize = 256;
/// How many of them come from one address.
const WATCHES_PER_ADDRESS_MAX: u64 = 8;
/// How often a watch looks whether something has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// This service's routes.
pub fn routes() -> Routes {
    Routes::new().on(post(paths::GRPC_HEALTH_CHECK), Owner::Anyone, check).on(
        post(paths::GRPC_HEALTH_WATCH),
        Owner::Anyone,
        watch,
    )
}

async fn check(_: Open, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: HealthCheckRequest| {
        if !is_known(&wanted.service) {
            return Err(Problem::new(Code::NotFound, format!("there is no service {:?}", wanted.service))
                .help("ask for the whole node with an empty name; reflection lists the services"));
        }
        Ok(answer(status(&services)))
    })
    .await
}

async fn watch(_: Open, State(services): State<Services>, request: Request) -> Response {
    let address = request.extensions().get::<CameFrom>().map(|from| counted(from.0));
    call::streaming(&services, request, async |wanted: HealthCheckRequest| {
        let own = address.map(|address| {
            services.health_watchers.enter(address, WATCHES_PER_ADDRESS_MAX).ok_or_else(|| {
                let detail = format!("{WATCHES_PER_ADDRESS_MAX} watches of the node's health come from this address");
                Problem::new(Code::Unavailable, detail).help("call Check every now and then").retry_after(5)
            })
        });
        let own = own.transpose()?;
        let place = services.health_watches.clone().try_acquire_owned().map_err(|_| {
            Problem::new(Code::Unavailable, format!("{HEALTH_WATCHES_MAX} watch the node's health, and no more may"))
                .help("call Check every now and then")
                .retry_after(5)
        })?;
        let known = is_known(&wanted.service);
        let watched = services.clone();
        let look = move || if known { status(&watched) } else { ServingStatus::ServiceUnknown };
        Ok(changes(services.clone(), look, (place, own)))
    })
    .await
}

/// What `look` says, now and whenever that is something else, until the node stops.
fn changes(
    services: Services,
    look: impl Fn() -> ServingStatus + Send + Sync + 'static,
    place: (OwnedSemaphorePermit, Option<Place<IpAddr>>),
) -> impl Stream<Item = Result<HealthCheckResponse, Problem>> + Send + 'static {
    let begun = Some((services, look, place, None));
    futures::stream::unfold(begun, |state| async {
        let (services, look, place, said) = state?;
        loop {
            let now = look();
            if said != Some(now) {
                return Some((Ok(answer(now)), Some((services, look, place, Some(now)))));
            }
            tokio::select! {
                () = services.stop.cancelled() => return Some((Err(stopping()), None)),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    })
}

fn status(services: &Services) -> ServingStatus {
    match services.app.node.ready() {
        Ok(()) => ServingStatus::Serving,
        Err(_) => ServingStatus::NotServing,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Whether a service is one of those that are published. No name stands for the whole node.
fn is_known(service: &str) -> bool {
    service.is_empty() || services_of(DESCRIPTORS).iter().any(|known| known == service)
}

/// The names of the services in encoded descriptors.
pub fn services_of(descriptors: &[u8]) -> Vec<String> {
    let files = FileDescriptorSet::decode(descriptors).map(|set| set.file).unwrap_or_default();
    let names = files
        .iter()
        .flat_map(|file| file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())));
    names.collect()
}
