//! Who signed a message, and the keys with which messages are signed, over HTTP.

use std::time::Duration;

use axum::extract::State;
use caxton_messages::MessageKey;
use caxton_messages::mailbox::Signature;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{Current, freshness, owner};
use crate::api::mailbox::{
    MessageKeyInfo, MessageKeyPage, RegisterKeyRequest, RotateMessageKeyRequest, SenderSignature, SignatureCheck,
};
use crate::api::{self, paths};
use crate::app::signatures::{OVERLAP, OVERLAP_MAX, Verification};
use crate::authz::{Converse, Deploy, Permit};
use crate::edge::Services;
use crate::edge::extract::{Json, Path, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, get, post};
use crate::time::rfc3339_of;

/// Keys on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(verify_message, message_keys, register_message_key, rotate_message_key))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::DELIVERY_SIGNATURE).or_stale(), Owner::Shard, verify_message)
        .on(get(paths::MESSAGE_KEYS).or_stale(), Owner::Shard, message_keys)
        .on(post(paths::MESSAGE_KEYS), Owner::Shard, register_message_key)
        .on(post(paths::MESSAGE_KEYS_ROTATE), Owner::Shard, rotate_message_key)
}

fn invalid(detail: &str) -> Problem {
    Problem::new(Code::InvalidRequest, detail).help("docs/messages.md#signatures shows keys and signatures")
}

fn holder(held: bool) -> String {
    if held { "node" } else { "sender" }.to_owned()
}

/// A signature as the application takes it.
pub(super) fn signature(of: &SenderSignature) -> Result<Signature, Problem> {
    let key = of.key.parse().map_err(|_| invalid("`signature.key` is a key's id: 16 hexadecimal digits"))?;
    let mut bytes = [0; 64];
    hex::decode_to_slice(&of.signature, &mut bytes)
        .map_err(|_| invalid("`signature.signature` is an Ed25519 signature: 128 hexadecimal digits"))?;
    Ok(Signature { key, signed_ms: of.signed_ms, bytes })
}

fn info(key: MessageKey) -> MessageKeyInfo {
    MessageKeyInfo {
        owner: key.owner.to_string(),
        key: key.id.to_string(),
        public_key: hex::encode(key.public),
        held_by: holder(key.held),
        made: rfc3339_of(key.made_ms),
        ends: key.ends_ms.map(rfc3339_of),
    }
}

fn overlap(seconds: Option<u64>) -> Result<Duration, Problem> {
    let overlap = seconds.map_or(OVERLAP, Duration::from_secs);
    if overlap > OVERLAP_MAX { Err(invalid("`overlap_s` is at most 30 days")) } else { Ok(overlap) }
}

/// Who signed a message and with which key, by its id or the number of a delivery; or why it is not what its sender sent. Whoever
/// sent or received it may ask, and deployers. Needs the role caller.
#[utoipa::path(get, path = paths::DELIVERY_SIGNATURE.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace."),
    ("delivery" = String, Path, description = "The number of a delivery, or a message's id."), Current),
    responses((status = 200, description = "What is known of it.", body = SignatureCheck),
    (status = 404, description = "No such message is kept: `not_found`.", body = api::Problem, content_type = "application/problem+json")))]
async fn verify_message(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Path((_workspace, which)): Path<(String, String)>,
    Query(current): Query<Current>,
) -> Result<Json<SignatureCheck>, Problem> {
    let found = services.app.signatures.verify(&permit, &which, freshness(current.stale)).await?;
    let Verification { id, sender, outcome } = found;
    let (id, sender) = (id.to_string(), sender.map(|sender| sender.to_string()));
    let mut check =
        SignatureCheck { id, holds: outcome.is_ok(), sender, key: None, signed: None, held_by: None, reason: None };
    match outcome {
        Ok(Some(signed)) => {
            check.key = Some(signed.key.to_string());
            check.signed = Some(rfc3339_of(signed.signed_ms));
            check.held_by = Some(holder(signed.held));
        }
        Ok(None) => {}
        Err(forgery) => check.reason = Some(forgery.to_string()),
    }
    Ok(Json(check))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct KeysQuery {
    /// Only those of this sender: an agent's name, or `subject:NAME`.
    owner: Option<String>,
    /// The `next` of the page before.
    after: Option<usize>,
    /// How many at most: 50 unless told, 500 at most.
    limit: Option<usize>,
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// The public keys of a workspace's senders, with those that were rotated. Needs the role caller.
#[utoipa::path(get, path = paths::MESSAGE_KEYS.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace."), KeysQuery),
    responses((status = 200, description = "A page of them.", body = MessageKeyPage)))]
async fn message_keys(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Query(page): Query<KeysQuery>,
) -> Result<Json<MessageKeyPage>, Problem> {
    let (after, most) = (page.after.unwrap_or_default(), page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX));
    let after = after.min(i32::MAX as usize);
    let whose = owner(page.owner.as_deref())?;
    let found = services.app.signatures.keys(&permit, whose, (after, most), freshness(page.stale)).await?;
    let next = (found.len() == most).then(|| (after + most) as u64);
    Ok(Json(MessageKeyPage { keys: found.into_iter().map(info).collect(), next }))
}

/// Registers a public key of one's own: in a workspace that asks for signatures, only what is signed with the other half is sent in
/// one's name from then on. Needs the role caller.
#[utoipa::path(post, path = paths::MESSAGE_KEYS.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = RegisterKeyRequest,
    responses((status = 200, description = "It counts now.", body = MessageKeyInfo)))]
async fn register_message_key(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Json(request): Json<RegisterKeyRequest>,
) -> Result<Json<MessageKeyInfo>, Problem> {
    let mut public = [0; 32];
    hex::decode_to_slice(&request.public_key, &mut public)
        .map_err(|_| invalid("`public_key` is an Ed25519 public key: 64 hexadecimal digits"))?;
    let overlap = overlap(request.overlap_s)?;
    Ok(Json(info(services.app.signatures.register(&permit, public, overlap).await?)))
}

/// Gives an agent or a person a new key that the nodes hold. What those before signed is taken in until the overlap is over. Needs
/// the role deployer.
#[utoipa::path(post, path = paths::MESSAGE_KEYS_ROTATE.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = RotateMessageKeyRequest,
    responses((status = 200, description = "The new key.", body = MessageKeyInfo)))]
async fn rotate_message_key(
    permit: Permit<Deploy>,
    State(services): State<Services>,
    Json(request): Json<RotateMessageKeyRequest>,
) -> Result<Json<MessageKeyInfo>, Problem> {
    let Some(whose) = owner(Some(&request.owner))? else { return Err(invalid("`owner` is whose key it is")) };
    let overlap = overlap(request.overlap_s)?;
    Ok(Json(info(services.app.signatures.rotate(&permit, &whose, overlap).await?)))
}
