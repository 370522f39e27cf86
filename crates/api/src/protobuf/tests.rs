use serde_json::json;

use super::*;

/// A message under construction: what a client's encoder does, driven by the same table.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(&mut self, field: u32, number: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(number);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

fn message(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    fill(&mut writer);
    writer.0
}

fn write_object(schema: &Schema, id: TypeId, value: &Value) -> Vec<u8> {
    message(|w| {
        for (number, member) in schema.proto_members(id) {
            match member {
                ProtoMember::Field(name) => write_field(schema, id, *number, name, value, w),
                ProtoMember::Nested(members) => {
                    let inner = message(|w| {
                        for (number, name) in members {
                            write_field(schema, id, *number, name, value, w);
                        }
                    });
                    if !inner.is_empty() {
                        w.bytes(*number, &inner);
                    }
                }
            }
        }
    })
}

fn write_field(schema: &Schema, id: TypeId, number: u32, name: &str, object: &Value, w: &mut Writer) {
    let field = &schema.get(id).fields[name];
    match (&field.shape, &object[name]) {
        (_, Value::Null) => {}
        (Shape::List(item), Value::Array(items)) => {
            for value in items {
                write_value(schema, number, item, value, w);
            }
        }
        (Shape::Map(item), Value::Object(map)) => {
            for (key, value) in map {
                let entry = message(|w| {
                    w.bytes(1, key.as_bytes());
                    match (&**item, value) {
                        (Shape::List(inner), Value::Array(items)) => {
                            let list = message(|w| {
                                for value in items {
                                    write_value(schema, 1, inner, value, w);
                                }
                            });
                            w.bytes(2, &list);
                        }
                        (item, value) => write_value(schema, 2, item, value, w),
                    }
                });
                w.bytes(number, &entry);
            }
        }
        (shape, value) => write_value(schema, number, shape, value, w),
    }
}

fn write_value(schema: &Schema, number: u32, shape: &Shape, value: &Value, w: &mut Writer) {
    match (shape, value) {
        (Shape::Object(id), value) => w.bytes(number, &write_object(schema, *id, value)),
        (Shape::Any, value) => w.bytes(number, &message(|w| w.bytes(1, value.to_string().as_bytes()))),
        (Shape::Quantity, Value::String(text)) => w.bytes(number, &message(|w| w.bytes(1, text.as_bytes()))),
        (Shape::Bytes, Value::String(text)) => w.bytes(number, &BASE64_STANDARD.decode(text).unwrap()),
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let nanos = Timestamp::parse(text).unwrap().as_nanos();
            let inner = message(|w| {
                w.number(1, nanos.div_euclid(1_000_000_000).cast_unsigned());
                w.number(2, nanos.rem_euclid(1_000_000_000).cast_unsigned());
            });
            w.bytes(number, &inner);
        }
        (Shape::IntOrString, Value::String(text)) => {
            let inner = message(|w| {
                w.number(1, 1);
                w.bytes(3, text.as_bytes());
            });
            w.bytes(number, &inner);
        }
        (Shape::IntOrString, value) => {
            w.bytes(number, &message(|w| w.number(2, value.as_i64().unwrap().cast_unsigned())));
        }
        (_, Value::String(text)) => w.bytes(number, text.as_bytes()),
        (_, Value::Bool(value)) => w.number(number, u64::from(*value)),
        (_, Value::Number(value)) => w.number(number, value.as_i64().unwrap().cast_unsigned()),
        (shape, value) => panic!("{value} is no {shape:?}"),
    }
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = message(|w| {
        w.bytes(1, api_version.as_bytes());
        w.bytes(2, kind.as_bytes());
    });
    let unknown = message(|w| {
        w.bytes(1, &meta);
        w.bytes(2, raw);
        w.bytes(3, b"");
        w.bytes(4, b"");
    });
    [&PREFIX[..], &unknown].concat()
}

#[track_caller]
fn decode(type_name: &str, body: &[u8]) -> Result<Value, ProtobufError> {
    let schema = Schema::builtin();
    let id = schema.find(type_name).expect("the type is in the table");
    Envelope::open(body)?.decode(&schema, id)
}

/// Writes a value as a client would, and reads it back: what comes out is what the same value in JSON gives.
#[track_caller]
fn round_trip(type_name: &str, api_version: &str, value: Value) {
    let schema = Schema::builtin();
    let id = schema.find(type_name).expect("the type is in the table");
    let kind = schema.get(id).short_name();
    let mut expected = decode_value(&schema, id, &value, Strictness::Strict).expect("the value decodes").value;
    expected["apiVersion"] = api_version.into();
    expected["kind"] = kind.into();
    let body = body(api_version, kind, &write_object(&schema, id, &value));
    assert_eq!(decode(type_name, &body), Ok(expected));
}

#[test]
fn a_config_map_written_by_hand_is_read() {
    // metadata: {name: "a", generation: 0}, data: {"k": "v"}
    let raw = b"\x0a\x05\x0a\x01a\x38\x00\x12\x06\x0a\x01k\x12\x01v";
    assert_eq!(
        decode("io.k8s.api.core.v1.ConfigMap", &body("v1", "ConfigMap", raw)),
        Ok(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}))
    );
}

#[test]
fn a_deployment_means_the_same_in_both_encodings() {
    round_trip(
        "io.k8s.api.apps.v1.Deployment",
        "apps/v1",
        json!({"metadata": {"name": "d", "labels": {"a": "", "b": "c"}, "creationTimestamp": "2026-11-22T10:31:34Z",
                "managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}]},
            "spec": {"replicas": 0, "paused": false, "selector": {"matchLabels": {"a": "b"}},
                "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                "template": {"spec": {
                    "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "c", "configMap": {"name": "cm", "defaultMode": 420}}],
                    "containers": [{"name": "c", "image": "i", "args": ["", "x"], "ports": [{"containerPort": 80}],
                        "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": false}}}],
                        "resources": {"limits": {"cpu": "500m"}},
                        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5}}],
                    "ephemeralContainers": [{"name": "e", "targetContainerName": "c"}],
                    "securityContext": {"runAsUser": -1, "supplementalGroups": [1, 2]}}}}}),
    );
}

#[test]
fn other_kinds_mean_the_same_in_both_encodings() {
    round_trip("io.k8s.api.core.v1.Secret", "v1", json!({"data": {"a": "aGVsbG8=", "b": ""}, "type": "Opaque"}));
    round_trip(
        "io.k8s.api.coordination.v1.Lease",
        "coordination.k8s.io/v1",
        json!({"spec": {"renewTime": "2026-11-22T10:31:34.123456Z", "leaseDurationSeconds": 40}}),
    );
    round_trip(
        "io.k8s.api.authorization.v1.SubjectAccessReview",
        "authorization.k8s.io/v1",
        json!({"spec": {"user": "bob", "extra": {"scopes": ["a", "b"]}}}),
    );
    round_trip(
        "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        "v1",
        json!({"gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}, "dryRun": ["All"]}),
    );
    round_trip("io.k8s.api.apps.v1.ControllerRevision", "apps/v1", json!({"data": {"spec": {"a": 1}}, "revision": 3}));
}

/// Bodies as kubectl 1.32 sent them, in hexadecimal.
#[track_caller]
fn sent_by_kubectl(type_name: &str, hex: &str, expected: Value) {
    let body: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    assert_eq!(decode(type_name, &body), Ok(expected));
}

#[test]
fn what_kubectl_sends_is_read() {
    // kubectl create deployment web --image nginx --replicas=0 --port 80
    sent_by_kubectl(
        "io.k8s.api.apps.v1.Deployment",
        "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b8010a1f0a0377656212001a0022002a003200380042005a0a0a0361\
         707012037765621286010800120c0a0a0a0361707012037765621a6c0a1c0a0012001a0022002a003200380042005a0a0a03617070120377\
         6562124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a007200800100880100900100a201001a003200\
         42004a0052005800600068008201008a01009a0100c2010022020a00280038001a0c0800100018002000280038001a002200",
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "strategy": {},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}], "resources": {}}]}}},
            "status": {}}),
    );
    // kubectl create secret generic s --from-literal=a=hello
    sent_by_kubectl(
        "io.k8s.api.core.v1.Secret",
        "6b3873000a0c0a027631120653656372657412210a110a017312001a0022002a00320038004200120a0a0161120568656c6c6f1a001a002200",
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "aGVsbG8="}}),
    );
    // kubectl create service nodeport web --tcp=80:8080
    sent_by_kubectl(
        "io.k8s.api.core.v1.Service",
        "6b3873000a0d0a02763112075365727669636512680a1f0a0377656212001a0022002a003200380042005a0a0a0361707012037765621241\
         0a1b0a0738302d38303830120354435018502207080010903f1a002800120a0a0361707012037765621a0022084e6f6465506f72743a0042\
         0052005a00600068001a020a001a002200",
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080}],
                "selector": {"app": "web"}, "type": "NodePort"},
            "status": {"loadBalancer": {}}}),
    );
    // kubectl auth can-i get pods
    sent_by_kubectl(
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        "6b3873000a320a17617574686f72697a6174696f6e2e6b38732e696f2f7631121753656c665375626a656374416363657373526576696577\
         123c0a100a0012001a0022002a00320038004200121e0a1c0a0764656661756c7412036765741a0022002a04706f647332003a001a080800\
         12001a0020001a002200",
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
            "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}},
            "status": {"allowed": false}}),
    );
}

#[test]
fn packed_numbers_are_read() {
    // supplementalGroups (4) as one field with 1, 300
    let raw = message(|w| w.bytes(4, b"\x01\xac\x02"));
    let schema = Schema::builtin();
    let id = schema.find("io.k8s.api.core.v1.PodSecurityContext").unwrap();
    let value = object(&schema, id, &raw, 0).unwrap();
    assert_eq!(value["supplementalGroups"], json!([1, 300]));
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let pod = |raw: &[u8]| decode("io.k8s.api.core.v1.Pod", &body("v1", "Pod", raw));
    assert_eq!(Envelope::open(b"{}"), Err(ProtobufError::NoPrefix));
    assert_eq!(pod(b"\x0a\x05"), Err(ProtobufError::UnexpectedEnd));
    assert_eq!(pod(b"\x00"), Err(ProtobufError::IllegalTag(0)));
    assert_eq!(pod(b"\x0b"), Err(ProtobufError::IllegalWireType(3)));
    assert_eq!(pod(b"\x08\x01"), Err(ProtobufError::WrongWireType { found: 0, field: "metadata".into() }));
    assert_eq!(pod(&[0xff; 11]), Err(ProtobufError::Overflow));
    assert_eq!(pod(b"\x0a\x03\x0a\x01\xff"), Err(ProtobufError::Utf8 { field: "name".into() }));
}

#[test]
fn nesting_is_bounded() {
    let schema = Schema::new(vec![crate::schema::Type {
        name: "Loop".into(),
        fields: [("a".to_owned(), {
            let mut field = crate::schema::Field::new("a", Shape::Object(TypeId(0)));
            field.proto_number = 1;
            field
        })]
        .into(),
        atomic: false,
    }]);
    let mut raw = Vec::new();
    for _ in 0..=DEPTH_MAX {
        raw = message(|w| w.bytes(1, &raw));
    }
    assert_eq!(object(&schema, TypeId(0), &raw, 0), Err(ProtobufError::TooDeep));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = decode("io.k8s.api.core.v1.Pod", &body("v1", "Pod", &bytes));
        let _ = decode("io.k8s.api.core.v1.Pod", &[&PREFIX[..], &bytes].concat());
        let _ = decode("io.k8s.api.core.v1.Pod", &bytes);
    }

    #[test]
    fn no_broken_message_makes_it_panic(at in 0_usize..200, byte in proptest::num::u8::ANY) {
        let schema = Schema::builtin();
        let id = schema.find("io.k8s.api.core.v1.Pod").unwrap();
        let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": "2026-11-22T10:31:34Z"},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}, "readinessProbe": {"tcpSocket": {"port": 1}}}],
                "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}});
        let mut raw = write_object(&schema, id, &pod);
        let length = raw.len();
        raw[at % length] = byte;
        let _ = decode("io.k8s.api.core.v1.Pod", &body("v1", "Pod", &raw));
    }
}
