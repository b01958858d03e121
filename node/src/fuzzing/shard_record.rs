//! A shard's record, as the metadata store holds it. It has no checksum: another record is another shard.

use std::sync::Arc;

use prost::Message as _;
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta::ShardRecord;

use crate::cluster::view::{ClusterView, RecordError, Shard};
use crate::ids::Revision;
use crate::replication::Change;
use crate::shard::configuration::{configuration_of, write_configuration};

const TABLE: &str = "7f2c1c6e-6d5b-4b7e-9a53-0f6d4a3a2b1c";

/// Checks the value of a shard's record.
pub fn shard_record(bytes: &[u8]) -> bool {
    let Ok(shard) = read(bytes) else { return false };
    let record = ShardRecord::decode(bytes).expect("it was just read");
    assert_eq!(read(&record.encode_to_vec()).as_ref(), Ok(&shard));
    // A change of the record by a replica keeps what it does not change.
    let configuration = configuration_of(&shard);
    let written = write_configuration(record, &configuration, &Change::Abdicate);
    let found = read(&written.encode_to_vec()).expect("just written");
    assert_eq!(configuration_of(&found), configuration);
    assert_eq!(found.incarnation, shard.incarnation);
    let places = |shard: &Shard| -> Vec<_> {
        shard.replicas.iter().map(|replica| (replica.id, replica.node.clone(), replica.replaces)).collect()
    };
    assert_eq!(places(&found), places(&shard));
    true
}

fn read(bytes: &[u8]) -> Result<Arc<Shard>, RecordError> {
    let (mut view, keys) = (ClusterView::default(), Keys::of_service("s"));
    view.put(&keys, &keys.shard(TABLE, 0), bytes, Revision(1), Revision(2))?;
    Ok(view.shards.into_values().next().expect("it was put there"))
}
