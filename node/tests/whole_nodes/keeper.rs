//! Who makes the table, sees whether everything is available again, and reads everything in the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::info;
use vectorsphere_proto::v1 as proto;

use crate::desk::{DIMENSION, Desk, Gateways, Outcome, TABLE, call, document, value_of};
use crate::network::Wires;
use crate::settings::Settings;

const PAUSE: Duration = Duration::from_millis(100);
/// Documents of a probe: enough for each shard to have some.
const PROBES: u64 = 24;

/// Documents and their values.
type Found = Vec<(String, u64)>;

/// What a task of the keeper has come to.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<Option<Found>>>);

impl Progress {
    pub(crate) fn is_done(&self) -> bool {
        self.0.lock().expect("no panic under the lock").is_some()
    }

    pub(crate) fn take(&self) -> Found {
        self.0.lock().expect("no panic under the lock").take().expect("it is done")
    }

    fn done(&self, found: Found) {
        *self.0.lock().expect("no panic under the lock") = Some(found);
    }
}

/// Makes the table as soon as there are nodes for it, and opens the desk when every gateway knows it.
pub(crate) async fn create_table(wires: Wires, desk: Desk, settings: Arc<Settings>) -> turmoil::Result {
    let gateways = Gateways::new(&wires, desk.clone());
    loop {
        tokio::time::sleep(PAUSE).await;
        let request = proto::CreateTableRequest {
            table_name: TABLE.to_owned(),
            dimension: DIMENSION as u32,
            storage_type: String::new(),
            rows: String::new(),
            index_options: None,
            tenant_key: String::new(),
            expected_documents: 0,
            metric: proto::Metric::L2.into(),
            index_type: String::new(),
            shards: settings.shards,
            replicas: settings.replicas,
            min_isr: settings.min_isr,
            // Nobody reads by them: they are built while nodes stop, copies move and segments are merged.
            metadata_indexes: [("value", "integer"), ("none", "keyword")]
                .map(|(field, kind)| (field.to_owned(), kind.to_owned()))
                .into(),
        };
        let made = gateways.tables(0).create_table(call(request)).await;
        match made {
            Ok(_) => break,
            Err(status) if status.code() == tonic::Code::AlreadyExists => break,
            Err(status) => info!(%status, "no table yet"),
        }
    }
    // A gateway that was cut off meanwhile learns of it later.
    for gateway in 0..2 {
        while !knows_table(&gateways, gateway).await {
            tokio::time::sleep(PAUSE).await;
        }
    }
    desk.open();
    Ok(())
}

async fn knows_table(gateways: &Gateways, gateway: usize) -> bool {
    let request = proto::GetTableRequest { table_name: TABLE.to_owned() };
    gateways.tables(gateway).get_table(call(request)).await.is_ok()
}

/// Writes into every shard, through each gateway, and reads all documents: then everything is available.
pub(crate) async fn probe(wires: Wires, desk: Desk, available: Progress) -> turmoil::Result {
    let gateways = Gateways::new(&wires, desk.clone());
    for gateway in 0..2 {
        loop {
            tokio::time::sleep(PAUSE).await;
            let documents =
                (0..PROBES).map(|number| document(&format!("probe-{number}"), desk.value(), None)).collect();
            let request = proto::UpsertDocumentsRequest {
                table_name: TABLE.to_owned(),
                documents,
                request_id: String::new(),
            };
            let mut client = gateways.documents(gateway);
            match gateways.judge(client.upsert_documents(call(request))).await? {
                Outcome::Done(_) => break,
                outcome => info!(?outcome, gateway, "not available yet"),
            }
        }
    }
    read_all(&gateways).await?;
    available.done(Vec::new());
    Ok(())
}

/// Reads all documents, and waits until all copies in sync are the same.
pub(crate) async fn list(wires: Wires, desk: Desk, listed: Progress) -> turmoil::Result {
    // Clients may be waiting for their last answers.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let gateways = Gateways::new(&wires, desk);
    let found = read_all(&gateways).await?;
    while !are_equal(&gateways).await? {
        tokio::time::sleep(PAUSE).await;
    }
    listed.done(found);
    Ok(())
}

/// True when the copies in sync of each shard are at the same place in its log.
///
/// # Errors
/// When copies that are at the same place differ.
async fn are_equal(gateways: &Gateways) -> Result<bool, String> {
    let request = proto::ListShardsRequest { table_name: TABLE.to_owned() };
    let Ok(answer) = gateways.tables(0).list_shards(call(request)).await else { return Ok(false) };
    for shard in answer.into_inner().shards {
        let in_sync = shard.copies.iter().filter(|copy| copy.in_sync);
        let mut digests: BTreeMap<u64, &str> = BTreeMap::new();
        for copy in in_sync {
            let Some(status) = &copy.status else { return Ok(false) };
            let known = *digests.entry(status.digest_lsn).or_insert(&status.digest);
            if known != status.digest {
                return Err(format!("copies of one place in the log differ: {shard:?}"));
            }
        }
        if digests.len() != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn read_all(gateways: &Gateways) -> Result<Found, String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let request = proto::ListDocumentsRequest {
            table_name: TABLE.to_owned(),
            limit: 1_000,
            cursor: cursor.clone(),
            with_vector: true,
            read: Some(proto::ReadOptions {
                consistency: proto::Consistency::Strong.into(),
                ..proto::ReadOptions::default()
            }),
        };
        let mut client = gateways.documents(0);
        let page = match gateways.judge(client.list_documents(call(request))).await? {
            Outcome::Done(page) => page,
            outcome => {
                info!(?outcome, "a page was not read");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        for document in page.documents {
            let value = value_of(&document)?;
            found.push((document.document_id, value));
        }
        if page.next_cursor.is_empty() {
            return Ok(found);
        }
        cursor = page.next_cursor;
    }
}
