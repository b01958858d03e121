//! Whole reconciles against an API server in memory. The metadata store is away in all of them: nothing listens at its
//! endpoint, and time is paused, so that waiting for it takes none.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use vectorsphere_crds::VectorSphereCluster;
use vectorsphere_operator::backoff::Backoff;
use vectorsphere_operator::events::Events;
use vectorsphere_operator::metadata_client::MetadataClient;
use vectorsphere_operator::metrics::OperatorMetrics;
use vectorsphere_operator::reconcile::{Context, ReconcileError, reconcile};
use vectorsphere_operator::zones::Zones;

use crate::api_server::ApiServer;
use crate::examples::{defaults, full};

const NAMESPACE: &str = "team-a";

/// A cluster with an Ingress, over an etcd that asks for nothing.
fn object() -> VectorSphereCluster {
    full(|object| {
        let external = object.spec.etcd.external.as_mut().expect("external");
        external.endpoints = vec!["http://127.0.0.1:9".into()];
        external.tls_secret_ref = None;
        external.auth_secret_ref = None;
    })
}

fn cluster_path() -> String {
    ApiServer::path("vectorsphereclusters", NAMESPACE, "search")
}

fn server_with(object: &VectorSphereCluster) -> ApiServer {
    let server = ApiServer::default();
    server.put(&cluster_path(), serde_json::to_value(object).expect("plain data"));
    server
}

/// One reconcile by an operator that has just started.
async fn reconcile_once(server: &ApiServer) -> Result<(), ReconcileError> {
    let client = server.client();
    let context = Context {
        client: client.clone(),
        metadata: MetadataClient::default(),
        defaults: defaults(),
        events: Events::new(client, Some("operator-0".into())),
        metrics: OperatorMetrics::default(),
        zones: Zones::default(),
        backoff: Backoff::default(),
    };
    let object = server.get(&cluster_path()).expect("the cluster is there");
    let object: VectorSphereCluster = serde_json::from_value(object).expect("an object");
    reconcile(Arc::new(object), Arc::new(context)).await.map(|_| ())
}

fn condition(server: &ApiServer, type_: &str) -> (String, String, String) {
    let object = server.get(&cluster_path()).expect("there");
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let one =
        conditions.iter().find(|one| one["type"] == type_).unwrap_or_else(|| panic!("no {type_}: {object}"));
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Plays the StatefulSet controller: every set has seen its spec, and its pods run.
fn play_controllers(server: &ApiServer) {
    for role in ["master", "slave"] {
        let path = ApiServer::path("statefulsets", NAMESPACE, &format!("search-{role}"));
        let set = server.get(&path).expect("the set is there");
        server.edit(&path, |set| {
            set["metadata"]["generation"] = 1.into();
            set["status"] = json!({"replicas": 0, "observedGeneration": 1, "updateRevision": "r1", "currentRevision": "r1"});
        });
        for ordinal in 0..set["spec"]["replicas"].as_i64().expect("a number") {
            let name = format!("search-{role}-{ordinal}");
            let mut labels = set["spec"]["template"]["metadata"]["labels"].clone();
            labels["controller-revision-hash"] = "r1".into();
            let pod = json!({
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
                "spec": {"nodeName": "node-1", "containers": []},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            });
            server.put(&ApiServer::path("pods", NAMESPACE, &name), pod);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_reconcile_writes_nothing() {
    let server = server_with(&object());
    reconcile_once(&server).await.expect("reconciled");
    let writes = server.take_writes();
    assert!(writes.iter().any(|it| it.ends_with("statefulsets/search-slave")), "{writes:?}");
    assert!(writes.iter().any(|it| it.ends_with("vectorsphereclusters/search/status")), "{writes:?}");
    reconcile_once(&server).await.expect("reconciled");
    assert_eq!(server.take_writes(), Vec::<String>::new());
    play_controllers(&server);
    reconcile_once(&server).await.expect("reconciled");
    let writes = server.take_writes();
    assert!(writes.iter().all(|it| it.ends_with("/status") || it.contains("/events")), "{writes:?}");
    reconcile_once(&server).await.expect("reconciled");
    assert_eq!(server.take_writes(), Vec::<String>::new());
}

/// 1. an operator does its first n writes and is cut off, for every n; 2. another one reconciles; 3. all is as if nobody
/// had been cut off, and nothing is left to write.
#[tokio::test(start_paused = true)]
async fn an_operator_that_is_cut_off_after_any_write_leaves_nothing_that_the_next_one_does_not_mend() {
    let whole = server_with(&object());
    reconcile_once(&whole).await.expect("reconciled");
    let writes = whole.take_writes().len();
    assert!(writes > 8, "{writes}");
    for cut in 0..writes {
        let server = server_with(&object());
        server.fail_after(Some(cut));
        // Events are no reason to fail, so the last cuts may pass.
        let _ = reconcile_once(&server).await;
        server.fail_after(None);
        reconcile_once(&server).await.unwrap_or_else(|error| panic!("after {cut} writes: {error}"));
        assert_eq!(server.content(), whole.content(), "after {cut} writes");
        server.take_writes();
        reconcile_once(&server).await.expect("reconciled");
        assert_eq!(server.take_writes(), Vec::<String>::new(), "after {cut} writes");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_edit_takes_back_goes_and_what_others_added_stays() {
    let server = server_with(&object());
    reconcile_once(&server).await.expect("reconciled");
    let set = ApiServer::path("statefulsets", NAMESPACE, "search-slave");
    let ingress = ApiServer::path("ingresses", NAMESPACE, "search");
    let selector = |set: &Value| set["spec"]["template"]["spec"]["nodeSelector"].clone();
    assert!(selector(&server.get(&set).expect("there")).is_object());
    assert!(server.get(&ingress).is_some());
    server.edit(&set, |set| set["metadata"]["annotations"]["somebody"] = "else".into());
    server.edit(&cluster_path(), |object| {
        object["spec"]["network"].as_object_mut().expect("there").remove("ingress");
        object["spec"]["slaves"]["scheduling"].as_object_mut().expect("there").remove("nodeSelector");
        object["metadata"]["generation"] = 2.into();
    });
    reconcile_once(&server).await.expect("reconciled");
    let after = server.get(&set).expect("there");
    assert_eq!(selector(&after), Value::Null);
    assert_eq!(after["metadata"]["annotations"]["somebody"], "else");
    assert!(server.get(&ingress).is_none());
    let status = server.get(&cluster_path()).expect("there")["status"].take();
    assert_eq!(status["endpoints"]["ingress"], Value::Null, "the status says it no longer");
    assert_eq!(status["observedGeneration"], 2);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changed_is_mended() {
    let server = server_with(&object());
    reconcile_once(&server).await.expect("reconciled");
    let service = ApiServer::path("services", NAMESPACE, "search-http");
    let before = server.get(&service).expect("there");
    server.edit(&service, |service| {
        service["spec"]["selector"]["app.kubernetes.io/component"] = "slave".into();
    });
    reconcile_once(&server).await.expect("reconciled");
    assert_eq!(server.get(&service), Some(before));
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_with_the_name_is_left_alone_and_told() {
    let server = server_with(&object());
    let path = ApiServer::path("configmaps", NAMESPACE, "search-config");
    let theirs = json!({"metadata": {"name": "search-config", "namespace": NAMESPACE, "uid": "x"}, "data": {"a": "b"}});
    server.put(&path, theirs.clone());
    let error = reconcile_once(&server).await.expect_err("the name is taken");
    assert!(error.to_string().contains("belongs to somebody else"), "{error}");
    assert_eq!(server.get(&path), Some(theirs));
    let (status, reason, message) = condition(&server, "Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "WriteFailed"));
    assert!(message.contains("ConfigMap search-config"), "{message}");
}

/// `kubectl delete --cascade=orphan` leaves everything behind without an owner; a new object of the name takes it over.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_cluster_left_behind_is_taken_over() {
    let server = server_with(&object());
    reconcile_once(&server).await.expect("reconciled");
    let set = ApiServer::path("statefulsets", NAMESPACE, "search-slave");
    server.edit(&set, |set| {
        set["metadata"].as_object_mut().expect("there").remove("ownerReferences");
    });
    server.edit(&cluster_path(), |object| {
        object["metadata"]["uid"] = "another".into();
        object["spec"]["slaves"]["replicas"] = 2.into();
    });
    for kind in
        ["serviceaccounts", "configmaps", "services", "poddisruptionbudgets", "statefulsets", "ingresses"]
    {
        for name in ["search-node", "search-config", "search-http", "search-master", "search-slave", "search"]
        {
            let path = ApiServer::path(kind, NAMESPACE, name);
            if let Some(mut object) = server.get(&path) {
                object["metadata"].as_object_mut().expect("there").remove("ownerReferences");
                server.put(&path, object);
            }
        }
    }
    reconcile_once(&server).await.expect("reconciled");
    let set = server.get(&set).expect("there");
    assert_eq!(set["metadata"]["ownerReferences"][0]["uid"], "another");
    assert_eq!(set["spec"]["replicas"], 5, "nobody knows which shards the slaves hold");
    assert_eq!(condition(&server, "ScaledAsSpecified").1, "MetadataStoreUnreachable");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_spec_changes_nothing_and_a_right_one_goes_on() {
    let server = server_with(&object());
    reconcile_once(&server).await.expect("reconciled");
    play_controllers(&server);
    let objects = |server: &ApiServer| -> BTreeMap<String, Value> {
        server.content().into_iter().filter(|(path, _)| !path.contains("vectorsphereclusters")).collect()
    };
    let before = objects(&server);
    server.edit(&cluster_path(), |object| object["spec"]["config"] = json!({"task_timeot": "1"}));
    reconcile_once(&server).await.expect("a wrong spec is no error");
    assert_eq!(objects(&server), before);
    let (status, reason, message) = condition(&server, "SpecValid");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Invalid"));
    assert!(message.contains("spec.config[task_timeot]") && message.contains("`task_timeout`"), "{message}");
    server.edit(&cluster_path(), |object| object["spec"]["config"] = json!({"task_timeout": "1"}));
    reconcile_once(&server).await.expect("reconciled");
    assert_eq!(condition(&server, "SpecValid").0, "True");
    let config = server.get(&ApiServer::path("configmaps", NAMESPACE, "search-config")).expect("there");
    assert!(
        config["data"]["c.yaml"].as_str().is_some_and(|text| text.contains("task_timeout: 1")),
        "{config}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_paused_cluster_is_told_about_and_not_touched() {
    let mut object = object();
    object.spec.reconcile_policy = vectorsphere_crds::ReconcilePolicy::Paused;
    let server = server_with(&object);
    reconcile_once(&server).await.expect("reconciled");
    let writes = server.take_writes();
    assert!(writes.iter().all(|it| it.ends_with("/status") || it.contains("/events")), "{writes:?}");
    assert_eq!(condition(&server, "Ready").1, "Paused");
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_a_condition_that_names_it() {
    let mut object = object();
    let external = object.spec.etcd.external.as_mut().expect("external");
    external.auth_secret_ref = Some(vectorsphere_crds::SecretRef { name: "etcd-user".into() });
    let server = server_with(&object);
    reconcile_once(&server).await.expect("no error loop");
    let (status, _, message) = condition(&server, "SpecValid");
    assert_eq!(status, "False");
    assert!(
        message.contains("`spec.etcd.external.authSecretRef` Secret `etcd-user` does not exist"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn pods_get_the_zone_of_their_node() {
    let server = server_with(&object());
    reconcile_once(&server).await.expect("reconciled");
    play_controllers(&server);
    let zone = "topology.kubernetes.io/zone";
    server.put("/api/v1/nodes/node-1", json!({"metadata": {"name": "node-1", "labels": {zone: "west"}}}));
    reconcile_once(&server).await.expect("reconciled");
    for pod in ["search-master-0", "search-slave-4"] {
        let pod = server.get(&ApiServer::path("pods", NAMESPACE, pod)).expect("there");
        assert_eq!(pod["metadata"]["labels"][zone], "west");
    }
}
