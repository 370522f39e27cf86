use expect_test::expect;

use super::*;
use crate::testing::{check, run};

#[test]
fn ready_and_unready_addresses_stand_apart() {
    let mut world = check(
        EndpointsController,
        "service/web",
        "
        service/web
        pod/a  label=app:web ip=10.42.0.1 ready=true node=n1
        pod/b  label=app:web ip=10.42.0.2 ready=false
        pod/e  label=app:web ip=10.42.0.5 ready=true going=now
        ",
        expect![[r#"
            # round 0
            create Endpoints/web
        "#]],
    );
    let subsets: Value = serde_json::from_str(&world.field("endpoints/web", "subsets")).unwrap();
    assert_eq!(subsets[0]["addresses"][0]["ip"], "10.42.0.1");
    assert_eq!(subsets[0]["addresses"][0]["nodeName"], "n1");
    assert_eq!(subsets[0]["notReadyAddresses"][0]["ip"], "10.42.0.2");
    assert_eq!(subsets[0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
    assert_eq!(subsets[0]["notReadyAddresses"].as_array().unwrap().len(), 1);
    world.remove("service/web");
    run(&mut EndpointsController, "service/web", &mut world);
    assert!(world.names(&ENDPOINTS).is_empty());
}

#[test]
fn what_a_user_wrote_stays() {
    check(EndpointsController, "service/mine", "endpoints/mine subsets=[]", expect![[""]]);
}
