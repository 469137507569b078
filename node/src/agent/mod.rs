//! Agents at work: the pure [`turn`], and the driver that does what it says.

pub mod turn;

pub mod builtin;
