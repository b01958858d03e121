//! The metadata store in etcd.
//!
//! The connection is made at the first call and kept; a call that fails does not end it, the client reconnects by
//! itself. Every call has a time limit, so that an etcd that went away is an error and never a hang.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error as EtcdError, EventType,
    GetOptions, Identity, KeyValue, PutOptions, TlsOptions, TxnOp, WatchOptions, WatchResponse, WatchStream,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;
use tonic::Code;
use tonic::transport::Channel;
use tracing::{info, warn};

use super::{
    Change, ChangeBatch, Condition, Entry, LeaseId, Listing, MetaError, MetaStore, Operation, Txn,
    TxnOutcome, WatchEnd,
};
use crate::config::EtcdConfig;
use crate::ids::Revision;

/// A dead connection is found after `KEEP_ALIVE_TIME + KEEP_ALIVE_TIMEOUT`: sooner than a session of 8 s ends.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Entries of one page of a listing: with records of a few KiB far below the 10 MiB that an answer may have.
const PAGE_ENTRIES: i64 = 1_000;
/// Oldest patch of each line of releases without known bugs in leases, reads or access rights that matter here.
const OLDEST_GOOD: [(u64, u64, u64); 3] = [(3, 5, 33), (3, 6, 14), (3, 7, 1)];

/// A connection to etcd.
pub struct EtcdStore {
    config: EtcdConfig,
    /// Used instead of connections to the endpoints.
    channel: Option<Channel>,
    client: OnceCell<Client>,
}

impl EtcdStore {
    /// Makes no connection yet, so that a node can start before etcd does.
    pub fn new(config: EtcdConfig) -> EtcdStore {
        EtcdStore { config, channel: None, client: OnceCell::new() }
    }

    /// Calls over this channel, which is already what the configuration says about connections.
    pub fn over(channel: Channel, config: EtcdConfig) -> EtcdStore {
        EtcdStore { config, channel: Some(channel), client: OnceCell::new() }
    }

    async fn client(&self) -> Result<Client, MetaError> {
        let client = self.client.get_or_try_init(|| async {
            let options = self.options()?;
            let limit = self.config.dial_timeout + self.config.request_timeout;
            let connect = async {
                match &self.channel {
                    None => Client::connect(&self.config.endpoints, Some(options)).await,
                    Some(channel) => {
                        let channel = etcd_client::Channel::Tonic(channel.clone());
                        Client::from_channel(channel, Some(options)).await
                    }
                }
            };
            let client = within(limit, connect).await?;
            info!(endpoints = ?self.config.endpoints, "connected to etcd");
            self.warn_of_bugs(client.clone()).await;
            Ok(client)
        });
        Ok(client.await?.clone())
    }

    fn options(&self) -> Result<ConnectOptions, MetaError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.config.dial_timeout)
            .with_keep_alive(KEEP_ALIVE_TIME, KEEP_ALIVE_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if !self.config.username.is_empty() {
            options = options
                .with_user(&self.config.username, self.config.password.expose_secret())
                .with_auto_token_refresh(true);
        }
        match self.tls()? {
            Some(tls) => Ok(options.with_tls(tls)),
            None => Ok(options),
        }
    }

    fn tls(&self) -> Result<Option<TlsOptions>, MetaError> {
        let read = |path: &PathBuf| {
            fs::read(path)
                .map_err(|error| MetaError::Denied(format!("cannot read {}: {error}", path.display())))
        };
        let mut tls = TlsOptions::new();
        if let Some(ca) = &self.config.ca_file {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let (Some(certificate), Some(key)) = (&self.config.cert_file, &self.config.key_file) {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        let wanted = self.config.ca_file.is_some() || self.config.cert_file.is_some();
        Ok(wanted.then_some(tls))
    }

    /// The user runs an external etcd, so an old one is told loudly and not refused.
    async fn warn_of_bugs(&self, mut client: Client) {
        let Ok(status) = within(self.config.request_timeout, client.status()).await else { return };
        if has_known_bugs(status.version()) {
            let version = status.version();
            warn!(
                version,
                "this etcd has known bugs that can lose or reveal data, use 3.5.33, 3.6.14, 3.7.1 or later"
            );
        }
    }

    async fn call<T>(&self, call: impl AsyncFnOnce(Client) -> Result<T, EtcdError>) -> Result<T, MetaError> {
        let client = self.client().await?;
        within(self.config.request_timeout, call(client)).await
    }
}

impl MetaStore for EtcdStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, MetaError>> {
        Box::pin(async move {
            let client = self.client().await?;
            let mut kv = client.kv_client().max_decoding_message_size(self.config.max_call_recv_msg_size);
            let answer = within(self.config.request_timeout, kv.get(key, None)).await?;
            answer.kvs().first().map(entry).transpose()
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listing, MetaError>> {
        Box::pin(async move {
            let client = self.client().await?;
            let mut kv = client.kv_client().max_decoding_message_size(self.config.max_call_recv_msg_size);
            let (mut entries, mut revision, mut from) = (Vec::new(), 0, first_key(prefix).to_owned());
            loop {
                // All pages at the revision of the first one: together they are one state.
                let options = GetOptions::new()
                    .with_range(end_of_prefix(prefix))
                    .with_limit(PAGE_ENTRIES)
                    .with_revision(revision);
                let page = within(self.config.request_timeout, kv.get(from.as_str(), Some(options))).await?;
                if revision == 0 {
                    revision = page.header().map_or(0, |header| header.revision());
                }
                for kv in page.kvs() {
                    entries.push(entry(kv)?);
                }
                match entries.last() {
                    // The first key behind the last one.
                    Some(last) if page.more() => from = format!("{}\0", last.key),
                    _ => return Ok(Listing { revision: Revision(revision), entries }),
                }
            }
        })
    }

    fn commit<'a>(&'a self, txn: Txn) -> BoxFuture<'a, Result<TxnOutcome, MetaError>> {
        Box::pin(async move {
            let client = self.client().await?;
            let mut kv = client.kv_client().max_encoding_message_size(self.config.max_call_send_msg_size);
            let conditions: Vec<_> = txn.conditions.into_iter().map(compare).collect();
            let operations: Vec<_> = txn.operations.into_iter().map(operation).collect();
            let request = etcd_client::Txn::new().when(conditions).and_then(operations);
            let answer = within(self.config.request_timeout, kv.txn(request)).await?;
            if !answer.succeeded() {
                return Ok(TxnOutcome::ConditionFailed);
            }
            Ok(TxnOutcome::Committed(Revision(answer.header().map_or(0, |header| header.revision()))))
        })
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<ChangeBatch, WatchEnd>>, MetaError>> {
        Box::pin(async move {
            let options =
                WatchOptions::new().with_prefix().with_start_revision(from.0).with_progress_notify();
            let stream = self.call(async |mut client| client.watch(prefix, Some(options)).await).await?;
            Ok(changes(stream))
        })
    }

    fn grant_lease<'a>(&'a self, ttl: Duration) -> BoxFuture<'a, Result<LeaseId, MetaError>> {
        Box::pin(async move {
            let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            let answer = self.call(async |mut client| client.lease_grant(seconds, None).await).await?;
            Ok(LeaseId(answer.id()))
        })
    }

    fn keep_alive<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<bool, MetaError>> {
        Box::pin(async move {
            let client = self.client().await?;
            let kept = async move { client.lease_client().keep_alive(lease.0).await };
            match tokio::time::timeout(self.config.request_timeout, kept).await {
                Ok(Ok(_)) => Ok(true),
                // The client's word for a lease that etcd does not know; no other failure of the call is one.
                Ok(Err(EtcdError::LeaseKeepAliveError(what))) if what.contains("not found") => Ok(false),
                Ok(Err(error)) => Err(meta_error(error)),
                Err(_) => Err(no_answer(self.config.request_timeout)),
            }
        })
    }

    fn revoke_lease<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<(), MetaError>> {
        Box::pin(async move {
            let client = self.client().await?;
            let revoked = async move { client.lease_client().revoke(lease.0).await };
            match tokio::time::timeout(self.config.request_timeout, revoked).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(EtcdError::GRpcStatus(status))) if status.code() == Code::NotFound => Ok(()),
                Ok(Err(error)) => Err(meta_error(error)),
                Err(_) => Err(no_answer(self.config.request_timeout)),
            }
        })
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, EtcdError>>,
) -> Result<T, MetaError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(meta_error),
        Err(_) => Err(no_answer(limit)),
    }
}

fn no_answer(limit: Duration) -> MetaError {
    MetaError::Unavailable(format!("no answer within {limit:?}"))
}

fn meta_error(error: EtcdError) -> MetaError {
    let EtcdError::GRpcStatus(status) = &error else { return MetaError::Unavailable(error.to_string()) };
    let message = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => MetaError::Denied(message),
        // etcd answers a wrong password with INVALID_ARGUMENT.
        Code::InvalidArgument if message.contains("authentication failed") => MetaError::Denied(message),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented => {
            MetaError::Refused(message)
        }
        _ => MetaError::Unavailable(message),
    }
}

fn entry(kv: &KeyValue) -> Result<Entry, MetaError> {
    let key = kv.key_str().map_err(|_| MetaError::Refused("a key is not UTF-8".to_owned()))?;
    Ok(Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(kv.value()),
        create_revision: Revision(kv.create_revision()),
        mod_revision: Revision(kv.mod_revision()),
        lease: (kv.lease() != 0).then(|| LeaseId(kv.lease())),
    })
}

/// The first key that may begin with `prefix`; etcd does not know an empty key.
fn first_key(prefix: &str) -> &str {
    if prefix.is_empty() { "\0" } else { prefix }
}

/// The first key behind all that begin with `prefix`, which is ASCII: its last byte counted up.
fn end_of_prefix(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        // etcd's word for the end of all keys.
        None => end.push(0),
    }
    end
}

fn compare(condition: Condition) -> Compare {
    match condition {
        Condition::Absent(key) => Compare::create_revision(key, CompareOp::Equal, 0),
        Condition::CreatedAt(key, revision) => Compare::create_revision(key, CompareOp::Equal, revision.0),
        Condition::ModifiedAt(key, revision) => Compare::mod_revision(key, CompareOp::Equal, revision.0),
    }
}

fn operation(operation: Operation) -> TxnOp {
    match operation {
        Operation::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key, value, options)
        }
        Operation::Delete(key) => TxnOp::delete(key, None),
        Operation::DeletePrefix(prefix) => TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix())),
    }
}

/// The watch as batches of one revision each; ends after its first error.
fn changes(stream: WatchStream) -> BoxStream<'static, Result<ChangeBatch, WatchEnd>> {
    let batches = stream.flat_map(|response| {
        let batches = match response {
            Ok(response) => batches(&response),
            Err(error) => vec![Err(WatchEnd::Lost(error.to_string()))],
        };
        stream::iter(batches)
    });
    // `scan` passes the first error on and ends the stream after it.
    let until_error = batches.scan(false, |ended, batch| {
        let passed = (!*ended).then(|| {
            *ended = batch.is_err();
            batch
        });
        std::future::ready(passed)
    });
    Box::pin(until_error)
}

fn batches(response: &WatchResponse) -> Vec<Result<ChangeBatch, WatchEnd>> {
    if response.compact_revision() != 0 {
        return vec![Err(WatchEnd::Compacted(Revision(response.compact_revision())))];
    }
    if response.canceled() {
        return vec![Err(WatchEnd::Lost(response.cancel_reason().to_owned()))];
    }
    if response.created() {
        return Vec::new();
    }
    let header = Revision(response.header().map_or(0, |header| header.revision()));
    if response.events().is_empty() {
        return vec![Ok(ChangeBatch { revision: header, changes: Vec::new() })];
    }
    let mut batches: Vec<ChangeBatch> = Vec::new();
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        let revision = Revision(kv.mod_revision());
        let change = match event.event_type() {
            EventType::Put => match entry(kv) {
                Ok(entry) => Change::Put(entry),
                Err(error) => return vec![Err(WatchEnd::Lost(error.to_string()))],
            },
            EventType::Delete => Change::Deleted(String::from_utf8_lossy(kv.key()).into_owned()),
        };
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.changes.push(change),
            _ => batches.push(ChangeBatch { revision, changes: vec![change] }),
        }
    }
    batches.into_iter().map(Ok).collect()
}

fn has_known_bugs(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    match OLDEST_GOOD.iter().find(|good| (good.0, good.1) == (major, minor)) {
        Some(good) => patch < good.2,
        None => (major, minor) < (3, 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_patches_of_etcd_are_known_as_such() {
        for bad in ["3.4.44", "3.5.32", "3.6.13", "3.7.0", "3.6.0-rc.1"] {
            assert!(has_known_bugs(bad), "{bad}");
        }
        for good in ["3.5.33", "3.6.14", "3.7.1", "3.8.0", "4.0.0"] {
            assert!(!has_known_bugs(good), "{good}");
        }
    }
}
