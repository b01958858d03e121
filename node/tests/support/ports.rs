//! Ports for servers that must know theirs before they start.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that the system gives to connections: a port that is free stays free.
const PORTS: Range<u32> = 20_000..32_000;

/// A free port, given out once.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Runs beside this one begin elsewhere.
    let begin = std::process::id() * 97;
    let turns = PORTS.map(|_| begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32);
    let mut ports = turns.map(|turn| u16::try_from(PORTS.start + turn).expect("a port has 16 bits"));
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("a free port")
}
