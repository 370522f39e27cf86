//! End to end: the real binary, the real kubectl, real WebAssembly guests.
//!
//! Every test starts a cluster of its own, or asks several questions of one, because under nextest each test is a
//! process. Where kubectl is not installed the tests say so and pass, unless `CI` is set: there they fail.

mod access;
mod audit;
mod backup;
mod bad_input;
mod behaviours;
mod bridges;
mod cli;
mod commands;
mod container_abuse;
mod containers;
mod disk;
mod engines;
mod graceful;
mod guide;
mod guide_on_three;
mod harness;
mod host_network;
mod hosts;
mod kill_loop;
mod languages;
mod machines;
mod members;
mod name_service;
mod network;
mod pods;
mod registry;
mod rollout;
mod services;
mod sessions;
mod top;
mod upgrade;
