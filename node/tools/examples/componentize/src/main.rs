//! componentize IN.wasm OUT.wasm [NAME=ADAPTER.wasm]: what `wasm-tools component new IN.wasm --adapt ... -o OUT.wasm` does.

use std::{env, error::Error, fs};
use wit_component::ComponentEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [input, output, adapters @ ..] = arguments.as_slice() else {
        return Err("usage: componentize IN.wasm OUT.wasm [NAME=ADAPTER.wasm]".into());
    };
    let mut encoder = ComponentEncoder::default().validate(true).module(&fs::read(input)?)?;
    for adapter in adapters {
        let (name, path) = adapter.split_once('=').ok_or("an adapter is NAME=FILE")?;
        encoder = encoder.adapter(name, &fs::read(path)?)?;
    }
    fs::write(output, encoder.encode()?)?;
    Ok(())
}
