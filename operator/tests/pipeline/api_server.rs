//! An API server in memory: lists by label, server-side apply, status, deletes, events. It knows no schema and one
//! field manager; what others add to an object is added by [`ApiServer::edit`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// Where namespaced objects are, by resource.
const GROUPS: [(&str, &str); 11] = [
    ("serviceaccounts", "/api/v1"),
    ("configmaps", "/api/v1"),
    ("services", "/api/v1"),
    ("secrets", "/api/v1"),
    ("pods", "/api/v1"),
    ("poddisruptionbudgets", "/apis/policy/v1"),
    ("statefulsets", "/apis/apps/v1"),
    ("ingresses", "/apis/networking.k8s.io/v1"),
    ("events", "/apis/events.k8s.io/v1"),
    ("vectorsphereclusters", "/apis/vectorsphere.io/v1alpha1"),
    ("nodes", "/api/v1"),
];

#[derive(Default)]
struct State {
    /// Objects by path.
    objects: BTreeMap<String, Value>,
    /// What was applied last, by path: server-side apply takes away what the next one does not say.
    applied: BTreeMap<String, Value>,
    /// Writes that were done, as `METHOD path`.
    writes: Vec<String>,
    /// Writes that are done before all others fail; `None`: none fails.
    writes_left: Option<usize>,
    uids: usize,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ApiServer(Arc<Mutex<State>>);

impl ApiServer {
    /// A client of this server. Its requests are answered by a task of the current runtime.
    #[expect(clippy::disallowed_methods, reason = "the task ends with the last clone of the client")]
    pub(crate) fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, respond)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("bodies are in memory");
                let (status, answer) = server.answer(&parts.method, &parts.uri, &body);
                let answer = Body::from(serde_json::to_vec(&answer).expect("plain data"));
                respond.send_response(Response::builder().status(status).body(answer).expect("a response"));
            }
        });
        Client::new(service, "default")
    }

    /// Path of an object.
    pub(crate) fn path(resource: &str, namespace: &str, name: &str) -> String {
        let (_, group) = GROUPS.iter().find(|(known, _)| *known == resource).expect("a known resource");
        format!("{group}/namespaces/{namespace}/{resource}/{name}")
    }

    /// Puts an object there as somebody else would, with a UID unless it has one.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.lock();
        if object["metadata"]["uid"].is_null() {
            state.uids += 1;
            object["metadata"]["uid"] = format!("uid-{}", state.uids).into();
        }
        state.objects.insert(path.to_owned(), object);
    }

    /// Changes an object as somebody else would.
    pub(crate) fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        change(self.lock().objects.get_mut(path).unwrap_or_else(|| panic!("no {path}")));
    }

    /// An object, if it is there.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Every object but events, whose names are times, without what differs from run to run.
    pub(crate) fn content(&self) -> BTreeMap<String, Value> {
        let mut objects = self.lock().objects.clone();
        objects.retain(|path, _| !path.contains("/events/"));
        for object in objects.values_mut() {
            object["metadata"].as_object_mut().expect("metadata").remove("uid");
            if let Some(conditions) = object["status"]["conditions"].as_array_mut() {
                conditions.iter_mut().for_each(|one| one["lastTransitionTime"] = Value::Null);
            }
        }
        objects
    }

    /// Takes what was written since the last call.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().writes)
    }

    /// Lets this many writes through, and fails those after them.
    pub(crate) fn fail_after(&self, writes: Option<usize>) {
        self.lock().writes_left = writes;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    fn answer(&self, method: &Method, uri: &http::Uri, body: &[u8]) -> (StatusCode, Value) {
        let mut state = self.lock();
        let path = uri.path();
        if *method == Method::GET {
            return match path.rsplit('/').next().is_some_and(|last| GROUPS.iter().any(|(it, _)| *it == last))
            {
                true => (StatusCode::OK, state.list(path, uri.query().unwrap_or_default())),
                false => {
                    state.objects.get(path).map_or_else(|| missing(path), |it| (StatusCode::OK, it.clone()))
                }
            };
        }
        match &mut state.writes_left {
            Some(0) => return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "it went dark"),
            Some(left) => *left -= 1,
            None => {}
        }
        state.writes.push(format!("{method} {path}"));
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match method.as_str() {
            "PATCH" => state.patch(path, uri.query().unwrap_or_default(), body),
            "DELETE" => match state.objects.remove(path) {
                Some(_) => (StatusCode::OK, json!({"kind": "Status", "status": "Success"})),
                None => missing(path),
            },
            "POST" => {
                let name = body["metadata"]["name"].as_str().expect("a name");
                state.objects.insert(format!("{path}/{name}"), body.clone());
                (StatusCode::CREATED, body)
            }
            other => panic!("{other} is not served"),
        }
    }
}

impl State {
    fn list(&self, path: &str, query: &str) -> Value {
        let selector =
            query.split('&').find_map(|part| part.strip_prefix("labelSelector=")).unwrap_or_default();
        let selector = selector.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        let matches = |object: &Value| {
            selector.split(',').filter(|it| !it.is_empty()).all(|requirement| {
                let (key, value) = requirement.split_once('=').expect("only equality is asked for");
                object["metadata"]["labels"][key] == value
            })
        };
        let in_list = |at: &String| at.rsplit_once('/').is_some_and(|(list, _)| list == path);
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(at, object)| in_list(at) && matches(object))
            .map(|(_, object)| {
                // As the real one does: the list says it for all of its items.
                let mut item = object.clone();
                item.as_object_mut()
                    .expect("an object")
                    .retain(|key, _| key != "kind" && key != "apiVersion");
                item
            })
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
    }

    fn patch(&mut self, path: &str, query: &str, body: Value) -> (StatusCode, Value) {
        if let Some(path) = path.strip_suffix("/status") {
            let Some(object) = self.objects.get_mut(path) else { return missing(path) };
            match query.contains("force=true") {
                true => object["status"] = body["status"].clone(),
                false => merge(&mut object["status"], &body["status"]),
            }
            return (StatusCode::OK, object.clone());
        }
        if !query.contains("force=true") {
            let Some(object) = self.objects.get_mut(path) else { return missing(path) };
            merge(object, &body);
            return (StatusCode::OK, object.clone());
        }
        let mut object = self.objects.remove(path).unwrap_or_else(|| json!({"metadata": {}}));
        if let Some(before) = self.applied.insert(path.to_owned(), body.clone()) {
            take_away(&mut object, &before);
        }
        merge(&mut object, &body);
        if object["metadata"]["uid"].is_null() {
            self.uids += 1;
            object["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        }
        self.objects.insert(path.to_owned(), object.clone());
        (StatusCode::OK, object)
    }
}

fn missing(path: &str) -> (StatusCode, Value) {
    failure(StatusCode::NOT_FOUND, "NotFound", path)
}

fn failure(code: StatusCode, reason: &str, message: &str) -> (StatusCode, Value) {
    let code_number = code.as_u16();
    (
        code,
        json!({"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code_number}),
    )
}

/// Removes from `object` the leaves that `owned` says.
fn take_away(object: &mut Value, owned: &Value) {
    let (Value::Object(object), Value::Object(owned)) = (object, owned) else { return };
    for (key, owned) in owned {
        match object.get_mut(key) {
            Some(inner) if inner.is_object() && owned.is_object() => {
                take_away(inner, owned);
                if inner.as_object().is_some_and(serde_json::Map::is_empty) {
                    object.remove(key);
                }
            }
            _ => drop(object.remove(key)),
        }
    }
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}
