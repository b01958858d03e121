//! Where clients work: what they share, how they call, and what they write down.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;
use vectorsphere_checker::{Fate, History};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::document_service_client::DocumentServiceClient;
use vectorsphere_proto::v1::table_service_client::TableServiceClient;

use crate::hosts::{API, MASTERS};
use crate::network::Wires;

pub(crate) const TABLE: &str = "t";
pub(crate) const DIMENSION: usize = 4;
/// A client gives a call up after this.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What all clients of a world share. Clones are the same desk.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Mutex<Records>>);

/// What was done and told.
#[derive(Default)]
pub(crate) struct Records {
    /// Operations on documents that claim to see the newest state.
    pub(crate) registers: History,
    /// Documents that were inserted once, with their values.
    pub(crate) inserts: BTreeMap<String, (u64, Fate)>,
    /// How many reads of sessions were judged.
    pub(crate) session_reads: u64,
    /// Operations that came to something certain.
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    next_value: u64,
    trace: DefaultHasher,
    is_ready: bool,
    is_over: bool,
}

/// What a call came to, by the meaning that the documentation gives to the answer.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Done(T),
    /// There is no such document.
    Absent,
    /// The condition did not hold: the document has this version, 0 when there is none.
    Mismatch(u64),
    /// Certainly did not happen.
    Refused(#[expect(dead_code, reason = "for the log")] String),
    /// May have happened, or happen later.
    Unknown(#[expect(dead_code, reason = "for the log")] String),
}

/// A client's connections.
pub(crate) struct Gateways {
    channels: Vec<Channel>,
    desk: Desk,
}

impl Desk {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().expect("no panic under the lock")
    }

    /// Lets clients begin.
    pub(crate) fn open(&self) {
        self.lock().is_ready = true;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().is_ready
    }

    /// Tells clients to end.
    pub(crate) fn close(&self) {
        self.lock().is_over = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// A value that no other write has.
    pub(crate) fn value(&self) -> u64 {
        let mut records = self.lock();
        records.next_value += 1;
        records.next_value
    }

    /// What happened and when, as one number.
    pub(crate) fn trace(&self) -> u64 {
        self.lock().trace.finish()
    }
}

/// Now, in microseconds since the world began.
pub(crate) fn tick() -> u64 {
    let elapsed = turmoil::sim_elapsed().expect("clients live in the world");
    u64::try_from(elapsed.as_micros()).expect("a world is short")
}

impl Gateways {
    pub(crate) fn new(wires: &Wires, desk: Desk) -> Gateways {
        Gateways { channels: MASTERS.iter().map(|master| wires.channel_to(master, API)).collect(), desk }
    }

    pub(crate) fn documents(&self, gateway: usize) -> DocumentServiceClient<Channel> {
        DocumentServiceClient::new(self.channels[gateway].clone())
    }

    pub(crate) fn tables(&self, gateway: usize) -> TableServiceClient<Channel> {
        TableServiceClient::new(self.channels[gateway].clone())
    }

    /// Waits for the answer of a call and judges it.
    ///
    /// # Errors
    /// When a right request must never get it.
    pub(crate) async fn judge<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Outcome<T>, String> {
        let outcome = match tokio::time::timeout(TIMEOUT, call).await {
            Err(_) => Outcome::Unknown("no answer".to_owned()),
            Ok(Ok(answer)) => Outcome::Done(answer.into_inner()),
            Ok(Err(status)) => meaning(&status)?,
        };
        let mut records = self.desk.lock();
        let kind = match outcome {
            Outcome::Done(_) | Outcome::Absent | Outcome::Mismatch(_) => 0,
            Outcome::Refused(_) => 1,
            Outcome::Unknown(_) => 2,
        };
        match kind {
            0 => records.answered += 1,
            1 => {}
            _ => records.unknown += 1,
        }
        (tick(), kind).hash(&mut records.trace);
        Ok(outcome)
    }
}

/// A call with the time that its caller gives it.
pub(crate) fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

fn meaning<T>(status: &Status) -> Result<Outcome<T>, String> {
    let what = status.message().to_owned();
    let Some(info) = status.get_details_error_info() else {
        return Ok(if was_refused(status) { Outcome::Refused(what) } else { Outcome::Unknown(what) });
    };
    match info.reason.as_str() {
        "document_not_found" => Ok(Outcome::Absent),
        "version_mismatch" if what.ends_with("does not exist") => Ok(Outcome::Mismatch(0)),
        "version_mismatch" => {
            let version = what.rsplit_once("has version ").and_then(|(_, version)| version.parse().ok());
            Ok(Outcome::Mismatch(version.ok_or_else(|| format!("no version in {what:?}"))?))
        }
        "rate_limited" | "overloaded" | "not_primary" | "not_master" | "no_master" | "shard_unavailable"
        | "not_ready" | "disk_full" | "retry_too_late" | "shard_damaged" | "not_enough_slaves" => {
            Ok(Outcome::Refused(what))
        }
        "deadline_exceeded" | "outcome_unknown" | "meta_store_unavailable" | "node_unreachable" => {
            Ok(Outcome::Unknown(what))
        }
        code => Err(format!("a right request was answered with {code}: {what}")),
    }
}

/// True when nobody took the connection, so nobody has got the request.
fn was_refused(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A document that holds a value, in its metadata and in its vector.
pub(crate) fn document(id: &str, value: u64, if_version: Option<u64>) -> proto::Document {
    let number = proto::Value { kind: Some(proto::value::Kind::IntValue(value as i64)) };
    proto::Document {
        document_id: id.to_owned(),
        vector: Some(proto::Vector {
            data: Some(proto::vector::Data::Floats(proto::FloatArray { values: vector(value) })),
        }),
        metadata: Some(proto::Metadata { fields: [("value".to_owned(), number)].into() }),
        if_version,
    }
}

/// The value that a document holds.
///
/// # Errors
/// When its metadata and its vector do not agree.
pub(crate) fn value_of(document: &proto::Document) -> Result<u64, String> {
    let number = document.metadata.as_ref().and_then(|metadata| metadata.fields.get("value"));
    let value = match number.and_then(|value| value.kind.as_ref()) {
        Some(proto::value::Kind::IntValue(value)) => *value as u64,
        Some(proto::value::Kind::UintValue(value)) => *value,
        _ => return Err(format!("no value in {document:?}")),
    };
    let stored: Vec<f32> = match document.vector.as_ref().and_then(|vector| vector.data.as_ref()) {
        Some(proto::vector::Data::Floats(floats)) => floats.values.clone(),
        Some(proto::vector::Data::LittleEndianF32(bytes)) => {
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        None => Vec::new(),
    };
    if stored == vector(value) { Ok(value) } else { Err(format!("not the vector of {value}: {document:?}")) }
}

fn vector(value: u64) -> Vec<f32> {
    (1..=DIMENSION as u64).map(|axis| (value * axis % 1_009) as f32 + 1.0).collect()
}
