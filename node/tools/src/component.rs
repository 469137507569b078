//! Components that export `caxton:tool/tools`: the typed border, and one call over it.

use crate::definitions::FunctionReading;
use crate::guest::{CallUsage, Guest, Stopped, Terms, explain};
use crate::imports;
use crate::remark::Remark;
use crate::reuse::{Place, ReusableStore, Shelf};
use crate::scratch::Scratch;
use crate::tool::{CallError, CallResult, Content, ToolDefinition};
use crate::wasi;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, ComponentType, InstancePre, Lift, Linker, Lower, TypedFunc,
};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;

/// Bytes of its standard error that are kept.
const STDERR_BYTES_MAX: usize = 16 << 10;
/// The interface that makes a component a tool server.
const TOOLS: &str = "caxton:tool/tools@0.1.0";

#[derive(ComponentType, Lift)]
#[component(record)]
struct WitTool {
    name: String,
    title: Option<String>,
    description: String,
    #[component(name = "input-schema")]
    input_schema: String,
    #[component(name = "output-schema")]
    output_schema: Option<String>,
    annotations: Option<String>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WitBlob {
    mime: String,
    data: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum WitContent {
    #[component(name = "text")]
    Text(String),
    #[component(name = "image")]
    Image(WitBlob),
    #[component(name = "audio")]
    Audio(WitBlob),
    #[component(name = "embedded")]
    Embedded(String),
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WitResult {
    content: Vec<WitContent>,
    structured: Option<String>,
    #[component(name = "is-error")]
    is_error: bool,
}

impl WitResult {
    /// How large it is, before any of it is parsed.
    fn bytes(&self) -> u64 {
        let content = self.content.iter().map(|content| match content {
            WitContent::Text(text) | WitContent::Embedded(text) => text.len(),
            WitContent::Image(blob) | WitContent::Audio(blob) => blob.data.len(),
        });
        (content.sum::<usize>() + self.structured.as_ref().map_or(0, String::len)) as u64
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum WitError {
    #[component(name = "unknown-tool")]
    UnknownTool,
    #[component(name = "invalid-arguments")]
    InvalidArguments(String),
    #[component(name = "failed")]
    Failed(String),
}

type Returned = (Result<WitResult, WitError>,);

/// `call-tool` of an instance that is kept.
pub(crate) struct CallTool(TypedFunc<(String, String), Returned>);

/// A component that is linked, and how its functions are run.
pub(crate) struct Runnable {
    pre: InstancePre<Guest>,
    /// It imports WASI, so its host calls may wait: it runs as a future.
    waits: bool,
}

/// A tool server that is linked and ready to be instantiated.
pub(crate) struct LinkedComponent {
    runnable: Runnable,
    list: ComponentExportIndex,
    call: ComponentExportIndex,
    /// Where its instances are kept, if it is granted that.
    place: Option<Place<CallTool>>,
}

/// What a component imports, to be compared with its grants.
pub(crate) fn imports(component: &Component) -> Vec<String> {
    let engine = component.engine();
    component.component_type().imports(engine).map(|(name, _)| name.to_string()).collect()
}

impl LinkedComponent {
    /// Links a component, or says what it lacks. With a shelf, its instances are kept there.
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        shelf: Option<&Arc<Shelf<CallTool>>>,
    ) -> Result<LinkedComponent, String> {
        if waits(component) && shelf.is_some() {
            return Err("it is granted `reuse` and imports WASI, whose state belongs to one call; take one out".into());
        }
        let runnable = Runnable::new(engine, component, imports::link)?;
        let index = |name: &str| exported(component, TOOLS, name);
        let missing = |name: &str| format!("it does not export `{name}` of {TOOLS}, so it is not a tool server");
        let list = index("list-tools").ok_or_else(|| missing("list-tools"))?;
        let call = index("call-tool").ok_or_else(|| missing("call-tool"))?;
        Ok(LinkedComponent { runnable, list, call, place: shelf.map(Place::new) })
    }

    /// Asks for its tools.
    pub(crate) fn list(&self, terms: Terms) -> (Result<Vec<FunctionReading>, CallError>, CallUsage) {
        let mut store = self.runnable.store(terms);
        let listed = self.runnable.run::<(), (Vec<WitTool>,)>(&mut store, &self.list, None, ());
        let listed = listed.map(|(tools,)| tools.into_iter().map(definition).collect());
        (listed, CallUsage::of(&store))
    }

    /// Calls one of its tools in a fresh instance, or in one that is kept.
    pub(crate) fn call(
        &self,
        terms: Terms,
        scratch: Option<&Scratch>,
        tool: &str,
        arguments: String,
    ) -> (Result<CallResult, CallError>, CallUsage) {
        if let Some(place) = &self.place {
            return self.call_kept(place, terms, tool, arguments);
        }
        let limit = terms.limits.output_bytes;
        let arguments = arguments.as_str();
        let mut store = self.runnable.store(terms);
        let directory = scratch.map(Scratch::path);
        let returned =
            self.runnable.run::<(&str, &str), Returned>(&mut store, &self.call, directory, (tool, arguments));
        let used = CallUsage::of(&store);
        finished(returned, tool, limit, used)
    }

    fn call_kept(
        &self,
        place: &Place<CallTool>,
        terms: Terms,
        tool: &str,
        arguments: String,
    ) -> (Result<CallResult, CallError>, CallUsage) {
        let limit = terms.limits.output_bytes;
        let mut kept = match place.take(terms) {
            Ok(kept) => kept,
            Err(terms) => {
                let mut store = self.runnable.store(terms);
                let function =
                    self.runnable.pre.instantiate(&mut store).and_then(|i| i.get_typed_func(&mut store, self.call));
                match function {
                    Ok(function) => ReusableStore::new(store, CallTool(function)),
                    Err(error) => return (Err(explain(&error, store.data())), CallUsage::of(&store)),
                }
            }
        };
        let (store, CallTool(function)) = kept.parts();
        let returned = function.call(&mut *store, (tool.to_string(), arguments));
        let returned = returned.map_err(|error| explain(&error, store.data()));
        let used = CallUsage::of(store);
        let (result, used) = finished(returned, tool, limit, used);
        // An instance that trapped, or was stopped in the middle, is in no state to be called.
        if result.is_ok() {
            place.keep(kept);
        }
        (result, used)
    }
}

/// Whether its host calls may wait: WASI's may.
fn waits(component: &Component) -> bool {
    imports(component).iter().any(|name| name.starts_with("wasi:"))
}

/// A function of an interface that a component exports.
pub(crate) fn exported(component: &Component, interface: &str, name: &str) -> Option<ComponentExportIndex> {
    let (_, instance) = component.get_export(None, interface)?;
    let (item, index) = component.get_export(Some(&instance), name)?;
    matches!(item, ComponentItem::ComponentFunc(_)).then_some(index)
}

impl Runnable {
    /// Links a component to the host's side, and to WASI where it imports that; the error says what it lacks.
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        link: fn(&mut Linker<Guest>) -> wasmtime::Result<()>,
    ) -> Result<Runnable, String> {
        let waits = waits(component);
        let mut linker = Linker::new(engine);
        let linked = link(&mut linker).and_then(|()| match waits {
            true => wasmtime_wasi::p2::add_to_linker_async(&mut linker),
            false => Ok(()),
        });
        let pre = linked.and_then(|()| linker.instantiate_pre(component)).map_err(|error| format!("{error:#}"))?;
        Ok(Runnable { pre, waits })
    }

    /// A store for one instance of it.
    pub(crate) fn store(&self, terms: Terms) -> Store<Guest> {
        Guest::store(self.pre.engine(), terms, self.waits)
    }

    /// Calls a function in a fresh instance.
    pub(crate) fn run<P, R>(
        &self,
        store: &mut Store<Guest>,
        export: &ComponentExportIndex,
        scratch: Option<&Path>,
        parameters: P,
    ) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let outcome = if self.waits {
            self.wait(store, export, scratch, parameters)
        } else {
            self.compute(store, export, parameters)
        };
        outcome.map_err(|error| store.data().with_last_words(explain(&error, store.data())))
    }

    /// A guest whose host calls never wait runs on this thread as it is.
    fn compute<P, R>(
        &self,
        store: &mut Store<Guest>,
        export: &ComponentExportIndex,
        parameters: P,
    ) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let instance = self.pre.instantiate(&mut *store)?;
        let function: TypedFunc<P, R> = instance.get_typed_func(&mut *store, export)?;
        function.call(&mut *store, parameters)
    }

    /// A guest that may sleep or wait for a file runs as a future with a deadline, on this thread all the same.
    fn wait<P, R>(
        &self,
        store: &mut Store<Guest>,
        export: &ComponentExportIndex,
        scratch: Option<&Path>,
        parameters: P,
    ) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let complaints = MemoryOutputPipe::new(STDERR_BYTES_MAX);
        let mut builder = wasi::granted(&store.data().terms.grants, scratch)?;
        let context = builder.stderr(complaints.clone()).build();
        store.data_mut().give_wasi(context);
        if let Some(directory) = scratch {
            store.data_mut().watch_scratch(directory);
        }
        let (left, late) = (store.data().stop.left(), store.data().stop.timed_out());
        let runtime = store.data().terms.fetcher.runtime().clone();
        let cancelled = store.data().terms.cancelled.clone();
        let outcome = runtime.block_on(async {
            let called = async {
                let instance = self.pre.instantiate_async(&mut *store).await?;
                let function: TypedFunc<P, R> = instance.get_typed_func(&mut *store, export)?;
                function.call_async(&mut *store, parameters).await
            };
            tokio::select! {
                outcome = called => outcome,
                () = tokio::time::sleep(left) => Err(Stopped(late).into()),
                () = crate::guest::until(&cancelled) => Err(Stopped(CallError::Cancelled).into()),
            }
        });
        store.data_mut().complained(&complaints.contents());
        outcome
    }
}

/// The result of a call, with its size noted in what the call used.
fn finished(
    returned: Result<Returned, CallError>,
    tool: &str,
    limit: u64,
    mut used: CallUsage,
) -> (Result<CallResult, CallError>, CallUsage) {
    let result = returned.and_then(|(returned,)| {
        used.output = returned.as_ref().map_or(0, WitResult::bytes);
        result(returned, tool, limit)
    });
    (result, used)
}

fn definition(tool: WitTool) -> FunctionReading {
    let json = |what: &str, text: &str| {
        serde_json::from_str::<Value>(text).map_err(|error| Remark {
            function: Some(tool.name.clone()),
            text: format!("left out, because its {what} is not JSON: {error}"),
        })
    };
    Ok(ToolDefinition {
        input_schema: json("input schema", &tool.input_schema)?,
        output_schema: tool.output_schema.as_deref().map(|text| json("output schema", text)).transpose()?,
        annotations: tool.annotations.as_deref().map(|text| json("annotations", text)).transpose()?,
        name: tool.name.clone(),
        title: tool.title.clone(),
        description: tool.description.clone(),
    })
}

fn result(returned: Result<WitResult, WitError>, tool: &str, limit: u64) -> Result<CallResult, CallError> {
    let bad =
        |what: &str, error: serde_json::Error| CallError::BadResult { what: format!("{what} is not JSON: {error}") };
    let returned = returned.map_err(|error| match error {
        WitError::UnknownTool => CallError::Failed { what: format!("it does not know its own tool `{tool}`") },
        WitError::InvalidArguments(what) => CallError::InvalidArguments { problems: vec![what] },
        WitError::Failed(what) => CallError::Failed { what },
    })?;
    if returned.bytes() > limit {
        return Err(CallError::OutputTooLarge { limit });
    }
    let content = returned
        .content
        .into_iter()
        .map(|content| {
            Ok(match content {
                WitContent::Text(text) => Content::Text { text },
                WitContent::Image(WitBlob { mime, data }) => Content::Image { mime, data },
                WitContent::Audio(WitBlob { mime, data }) => Content::Audio { mime, data },
                WitContent::Embedded(text) => Content::Embedded {
                    resource: serde_json::from_str(&text).map_err(|error| bad("an embedded resource", error))?,
                },
            })
        })
        .collect::<Result<Vec<_>, CallError>>()?;
    let structured = returned
        .structured
        .map(|text| serde_json::from_str(&text).map_err(|error| bad("the structured result", error)))
        .transpose()?;
    Ok(CallResult { content, structured, is_error: returned.is_error })
}
