//! The real binary, as a person or an operator meets it: what it prints, and what it survives.
//!
//! Every test starts processes of its own on port 0 with a data directory of its own. Nothing sleeps: a test waits for
//! a condition with a deadline. Random tests print their seed and take it back from `CAXTON_TEST_SEED`.

mod run;

mod prints;

mod errors;

mod lifecycle;

mod secrets;

mod crashes;

mod corruption;

mod disk_full;

mod clients;

mod ways_in;

mod openapi;

mod terminal;
mod tools;

mod asking;

mod origins;

mod memory;

mod messages;

mod talk;

mod between;
mod programs;

mod backup;

mod written;

mod pages;

mod documents;
