//! The gRPC API `vectorsphere.v1`: the same domain calls and the same rules as REST.

mod cluster;
mod convert;
mod documents;
mod metadata;
mod search;
mod tables;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService as _;
use tonic::transport::Server;
use tonic::{Request, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};
use tracing::{debug, error};
use vectorsphere_proto::FILE_DESCRIPTOR_SET;
use vectorsphere_proto::v1::cluster_service_server::ClusterServiceServer;
use vectorsphere_proto::v1::document_service_server::DocumentServiceServer;
use vectorsphere_proto::v1::search_service_server::SearchServiceServer;
use vectorsphere_proto::v1::table_service_server::TableServiceServer;

use super::ApiGateway;
use super::door::Inside;
use super::limits::{ANSWER_BYTES_MAX, BODY_BYTES_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX, STREAMS_MAX};
use crate::error_code::{Error, ErrorCode};
use crate::router::RequestContext;
use crate::runtime::acceptor::{Acceptor, Peer};
use crate::runtime::network::Listener;

/// Room beside the payload of an answer.
const ANSWER_OVERHEAD: usize = 4 << 20;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Methods whose answers do not depend on what tables there are.
const CLUSTER: &str = "ClusterService/";
const DOMAIN: &str = "vectorsphere.io";

/// One service of the API; every method is in the file of its proto.
#[derive(Clone)]
struct Api {
    gateway: ApiGateway,
}

/// Serves until `cancel`; requests under way are answered first.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    gateway: ApiGateway,
    listener: Box<dyn Listener>,
    health_service: tonic_health::pb::health_server::HealthServer<
        impl tonic_health::pb::health_server::Health,
    >,
    cancel: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let api = Api { gateway: gateway.clone() };
    let acceptor = Acceptor::new("gRPC", listener, CONNECTIONS_MAX);
    let described = "our own descriptors are well formed";
    let reflection_v1 = guarded(&gateway, reflection().build_v1().expect(described));
    let reflection_v1alpha = guarded(&gateway, reflection().build_v1alpha().expect(described));
    let documents = DocumentServiceServer::new(api.clone())
        .max_decoding_message_size(BODY_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX + ANSWER_OVERHEAD);
    let search = SearchServiceServer::new(api.clone())
        .max_decoding_message_size(BODY_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX + ANSWER_OVERHEAD);
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEAD_BYTES_MAX as u32)
        .http2_keepalive_interval(Some(HANDSHAKE_TIMEOUT))
        .http2_keepalive_timeout(Some(HANDSHAKE_TIMEOUT))
        .add_service(health_service)
        .add_service(reflection_v1)
        .add_service(reflection_v1alpha)
        .add_service(TableServiceServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(documents)
        .add_service(search)
        .add_service(ClusterServiceServer::new(api).max_decoding_message_size(BODY_BYTES_MAX))
        .serve_with_incoming_shutdown(acceptor.into_stream(), cancel.cancelled_owned())
        .await
}

impl Api {
    /// Lets a call in, runs it, counts it, and gives its error the form of gRPC.
    async fn call<Q, A>(
        &self,
        method: &'static str,
        request: Request<Q>,
        run: impl AsyncFnOnce(&ApiGateway, RequestContext, Q) -> Result<A, Error>,
    ) -> Result<tonic::Response<A>, Status> {
        let observed = self.gateway.door().metrics.begin(method, "gRPC");
        let peer = request.extensions().get::<Peer>().copied();
        let entered = enter(&self.gateway, request.metadata(), peer).and_then(|inside| {
            if !method.starts_with(CLUSTER) {
                self.gateway.check_tables_are_known()?;
            }
            Ok(inside)
        });
        let answer = match entered {
            Ok(_inside) => {
                let context = self.gateway.context(super::new_request_id(), timeout(request.metadata()));
                let (deadline, request_id) = (context.deadline, context.request_id.clone());
                // A panic must not take the other calls of the connection with it.
                let work = AssertUnwindSafe(run(&self.gateway, context, request.into_inner())).catch_unwind();
                let answer = match tokio::time::timeout_at(deadline.into(), work).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) => {
                        let message = "a bug of the server ended this request; its log says more";
                        Err(Error::new(ErrorCode::Internal, message))
                    }
                    Err(_) => {
                        let message = "the request was not finished before its deadline";
                        Err(Error::new(ErrorCode::DeadlineExceeded, message))
                    }
                };
                if let Err(error) = &answer {
                    match error.code {
                        ErrorCode::Internal => error!(request_id, method, %error, "a request failed"),
                        code => debug!(request_id, method, %code, %error, "a request was refused"),
                    }
                }
                answer
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => {
                observed.end("ok");
                Ok(tonic::Response::new(answer))
            }
            Err(error) => {
                observed.end(error.code.as_str());
                Err(status(&error))
            }
        }
    }
}

fn enter(gateway: &ApiGateway, metadata: &MetadataMap, peer: Option<Peer>) -> Result<Inside, Error> {
    let authorization = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let (_, inside) = gateway.door().enter(authorization, peer.map(|peer| peer.0.ip()))?;
    Ok(inside)
}

/// A service behind the door whose methods are not ours.
fn guarded<S>(
    gateway: &ApiGateway,
    service: S,
) -> tonic::service::interceptor::InterceptedService<S, impl tonic::service::Interceptor + Clone + use<S>> {
    let gateway = gateway.clone();
    let check = move |request: Request<()>| {
        let peer = request.extensions().get::<Peer>().copied();
        enter(&gateway, request.metadata(), peer).map(|_| request).map_err(|error| status(&error))
    };
    tonic::service::interceptor::InterceptedService::new(service, check)
}

/// Time that the caller gives, in the units of `grpc-timeout`.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    crate::comm::grpc_timeout(text)
}

/// An error with its details: the code as reason, broken rules by field, when to retry.
fn status(error: &Error) -> Status {
    let mut details =
        ErrorDetails::with_error_info(error.code.as_str(), DOMAIN, std::collections::HashMap::new());
    if !error.violations.is_empty() {
        let fields = error.violations.iter().map(|v| FieldViolation::new(&v.pointer, &v.message));
        details.set_bad_request(fields.collect::<Vec<_>>());
    }
    if let Some(after) = error.retry_after {
        details.set_retry_info(Some(after));
    }
    let code = tonic::Code::from_i32(error.code.grpc_status());
    Status::with_error_details(code, error.message.clone(), details)
}

/// The services that clients of this port can call; the descriptors hold those between nodes too.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    let public = [
        ClusterServiceServer::<Api>::NAME,
        DocumentServiceServer::<Api>::NAME,
        SearchServiceServer::<Api>::NAME,
        TableServiceServer::<Api>::NAME,
        "grpc.health.v1.Health",
    ];
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    public.into_iter().fold(builder, tonic_reflection::server::Builder::with_service_name)
}
