//! Calls of the Master, tried again while mastership moves.

use tonic::transport::Channel;
use vectorsphere_proto::internal::coordinator_service_client::CoordinatorServiceClient;

use super::attempts::{Attempts, before};
use super::{RequestContext, Router};
use crate::cluster::view::Master;
use crate::error_code::{Error, ErrorCode};

/// Why a call of the Master failed.
pub(super) struct MasterFailure {
    pub(super) error: Error,
    /// An earlier try may have been carried out.
    pub(super) maybe_done: bool,
}

impl Router {
    /// Calls the Master, who may be this node, again while mastership moves and the failure is one of those that
    /// `may_repeat` names.
    pub(super) async fn on_master<T, F>(
        &self,
        context: &RequestContext,
        may_repeat: impl Fn(ErrorCode) -> bool,
        call: impl Fn(CoordinatorServiceClient<Channel>) -> F,
    ) -> Result<T, MasterFailure>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let (mut attempts, mut maybe_done) = (Attempts::new(self, context), false);
        loop {
            let asked = self.view().master.clone();
            let answer = match self.master_client(asked.as_ref()) {
                Ok(client) => before(context, call(client)).await,
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !may_repeat(error.code) || !attempts.again(|view| view.master != asked).await {
                return Err(MasterFailure { error, maybe_done });
            }
            maybe_done |= matches!(error.code, ErrorCode::NodeUnreachable | ErrorCode::MetaStoreUnavailable);
        }
    }

    /// Calls the Master, again only where no Master took the call.
    pub(super) async fn ask_master<T, F>(
        &self,
        context: &RequestContext,
        call: impl Fn(CoordinatorServiceClient<Channel>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let nobody_took_it = |code| matches!(code, ErrorCode::NotMaster | ErrorCode::NoMaster);
        self.on_master(context, nobody_took_it, call).await.map_err(|failure| failure.error)
    }

    fn master_client(&self, master: Option<&Master>) -> Result<CoordinatorServiceClient<Channel>, Error> {
        match master {
            Some(master) => self.comm.coordinator_client(&master.node),
            None => Err(Error::new(ErrorCode::NoMaster, "no Master is elected at present")),
        }
    }
}
