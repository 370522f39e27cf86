use expect_test::expect;

use super::*;
use crate::testing::{check, run};

const ROLES: &str = r#"
    clusterrole/view aggregationRule={"clusterRoleSelectors":[{"matchLabels":{"to-view":"true"}}]}
    clusterrole/a label=to-view:true rules=[{"verbs":["get"],"resources":["pods"]}]
    clusterrole/b label=to-view:true rules=[{"verbs":["get"],"resources":["pods"]},{"verbs":["list"],"resources":["pods"]}]
    clusterrole/c rules=[{"verbs":["delete"],"resources":["pods"]}]
"#;

#[test]
fn a_role_has_the_rules_of_those_that_are_labelled_for_it_each_once() {
    let mut world = check(
        ClusterRoleAggregationController,
        "clusterrole/view",
        ROLES,
        expect![[r#"
            # round 0
            patch ClusterRole/view rules=[{"resources":["pods"],"verbs":["get"]},{"resources":["pods"],"verbs":["list"]}]
        "#]],
    );
    world.remove("clusterrole/b");
    run(&mut ClusterRoleAggregationController, "clusterrole/view", &mut world);
    assert_eq!(world.field("clusterrole/view", "rules"), r#"[{"resources":["pods"],"verbs":["get"]}]"#);
}

#[test]
fn a_role_that_is_no_sum_keeps_its_rules() {
    check(ClusterRoleAggregationController, "clusterrole/c", ROLES, expect![[""]]);
}
