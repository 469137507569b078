//! The host's side of `caxton:tool`: what a component may import beside WASI.

use crate::guest::{Guest, LogLevel};
use crate::network::{FetchError, FetchRequest};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

/// The version of the interface that this host speaks.
pub(crate) const LOG: &str = "caxton:tool/log@0.1.0";
pub(crate) const CONFIG: &str = "caxton:tool/config@0.1.0";
pub(crate) const CALL: &str = "caxton:tool/call@0.1.0";
pub(crate) const HTTP: &str = "caxton:tool/http@0.1.0";
pub(crate) const TYPES: &str = "caxton:tool/types@0.1.0";

#[derive(ComponentType, Lift, Clone, Copy)]
#[allow(dead_code, reason = "its values come from guests")]
#[component(enum)]
#[repr(u8)]
enum WitLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WitRequest {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    #[component(name = "timeout-ms")]
    timeout_ms: u32,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct WitResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum WitHttpError {
    #[component(name = "denied")]
    Denied(String),
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "transport")]
    Transport(String),
}

/// Links everything that a component may import. Which of it a tool may import was checked before.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.instance(LOG)?.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, Guest>, (level, message): (WitLevel, String)| {
            let level = match level {
                WitLevel::Debug => LogLevel::Debug,
                WitLevel::Info => LogLevel::Info,
                WitLevel::Warn => LogLevel::Warn,
                WitLevel::Error => LogLevel::Error,
            };
            store.data_mut().log(level, &message);
            Ok(())
        },
    )?;
    linker.instance(CONFIG)?.func_wrap("get", |store: StoreContextMut<'_, Guest>, (key,): (String,)| {
        Ok((store.data().terms.grants.env.get(&key).cloned(),))
    })?;
    linker.instance(CALL)?.func_wrap("idempotency-key", |store: StoreContextMut<'_, Guest>, (): ()| {
        Ok((store.data().terms.idempotency_key.as_deref().map(str::to_string),))
    })?;
    linker.instance(HTTP)?.func_wrap("fetch", |store: StoreContextMut<'_, Guest>, (request,): (WitRequest,)| {
        let guest = store.data();
        let fetched = fetch(guest, request);
        // A cancelled call ends here, instead of going on with an error that the guest may swallow.
        guest.stop.check()?;
        Ok((fetched,))
    })?;
    Ok(())
}

fn fetch(guest: &Guest, request: WitRequest) -> Result<WitResponse, WitHttpError> {
    let left = guest.stop.left();
    let timeout = match request.timeout_ms {
        0 => left,
        asked => left.min(std::time::Duration::from_millis(asked.into())),
    };
    let WitRequest { method, url, headers, body, .. } = request;
    let request = FetchRequest { method, url, headers, body };
    let terms = &guest.terms;
    let going_on = || guest.stop.check().is_ok();
    match terms.fetcher.fetch_blocking(request, &terms.grants.http, timeout, going_on) {
        Ok(response) => Ok(WitResponse { status: response.status, headers: response.headers, body: response.body }),
        Err(FetchError::Denied(denied)) => Err(WitHttpError::Denied(denied.to_string())),
        Err(FetchError::Timeout) => Err(WitHttpError::Timeout),
        Err(FetchError::TooLarge { .. }) => Err(WitHttpError::TooLarge),
        Err(FetchError::Transport(what)) => Err(WitHttpError::Transport(what)),
    }
}
