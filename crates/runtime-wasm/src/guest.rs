//! What belongs to one instance of a guest, and how it is made.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_node::runtime::{ContainerId, LogStream, RuntimeHost};
use wasmtime::{Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::account::{Account, InstanceMemory};
use crate::engine::Flavor;
use crate::flow::{GuestIn, GuestOut};
use crate::outgoing::Outgoing;
use crate::placement::Inline;
use crate::platform::Platform;
use crate::shared::Shared;
use crate::sockets::{GuestNetwork, Sockets};
use crate::stdio::{Log, Outputs};

/// The state of an instance.
pub(crate) struct Guest {
    /// WASI 0.1's context, which carries that of 0.2.
    pub(crate) wasi: WasiP1Ctx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    /// What it shares with the container's other instances.
    pub(crate) platform: Arc<Platform>,
    network: GuestNetwork,
    memory: InstanceMemory,
    account: Arc<Account>,
    /// What was in the tank after the last look at it.
    fuel: u64,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("account", &self.account).finish_non_exhaustive()
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let WasiCtxView { table, .. } = self.wasi.ctx();
        WasiHttpCtxView { hooks: &mut self.outgoing, table, ctx: &mut self.http }
    }
}

impl Guest {
    /// Its sockets, on the network of its pod.
    pub(crate) fn sockets(&mut self) -> Sockets<'_> {
        let WasiCtxView { table, .. } = self.wasi.ctx();
        Sockets { net: &self.network, table }
    }
}

/// A folder that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preopen {
    /// Where it is.
    pub(crate) host: PathBuf,
    /// Where the guest sees it.
    pub(crate) guest: String,
    /// Whether writes fail.
    pub(crate) read_only: bool,
}

/// What every instance of a container starts with.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) id: ContainerId,
    pub(crate) args: Vec<String>,
    pub(crate) env: Arc<Vec<(String, String)>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) preopens: Vec<Preopen>,
    pub(crate) stdio: Stdio,
    /// Who is attached to the container.
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) platform: Arc<Platform>,
}

/// Where an instance's standard streams go.
#[derive(Clone, Debug, Default)]
pub(crate) enum Stdio {
    /// Outputs to the container's log; the input is at its end, as `stdin: false` has it.
    #[default]
    Log,
    /// The same, with an input that whoever is attached writes.
    Open(GuestIn),
    /// To and from a client.
    Streams { stdin: GuestIn, stdout: GuestOut, stderr: GuestOut },
}

impl Environment {
    fn context(&self, host: &Arc<dyn RuntimeHost>, inline: Option<&Inline>) -> wasmtime::Result<WasiP1Ctx> {
        let mut builder: WasiCtxBuilder = WasiCtx::builder();
        match &self.stdio {
            Stdio::Log | Stdio::Open(_) => {
                let log = |stream| Log::new(Arc::clone(host), self.id.clone(), stream, Arc::clone(&self.outputs));
                builder.stdout(log(LogStream::Stdout)).stderr(log(LogStream::Stderr));
                if let Stdio::Open(stdin) = &self.stdio {
                    builder.stdin(stdin.clone());
                }
            }
            Stdio::Streams { stdin, stdout, stderr } => {
                builder.stdin(stdin.clone()).stdout(stdout.clone()).stderr(stderr.clone());
            }
        }
        // The operating system's network is out of reach.
        builder
            .args(&self.args)
            .envs(self.env.as_slice())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if let Some(inline) = inline {
            inline.furnish(&mut builder);
        }
        if let Some(dir) = &self.working_dir {
            builder.initial_cwd(dir);
        }
        for preopen in &self.preopens {
            let perms = if preopen.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
            builder.preopened_dir(&preopen.host, &preopen.guest, perms)?;
        }
        Ok(builder.build_p1())
    }

    /// A store for a new instance, bound to the container's account.
    pub(crate) fn store(
        &self,
        flavor: &Flavor,
        account: &Arc<Account>,
        shared: &Shared,
    ) -> wasmtime::Result<Store<Guest>> {
        let host = &shared.host;
        let uid = self.id.pod.clone();
        let pod = shared.network.pod(&uid).ok_or_else(|| wasmtime::Error::msg("the pod has no sandbox"))?;
        let network = GuestNetwork {
            network: Arc::clone(&shared.network),
            host: Arc::clone(host),
            io: shared.io.clone(),
            uid,
            pod,
            memory: Arc::clone(&account.memory),
        };
        let guest = Guest {
            wasi: self.context(host, shared.inline.as_ref())?,
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(Arc::clone(host), self.id.pod.clone()),
            platform: Arc::clone(&self.platform),
            network,
            memory: InstanceMemory::new(Arc::clone(&account.memory)),
            account: Arc::clone(account),
            fuel: 0,
        };
        let mut store = Store::new(&flavor.engine, guest);
        store.limiter(|guest| &mut guest.memory);
        if account.has_tank() {
            let tank = account.charge_fuel(0).map_err(wasmtime::Error::new)?;
            store.fuel_async_yield_interval(Some(account.fuel_interval))?;
            store.set_fuel(tank)?;
            store.data_mut().fuel = tank;
        }
        let slice = account.slice_ticks;
        store.set_epoch_deadline(slice);
        store.epoch_deadline_callback(move |context| {
            settle_fuel(context)?;
            Ok(UpdateDeadline::Yield(slice))
        });
        Ok(store)
    }
}

/// Charges the instructions since the last look. Running code keeps its count in a register; what is seen here is as
/// exact as the account's interval.
fn settle_fuel(mut context: StoreContextMut<'_, Guest>) -> wasmtime::Result<()> {
    if !context.data().account.has_tank() {
        return Ok(());
    }
    let left = context.get_fuel()?;
    let guest = context.data_mut();
    let used = guest.fuel.saturating_sub(left);
    guest.fuel = left;
    guest.account.charge_fuel(used).map_err(wasmtime::Error::new)?;
    Ok(())
}

/// Charges the instructions of an instance's end.
pub(crate) fn settle_last_fuel(store: &Store<Guest>) {
    let guest = store.data();
    if guest.account.has_tank() {
        let left = store.get_fuel().unwrap_or_default();
        // That the container may now have none left is for the next instance to find.
        let _ = guest.account.charge_fuel(guest.fuel.saturating_sub(left));
    }
}
