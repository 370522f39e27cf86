//! Programs that use Coracle as a library, one file each beside this package's manifest:
//!
//! - `embed.rs`: a cluster in memory that runs a Deployment of WebAssembly pods, through a `kube::Client` in the process.
//! - `controller_test.rs`: a kube-rs controller tested against a cluster under virtual time.
//!
//! `web/` holds the manifests that `coracle up -f examples/web` applies, `guests/` what runs in their pods.
