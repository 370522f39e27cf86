//! What the pods of a test are: WebAssembly or containers. A test that has to hold for both is written once, with this as its parameter.

use super::{Cluster, Docker, Registry, eventually, machines};

/// The tests' own cut of the examples' application as an image of containers.
const PROGRAM: &str = env!("CARGO_BIN_EXE_express-in-a-container");

/// What runs the pods of three machines.
pub(crate) enum Runs {
    Wasm,
    /// One Engine stands for the machines' three: each has the containers of its own name.
    Containers([Docker; 3]),
}

impl Runs {
    /// Containers; `None` where there is no Engine.
    #[track_caller]
    pub(crate) fn containers() -> Option<Self> {
        let machines = Docker::three()?;
        for version in ["v1", "v2"] {
            machines[0].program(&container_image(version), PROGRAM, &format!("VERSION={version}"));
        }
        Some(Self::Containers(machines))
    }

    /// Three machines that run such pods. A machine that is lost gives its pods up after a second.
    #[track_caller]
    pub(crate) fn machines(&self) -> Option<[Cluster; 3]> {
        let names: [String; 3] = match self {
            Self::Wasm => ["first", "second", "third"].map(str::to_owned),
            Self::Containers(machines) => machines.each_ref().map(|docker| docker.node.clone()),
        };
        let docker = if matches!(self, Self::Wasm) { "off" } else { "/var/run/docker.sock" };
        let of = |machine: usize| ["--name", names[machine].as_str(), "--docker", docker];
        let first = [&of(0)[..], &["--pod-toleration", "1s"]].concat();
        machines::three([&first, &of(1), &of(2)])
    }

    /// The name of a machine's node.
    pub(crate) fn node(&self, machine: usize) -> &str {
        match self {
            Self::Wasm => ["first", "second", "third"][machine],
            Self::Containers(machines) => &machines[machine].node,
        }
    }

    /// The image of a version of the examples' application: `v1` or `v2`.
    pub(crate) fn image(&self, version: &str) -> String {
        match self {
            Self::Wasm => format!("coracle.dev/examples/web:{version}"),
            Self::Containers(_) => container_image(version),
        }
    }

    /// Has the second version in a registry under this name, and nowhere else; the image to use it by.
    #[track_caller]
    pub(crate) fn push(&self, registry: &Registry, name: &str) -> String {
        match self {
            Self::Wasm => {
                let (_, bytes) = coracle_cli::BUILTIN_IMAGES[1];
                registry.push_wasm(name, bytes).ok();
            }
            Self::Containers(machines) => registry.push_container(&machines[0], name, &container_image("v2")),
        }
        format!("{}/{name}", registry.host)
    }

    /// A machine loses its power: its process and all that ran there is gone, without a word.
    #[track_caller]
    pub(crate) fn lose(&self, machines: &mut [Cluster; 3], machine: usize) {
        machines[machine].signal("KILL");
        if let Self::Containers(dockers) = self {
            eventually("nothing runs there any more", || {
                let left = dockers[machine].containers("");
                if left.is_empty() {
                    return Ok(());
                }
                // One that is being removed already is not removed twice.
                let remove = ["rm", "-f"].into_iter().chain(left.iter().map(String::as_str));
                dockers[machine].run(&remove.collect::<Vec<_>>());
                Err(left)
            });
        }
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        if let Self::Containers(machines) = self {
            for docker in &*machines {
                docker.clear();
            }
            machines[0].run(&["image", "rm", "-f", &container_image("v1"), &container_image("v2")]);
        }
    }
}

/// An image of this test alone: the next build is another program.
fn container_image(version: &str) -> String {
    format!("coracle.test/express-{}:{version}", std::process::id())
}
