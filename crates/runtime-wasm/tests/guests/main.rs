//! Guests, run by the runtime as an agent runs them.

mod commands;
mod limits;
mod platform;
mod registry;
mod services;
mod simulated;
mod sockets;
mod support;
mod wasi3;
