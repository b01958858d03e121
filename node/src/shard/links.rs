//! [`Links`]: the way of replication messages to other nodes. One stream for each node, shared by all shards.
//!
//! Nothing waits here: a message that finds no room, or no connection, is not sent, and its sender is told. What was
//! taken may still be lost with the connection; the protocol expects that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use vectorsphere_proto::internal::{ReplicationFrame, ReplicationMessage};

use crate::comm::CommunicationService;
use crate::ids::NodeId;
use crate::runtime::TaskGroup;

/// Bytes that may wait for one node.
const BYTES_MAX: usize = 16 << 20;
/// Messages that may wait for one node.
const MESSAGES_MAX: usize = 4_096;
/// Messages of one frame.
const FRAME_MESSAGES: usize = 256;
/// A frame takes no more messages when it has this many bytes.
const FRAME_BYTES: usize = 1 << 20;
/// Pause after a connection that failed, doubled with each failure in a row.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The way to all other nodes. Shared as `Arc<Links>`.
pub(super) struct Links {
    comm: Arc<CommunicationService>,
    tasks: TaskGroup,
    queues: Mutex<HashMap<NodeId, Queue>>,
}

#[derive(Clone)]
struct Queue {
    messages: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
}

struct Outgoing {
    message: ReplicationMessage,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

impl Links {
    pub(super) fn new(comm: Arc<CommunicationService>, tasks: TaskGroup) -> Links {
        Links { comm, tasks, queues: Mutex::default() }
    }

    /// Hands a message of about `bytes` bytes over. False: there is no room, it is not sent.
    pub(super) fn send(&self, to: &NodeId, message: ReplicationMessage, bytes: usize) -> bool {
        let queue = self.queue(to);
        let units = u32::try_from(bytes.clamp(1, BYTES_MAX)).expect("fits");
        let Ok(room) = queue.room.clone().try_acquire_many_owned(units) else { return false };
        queue.messages.try_send(Outgoing { message, bytes, _room: room }).is_ok()
    }

    fn queue(&self, to: &NodeId) -> Queue {
        // Held for one look-up; a panic leaves the map whole.
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(to) {
            return queue.clone();
        }
        let (messages, waiting) = mpsc::channel(MESSAGES_MAX);
        let queue = Queue { messages, room: Arc::new(Semaphore::new(BYTES_MAX)) };
        let (node, comm, cancel) = (to.clone(), self.comm.clone(), self.tasks.cancellation().clone());
        self.tasks.spawn_brief("replication link", async move { run(node, comm, waiting, cancel).await });
        queues.insert(to.clone(), queue.clone());
        queue
    }
}

/// Connects when there is something to send, again after each failure.
async fn run(
    node: NodeId,
    comm: Arc<CommunicationService>,
    mut waiting: mpsc::Receiver<Outgoing>,
    cancel: CancellationToken,
) {
    let mut pause = RETRY_MIN;
    loop {
        let first = tokio::select! {
            () = cancel.cancelled() => return,
            first = waiting.recv() => first,
        };
        let Some(first) = first else { return };
        let served = tokio::select! {
            () = cancel.cancelled() => return,
            served = serve(&node, &comm, first, &mut waiting) => served,
        };
        debug!(%node, error = served.error, "replication stream ended");
        pause = if served.frames > 1 { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
        tokio::select! {
            () = cancel.cancelled() => return,
            // What waited for a connection is old by now; those who sent it will send again.
            () = discard(&mut waiting, pause) => {}
        }
    }
}

struct Served {
    frames: u64,
    error: String,
}

/// Sends frames until the stream ends.
async fn serve(
    node: &NodeId,
    comm: &CommunicationService,
    first: Outgoing,
    waiting: &mut mpsc::Receiver<Outgoing>,
) -> Served {
    let mut client = match comm.replication_client(node) {
        Ok(client) => client,
        Err(error) => return Served { frames: 0, error: error.to_string() },
    };
    let (frames, stream) = mpsc::channel(2);
    let call = client.replicate(ReceiverStream::new(stream));
    let mut sent = 0;
    let send = async {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            // The room is given back when the frame is handed to the connection, which has bounds of its own.
            let (frame, _rooms) = gather(outgoing, waiting);
            if frames.send(frame).await.is_err() {
                break;
            }
            sent += 1;
            next = waiting.recv().await;
        }
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        answer = call => match answer {
            Ok(_) => "the other side ended it".to_owned(),
            Err(status) => status.to_string(),
        },
        () = send => unreachable!("it never ends by itself"),
    };
    Served { frames: sent, error }
}

/// What waits, up to the size of a frame.
fn gather(
    first: Outgoing,
    waiting: &mut mpsc::Receiver<Outgoing>,
) -> (ReplicationFrame, Vec<OwnedSemaphorePermit>) {
    let mut bytes = first.bytes;
    let (mut messages, mut rooms) = (vec![first.message], vec![first._room]);
    while messages.len() < FRAME_MESSAGES && bytes < FRAME_BYTES {
        match waiting.try_recv() {
            Ok(Outgoing { message, bytes: more, _room }) => {
                bytes += more;
                messages.push(message);
                rooms.push(_room);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (ReplicationFrame { messages }, rooms)
}

/// Drops messages for a while.
async fn discard(waiting: &mut mpsc::Receiver<Outgoing>, time: Duration) {
    let drop_all = async { while waiting.recv().await.is_some() {} };
    let _ = tokio::time::timeout(time, drop_all).await;
}
