//! `wasi:config/store`: the container's environment, by its names and in its order.
//!
//! Its functions cannot fail here: the environment, ConfigMaps and Secrets by `envFrom` included, was made before the container was.

use wasmtime::component::{ComponentType, Linker, Lower};

use crate::guest::Guest;

/// The interface's error.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[expect(dead_code, reason = "the interface has it")]
    #[component(name = "upstream")]
    Upstream(String),
    #[expect(dead_code, reason = "the interface has it")]
    #[component(name = "io")]
    Io(String),
}

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut store = linker.instance("wasi:config/store@0.2.0-rc.1")?;
    store.func_wrap("get", |guest, (key,): (String,)| {
        let env = &guest.data().platform.env;
        let value = env.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
        Ok((Ok::<_, Error>(value),))
    })?;
    store.func_wrap("get-all", |guest, (): ()| {
        let all: Vec<(String, String)> = guest.data().platform.env.to_vec();
        Ok((Ok::<_, Error>(all),))
    })
}
