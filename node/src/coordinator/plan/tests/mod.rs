//! What the Master plans: step by step, and over the life of random clusters.

mod simulation;
mod steps;
mod trouble;
mod words;
mod world;
