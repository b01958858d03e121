//! The stages of a reconcile together: what an object becomes, and what the API server has after it.

mod api_server;
mod config;
mod convergence;
mod examples;
mod golden;
mod properties;
mod security;
