//! The arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Kubernetes light enough to embed: a cluster in one binary, with WebAssembly pods.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// How the program's own log is written; RUST_LOG says what is in it.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a cluster on this machine and keep it running until Ctrl-C
    Up(Up),
    /// Make this machine one more member of a cluster, and keep it running until Ctrl-C
    Join(Join),
    /// What lets other machines join the cluster
    Token(Token),
    /// Stop the cluster; its state is kept
    Down(Down),
    /// The images that the node has
    Image(Image),
    /// The members of the cluster
    Members(Members),
    /// What is set for the whole cluster
    Settings(Settings),
    /// Write how kubectl reaches the cluster, by whichever member
    Kubeconfig(Kubeconfig),
    /// Who may use the cluster
    User(User),
    /// The key to the cluster's data on disk
    Keys(Keys),
    /// Back up and restore a cluster
    Snapshot(Snapshot),
    /// Make a cluster of what is left when most members are lost for good
    Recover(Recover),
    /// The log of a container, earlier instances included
    Logs(Logs),
}

/// Which cluster a command is about.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Which {
    /// The cluster's data directory, instead of the kubeconfig's context `coracle`
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The kubeconfig file, instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Up {
    /// A manifest, or a folder of *.yaml, *.yml and *.json: applied once the cluster runs
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    /// The address to serve the API at, and other members; the last one that this data directory had, or 127.0.0.1:6443
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The name of this member and its node, instead of the machine's; it is kept
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Notice within 0.35 s instead of 1.2 s that nobody leads: for members on one wired network, the same on all of them
    #[arg(long)]
    pub(crate) lan: bool,
    /// The feature level that the program understands.
    #[arg(skip = coracle::FEATURE_LEVEL)]
    pub(crate) feature_level: u32,
    /// Keep nothing: the cluster is gone when it stops
    #[arg(long, conflicts_with = "data_dir")]
    pub(crate) memory: bool,
    /// 1 for a node on this machine, 0 for an API server and controllers alone
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) nodes: usize,
    /// How many members the cluster has, all in this process, to try out what the loss of one does: 1, 3, 5 or 7
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) members: u64,
    /// How long a node may be silent before it counts as gone, for the whole cluster: 2s to 1h; 50s unless it was set
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) node_grace: Option<u64>,
    /// How long pods stay bound to a node that is gone, for the whole cluster: up to 1d; 300s unless it was set
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) pod_toleration: Option<u64>,
    /// Nodes that only pretend: their pods are data
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) fake_nodes: usize,
    /// Whether pods may be containers: `auto` and `off`, or the socket of a Docker Engine. `auto` is the usual socket on Linux
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub(crate) docker: Docker,
    /// How registries are reached: mirrors, plain HTTP, extra authorities, in the form of k3s' registries.yaml
    #[arg(long, value_name = "FILE")]
    pub(crate) registries: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) which: Which,
}

/// Where containers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Docker {
    /// On the Engine at the usual socket, where this machine is a Linux.
    Auto,
    /// Nowhere.
    Off,
    /// On the Engine at this socket.
    At(PathBuf),
}

impl std::str::FromStr for Docker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            path => match path.strip_prefix("unix://").unwrap_or(path) {
                path if path.starts_with('/') => Ok(Self::At(path.into())),
                _ => Err("`auto`, `off`, or the path of a socket".into()),
            },
        }
    }
}

/// What of this machine's network the node uses.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Network {
    /// Lead this machine and its containers to Services and pods by their addresses, by one nftables table and two routes that go with
    /// the cluster: auto does so as root on Linux
    #[arg(long = "host-network", value_name = "WHEN", value_enum, default_value_t = HostNetwork::Auto)]
    pub(crate) host: HostNetwork,
    /// Where Ingresses are served over HTTP, as soon as there is one: ADDR:PORT, or off; by default port 80 where node ports are
    #[arg(long, value_name = "WHERE", default_value = "", hide_default_value = true)]
    pub(crate) ingress_http: String,
    /// The same over HTTPS, by default port 443
    #[arg(long, value_name = "WHERE", default_value = "", hide_default_value = true)]
    pub(crate) ingress_https: String,
    /// Serve the cluster's DNS at this address, too
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) dns: Option<SocketAddr>,
    /// Ask this resolver for names outside the cluster instead of the machine's own; may be given several times
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) dns_upstream: Vec<SocketAddr>,
}

impl Network {
    /// Where Ingresses are served over HTTP, or HTTPS: as it was said, or at the usual port of an address.
    pub(crate) fn ingress(said: &str, usual: SocketAddr) -> Result<Option<SocketAddr>, String> {
        match said {
            "" => Ok(Some(usual)),
            "off" => Ok(None),
            address => address.parse().map(Some).map_err(|_| format!("{address:?} is neither ADDR:PORT nor off")),
        }
    }
}

/// Whether the machine's network is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostNetwork {
    /// Where it can be.
    Auto,
    /// Never.
    Off,
}

/// Whether, and how much, is written down of requests.
#[derive(Debug, ClapArgs)]
pub(crate) struct Audit {
    /// Write down every request to this file, an Event of audit.k8s.io/v1 a line
    #[arg(id = "audit_log", long = "audit-log", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A Policy of audit.k8s.io/v1 that says how much of which request is written; without one the metadata of all
    #[arg(id = "audit_policy", long = "audit-policy", value_name = "FILE", requires = "audit_log")]
    pub(crate) policy: Option<PathBuf>,
    /// The size in MiB at which the next file is begun
    #[arg(id = "audit_maxsize", long = "audit-log-maxsize", value_name = "N", default_value_t = 100)]
    pub(crate) maxsize: u64,
    /// How many older files are kept
    #[arg(id = "audit_maxbackup", long = "audit-log-maxbackup", value_name = "N", default_value_t = 10)]
    pub(crate) maxbackup: usize,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Join {
    /// Where any member of the cluster is reached
    #[arg(value_name = "ADDR:PORT")]
    pub(crate) address: String,
    /// What lets this machine in; `coracle token create` on a member gives one
    #[arg(long, value_name = "TOKEN", required_unless_present = "token_file")]
    pub(crate) token: Option<String>,
    /// A file with the token, which then is in no list of processes; - is the standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// Never vote: run pods and answer requests
    #[arg(long)]
    pub(crate) worker: bool,
    /// The address at which the API is served, and where the others reach this member
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub(crate) listen: SocketAddr,
    /// The name of this member and its node, instead of the machine's
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// As the other members have it
    #[arg(long)]
    pub(crate) lan: bool,
    /// 1 for a node on this machine, 0 for none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) nodes: usize,
    /// Whether pods may be containers: `auto` and `off`, or the socket of a Docker Engine. `auto` is the usual socket on Linux
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub(crate) docker: Docker,
    /// How registries are reached: mirrors, plain HTTP, extra authorities, in the form of k3s' registries.yaml
    #[arg(long, value_name = "FILE")]
    pub(crate) registries: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it alone
    Create {
        /// For how long it lets machines in: 90s, 30m, 24h or 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
        ttl: u64,
        /// How many machines it lets in; by default as many as come in time
        #[arg(long, value_name = "N")]
        uses: Option<u64>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        which: Which,
    },
    /// List the tokens, without their secrets
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Take a token back: who joined by it stays
    #[command(alias = "delete")]
    Revoke {
        /// The token, or its id
        token: String,
        #[command(flatten)]
        which: Which,
    },
}

/// A time in seconds: a number and s, m, h or d.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => ("", 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds.ok_or_else(|| "a time is a number and s, m, h or d, as in 24h".into())
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Settings {
    /// How long a node may be silent before it counts as gone: 2s to 1h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) node_grace: Option<u64>,
    /// How long new pods stay bound to a node that is gone, where they say nothing of it: up to 1d
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) pod_toleration: Option<u64>,
    /// How long a voter may be silent before a member without a vote takes its place: 5s to 30d
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) voter_silence: Option<u64>,
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Kubeconfig {
    /// The member to use: its id, its name, or an address of one; by default the one that was used
    #[arg(long, value_name = "MEMBER")]
    pub(crate) server: Option<String>,
    /// Print a kubeconfig with the cluster alone, and change no file
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Down {
    /// Delete the cluster's data too
    #[arg(long)]
    pub(crate) delete_data: bool,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Give the node an image: a WebAssembly module or component, binary or text
    Import {
        /// The name that pods use
        name: String,
        /// The .wasm or .wat file
        file: PathBuf,
        #[command(flatten)]
        which: Which,
    },
    /// Push a WebAssembly file to a registry, as the artifact that Wasm runtimes pull; no cluster needs to run
    Push {
        /// The name: registry, repository and tag
        name: String,
        /// The .wasm or .wat file
        file: PathBuf,
        /// How registries are reached, in the form of k3s' registries.yaml; logins are those of docker
        #[arg(long, value_name = "FILE")]
        registries: Option<PathBuf>,
    },
    /// What an image is: its interfaces, its sizes
    Inspect {
        /// Its name
        name: String,
        #[command(flatten)]
        which: Which,
    },
    /// List the images
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        which: Which,
    },
    /// Remove an image
    #[command(alias = "remove")]
    Rm {
        /// Its name
        name: String,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Members {
    #[command(subcommand)]
    pub(crate) command: Option<MembersCommand>,
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// Take a member out of the cluster for good; its pods are replaced
    Remove {
        /// Its id
        id: u64,
        #[command(flatten)]
        which: Which,
    },
    /// Give a member a vote. Two voters are worse than one: the loss of either stops both
    Promote {
        /// Its id
        id: u64,
        #[command(flatten)]
        which: Which,
    },
    /// Stop a member
    Stop {
        /// Its id
        id: u64,
        #[command(flatten)]
        which: Which,
    },
    /// Start a member again that was stopped in the process of `coracle up --members`
    Start {
        /// Its id
        id: u64,
        #[command(flatten)]
        which: Which,
    },
    /// Let another member lead
    TransferLeader {
        /// Its id
        id: u64,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct User {
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Write a kubeconfig for a teammate, with a certificate of his own
    Add(UserAdd),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UserAdd {
    /// The user's name, as roles name him
    pub(crate) name: String,
    /// The group that the user is in
    #[arg(short, long)]
    pub(crate) group: Option<String>,
    /// For how many days
    #[arg(long, value_name = "N", default_value_t = 365)]
    pub(crate) days: u32,
    /// The file to write, instead of NAME.kubeconfig
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Keys {
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a new key and seal the data of a stopped cluster with it
    Rotate {
        /// The cluster's data directory
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save a backup of the running cluster
    ///
    /// The file holds every object, Secrets included, and the cluster's own keys. It is sealed: with the key to the cluster's data
    /// (`up` keeps it in the configuration directory, `coracle/keys`), or with a passphrase. Without that key, or the passphrase, nobody
    /// can restore it: keep a copy of the key elsewhere than the backup.
    Save {
        /// The file to write
        file: PathBuf,
        /// A file with a passphrase to seal the backup with, instead of the key to the cluster's data
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
    },
    /// Check a backup and say what is in it
    Inspect {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        key: BackupKey,
    },
    /// Begin a one-member cluster with a backup, on this machine or another
    ///
    /// Clients go on with the same kubeconfig, list again, and see no older state without noticing. The members that were saved must not
    /// be started again: they would be another cluster with the same keys.
    Restore {
        /// The backup
        file: PathBuf,
        /// The data directory to make; it gets a key of its own
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        #[command(flatten)]
        key: BackupKey,
    },
}

/// What opens a backup.
#[derive(Debug, ClapArgs)]
#[group(multiple = false)]
pub(crate) struct BackupKey {
    /// The key to the data of the cluster that was saved, or a copy; by default the file that it was in then
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// A file with the passphrase that the backup was saved with
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// The survivor must be stopped. It becomes a cluster of one member with everything that its log has; what only the lost members had
/// is gone. They must not be started again with what they have.
#[derive(Debug, ClapArgs)]
pub(crate) struct Recover {
    /// Say that the other members are lost for good
    #[arg(long, required = true)]
    pub(crate) force_new_cluster: bool,
    /// The survivor's data directory
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Which member goes on, where several share the directory: by default the one with the newest log
    #[arg(long, value_name = "ID")]
    pub(crate) member: Option<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Logs {
    /// The pod
    pub(crate) pod: String,
    /// The container, where the pod has several
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// The namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Which instance: `first` is the first that failed, 1 the newest that has ended, up to 5
    #[arg(long, value_name = "first|1..5")]
    pub(crate) instance: Option<String>,
    /// Keep printing what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// A time in front of each line
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// At most so many lines from the end
    #[arg(long)]
    pub(crate) tail: Option<u64>,
    #[command(flatten)]
    pub(crate) which: Which,
}
