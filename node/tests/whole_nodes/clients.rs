//! What clients do while things go wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use vectorsphere_checker::{Client, Fate, Operation, Outcome as Known, Seen, Value, Version};
use vectorsphere_proto::v1 as proto;

use crate::desk::{Desk, Gateways, Outcome, TABLE, call, document, tick, value_of};
use crate::hosts::MASTERS;
use crate::network::Wires;

/// Documents that the clients of registers share at a time.
const DOCUMENTS: u64 = 6;
/// They take other ones after this, so that no document has a long history.
const ROUND: Duration = Duration::from_secs(5);
/// Longest pause of a client.
const PAUSE_MS: u64 = 80;

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Reads and changes shared documents.
    Registers(u32),
    /// Changes a document of its own and reads it anywhere, with its session's token.
    Session(u32),
    /// Inserts documents, each once.
    Inserts(u32),
}

/// Works until the desk closes.
pub(crate) async fn work(work: Work, seed: u64, wires: Wires, desk: Desk) -> turmoil::Result {
    let mut worker = Worker {
        random: SmallRng::seed_from_u64(seed ^ (0x0c11_e270 + u64::from(work.number()))),
        gateways: Gateways::new(&wires, desk.clone()),
        desk,
    };
    while !worker.desk.is_open() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    match work {
        Work::Registers(client) => worker.registers(client).await?,
        Work::Session(client) => worker.session(client).await?,
        Work::Inserts(_) => worker.inserts().await?,
    }
    Ok(())
}

struct Worker {
    random: SmallRng,
    gateways: Gateways,
    desk: Desk,
}

impl Work {
    fn number(self) -> u32 {
        match self {
            Work::Registers(number) | Work::Session(number) | Work::Inserts(number) => number,
        }
    }
}

impl Worker {
    /// Lets time pass; `false` when the desk is closed.
    async fn goes_on(&mut self) -> bool {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(1..PAUSE_MS))).await;
        !self.desk.is_over()
    }

    async fn registers(&mut self, client: u32) -> Result<(), String> {
        let mut known = None;
        while self.goes_on().await {
            let round = turmoil::sim_elapsed().expect("in the world").as_secs() / ROUND.as_secs();
            let id = format!("r{round}-{}", self.random.random_range(0..DOCUMENTS));
            let operation = self.choose(known);
            known = self.perform(client, &id, operation).await?;
        }
        Ok(())
    }

    fn choose(&mut self, known: Option<u64>) -> Operation {
        let condition = Some(Version(known.unwrap_or(0)));
        let value = Value(self.desk.value());
        match self.random.random_range(0..20) {
            0..9 => Operation::Read,
            9..14 => Operation::Write { value, condition: None },
            14..17 => Operation::Write { value, condition },
            17..19 => Operation::Delete { condition: None },
            // Only what exists can be deleted on a condition.
            _ => Operation::Delete { condition: condition.filter(|version| *version != Version::ABSENT) },
        }
    }

    /// Sends one operation and writes down what is known of it; the version that it showed.
    async fn perform(&mut self, client: u32, id: &str, operation: Operation) -> Result<Option<u64>, String> {
        let gateway = self.random.random_range(0..MASTERS.len());
        let op = self.desk.lock().registers.invoke(Client(client), id, operation, tick());
        let known = match operation {
            Operation::Read => {
                let level = match self.random.random_range(0..4) {
                    0 => proto::Consistency::StrongNoclock,
                    _ => proto::Consistency::Strong,
                };
                match self.read(gateway, id, level, String::new()).await? {
                    Outcome::Done(found) => Known::Found(Some(seen(&found)?)),
                    Outcome::Absent => Known::Found(None),
                    // A read that failed has shown nothing.
                    Outcome::Refused(_) | Outcome::Unknown(_) => Known::Failed,
                    Outcome::Mismatch(_) => return Err("a read has no condition".to_owned()),
                }
            }
            Operation::Write { value, condition } => {
                let document = document(id, value.0, condition.map(|version| version.0));
                changed(self.upsert(gateway, vec![document]).await?)?
            }
            Operation::Delete { condition } => {
                let request = proto::DeleteDocumentsRequest {
                    table_name: TABLE.to_owned(),
                    document_ids: vec![id.to_owned()],
                    request_id: String::new(),
                    if_version: condition.map(|version| version.0),
                };
                let mut client = self.gateways.documents(gateway);
                changed(self.gateways.judge(client.delete_documents(call(request))).await?)?
            }
        };
        self.desk.lock().registers.complete(op, known, tick());
        Ok(match known {
            Known::Found(seen) => Some(seen.and_then(|seen| seen.version).map_or(0, |version| version.0)),
            Known::Mismatch(version) => Some(version.0),
            Known::Done(_) | Known::Failed | Known::Unknown => None,
        })
    }

    /// With its token it must see its own writes, and never go back. Nobody else writes its document, and its values grow.
    async fn session(&mut self, client: u32) -> Result<(), String> {
        let id = format!("own-{client}");
        let (mut token, mut acknowledged, mut version) = (String::new(), 0, 0);
        // They may happen later, over newer ones.
        let mut unknown = BTreeSet::new();
        while self.goes_on().await {
            let gateway = self.random.random_range(0..MASTERS.len());
            if self.random.random_range(0..3) == 0 {
                let value = self.desk.value();
                match self.upsert(gateway, vec![document(&id, value, None)]).await? {
                    Outcome::Done(done) => (token, acknowledged) = (done.session_token, value),
                    Outcome::Unknown(_) => drop(unknown.insert(value)),
                    _ => {}
                }
                continue;
            }
            let level = proto::Consistency::Session;
            let shown = match self.read(gateway, &id, level, token.clone()).await? {
                Outcome::Done(found) => {
                    let value = value_of(found.document.as_ref().ok_or("an answer without its document")?)?;
                    token = found.session_token;
                    (value, found.version)
                }
                Outcome::Absent => (0, 0),
                _ => continue,
            };
            if shown.1 < version || shown.0 < acknowledged && !unknown.contains(&shown.0) {
                return Err(format!(
                    "session {client} was shown value {} at version {}, after it had written {acknowledged} and seen version \
                     {version}, at {} us",
                    shown.0,
                    shown.1,
                    tick()
                ));
            }
            version = shown.1;
            self.desk.lock().session_reads += 1;
        }
        Ok(())
    }

    async fn inserts(&mut self) -> Result<(), String> {
        while self.goes_on().await {
            let gateway = self.random.random_range(0..MASTERS.len());
            let batch: Vec<u64> = (0..self.random.random_range(1..=4)).map(|_| self.desk.value()).collect();
            let documents = batch.iter().map(|value| document(&format!("i{value}"), *value, None)).collect();
            let fate = match self.upsert(gateway, documents).await? {
                Outcome::Done(_) => Fate::Acknowledged,
                // What one shard refused another one may have taken.
                Outcome::Refused(_) if batch.len() == 1 => Fate::Failed,
                Outcome::Refused(_) | Outcome::Unknown(_) => Fate::Unknown,
                other => return Err(format!("an insert came to {other:?}")),
            };
            let inserts = batch.into_iter().map(|value| (format!("i{value}"), (value, fate)));
            self.desk.lock().inserts.extend(inserts);
        }
        Ok(())
    }

    async fn read(
        &self,
        gateway: usize,
        id: &str,
        level: proto::Consistency,
        session_token: String,
    ) -> Result<Outcome<proto::GetDocumentResponse>, String> {
        let read =
            proto::ReadOptions { consistency: level.into(), session_token, ..proto::ReadOptions::default() };
        let request = proto::GetDocumentRequest {
            table_name: TABLE.to_owned(),
            document_id: id.to_owned(),
            without_vector: false,
            read: Some(read),
        };
        let mut client = self.gateways.documents(gateway);
        self.gateways.judge(client.get_document(call(request))).await
    }

    async fn upsert(
        &self,
        gateway: usize,
        documents: Vec<proto::Document>,
    ) -> Result<Outcome<proto::WriteResponse>, String> {
        let request = proto::UpsertDocumentsRequest {
            table_name: TABLE.to_owned(),
            documents,
            request_id: String::new(),
        };
        let mut client = self.gateways.documents(gateway);
        self.gateways.judge(client.upsert_documents(call(request))).await
    }
}

fn seen(found: &proto::GetDocumentResponse) -> Result<Seen, String> {
    let document = found.document.as_ref().ok_or("an answer without its document")?;
    Ok(Seen { value: Value(value_of(document)?), version: Some(Version(found.version)) })
}

/// What is known of a change.
fn changed(outcome: Outcome<proto::WriteResponse>) -> Result<Known, String> {
    match outcome {
        Outcome::Done(_) => Ok(Known::Done(None)),
        Outcome::Mismatch(version) => Ok(Known::Mismatch(Version(version))),
        Outcome::Refused(_) => Ok(Known::Failed),
        Outcome::Unknown(_) => Ok(Known::Unknown),
        Outcome::Absent => Err("a change was told that there is no document".to_owned()),
    }
}
