//! A cluster to be set up: how many of what, drawn from which seed.

use std::time::Duration;

use coracle_api::resources::{NAMESPACES, SERVICES};
use coracle_api::{Method, ObjectKey, Request, UserInfo};
use coracle_node::{Capacity, NodeConfig, RuntimeFeature};
use coracle_raft::{Config, MemberId};
#[cfg(feature = "wasm")]
use coracle_runtime_wasm::simulated::SimulatedImages;
use coracle_store::StoreOptions;
use serde_json::json;

use crate::history::History;
use crate::world::{Settings, World};
use crate::{Mutation, Script, TestCluster, disk, trace};

/// A cluster to be set up.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    settings: Settings,
    nodes: usize,
    fake_nodes: usize,
    scripts: Vec<(String, Script)>,
    replay: Option<String>,
    #[cfg(feature = "wasm")]
    wasm: bool,
}

impl Builder {
    /// A cluster of so many members with the settings of production.
    #[track_caller]
    pub(crate) fn new(members: usize) -> Self {
        assert!(members > 0, "a cluster has members");
        let settings = Settings {
            seed: 1,
            members,
            snapshot_after: coracle_engine::SNAPSHOT_AFTER_BYTES,
            tail: Config::single(MemberId(1)).tail,
            store: StoreOptions::default(),
            disk: disk::LATENCY,
            trace_lines: trace::LINES,
            mutation: None,
        };
        Builder {
            settings,
            nodes: 0,
            fake_nodes: 0,
            scripts: Vec::new(),
            replay: None,
            #[cfg(feature = "wasm")]
            wasm: false,
        }
    }

    /// So many nodes of four cores, `node-1` and on: their pods follow the scripts.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// So many large nodes, `fake-0` and on.
    pub fn fake_nodes(mut self, nodes: usize) -> Self {
        self.fake_nodes = nodes;
        self
    }

    /// What everything is drawn from: equal seeds give equal runs.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// How containers of an image behave; without a script they run, are ready at once, and end when asked.
    pub fn script(mut self, image: &str, script: Script) -> Self {
        self.scripts.push((image.to_owned(), script));
        self
    }

    /// Nodes run modules with wasmtime instead of following scripts: those that [`TestCluster::image`] and
    /// [`crate::pod`] give them. Fake nodes still follow theirs.
    #[cfg(feature = "wasm")]
    pub fn wasm(mut self) -> Self {
        self.wasm = true;
        self
    }

    /// A snapshot is made whenever the log has grown by so many bytes.
    pub fn snapshot_after(mut self, bytes: usize) -> Self {
        self.settings.snapshot_after = bytes;
        self
    }

    /// So many entries stay in the log behind a snapshot.
    pub fn tail(mut self, entries: u64) -> Self {
        self.settings.tail = entries;
        self
    }

    /// How long the members keep what watchers are told: below it a watch is 410.
    pub fn window(mut self, window: Duration) -> Self {
        self.settings.store.window = window;
        self
    }

    /// The shortest and longest write of a member's disk.
    ///
    /// # Panics
    ///
    /// When the shortest is longer.
    #[track_caller]
    pub fn disk(mut self, least: Duration, most: Duration) -> Self {
        assert!(least <= most, "{least:?} is longer than {most:?}");
        self.settings.disk = (least, most);
        self
    }

    /// How many of the last events are printed when the run fails.
    pub fn trace_lines(mut self, lines: usize) -> Self {
        self.settings.trace_lines = lines;
        self
    }

    /// Something is deliberately wrong.
    pub fn mutation(mut self, mutation: Option<Mutation>) -> Self {
        self.settings.mutation = mutation;
        self
    }

    /// The command that shows a failure again, where it is not a test by itself.
    pub fn replay(mut self, command: String) -> Self {
        self.replay = Some(command);
        self
    }

    /// The cluster, with its nodes Ready.
    #[track_caller]
    pub fn build(self) -> TestCluster {
        let mut cluster = TestCluster::of(World::new(self.settings), self.replay);
        for (image, script) in self.scripts {
            cluster.world.script(&image, script);
        }
        #[cfg(feature = "wasm")]
        if self.wasm {
            cluster.world.images = Some(SimulatedImages::new().expect("wasmtime runs on this machine"));
        }
        cluster.run_until(|cluster| {
            let has =
                |resource, namespace, name| cluster.view().object(&ObjectKey::new(resource, namespace, name)).is_some();
            has(NAMESPACES, "", "default") && has(SERVICES, "default", "kubernetes")
        });
        for index in 1..=self.nodes {
            let mut config = NodeConfig::new(format!("node-{index}"));
            config.capacity = Capacity { cpu_millis: 4_000, memory: 8 << 30, pods: 110 };
            // Nobody can attach to what is simulated.
            config.runtimes.values_mut().for_each(|runtime| _ = runtime.features.remove(&RuntimeFeature::Input));
            cluster.register(config);
        }
        for index in 0..self.fake_nodes {
            let mut config = NodeConfig::new(format!("fake-{index}"));
            config.capacity = Capacity { cpu_millis: 32_000, memory: 256 << 30, pods: 110 };
            config.annotations.insert("kwok.x-k8s.io/node".into(), "fake".into());
            config = config.fake();
            cluster.register(config);
        }
        cluster.settle();
        cluster.world.history = History::default();
        cluster
    }
}

impl TestCluster {
    #[track_caller]
    fn register(&mut self, config: NodeConfig) {
        let node = json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {"name": config.name, "labels": config.labels, "annotations": config.annotations},
        });
        let response =
            self.request(Request::new(Method::Post, "/api/v1/nodes", UserInfo::node(&config.name)).json(node));
        assert!(response.is_success(), "{:?}", response.failure());
        self.world.add_node(config);
    }
}
