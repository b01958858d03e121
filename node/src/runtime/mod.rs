//! The parts that everything stands on: disks.

pub mod disk;
