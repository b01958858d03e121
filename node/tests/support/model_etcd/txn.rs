//! Transactions: what is compared, what is changed, and what etcd refuses.

use std::cmp::Ordering;

use etcd_client::CompareOp;
use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbPutRequest, PbPutResponse,
    PbRangeRequest, PbRangeResponse, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse,
    PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};
use tonic::Status;

use super::content::{Change, Content, KeyRange};
use super::leases::Leases;
use super::{State, unimplemented};

/// Operations, and compares, that a transaction may have.
const OPERATIONS_MAX: usize = 128;

impl State {
    pub(super) fn txn(&mut self, request: &PbTxnRequest) -> Result<PbTxnResponse, Status> {
        check_shape(request)?;
        let succeeded = request.compare.iter().all(|compare| holds(&self.content, compare));
        let operations = if succeeded { &request.success } else { &request.failure };
        for operation in operations {
            match &operation.request {
                Some(PbTxnOpRequest::RequestPut(put)) => check_lease(&self.leases, put)?,
                Some(PbTxnOpRequest::RequestRange(range)) => {
                    self.content.at(&KeyRange::new(&range.key, &range.range_end), range.revision)?;
                }
                _ => {}
            }
        }
        let State { content, leases, .. } = self;
        let answers = content.change(|change| {
            operations.iter().map(|operation| apply(change, leases, operation)).collect::<Result<_, _>>()
        })?;
        Ok(PbTxnResponse { header: self.header(), succeeded, responses: answers })
    }

    pub(super) fn put(&mut self, request: &PbPutRequest) -> Result<PbPutResponse, Status> {
        check_put(request)?;
        check_lease(&self.leases, request)?;
        let State { content, leases, .. } = self;
        let answer = content.change(|change| put(change, leases, request));
        Ok(PbPutResponse { header: self.header(), ..answer })
    }

    pub(super) fn delete(&mut self, request: &PbDeleteRequest) -> Result<PbDeleteResponse, Status> {
        check_key(&request.key)?;
        let State { content, leases, .. } = self;
        let answer = content.change(|change| delete(change, leases, request));
        Ok(PbDeleteResponse { header: self.header(), ..answer })
    }

    pub(super) fn range(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, Status> {
        check_key(&request.key)?;
        check_range(request)?;
        let answer = range(&self.content, request)?;
        Ok(PbRangeResponse { header: self.header(), ..answer })
    }
}

fn apply(
    change: &mut Change<'_>,
    leases: &mut Leases,
    operation: &PbTxnRequestOp,
) -> Result<PbResponseOp, Status> {
    let response = match operation.request.as_ref().expect("its shape was checked") {
        PbTxnOpRequest::RequestPut(request) => PbTxnOpResponse::ResponsePut(put(change, leases, request)),
        PbTxnOpRequest::RequestDeleteRange(request) => {
            PbTxnOpResponse::ResponseDeleteRange(delete(change, leases, request))
        }
        PbTxnOpRequest::RequestRange(request) => {
            PbTxnOpResponse::ResponseRange(range(change.content(), request)?)
        }
        PbTxnOpRequest::RequestTxn(_) => return Err(unimplemented("transactions within transactions")),
    };
    Ok(PbResponseOp { response: Some(response) })
}

fn put(change: &mut Change<'_>, leases: &mut Leases, request: &PbPutRequest) -> PbPutResponse {
    let before = change.put(&request.key, &request.value, request.lease);
    leases.bind(&request.key, before.as_ref().map_or(0, |before| before.lease), request.lease);
    PbPutResponse { header: None, prev_kv: before.filter(|_| request.prev_kv) }
}

fn delete(change: &mut Change<'_>, leases: &mut Leases, request: &PbDeleteRequest) -> PbDeleteResponse {
    let range = KeyRange::new(&request.key, &request.range_end);
    let keys: Vec<Vec<u8>> = change.content().now(&range).into_iter().map(|kv| kv.key.clone()).collect();
    let deleted: Vec<PbKeyValue> = keys.iter().filter_map(|key| change.delete(key)).collect();
    for before in &deleted {
        leases.bind(&before.key, before.lease, 0);
    }
    let count = deleted.len() as i64;
    let prev_kvs = if request.prev_kv { deleted } else { Vec::new() };
    PbDeleteResponse { header: None, deleted: count, prev_kvs }
}

fn range(content: &Content, request: &PbRangeRequest) -> Result<PbRangeResponse, Status> {
    let range = KeyRange::new(&request.key, &request.range_end);
    let found = content.at(&range, request.revision)?;
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let (count, more) = (found.len() as i64, found.len() > limit && !request.count_only);
    let shown = if request.count_only { 0 } else { limit };
    let kvs = found.into_iter().take(shown).map(|kv| match request.keys_only {
        true => PbKeyValue { value: Vec::new(), ..kv.clone() },
        false => kv.clone(),
    });
    Ok(PbRangeResponse { header: None, kvs: kvs.collect(), more, count })
}

/// True when every key of the range is as it should be; where there is none, zeros are compared.
fn holds(content: &Content, compare: &PbCompare) -> bool {
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let found = content.now(&range);
    match found.is_empty() {
        false => found.into_iter().all(|kv| compares(kv, compare)),
        // What is not there has no value: nothing can be said of it.
        true => compare.target != PbCompareTarget::Value as i32 && compares(&PbKeyValue::default(), compare),
    }
}

fn compares(kv: &PbKeyValue, compare: &PbCompare) -> bool {
    let ordering = match compare.target_union.as_ref() {
        Some(PbTargetUnion::Version(version)) => kv.version.cmp(version),
        Some(PbTargetUnion::CreateRevision(revision)) => kv.create_revision.cmp(revision),
        Some(PbTargetUnion::ModRevision(revision)) => kv.mod_revision.cmp(revision),
        Some(PbTargetUnion::Value(value)) => kv.value.cmp(value),
        Some(PbTargetUnion::Lease(lease)) => kv.lease.cmp(lease),
        None => return false,
    };
    match compare.result {
        result if result == CompareOp::Equal as i32 => ordering == Ordering::Equal,
        result if result == CompareOp::Greater as i32 => ordering == Ordering::Greater,
        result if result == CompareOp::Less as i32 => ordering == Ordering::Less,
        _ => ordering != Ordering::Equal,
    }
}

/// What etcd refuses before it looks at any key.
fn check_shape(request: &PbTxnRequest) -> Result<(), Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if longest > OPERATIONS_MAX {
        return Err(Status::invalid_argument("etcdserver: too many operations in txn request"));
    }
    for compare in &request.compare {
        check_key(&compare.key)?;
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(PbTxnOpRequest::RequestPut(put)) => check_put(put)?,
            Some(PbTxnOpRequest::RequestDeleteRange(delete)) => check_key(&delete.key)?,
            Some(PbTxnOpRequest::RequestRange(range)) => {
                check_key(&range.key)?;
                check_range(range)?;
            }
            Some(PbTxnOpRequest::RequestTxn(_)) => {
                return Err(unimplemented("transactions within transactions"));
            }
            None => return Err(Status::invalid_argument("etcdserver: key not found")),
        }
    }
    check_distinct(&request.success)?;
    check_distinct(&request.failure)
}

/// No key is written twice, nor written and deleted.
fn check_distinct(operations: &[PbTxnRequestOp]) -> Result<(), Status> {
    let mut written: Vec<&[u8]> = Vec::new();
    let mut deleted: Vec<KeyRange> = Vec::new();
    for operation in operations {
        match &operation.request {
            Some(PbTxnOpRequest::RequestPut(put)) => written.push(&put.key),
            // etcd overlooks deletes without an end.
            Some(PbTxnOpRequest::RequestDeleteRange(delete)) if delete.range_end != [0] => {
                deleted.push(KeyRange::new(&delete.key, &delete.range_end));
            }
            _ => {}
        }
    }
    written.sort_unstable();
    let twice = written.windows(2).any(|pair| pair[0] == pair[1]);
    let both = written.iter().any(|key| deleted.iter().any(|range| range.contains(key)));
    if twice || both {
        return Err(Status::invalid_argument("etcdserver: duplicate key given in txn request"));
    }
    Ok(())
}

fn check_put(request: &PbPutRequest) -> Result<(), Status> {
    check_key(&request.key)?;
    if request.ignore_lease || request.ignore_value {
        return Err(unimplemented("writes that keep the old value or lease"));
    }
    Ok(())
}

fn check_lease(leases: &Leases, request: &PbPutRequest) -> Result<(), Status> {
    if request.lease != 0 && !leases.contains(request.lease) {
        return Err(Status::not_found("etcdserver: requested lease not found"));
    }
    Ok(())
}

fn check_range(request: &PbRangeRequest) -> Result<(), Status> {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if request.sort_order != 0 || request.sort_target != 0 || bounds != [0; 4] {
        return Err(unimplemented("sorting and filtering"));
    }
    Ok(())
}

fn check_key(key: &[u8]) -> Result<(), Status> {
    if key.is_empty() { Err(Status::invalid_argument("etcdserver: key is not provided")) } else { Ok(()) }
}
