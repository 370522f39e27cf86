//! A rolling update under load: nobody who asks the Service notices it.

use crate::harness::{Client, Cluster, Connections, Load};

const DEPLOYMENT: &str = include_str!("../../examples/web/deployment.yaml");
const CONFIG: &str = include_str!("../../examples/web/configmap.yaml");
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: express-api}
spec:
  type: NodePort
  selector: {app: express-api}
  ports: [{port: 80, targetPort: 3000, nodePort: 30982}]
";

#[test]
fn rolling_from_one_release_to_the_next_under_load_loses_no_request() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.apply(&format!("{CONFIG}\n---\n{DEPLOYMENT}\n---\n{SERVICE}"));
    cluster.kubectl("rollout status deployment express-api-deployment --timeout=60s");
    let client = |connections| Client { address: "127.0.0.1:30982".into(), path: "/", connections };
    let clients = [Connections::OneARequest, Connections::KeptAlive].into_iter().flat_map(|kind| vec![client(kind); 3]);
    let load = Load::begin(clients);
    cluster.kubectl("set image deployment/express-api-deployment express-api-container=coracle.dev/examples/web:v2");
    cluster.kubectl("rollout status deployment express-api-deployment --timeout=60s");
    for answers in load.end(" v2, ") {
        assert!(answers.failures.is_empty(), "{answers:?}");
        assert!(answers.first.contains(" v1, "), "{answers:?}");
        assert!(answers.last.contains(" v2, "), "{answers:?}");
    }
}
