//! WASI 0.1 for simulated guests: every function is ours, in memory and in virtual time.
//!
//! There are clocks, randomness, standard streams, arguments, the environment, waiting, and files in memory. What is not here
//! (sockets, links, setting times) is not defined, so that a module that imports it is refused when it is linked.

mod files;
mod paths;
mod process;
mod ram;

use wasmtime::{Caller, Linker};

use super::errno::Errno;
use super::guest::Guest;
use ram::Ram;

/// The name that modules import from.
const MODULE: &str = "wasi_snapshot_preview1";

type Answer = wasmtime::Result<u32>;

/// Defines everything.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    process::link(linker)?;
    files::link(linker)?;
    paths::link(linker)
}

/// Runs a function on the guest's memory and state; its answer is the error number, 0 for none.
fn call(
    caller: &mut Caller<'_, Guest>,
    work: impl FnOnce(&mut Ram<'_>, &mut Guest) -> Result<(), Errno>,
) -> wasmtime::Result<u32> {
    let left = caller.get_fuel()?;
    let memory = caller.get_export("memory").and_then(wasmtime::Extern::into_memory);
    let memory = memory.ok_or_else(|| wasmtime::Error::msg("missing required memory export"))?;
    let (bytes, guest) = memory.data_and_store_mut(caller);
    guest.ledger().left(left);
    Ok(match work(&mut Ram(bytes), guest) {
        Ok(()) => 0,
        Err(errno) => u32::from(errno.0),
    })
}
