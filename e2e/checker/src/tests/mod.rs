//! The linearizability check against histories that people wrote, and against random ones.

mod corpus;
mod properties;
mod reference;
mod world;
