use expect_test::expect;

use super::*;
use crate::testing::{check, run};

#[test]
fn the_certificate_is_restored_when_somebody_changes_it() {
    let mut world = check(
        RootCaPublisher::new("PEM"),
        "namespace/test",
        "namespace/test",
        expect![[r#"
        # round 0
        create ConfigMap/kube-root-ca.crt
    "#]],
    );
    world.apply_line("cm/test/kube-root-ca.crt data={\"ca.crt\":\"forged\",\"more\":\"x\"}");
    run(&mut RootCaPublisher::new("PEM"), "namespace/test", &mut world);
    assert_eq!(world.field("cm/test/kube-root-ca.crt", "data"), r#"{"ca.crt":"PEM"}"#);
}

#[test]
fn nothing_is_created_in_a_namespace_that_goes() {
    check(ServiceAccountController, "namespace/test", "namespace/test going=now", expect![[""]]);
}
