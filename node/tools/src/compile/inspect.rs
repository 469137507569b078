//! A look at a module before it is compiled: what is extreme is refused in microseconds, with a reason.
//!
//! This is no proof that the rest compiles quickly; the compiling process's own limits are.

use crate::limits::CompileLimits;
use wasmparser::{FunctionBody, Operator, Parser, Payload};

/// Locals that are alive through nested loops are what register allocation is slowest at: 500 of them in 300 loops
/// took 165 s. No ordinary program comes near this product.
const LOCALS_TIMES_LOOPS_MAX: u64 = 100_000;

/// What a module is made of, as far as limits care.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    functions: u32,
    modules: u32,
}

/// Looks at a module or component; the error says what is too much.
pub(super) fn inspect(wasm: &[u8], limits: &CompileLimits) -> Result<Shape, String> {
    let mut shape = Shape::default();
    let broken = |error: wasmparser::BinaryReaderError| format!("it is not valid WebAssembly: {error}");
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(broken)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                shape.modules += 1;
                at_most("nested modules", shape.modules, limits.nested_modules)?;
            }
            Payload::MemorySection(memories) => at_most("memories in one module", memories.count(), 1)?,
            Payload::CodeSectionStart { count, .. } => {
                shape.functions = shape.functions.saturating_add(count);
                at_most("functions", shape.functions, limits.functions)?;
            }
            Payload::CodeSectionEntry(body) => function(&body, limits)?,
            _ => {}
        }
    }
    Ok(shape)
}

fn function(body: &FunctionBody<'_>, limits: &CompileLimits) -> Result<(), String> {
    let broken = |error: wasmparser::BinaryReaderError| format!("it is not valid WebAssembly: {error}");
    let bytes = u32::try_from(body.range().len()).unwrap_or(u32::MAX);
    at_most("bytes in one function", bytes, limits.function_bytes)?;
    let mut locals: u32 = 0;
    for local in body.get_locals_reader().map_err(broken)? {
        let (count, _) = local.map_err(broken)?;
        locals = locals.saturating_add(count);
    }
    at_most("locals in one function", locals, limits.function_locals)?;
    let (mut open, mut loops, mut loops_deepest) = (Vec::new(), 0_u32, 0);
    let (mut touched, mut most) = (0_u32, locals);
    for operator in body.get_operators_reader().map_err(broken)? {
        match operator.map_err(broken)? {
            Operator::Loop { .. } => {
                open.push(true);
                loops += 1;
                loops_deepest = loops_deepest.max(loops);
            }
            Operator::Block { .. } | Operator::If { .. } | Operator::TryTable { .. } => open.push(false),
            Operator::End => loops -= u32::from(open.pop().unwrap_or(false)),
            // Parameters are locals too, and only their use says how many there are.
            Operator::LocalGet { local_index }
            | Operator::LocalSet { local_index }
            | Operator::LocalTee { local_index } => touched = touched.max(local_index.saturating_add(1)),
            _ => {}
        }
        at_most("blocks inside blocks", u32::try_from(open.len()).unwrap_or(u32::MAX), limits.nesting)?;
    }
    most = most.max(touched);
    if u64::from(most) * u64::from(loops_deepest) > LOCALS_TIMES_LOOPS_MAX {
        return Err(format!(
            "a function keeps {most} locals through {loops_deepest} nested loops, which takes minutes to compile"
        ));
    }
    Ok(())
}

fn at_most(what: &str, count: u32, limit: u32) -> Result<(), String> {
    if count > limit { Err(format!("it has {count} {what}; the limit is {limit}")) } else { Ok(()) }
}
