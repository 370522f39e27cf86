//! What a sandbox and a container are in Docker's words.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, MountVolumeOptions,
    NetworkingConfig, PortBinding,
};
use coracle_node::runtime::{ContainerSpec, Limits, Profile, Propagation, Sandbox, Security};
use sha2::{Digest as _, Sha256};

use crate::labels;
use crate::options::DockerOptions;
use crate::sandbox_image;
use crate::volume::Mounted;

/// A container's log as Docker keeps it, until it is read: two files at most.
const LOG_FILE_SIZE: &str = "10m";
const LOG_FILES: &str = "2";
/// The kubelet's score of sandboxes: the pod's other containers go first.
const SANDBOX_OOM_SCORE: i64 = -998;
/// The least share of the processor that Docker takes.
const CPU_SHARES_MIN: u64 = 2;
/// The share of a whole core.
const CPU_SHARES_A_CORE: u64 = 1024;
/// Docker's own least limit of memory.
const MEMORY_MIN: u64 = 6 << 20;
/// Where the node's seccomp profiles are, as kubelets have them.
const SECCOMP_PROFILES: &str = "/var/lib/kubelet/seccomp";

/// What a sandbox's container is made from, in short: when it is another, the sandbox has to be made anew. Names and resolver are in files.
pub(crate) fn fingerprint(sandbox: &Sandbox) -> String {
    let Sandbox { hostname, address, namespaces, host_ports, sysctls, .. } = sandbox;
    let text = serde_json::to_vec(&(hostname, address, namespaces, host_ports, sysctls)).unwrap_or_default();
    Sha256::digest(text).iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The container that holds a pod's namespaces. `protected`: the kernel ends it last when memory is short.
pub(crate) fn sandbox(options: &DockerOptions, sandbox: &Sandbox, protected: bool) -> ContainerCreateBody {
    let spaces = sandbox.namespaces;
    let ports = || sandbox.host_ports.iter().filter(|_| !spaces.host_network);
    let key =
        |port: &coracle_node::runtime::HostPort| format!("{}/{}", port.port, if port.udp { "udp" } else { "tcp" });
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in ports() {
        let binding = PortBinding {
            host_ip: port.address.map(|address| address.to_string()),
            host_port: Some(port.host_port.to_string()),
        };
        bindings.entry(key(port)).or_default().get_or_insert_default().push(binding);
    }
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(sandbox.address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    };
    let network = options.network();
    let endpoints = HashMap::from([(network.clone(), endpoint)]);
    ContainerCreateBody {
        image: Some(sandbox_image::NAME.into()),
        hostname: Some(sandbox.hostname.clone()).filter(|_| !spaces.host_network),
        labels: Some(labels::of_sandbox(options, sandbox, fingerprint(sandbox))),
        exposed_ports: Some(ports().map(key).collect()),
        networking_config: (!spaces.host_network).then_some(NetworkingConfig { endpoints_config: Some(endpoints) }),
        host_config: Some(HostConfig {
            network_mode: Some(if spaces.host_network { "host".into() } else { network }),
            port_bindings: Some(bindings),
            ipc_mode: Some(if spaces.host_ipc { "host".into() } else { "shareable".into() }),
            pid_mode: spaces.host_pid.then(|| "host".into()),
            sysctls: Some(sandbox.sysctls.clone().into_iter().collect()),
            oom_score_adj: Some(if protected { SANDBOX_OOM_SCORE } else { 0 }),
            cpu_shares: Some(CPU_SHARES_MIN as i64),
            readonly_rootfs: Some(true),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The container that keeps a pod's volumes in memory, named as Docker has them.
pub(crate) fn keeper(
    options: &DockerOptions,
    sandbox: &Sandbox,
    volumes: &[String],
    protected: bool,
) -> ContainerCreateBody {
    let mounted = |(index, name): (usize, &String)| {
        let path = format!("/{index}");
        mount(Mounted::Volume { name: name.clone(), part: None, path, read_only: true })
    };
    ContainerCreateBody {
        image: Some(sandbox_image::NAME.into()),
        labels: Some(labels::of_sandbox(options, sandbox, volumes.join(" "))),
        host_config: Some(HostConfig {
            network_mode: Some("none".into()),
            mounts: Some(volumes.iter().enumerate().map(mounted).collect()),
            oom_score_adj: Some(if protected { SANDBOX_OOM_SCORE } else { 0 }),
            cpu_shares: Some(CPU_SHARES_MIN as i64),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// A container of a pod whose sandbox has this id; `image_user` is who its image runs as (empty: root), and `protected` as in [`sandbox`].
///
/// # Errors
///
/// When a profile that it names cannot be read.
pub(crate) fn container(
    options: &DockerOptions,
    sandbox: &Sandbox,
    sandbox_id: &str,
    spec: &ContainerSpec,
    image_user: &str,
    protected: bool,
    mounts: Vec<Mounted>,
) -> Result<ContainerCreateBody, String> {
    let score = i64::from(spec.limits.oom_score_adjust);
    let score = if protected { score } else { score.max(0) };
    let list = |texts: &[String]| Some(texts.to_vec()).filter(|texts| !texts.is_empty());
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: list(&spec.command),
        // Docker drops the image's arguments where there is an entry point, as Kubernetes does.
        cmd: list(&spec.args),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: spec.working_dir.clone(),
        user: user(&spec.security, image_user),
        tty: Some(spec.terminal.tty),
        open_stdin: Some(spec.terminal.stdin),
        stdin_once: Some(spec.terminal.stdin_once),
        stop_signal: spec.stop_signal.clone(),
        // Kubernetes probes; an image's own health check would only cost.
        healthcheck: Some(bollard::models::HealthConfig {
            test: Some(vec!["NONE".into()]),
            ..bollard::models::HealthConfig::default()
        }),
        labels: Some(labels::of_container(options, sandbox, &spec.id)),
        host_config: Some(HostConfig { oom_score_adj: Some(score), ..host_config(sandbox, sandbox_id, spec, mounts)? }),
        ..ContainerCreateBody::default()
    })
}

fn host_config(
    sandbox: &Sandbox,
    sandbox_id: &str,
    spec: &ContainerSpec,
    mounts: Vec<Mounted>,
) -> Result<HostConfig, String> {
    let of_sandbox = || format!("container:{sandbox_id}");
    let (spaces, security) = (sandbox.namespaces, &spec.security);
    let pid_mode = match (spaces.host_pid, spaces.shared_processes) {
        (true, _) => Some("host".into()),
        (false, true) => Some(of_sandbox()),
        (false, false) => None,
    };
    let log = [("max-size", LOG_FILE_SIZE), ("max-file", LOG_FILES)];
    let capability = |name: &String| name.trim_start_matches("CAP_").to_owned();
    let mut config = HostConfig {
        network_mode: Some(of_sandbox()),
        ipc_mode: Some(if spaces.host_ipc { "host".into() } else { of_sandbox() }),
        pid_mode,
        uts_mode: spaces.host_network.then(|| "host".into()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE).filter(|_| !security.privileged),
        mounts: Some(mounts.into_iter().map(mount).collect()),
        group_add: Some(security.groups.iter().map(u32::to_string).collect()),
        privileged: Some(security.privileged),
        cap_add: Some(security.added_capabilities.iter().map(capability).collect()),
        cap_drop: Some(security.dropped_capabilities.iter().map(capability).collect()),
        readonly_rootfs: Some(security.read_only_root),
        security_opt: Some(security_options(security)?),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(log.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        }),
        ..HostConfig::default()
    };
    if security.unmasked {
        // Of what Docker hides in /proc, and lets nobody write, nothing.
        (config.masked_paths, config.readonly_paths) = (Some(Vec::new()), Some(Vec::new()));
    }
    limit(&mut config, &spec.limits);
    Ok(config)
}

/// `resources` as settings of the container's cgroup.
fn limit(config: &mut HostConfig, limits: &Limits) {
    if let Some(memory) = limits.memory.filter(|memory| *memory > 0) {
        let memory = i64::try_from(memory.max(MEMORY_MIN)).unwrap_or(i64::MAX);
        config.memory = Some(memory);
        // The same with swap: there is none beyond.
        config.memory_swap = Some(memory);
    }
    config.nano_cpus = limits.cpu_millis.filter(|cpu| *cpu > 0).and_then(|cpu| i64::try_from(cpu * 1_000_000).ok());
    let shares = (limits.cpu_weight * CPU_SHARES_A_CORE / 1000).max(CPU_SHARES_MIN);
    config.cpu_shares = i64::try_from(shares).ok();
    config.pids_limit = limits.processes.map(i64::from);
}

/// `user:group` as Docker takes it; `None`: as the image says.
fn user(security: &Security, image_user: &str) -> Option<String> {
    let of_image = image_user.split(':').next().filter(|user| !user.is_empty()).unwrap_or("0");
    match (security.user, security.group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!("{of_image}:{group}")),
        (None, None) => None,
    }
}

fn security_options(security: &Security) -> Result<Vec<String>, String> {
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &security.seccomp {
        Profile::RuntimeDefault => {}
        Profile::Unconfined => options.push("seccomp=unconfined".into()),
        Profile::Localhost(name) => {
            let path = std::path::Path::new(SECCOMP_PROFILES).join(name);
            let profile = std::fs::read_to_string(&path)
                .map_err(|error| format!("the seccomp profile {} cannot be read: {error}", path.display()))?;
            options.push(format!("seccomp={profile}"));
        }
    }
    match &security.app_armor {
        Profile::RuntimeDefault => {}
        Profile::Unconfined => options.push("apparmor=unconfined".into()),
        Profile::Localhost(name) => options.push(format!("apparmor={name}")),
    }
    options.extend(security.se_linux.iter().map(|label| format!("label={label}")));
    Ok(options)
}

fn mount(mounted: Mounted) -> Mount {
    match mounted {
        Mounted::Path { host, path, read_only, propagation } => Mount {
            typ: Some(MountType::BIND),
            source: Some(host.to_string_lossy().into_owned()),
            target: Some(path),
            read_only: Some(read_only),
            bind_options: Some(MountBindOptions {
                propagation: Some(match propagation {
                    Propagation::None => MountBindOptionsPropagationEnum::RPRIVATE,
                    Propagation::HostToContainer => MountBindOptionsPropagationEnum::RSLAVE,
                    Propagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
                }),
                ..MountBindOptions::default()
            }),
            ..Mount::default()
        },
        Mounted::Volume { name, part, path, read_only } => Mount {
            typ: Some(MountType::VOLUME),
            source: Some(name),
            target: Some(path),
            read_only: Some(read_only),
            volume_options: part
                .map(|part| MountVolumeOptions { subpath: Some(part), ..MountVolumeOptions::default() }),
            ..Mount::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use coracle_node::runtime::{ContainerId, RuntimeKind};

    use super::*;

    fn made(spec: ContainerSpec) -> HostConfig {
        let options = DockerOptions::new("c1", "n1", ([10, 42, 0, 0].into(), 24));
        let sandbox = Sandbox::new(RuntimeKind::Container, "uid".into(), [10, 42, 0, 2].into());
        container(&options, &sandbox, "abc", &spec, "", true, Vec::new()).unwrap().host_config.unwrap()
    }

    fn spec() -> ContainerSpec {
        ContainerSpec::new(ContainerId { pod: "uid".into(), container: "web".into(), instance: 0 }, "web")
    }

    #[test]
    fn resources_become_settings_of_the_cgroup() {
        let limits = Limits {
            memory: Some(64 << 20),
            cpu_millis: Some(500),
            cpu_weight: 250,
            processes: Some(100),
            oom_score_adjust: 900,
            ..Limits::default()
        };
        let config = made(ContainerSpec { limits, ..spec() });
        assert_eq!((config.memory, config.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((config.nano_cpus, config.cpu_shares), (Some(500_000_000), Some(256)));
        assert_eq!((config.pids_limit, config.oom_score_adj), (Some(100), Some(900)));
    }

    #[test]
    fn rights_are_given_and_taken_as_the_pod_says() {
        let security = Security {
            user: Some(7),
            group: Some(8),
            groups: vec![9],
            added_capabilities: vec!["CAP_NET_ADMIN".into()],
            dropped_capabilities: vec!["ALL".into()],
            no_new_privileges: true,
            read_only_root: true,
            seccomp: Profile::Unconfined,
            se_linux: vec!["level:s0:c1".into()],
            ..Security::default()
        };
        assert_eq!(user(&security, "").as_deref(), Some("7:8"));
        assert_eq!(user(&Security { user: None, ..security.clone() }, "web:web").as_deref(), Some("web:8"));
        let config = made(ContainerSpec { security, ..spec() });
        assert_eq!(config.cap_add.unwrap(), ["NET_ADMIN"]);
        assert_eq!(config.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(config.group_add.unwrap(), ["9"]);
        assert_eq!(config.readonly_rootfs, Some(true));
        assert_eq!(config.security_opt.unwrap(), ["no-new-privileges", "seccomp=unconfined", "label=level:s0:c1"]);
    }

    #[test]
    fn another_address_or_port_is_another_sandbox() {
        let one = Sandbox::new(RuntimeKind::Container, "uid".into(), [10, 42, 0, 2].into());
        let other = Sandbox { address: [10, 42, 0, 3].into(), ..one.clone() };
        assert_eq!(fingerprint(&one), fingerprint(&one.clone()));
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }
}
