//! The service of leases.

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{ModelEtcd, unimplemented};

#[tonic::async_trait]
impl PbLeaseService for ModelEtcd {
    type LeaseKeepAliveStream = BoxStream<'static, Result<PbLeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let request = request.into_inner();
        if request.id != 0 {
            return Err(unimplemented("leases with a number of the client's choice"));
        }
        self.call(move |state| {
            let (id, ttl) = state.leases.grant(request.ttl, Instant::now());
            Ok(PbLeaseGrantResponse { header: state.header(), id, ttl, error: String::new() })
        })
        .await
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let lease = request.into_inner().id;
        self.call(move |state| match state.revoke(lease) {
            true => Ok(PbLeaseRevokeResponse { header: state.header() }),
            false => Err(Status::not_found("etcdserver: requested lease not found")),
        })
        .await
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, stream) = mpsc::channel(16);
        let etcd = self.clone();
        tokio::spawn(async move {
            let serving = async {
                while let Some(Ok(request)) = requests.next().await {
                    let answer = etcd.keep_alive(request.id).await;
                    let ended = answer.is_err();
                    if answers.send(answer).await.is_err() || ended {
                        return;
                    }
                    if etcd.doubles() && answers.send(etcd.keep_alive(request.id).await).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = serving => {}
                () = answers.closed() => {}
                status = etcd.interrupted() => drop(answers.try_send(Err(status))),
            }
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn lease_time_to_live(
        &self,
        _request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        Err(unimplemented("questions about a lease"))
    }

    async fn lease_leases(
        &self,
        _request: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        Err(unimplemented("lists of leases"))
    }
}

impl ModelEtcd {
    /// A lease that is gone has no time to live; that is an answer and no error.
    async fn keep_alive(&self, id: i64) -> Result<PbLeaseKeepAliveResponse, Status> {
        let answer = self.call(move |state| {
            let ttl = state.leases.keep_alive(id, Instant::now()).unwrap_or(0);
            Ok(PbLeaseKeepAliveResponse { header: state.header(), id, ttl })
        });
        answer.await.map(Response::into_inner)
    }
}
