//! What a shard refuses or cuts short, and that nothing is lost by it.

use std::io;

use tonic::Request;
use vectorsphere_proto::internal::operation::Kind;
use vectorsphere_proto::internal::shard_service_server::ShardService;
use vectorsphere_proto::internal::{self as proto};

use super::tests::{World, code, strong};
use crate::document::vector_to_bytes;
use crate::error_code::ErrorCode;
use crate::ids::OpId;
use crate::runtime::disk::DiskOperation;

/// Documents of a little less than 1 MiB, in one batch.
fn batch(world: &World, op_id: OpId, ids: std::ops::Range<u32>) -> Request<proto::WriteRequest> {
    let metadata = format!("{{\"text\":\"{}\"}}", "x".repeat((1 << 20) - 100));
    let upsert = |number: u32| {
        let vector = vector_to_bytes(&[1.0, 0.0]);
        let metadata = metadata.clone().into();
        let document = proto::Document { id: number.to_string(), vector, metadata };
        proto::Operation { kind: Some(Kind::Upsert(document)), if_version: None }
    };
    let operations = ids.map(upsert).collect();
    Request::new(proto::WriteRequest {
        shard: world.shard_ref(1),
        op_id: op_id.0.to_vec().into(),
        operations,
        base_lsn: 0,
    })
}

#[tokio::test]
async fn a_page_of_large_documents_ends_early_and_the_next_one_goes_on() {
    let world = World::new();
    world.until_led(1).await;
    world.service.write(batch(&world, OpId::random(), 0..5)).await.expect("written");
    let (mut after_id, mut pages) = (String::new(), Vec::new());
    loop {
        let (shard, after) = (world.shard_ref(1), after_id.clone());
        // Each but the first page has room for less than one document, and gets it.
        let bytes_max = if pages.is_empty() { 5 << 19 } else { 1 };
        let request = proto::ListRequest {
            shard,
            after_id: after,
            limit: 100,
            bytes_max,
            rule: strong(),
            ..Default::default()
        };
        let page = world.service.list(Request::new(request)).await.expect("listed").into_inner();
        after_id.clone_from(&page.documents.last().expect("at least one").id);
        pages.push(page.documents.len());
        if !page.more {
            break;
        }
    }
    assert_eq!((pages, after_id.as_str()), (vec![2, 1, 1, 1], "4"));
}

#[tokio::test]
async fn an_operation_id_is_good_for_one_body() {
    let world = World::new();
    world.until_led(1).await;
    let op_id = OpId::random();
    let first = world.service.write(batch(&world, op_id, 0..1)).await.expect("written");
    let again = world.service.write(batch(&world, op_id, 0..1)).await.expect("the same");
    assert_eq!(first.get_ref(), again.get_ref());
    let refused = world.service.write(batch(&world, op_id, 0..2)).await.expect_err("another body");
    assert_eq!(code(&refused), ErrorCode::RequestIdReused.grpc_status());
    assert!(refused.message().contains("used for another write"), "{refused}");
}

#[tokio::test]
async fn what_waits_when_the_disk_fails_was_certainly_not_written() {
    let world = World::new();
    world.until_led(1).await;
    let (large, small) = loop {
        world.disk.fail_next(DiskOperation::Sync, io::ErrorKind::Other);
        // The first one is as large as a group gets, so the second one waits in the mailbox.
        let large = world.service.write(batch(&world, OpId::random(), 0..9));
        let small = world.write(1, Kind::Delete("0".to_owned()));
        let (large, small) = futures::future::join(large, small).await;
        if large.is_err() {
            break (large, small);
        }
        // The durable mark, saved once a second, met the fault instead of the log: once more.
    };
    let code_of = |outcome: Result<(), tonic::Status>| code(&outcome.expect_err("the disk failed"));
    assert_eq!(code_of(large.map(drop)), ErrorCode::OutcomeUnknown.grpc_status());
    assert_eq!(code_of(small.map(drop)), ErrorCode::ShardUnavailable.grpc_status());
    world.until_led(2).await;
}
