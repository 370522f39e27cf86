//! A store with just enough of an API server in front of it to carry controllers' actions out, and fixtures as text.
//!
//! A fixture is a line an object: `kind/name` and then `path=value` pairs, where `label`s, owners and readiness have short forms.

use std::fmt::Write as _;
use std::time::Duration;

use coracle_api::resources as r;
use coracle_api::{Attributes, GroupResource, Gvk, Metadata, ObjectKey, Reason, Revision, Status, canonical_json};
use coracle_base::{Instant, Now, Timestamp};
use coracle_store::{Change, Entry, Store, StoreOptions, Transaction, View, Write as StoreWrite};
use serde_json::{Value, json};

use crate::{Action, Context, Controller, Manager, Patch};

/// Rounds after which a reconciler that still has actions is not going to end.
const ROUNDS_MAX: usize = 200;

const KINDS: [(&str, GroupResource, Gvk); 11] = [
    ("clusterrole", r::CLUSTER_ROLES, r::CLUSTER_ROLE),
    ("cm", r::CONFIG_MAPS, r::CONFIG_MAP),
    ("deployment", r::DEPLOYMENTS, r::DEPLOYMENT),
    ("endpoints", r::ENDPOINTS, r::ENDPOINTS_KIND),
    ("slice", r::ENDPOINT_SLICES, r::ENDPOINT_SLICE),
    ("namespace", r::NAMESPACES, r::NAMESPACE),
    ("node", r::NODES, r::NODE),
    ("pod", r::PODS, r::POD),
    ("rs", r::REPLICA_SETS, r::REPLICA_SET),
    ("service", r::SERVICES, r::SERVICE),
    ("sa", r::SERVICE_ACCOUNTS, r::SERVICE_ACCOUNT),
];

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) now: Now,
    uids: u64,
    /// What was done, a line each.
    pub(crate) log: String,
    /// Creates of this resource are refused with this message.
    pub(crate) refuse: Option<(GroupResource, &'static str)>,
}

impl World {
    #[track_caller]
    pub(crate) fn new(fixture: &str) -> Self {
        let now = Now { mono: Instant::ZERO, wall: Timestamp::parse("2026-11-22T10:00:00Z").unwrap() };
        let store = Store::new(StoreOptions::default());
        let mut world = Self { store, now, uids: 0, log: String::new(), refuse: None };
        for line in fixture.lines().map(str::trim).filter(|line| !line.is_empty()) {
            world.apply_line(line);
        }
        world
    }

    pub(crate) fn view(&self) -> View {
        self.store.view()
    }

    /// Creates or changes the object of a fixture's line.
    #[track_caller]
    pub(crate) fn apply_line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let key = key_of(words.next().unwrap());
        let mut value = match self.view().object(&key) {
            Some(object) => object.value(None),
            None => Self::template(&key),
        };
        for (path, text) in words.map(|word| word.split_once('=').unwrap()) {
            self.set_field(&mut value, path, text);
        }
        self.write(&key, value);
    }

    fn template(key: &ObjectKey) -> Value {
        let name = &*key.name;
        let mut value = json!({"metadata": {"name": name}});
        if !key.namespace.is_empty() {
            value["metadata"]["namespace"] = (*key.namespace).into();
        }
        let workload = json!({
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        });
        match &*key.resource.resource {
            "replicasets" | "deployments" => {
                value["metadata"]["labels"] = json!({"app": name});
                value["spec"] = workload;
            }
            "pods" => value["spec"] = json!({"containers": [{"name": "c", "image": "v1"}]}),
            "services" => {
                value["spec"] = json!({"selector": {"app": name}, "clusterIP": "10.43.0.9", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]});
            }
            "namespaces" => value["spec"] = json!({"finalizers": ["kubernetes"]}),
            _ => {}
        }
        value
    }

    fn set_field(&self, value: &mut Value, path: &str, text: &str) {
        let parsed = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        match path {
            "owner" | "rsowner" => {
                let owner = key_of(text);
                let view = self.view();
                let owner = view.object(&owner).expect("the owner is listed before");
                let reference = crate::object::controller_reference(owner, &gvk(&owner.key().resource));
                value["metadata"]["labels"]["app"] = (*owner.key().name).into();
                value["metadata"]["ownerReferences"] = json!([reference]);
            }
            "label" => {
                let (name, label) = text.split_once(':').unwrap();
                value["metadata"]["labels"][name] = label.into();
            }
            "image" => value["spec"]["template"]["spec"]["containers"][0]["image"] = parsed,
            "ready" => {
                let status = if text == "true" { "True" } else { "False" };
                value["status"]["conditions"] =
                    json!([{"type": "Ready", "status": status, "lastTransitionTime": self.now.wall.rfc3339()}]);
                value["status"]["phase"] = "Running".into();
            }
            "Ready" => {
                value["status"]["conditions"] =
                    json!([{"type": "Ready", "status": text, "lastTransitionTime": self.now.wall.rfc3339()}]);
            }
            "going" => value["metadata"]["deletionTimestamp"] = self.now.wall.rfc3339().into(),
            "ip" => value["status"]["podIP"] = parsed,
            "phase" => value["status"]["phase"] = parsed,
            "node" => value["spec"]["nodeName"] = parsed,
            "replicas" => value["spec"]["replicas"] = parsed,
            path => {
                let pointer = path.split('.').fold(value, |value, field| &mut value[field]);
                *pointer = parsed;
            }
        }
    }

    /// Writes an object: uid, creation time and generation are kept or made, and one that only waited for finalizers goes.
    fn write(&mut self, key: &ObjectKey, mut value: Value) -> Vec<Change> {
        let before = self.view().revision();
        let old = self.view().object(key).map(|object| object.value(None));
        let meta = &mut value["metadata"];
        if meta["uid"].is_null() {
            self.uids += 1;
            meta["uid"] = format!("uid-{}", self.uids).into();
            meta["creationTimestamp"] = self.now.wall.rfc3339().into();
        }
        let generation = old.as_ref().map_or(0, |old| old["metadata"]["generation"].as_i64().unwrap_or(0));
        let changed = old.as_ref().is_none_or(|old| old["spec"] != value["spec"]);
        if !value["spec"].is_null() {
            value["metadata"]["generation"] = (generation + i64::from(changed)).into();
        }
        let metadata = Metadata::of(&value);
        let gone = metadata.deletion_timestamp.is_some()
            && metadata.finalizers.is_empty()
            && value["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
            && old.as_ref().is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null());
        let mut attributes = Attributes::new();
        attributes.insert("spec.nodeName".into(), value["spec"]["nodeName"].as_str().unwrap_or_default().into());
        if let Some(map) = value.as_object_mut() {
            for field in ["kind", "apiVersion"] {
                map.remove(field);
            }
        }
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let write = if gone {
            StoreWrite::Delete { key: key.clone() }
        } else {
            StoreWrite::Put { key: key.clone(), body: canonical_json(&value).into(), attributes }
        };
        self.commit(write);
        self.view().changes_after(&key.resource, before).unwrap()
    }

    fn commit(&mut self, write: StoreWrite) {
        let mut entry = Entry::at(self.now.wall);
        entry.transactions.push(Transaction { writes: vec![write], ..Transaction::default() });
        for result in self.store.apply(1, &entry) {
            result.unwrap();
        }
    }

    /// Removes an object, whatever it waits for.
    pub(crate) fn remove(&mut self, key: &str) {
        self.commit(StoreWrite::Delete { key: key_of(key) });
    }

    /// Deletes as the API server does.
    pub(crate) fn delete(&mut self, key: &ObjectKey, propagation: Option<&str>) -> Result<(), Status> {
        let Some(mut value) = self.view().object(key).map(|object| object.value(None)) else {
            return Err(Status::not_found(&key.resource, &key.name));
        };
        let finalizer = match propagation {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let mut finalizers = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            finalizers.push(finalizer.into());
            value["metadata"]["finalizers"] = finalizers.into();
        }
        let waits = value["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
            || value["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if waits {
            value["metadata"]["deletionTimestamp"] = self.now.wall.rfc3339().into();
            if key.resource == r::NAMESPACES {
                value["status"]["phase"] = "Terminating".into();
            }
            self.write(key, value);
        } else {
            self.commit(StoreWrite::Delete { key: key.clone() });
        }
        Ok(())
    }

    /// Carries an action out.
    pub(crate) fn act(&mut self, action: &Action) -> Result<(), Status> {
        writeln!(self.log, "{}", describe(action)).unwrap();
        match action {
            Action::Create { key, object } => {
                if let Some((_, message)) = self.refuse.as_ref().filter(|(resource, _)| *resource == key.resource) {
                    return Err(Status::failure(403, Some(Reason::Forbidden), *message));
                }
                if self.view().object(key).is_some() {
                    return Err(Status::already_exists(&key.resource, &key.name));
                }
                self.write(key, object.clone());
            }
            Action::Update { key, subresource, object } => {
                assert_eq!(*subresource, Some("finalize"));
                self.write(key, object.clone());
            }
            Action::Patch { key, subresource, patch } => {
                let Some(object) = self.view().object(key).cloned() else {
                    return Err(Status::not_found(&key.resource, &key.name));
                };
                let Patch::Merge(patch) = patch else { panic!("only merge patches here") };
                let asked = patch["metadata"]["resourceVersion"].as_str().and_then(Revision::parse);
                if asked.is_some_and(|asked| asked != object.revision()) {
                    return Err(Status::conflict(&key.resource, &key.name, "the object has been modified"));
                }
                let patch = match subresource {
                    // Annotations may be written with the status; a null status would take it away.
                    Some("status") => {
                        let mut kept = json!({"metadata": {"annotations": patch["metadata"]["annotations"]}});
                        if kept["metadata"]["annotations"].is_null() {
                            kept = json!({});
                        }
                        if !patch["status"].is_null() {
                            kept["status"] = patch["status"].clone();
                        }
                        kept
                    }
                    _ => patch.clone(),
                };
                let value = coracle_api::patch::merge_patch(&object.value(None), &patch).unwrap();
                self.write(key, value);
            }
            Action::Delete { key, propagation, revision, .. } => {
                let at = self.view().object(key).map(|object| object.revision());
                if revision.is_some() && *revision != at {
                    return Err(Status::conflict(&key.resource, &key.name, "the object has been modified"));
                }
                self.delete(key, *propagation)?;
            }
            Action::Bind { .. } | Action::Event(_) => {}
        }
        Ok(())
    }

    /// The value at a path, as text.
    #[track_caller]
    pub(crate) fn field(&self, key: &str, path: &str) -> String {
        let view = self.view();
        let value = view.object(&key_of(key)).expect("the object is there").value(None);
        let value = path.split('.').fold(&value, |value, field| &value[field]);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// `Type=Status Reason` of every condition.
    #[track_caller]
    pub(crate) fn conditions(&self, key: &str) -> String {
        let view = self.view();
        let value = view.object(&key_of(key)).expect("the object is there").value(None);
        let one = |c: &Value| format!("{}={} {}", text(&c["type"]), text(&c["status"]), text(&c["reason"]));
        let mut all: Vec<String> = crate::object::list(&value["status"]["conditions"]).iter().map(one).collect();
        all.sort();
        all.join(", ")
    }

    /// The names of a resource's objects.
    pub(crate) fn names(&self, resource: &GroupResource) -> Vec<String> {
        self.view().list(resource, None).map(|object| object.key().name.to_string()).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn gvk(resource: &GroupResource) -> Gvk {
    r::kind_of(resource).unwrap()
}

/// `pod/web`, or `pod/ns/web`; without a namespace it is `default`, where the kind has namespaces.
#[track_caller]
pub(crate) fn key_of(text: &str) -> ObjectKey {
    let (kind, name) = text.split_once('/').unwrap();
    let (_, resource, _) = KINDS.into_iter().find(|(short, ..)| *short == kind).expect("a kind of the table");
    if [r::CLUSTER_ROLES, r::NODES, r::NAMESPACES].contains(&resource) {
        return ObjectKey::new(resource, "", name);
    }
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    ObjectKey::new(resource, namespace, name)
}

/// An action in one line.
pub(crate) fn describe(action: &Action) -> String {
    let target = action.target();
    let kind = r::kind_of(&target.resource).map_or_else(|| target.resource.to_string(), |gvk| gvk.kind.to_string());
    let name = format!("{kind}/{}", target.name);
    match action {
        Action::Create { .. } => format!("create {name}"),
        Action::Update { subresource, .. } => format!("update {name} {}", subresource.unwrap_or_default()),
        Action::Patch { subresource, patch: Patch::Merge(patch), .. } => {
            let mut patch = patch.clone();
            if let Some(metadata) = patch["metadata"].as_object_mut() {
                metadata.remove("resourceVersion");
                metadata.remove("uid");
            }
            let shown = if subresource.is_some() { patch["status"].clone() } else { patch };
            let mut line = format!("{} {name}", subresource.unwrap_or("patch"));
            for (field, value) in shown.as_object().into_iter().flatten() {
                if *field == "conditions" {
                    let types = value.as_array().into_iter().flatten();
                    let types: Vec<String> =
                        types.map(|c| format!("{}:{}", text(&c["type"]), text(&c["status"]))).collect();
                    write!(line, " conditions={}", types.join(",")).unwrap();
                } else if value.as_object().is_none_or(|map| !map.is_empty()) {
                    write!(line, " {field}={value}").unwrap();
                }
            }
            line
        }
        Action::Patch { .. } => format!("patch {name}"),
        Action::Delete { .. } => format!("delete {name}"),
        Action::Bind { node, .. } => format!("bind {name} {node}"),
        Action::Event(event) => format!("event {name} {} {} {}", event.event_type, event.reason, event.message),
    }
}

/// Reconciles one key until nothing is left to do, and compares what was done.
#[track_caller]
pub(crate) fn check(mut controller: impl Controller, key: &str, fixture: &str, expect: expect_test::Expect) -> World {
    let mut world = World::new(fixture);
    run(&mut controller, key, &mut world);
    expect.assert_eq(&world.log);
    world
}

#[track_caller]
pub(crate) fn run(controller: &mut dyn Controller, key: &str, world: &mut World) {
    let key = key_of(key);
    for round in 0..ROUNDS_MAX {
        let view = world.view();
        let outcome = controller.reconcile(Context { view: &view, now: world.now }, &key);
        if outcome.actions.is_empty() {
            return;
        }
        writeln!(world.log, "# round {round}").unwrap();
        for action in &outcome.actions {
            world.act(action).unwrap();
        }
    }
    panic!("no end in sight:\n{}", world.log);
}

/// All of some controllers over a world, under virtual time.
#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) world: World,
    pub(crate) manager: Manager,
    seen: Revision,
    /// How many reconciles with actions there were.
    pub(crate) works: usize,
}

impl Harness {
    pub(crate) fn new(controllers: Vec<Box<dyn Controller>>, fixture: &str) -> Self {
        let world = World::new(fixture);
        let mut manager = Manager::new(controllers);
        manager.resync(&world.view());
        let seen = world.view().revision();
        Self { world, manager, seen, works: 0 }
    }

    #[track_caller]
    pub(crate) fn apply(&mut self, line: &str) {
        self.world.apply_line(line);
    }

    /// Runs until nothing is due now.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        for _ in 0..20_000 {
            self.observe();
            if self.manager.next_wakeup().is_none_or(|at| at > self.world.now.mono) {
                return;
            }
            let view = self.world.view();
            for work in self.manager.next(&view, self.world.now, 64) {
                self.works += 1;
                let results = work.actions.iter().map(|action| self.world.act(action)).collect();
                self.observe();
                self.manager.settled(self.world.now, work.id, results);
            }
        }
        panic!("no end in sight:\n{}", self.world.log);
    }

    /// Lets time pass, stopping at every timer.
    #[track_caller]
    pub(crate) fn advance(&mut self, duration: Duration) {
        let end = self.world.now.after(duration);
        self.settle();
        while let Some(at) = self.manager.next_wakeup().filter(|at| *at <= end.mono) {
            self.world.now = self.world.now.after(at.saturating_since(self.world.now.mono));
            self.settle();
        }
        self.world.now = end;
        self.settle();
    }

    pub(crate) fn observe(&mut self) {
        let view = self.world.view();
        let mut changes: Vec<Change> =
            KINDS.iter().flat_map(|(_, resource, _)| view.changes_after(resource, self.seen).unwrap()).collect();
        changes.sort_by_key(|change| change.revision);
        for change in &changes {
            self.manager.observe(&view, change);
        }
        self.seen = view.revision();
    }

    /// Makes every pod of a name's beginning ready, as a node would.
    pub(crate) fn run_pods(&mut self) {
        for name in self.world.names(&r::PODS) {
            if self.world.field(&format!("pod/{name}"), "status.phase") != "Running" {
                self.world.apply_line(&format!("pod/{name} node=n1 ready=true"));
            }
        }
    }
}
