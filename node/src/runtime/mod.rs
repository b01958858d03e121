//! What every layer runs on: clocks.

pub mod clock;
