use super::*;

#[track_caller]
fn field(type_name: &str, name: &str) -> Field {
    let schema = Schema::builtin();
    let id = schema.find(type_name).expect("the type is in the table");
    schema.get(id).fields[name].clone()
}

#[test]
fn the_builtin_table_knows_how_lists_merge() {
    let ports = field("io.k8s.api.core.v1.Container", "ports");
    assert_eq!(ports.list_type, ListType::Map(vec!["containerPort".into(), "protocol".into()]));
    assert_eq!(ports.merge_key.as_deref(), Some("containerPort"));
    assert!(ports.patch_strategy.merge);
    let finalizers = field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers");
    assert_eq!((finalizers.list_type, finalizers.patch_strategy.merge), (ListType::Set, true));
    assert!(field("io.k8s.api.apps.v1.DeploymentSpec", "strategy").patch_strategy.retain_keys);
    let volumes = field("io.k8s.api.core.v1.PodSpec", "volumes").patch_strategy;
    assert!(volumes.merge && volumes.retain_keys);
    assert_eq!(field("io.k8s.api.core.v1.ContainerPort", "protocol").default, Some(Value::from("TCP")));
}

#[test]
fn the_builtin_table_knows_what_go_declares() {
    let replicas = field("io.k8s.api.apps.v1.DeploymentSpec", "replicas");
    assert_eq!(replicas.shape, Shape::Integer { bits: 32 });
    assert!(replicas.pointer && replicas.omit_empty && !replicas.required && replicas.proto_number == 1);
    assert!(field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp").omit_zero);
    assert!(field("io.k8s.api.core.v1.EphemeralContainer", "securityContext").pointer);
    let schema = Schema::builtin();
    let absent = |name: &str| schema.written_when_absent(schema.find(name).unwrap()).join(" ");
    assert_eq!(absent("io.k8s.api.core.v1.Container"), "name resources");
    assert_eq!(absent("io.k8s.api.apps.v1.DeploymentSpec"), "selector strategy template");
    assert_eq!(absent("io.k8s.api.core.v1.ConfigMap"), "metadata");
}

#[test]
fn the_builtin_table_knows_what_protobuf_nests() {
    let schema = Schema::builtin();
    let volume = schema.find("io.k8s.api.core.v1.Volume").unwrap();
    assert_eq!(schema.proto_member(volume, 1), Some(&ProtoMember::Field("name".into())));
    let Some(ProtoMember::Nested(source)) = schema.proto_member(volume, 2) else { panic!("volumeSource is nested") };
    assert_eq!(source[&2], "emptyDir");
}

#[test]
fn every_member_that_protobuf_nests_is_a_field() {
    let schema = Schema::builtin();
    for (id, t) in schema.types() {
        for member in schema.proto_members(id).values() {
            let names: Vec<&String> = match member {
                ProtoMember::Field(name) => vec![name],
                ProtoMember::Nested(members) => members.values().collect(),
            };
            for name in names {
                assert!(t.fields.contains_key(name), "{} has no field {name}", t.name);
            }
        }
    }
}
