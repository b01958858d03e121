//! The service of watches.

use std::collections::BTreeMap;

use etcd_client::proto::{PbEvent, PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::content::{KeyRange, revision_of};
use super::trouble::pass;
use super::{ModelEtcd, State, unimplemented};

/// Watches of one stream.
#[derive(Default)]
struct Watches {
    watches: BTreeMap<i64, Watch>,
    last: i64,
}

struct Watch {
    range: KeyRange,
    /// The first revision that has not been told.
    next: i64,
    shows_previous: bool,
}

type Answers = mpsc::Sender<Result<PbWatchResponse, Status>>;

#[tonic::async_trait]
impl PbWatchService for ModelEtcd {
    type WatchStream = BoxStream<'static, Result<PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.await_leader().await?;
        let requests = request.into_inner();
        let (answers, stream) = mpsc::channel(64);
        let etcd = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = etcd.tell_watches(requests, answers.clone()) => {
                    if let Err(status) = ended {
                        let _ = answers.send(Err(status)).await;
                    }
                }
                () = answers.closed() => {}
                status = etcd.interrupted() => drop(answers.try_send(Err(status))),
            }
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

impl ModelEtcd {
    async fn tell_watches(
        &self,
        mut requests: Streaming<PbWatchRequest>,
        answers: Answers,
    ) -> Result<(), Status> {
        let mut revision = self.revision.subscribe();
        let mut watches = Watches::default();
        loop {
            tokio::select! {
                request = requests.next() => {
                    let Some(Ok(request)) = request else { return Ok(()) };
                    let told = watches.obey(&self.lock(), request)?;
                    if tell(&answers, told).await.is_err() {
                        return Ok(());
                    }
                }
                changed = revision.changed() => {
                    changed.expect("the model outlives its streams");
                    let delay = self.lock().some_delay();
                    pass(delay).await;
                }
            }
            let told = watches.news(&self.lock());
            if tell(&answers, told).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Watches {
    fn obey(&mut self, state: &State, request: PbWatchRequest) -> Result<Vec<PbWatchResponse>, Status> {
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(create)) => {
                if !create.filters.is_empty() || create.fragment || create.watch_id != 0 {
                    return Err(unimplemented("watches with filters, fragments or numbers of their own"));
                }
                let (id, now) = (self.last, state.content.revision());
                self.last += 1;
                let next = if create.start_revision > 0 { create.start_revision } else { now + 1 };
                let range = KeyRange::new(&create.key, &create.range_end);
                self.watches.insert(id, Watch { range, next, shows_previous: create.prev_kv });
                Ok(vec![PbWatchResponse { created: true, ..answer(state, id) }])
            }
            Some(PbWatchRequestUnion::CancelRequest(cancel)) => {
                let known = self.watches.remove(&cancel.watch_id).is_some();
                let canceled = PbWatchResponse { canceled: true, ..answer(state, cancel.watch_id) };
                Ok(if known { vec![canceled] } else { Vec::new() })
            }
            // Everything up to now has been told: this is called between two tellings.
            Some(PbWatchRequestUnion::ProgressRequest(_)) => Ok(vec![answer(state, -1)]),
            None => Ok(Vec::new()),
        }
    }

    /// What the watches have not been told.
    fn news(&mut self, state: &State) -> Vec<PbWatchResponse> {
        let (now, compacted) = (state.content.revision(), state.content.compacted());
        let mut told = Vec::new();
        self.watches.retain(|id, watch| {
            if watch.next < compacted {
                told.push(PbWatchResponse {
                    canceled: true,
                    compact_revision: compacted,
                    ..answer(state, *id)
                });
                return false;
            }
            let events: Vec<PbEvent> = state
                .content
                .events(&watch.range, watch.next)
                .map(|event| PbEvent {
                    prev_kv: event.prev_kv.clone().filter(|_| watch.shows_previous),
                    ..event.clone()
                })
                .collect();
            watch.next = watch.next.max(now + 1);
            if let Some(last) = events.last() {
                debug_assert!(revision_of(last) <= now);
                told.push(PbWatchResponse { events, ..answer(state, *id) });
            }
            true
        });
        told
    }
}

fn answer(state: &State, watch_id: i64) -> PbWatchResponse {
    PbWatchResponse { header: state.header(), watch_id, ..PbWatchResponse::default() }
}

async fn tell(answers: &Answers, told: Vec<PbWatchResponse>) -> Result<(), ()> {
    for answer in told {
        answers.send(Ok(answer)).await.map_err(drop)?;
    }
    Ok(())
}
