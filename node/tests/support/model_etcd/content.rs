//! What an etcd holds: each key with its versions since the last compaction. Pure.

use std::collections::BTreeMap;

use etcd_client::EventType;
use etcd_client::proto::{PbEvent, PbKeyValue};
use tonic::Status;

/// Keys and their history.
pub(super) struct Content {
    revision: i64,
    compacted: i64,
    /// By key, each version with its revision, ascending; `None`: deleted.
    versions: BTreeMap<Vec<u8>, Vec<(i64, Option<PbKeyValue>)>>,
    /// Every change since the last compaction, in order.
    events: Vec<PbEvent>,
}

/// Keys from the first one up to, but not with, `end`.
#[derive(Clone, Debug)]
pub(super) struct KeyRange {
    start: Vec<u8>,
    end: End,
}

#[derive(Clone, Debug)]
enum End {
    /// Only the first key.
    Single,
    Before(Vec<u8>),
    Open,
}

/// Changes of one revision.
pub(super) struct Change<'c> {
    content: &'c mut Content,
    revision: i64,
    events: Vec<PbEvent>,
}

impl Default for Content {
    fn default() -> Content {
        // An etcd without keys is at revision 1; revision 0 can be compacted, once.
        Content { revision: 1, compacted: -1, versions: BTreeMap::new(), events: Vec::new() }
    }
}

impl KeyRange {
    /// As etcd writes ranges: no end is one key, the end `\0` is none.
    pub(super) fn new(key: &[u8], range_end: &[u8]) -> KeyRange {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Open,
            end => End::Before(end.to_vec()),
        };
        KeyRange { start: key.to_vec(), end }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start,
            End::Before(end) => key >= &self.start[..] && key < &end[..],
            End::Open => key >= &self.start[..],
        }
    }
}

impl Content {
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// What was compacted: older revisions are gone.
    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The keys of a range as they are now.
    pub(super) fn now(&self, range: &KeyRange) -> Vec<&PbKeyValue> {
        self.range(range, i64::MAX)
    }

    /// The keys of a range as they were at a revision; 0: as they are now.
    pub(super) fn at(&self, range: &KeyRange, revision: i64) -> Result<Vec<&PbKeyValue>, Status> {
        match revision {
            ..=0 => Ok(self.now(range)),
            _ if revision > self.revision => {
                Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"))
            }
            _ if revision < self.compacted => {
                Err(Status::out_of_range("etcdserver: mvcc: required revision has been compacted"))
            }
            _ => Ok(self.range(range, revision)),
        }
    }

    fn range(&self, range: &KeyRange, revision: i64) -> Vec<&PbKeyValue> {
        let from = self.versions.range(range.start.clone()..);
        let within = from.take_while(|(key, _)| range.contains(key));
        let at = |versions: &'_ [(i64, Option<PbKeyValue>)]| {
            versions.iter().rposition(|(changed, _)| *changed <= revision)
        };
        within.filter_map(|(_, versions)| versions[at(versions)?].1.as_ref()).collect()
    }

    /// Applies changes, all at the next revision; without any, the revision stays.
    pub(super) fn change<T>(&mut self, apply: impl FnOnce(&mut Change<'_>) -> T) -> T {
        let revision = self.revision + 1;
        let mut change = Change { content: self, revision, events: Vec::new() };
        let applied = apply(&mut change);
        let events = change.events;
        if !events.is_empty() {
            self.revision = revision;
            self.events.extend(events);
        }
        applied
    }

    /// The changes of a range at or after a revision, in order.
    pub(super) fn events<'c>(
        &'c self,
        range: &'c KeyRange,
        from: i64,
    ) -> impl Iterator<Item = &'c PbEvent> + 'c {
        let first = self.events.partition_point(|event| revision_of(event) < from);
        self.events[first..].iter().filter(|event| range.contains(&key_value(event).key))
    }

    /// Forgets what was before `revision`.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Status> {
        if revision > self.revision {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"));
        }
        if revision <= self.compacted {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision has been compacted"));
        }
        self.compacted = revision;
        self.events.retain(|event| revision_of(event) >= revision);
        for versions in self.versions.values_mut() {
            let last = versions.iter().rposition(|(changed, _)| *changed <= revision).unwrap_or(0);
            versions.drain(..last);
        }
        self.versions.retain(|_, versions| !matches!(versions[..], [(changed, None)] if changed < revision));
        Ok(())
    }
}

impl Change<'_> {
    /// Everything as it is amid the change.
    pub(super) fn content(&self) -> &Content {
        self.content
    }

    /// Returns what was there before.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Option<PbKeyValue> {
        let versions = self.content.versions.entry(key.to_vec()).or_default();
        let before = versions.last().and_then(|(_, kv)| kv.clone());
        // The event of a key that is made shows nothing, even when the same transaction deleted it before.
        let prev_kv = before.as_ref().and_then(|_| before_revision(versions, self.revision));
        let kv = PbKeyValue {
            key: key.to_vec(),
            create_revision: before.as_ref().map_or(self.revision, |before| before.create_revision),
            mod_revision: self.revision,
            version: before.as_ref().map_or(0, |before| before.version) + 1,
            value: value.to_vec(),
            lease,
        };
        versions.push((self.revision, Some(kv.clone())));
        self.events.push(PbEvent { r#type: EventType::Put as i32, kv: Some(kv), prev_kv });
        before
    }

    /// Returns what was there before; `None`: nothing.
    pub(super) fn delete(&mut self, key: &[u8]) -> Option<PbKeyValue> {
        let versions = self.content.versions.get_mut(key)?;
        let before = versions.last().and_then(|(_, kv)| kv.clone())?;
        let prev_kv = before_revision(versions, self.revision);
        versions.push((self.revision, None));
        let kv = PbKeyValue { key: key.to_vec(), mod_revision: self.revision, ..PbKeyValue::default() };
        self.events.push(PbEvent { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv });
        Some(before)
    }
}

/// What events show as the previous state: that of the revision before, also within one transaction.
fn before_revision(versions: &[(i64, Option<PbKeyValue>)], revision: i64) -> Option<PbKeyValue> {
    let before = versions.iter().rev().find(|(changed, _)| *changed < revision)?;
    before.1.clone()
}

fn key_value(event: &PbEvent) -> &PbKeyValue {
    event.kv.as_ref().expect("every change is of a key")
}

pub(super) fn revision_of(event: &PbEvent) -> i64 {
    key_value(event).mod_revision
}
