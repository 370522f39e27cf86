//! A data directory that is damaged, incomplete or mixed up: one clear line, and no cluster that has forgotten what it was told.

use std::fs;
use std::path::Path;

use coracle::{Cluster, ClusterBuilder, Error, ErrorKind};

fn without_nodes() -> ClusterBuilder {
    Cluster::builder().nodes(0)
}

/// A directory that a cluster has used.
async fn used(members: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cluster = without_nodes().members(members).data_dir(folder.path()).start().await.unwrap();
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}").await.unwrap();
    cluster.shutdown().await;
    folder
}

async fn refused(members: u64, directory: &Path) -> Error {
    without_nodes().members(members).data_dir(directory).start().await.unwrap_err()
}

#[tokio::test]
async fn a_missing_file_is_named_and_put_back_all_is_there() {
    let folder = used(1).await;
    let aside = folder.path().join("aside");
    for file in ["raft.log", "ca.key", "peer-ca.key", "sa.key", "ca.crt", "peer-ca.crt", "data.key", "key-file"] {
        fs::rename(folder.path().join(file), &aside).unwrap();
        let error = refused(1, folder.path()).await;
        assert!(error.to_string().contains(file), "{file}: {error}");
        fs::rename(&aside, folder.path().join(file)).unwrap();
    }
    let cluster = without_nodes().data_dir(folder.path()).start().await.unwrap();
    cluster.wait_for("configmap/a", "missing=", std::time::Duration::ZERO).await.unwrap_err();
    let maps = "/api/v1/namespaces/default/configmaps/a";
    let request = coracle::api::Request::new(coracle::api::Method::Get, maps, coracle::api::UserInfo::default());
    assert_eq!(cluster.request(request).await.status, 200);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_flipped_bit_in_a_key_or_certificate_is_noticed() {
    let folder = used(1).await;
    for file in ["ca.key", "peer-ca.key", "sa.key", "ca.crt", "peer-ca.crt", "data.key"] {
        let path = folder.path().join(file);
        let good = fs::read(&path).unwrap();
        // Behind the comment that a key file begins with.
        for position in [good.len() * 3 / 4, good.len() * 4 / 5] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&path, &bad).unwrap();
            let error = refused(1, folder.path()).await;
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{file}: {error}");
            assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{file}: {error}");
        }
        fs::write(&path, &good).unwrap();
    }
    without_nodes().data_dir(folder.path()).start().await.unwrap().shutdown().await;
}

#[tokio::test]
async fn what_belongs_to_another_cluster_or_member_is_refused() {
    let (one, other) = (used(3).await, used(3).await);
    let log = |folder: &Path, member: u64| folder.join(format!("member-{member}/raft.log"));
    let kept = one.path().join("kept");
    fs::rename(log(one.path(), 1), &kept).unwrap();
    fs::copy(log(other.path(), 1), log(one.path(), 1)).unwrap();
    let foreign = refused(3, one.path()).await;
    let cause = std::error::Error::source(&foreign).unwrap().to_string();
    assert!(cause.contains("sealed with a key that is not in the key file"), "{foreign}: {cause}");
    fs::copy(log(one.path(), 2), log(one.path(), 1)).unwrap();
    let mixed = refused(3, one.path()).await;
    assert!(
        mixed.to_string().ends_with("is the log of member 2, not of member 1: directories were mixed up"),
        "{mixed}"
    );
    fs::rename(&kept, log(one.path(), 1)).unwrap();
    without_nodes().members(3).data_dir(one.path()).start().await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_said_to_be_so() {
    let error = refused(1, Path::new("/proc/coracle-test")).await;
    assert_eq!(error.to_string(), "cannot create /proc/coracle-test");
    assert_eq!(error.kind(), ErrorKind::DataDirectory);
}
