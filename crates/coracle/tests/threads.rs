//! What a cluster leaves in the process after its shutdown: no thread. It counts them, so it is alone in its program.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use coracle::Cluster;

/// The threads of the process by name, but for the pool of the test's own runtime, whose idle threads last a while.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let mut names: Vec<String> =
        names.map(|name| name.trim().to_owned()).filter(|name| name != "tokio-rt-worker").collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_shutdown_leaves_no_thread_behind() {
    let before = threads();
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let cluster = Cluster::builder().fake_nodes(1).data_dir(directory.path()).start().await.unwrap();
        assert!(threads().iter().any(|name| name == "coracle-brain"));
        cluster.shutdown().await;
    }
    let given_up = Instant::now() + Duration::from_secs(10);
    while threads() != before {
        assert!(Instant::now() < given_up, "{:?} are left, of {before:?}", threads());
        std::thread::yield_now();
        tokio::task::yield_now().await;
    }
}
