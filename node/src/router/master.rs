//! Calls of the Master, tried again while mastership moves.

use tonic::transport::Channel;
use vectorsphere_proto::internal::coordinator_service_client::CoordinatorServiceClient;

use super::attempts::Attempts;
use super::{RequestContext, Router};
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
    ///
    /// Once an outcome is unknown, no later failure makes it known: a Master that was lost may have carried the call out.
    pub(super) async fn on_master<T, F>(
        &self,
        context: &RequestContext,
        may_repeat: impl Fn(ErrorCode) -> bool,
        call: impl Fn(CoordinatorServiceClient<Channel>) -> F,
    ) -> Result<T, MasterFailure>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let (mut attempts, mut unknown) = (Attempts::new(self, context), None);
        loop {
            let asked = self.view().master.clone();
            let answer = match &asked {
                Some(master) => match self.comm.coordinator_client(&master.node) {
                    Ok(client) => self.answer_of(context, &master.node, call(client)).await,
                    Err(error) => Err(error),
                },
                None => Err(Error::new(ErrorCode::NoMaster, "no Master is elected at present")),
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !may_repeat(error.code) || !attempts.again(|view| view.master != asked).await {
                return Err(MasterFailure { maybe_done: unknown.is_some(), error: told(unknown, error) });
            }
            if matches!(error.code, ErrorCode::NodeUnreachable | ErrorCode::MetaStoreUnavailable) {
                unknown = Some(error.message);
            }
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
}

/// What the caller hears of the last failure, when an earlier one left the outcome unknown. That a table is there, or is not,
/// is an answer in itself.
fn told(unknown: Option<String>, last: Error) -> Error {
    match (unknown, last.code) {
        (None, _) | (_, ErrorCode::TableNotFound | ErrorCode::TableAlreadyExists) => last,
        (Some(why), _) => {
            let message = format!("the Master may have carried it out: {why}; then: {}", last.message);
            Error::new(ErrorCode::OutcomeUnknown, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Master was killed in the middle of a deletion, the next one was not elected before the deadline, and the caller
    /// heard that there is no Master: as if nothing had happened. The table was gone a moment later.
    #[test]
    fn what_a_lost_master_was_told_to_do_stays_unknown() {
        let error = |code| Error::new(code, "why");
        assert_eq!(told(None, error(ErrorCode::NoMaster)).code, ErrorCode::NoMaster);
        let after = |code| told(Some("broken connection".to_owned()), error(code)).code;
        assert_eq!(after(ErrorCode::NoMaster), ErrorCode::OutcomeUnknown);
        assert_eq!(after(ErrorCode::NotEnoughSlaves), ErrorCode::OutcomeUnknown);
        assert_eq!(after(ErrorCode::TableNotFound), ErrorCode::TableNotFound);
    }
}
