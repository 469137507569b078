//! Memory: how well it finds, with no language model, and how fast.
//!
//! `cargo run -p caxton-benches --bin memory -- --data FOLDER --work FOLDER`. DATA holds `locomo/conversations.json`,
//! `cranfield/` and, unpacked beside it, `scifact/corpus_train.csv` with the claims; what is absent is left out. WORK keeps
//! the vectors of texts, so that a second run does not embed them again. Every figure has words alone and meaning alone,
//! of the same index, beside it; nothing here is fitted to what is asked.

mod quality;
mod sets;
mod speed;
mod store;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
struct Args {
    /// The folder with locomo, cranfield and scifact; without it only the speed is measured.
    #[arg(long)]
    data: Option<PathBuf>,
    /// A folder for the vectors of texts.
    #[arg(long)]
    work: PathBuf,
    /// A Python that has numpy, sqlite-vec and apsw, for the peers; without it they are left out.
    #[arg(long)]
    python: Option<PathBuf>,
    /// How many memories the speed is measured with; 0 leaves it out.
    #[arg(long, default_value_t = 100_000)]
    memories: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.work)?;
    if let Some(data) = &args.data {
        quality::run(data, &args.work)?;
    }
    if args.memories > 0 {
        speed::run(args.memories, &args.work, args.python.as_deref())?;
    }
    Ok(())
}
