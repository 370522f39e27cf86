use super::*;
use coracle_apiserver::LogOptions;
use coracle_base::Now;

fn id(instance: u32) -> ContainerId {
    ContainerId { pod: Uid::from("uid"), container: "web".into(), instance }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

async fn read(logs: &SharedLogs, options: LogOptions) -> Option<String> {
    let query = LogQuery::new(&Uid::from("uid"), "web", options).unwrap();
    let mut reader = LogStore::read(logs, query, Now { wall: at(100), ..Now::default() })?;
    let mut text = String::new();
    while let Some(piece) = reader.next().await {
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    Some(text)
}

#[tokio::test]
async fn lines_come_out_as_they_were_written_with_times_and_tails() {
    let logs = SharedLogs::default();
    logs.append(&id(0), LogStream::Stdout, b"one\ntwo", at(1));
    logs.append(&id(0), LogStream::Stderr, b"oops\n", at(2));
    logs.append(&id(0), LogStream::Stdout, b" and a half\nthree\n", at(90));
    let all = read(&logs, LogOptions::default()).await.unwrap();
    assert_eq!(all, "one\noops\ntwo and a half\nthree\n");
    let options = LogOptions { tail_lines: Some(1), timestamps: true, ..LogOptions::default() };
    assert_eq!(read(&logs, options).await.unwrap(), "1970-01-01T00:01:30.000000000Z three\n");
    let options = LogOptions { since_seconds: Some(20), ..LogOptions::default() };
    assert_eq!(read(&logs, options).await.unwrap(), "three\n");
    let options = LogOptions { stream: Some("Stderr".into()), ..LogOptions::default() };
    assert_eq!(read(&logs, options).await.unwrap(), "oops\n");
    let options = LogOptions { limit_bytes: Some(5), ..LogOptions::default() };
    assert_eq!(read(&logs, options).await.unwrap(), "one\no");
}

#[tokio::test]
async fn the_first_failure_and_the_last_five_instances_are_kept() {
    let logs = SharedLogs::default();
    for instance in 0..10 {
        logs.append(&id(instance), LogStream::Stdout, format!("run {instance}\n").as_bytes(), at(1));
        if instance < 9 {
            logs.ended(&id(instance), instance >= 2);
        }
    }
    assert_eq!(read(&logs, LogOptions::default()).await.unwrap(), "run 9\n");
    let of = |instance: &str| LogOptions { instance: Some(instance.into()), ..LogOptions::default() };
    assert_eq!(read(&logs, of("first")).await.unwrap(), "run 2\n");
    assert_eq!(read(&logs, of("1")).await.unwrap(), "run 8\n");
    assert_eq!(read(&logs, of("5")).await.unwrap(), "run 4\n");
    assert_eq!(read(&logs, LogOptions { previous: true, ..LogOptions::default() }).await.unwrap(), "run 8\n");
    assert!(LogQuery::new(&Uid::from("uid"), "web", of("6")).is_err());
}

#[tokio::test]
async fn who_follows_a_container_that_has_written_nothing_yet_waits_for_it() {
    let logs = SharedLogs::default();
    logs.started(&id(0));
    let query = LogQuery::new(&Uid::from("uid"), "web", LogOptions { follow: true, ..LogOptions::default() }).unwrap();
    let mut reader = LogStore::read(&logs, query, Now::default()).unwrap();
    let writer = SharedLogs::clone(&logs);
    tokio::spawn(async move { writer.append(&id(0), LogStream::Stdout, b"a\n", at(1)) });
    assert_eq!(reader.next().await.unwrap(), "a\n");
}

#[tokio::test]
async fn who_follows_hears_everything_until_the_container_ends() {
    let logs = SharedLogs::default();
    logs.append(&id(0), LogStream::Stdout, b"a\n", at(1));
    let query = LogQuery::new(&Uid::from("uid"), "web", LogOptions { follow: true, ..LogOptions::default() }).unwrap();
    let mut reader = LogStore::read(&logs, query, Now::default()).unwrap();
    assert_eq!(reader.next().await.unwrap(), "a\n");
    let writer = SharedLogs::clone(&logs);
    tokio::spawn(async move {
        writer.append(&id(0), LogStream::Stdout, b"b\nc", at(2));
        writer.ended(&id(0), false);
    });
    let mut rest = String::new();
    while let Some(piece) = reader.next().await {
        rest.push_str(&String::from_utf8_lossy(&piece));
    }
    assert_eq!(rest, "b\nc");
}

#[tokio::test]
async fn logs_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let logs = SharedLogs::default();
    logs.keep_in(directory.path()).unwrap();
    logs.append(&id(0), LogStream::Stdout, b"before\n", at(1));
    logs.ended(&id(0), true);
    let again = SharedLogs::default();
    again.keep_in(directory.path()).unwrap();
    let first = LogOptions { instance: Some("first".into()), ..LogOptions::default() };
    assert_eq!(read(&again, first).await.unwrap(), "before\n");
    again.pod_deleted(&Uid::from("uid"));
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}

#[test]
fn the_tail_is_of_whole_lines_within_both_bounds() {
    let logs = LogStore::default();
    assert_eq!(logs.tail(&id(0), 80, 2048), None);
    logs.append(&id(0), LogStream::Stdout, b"first\nsecond\n", at(1));
    logs.append(&id(0), LogStream::Stderr, b"third", at(2));
    logs.ended(&id(0), true);
    assert_eq!(logs.tail(&id(0), 80, 2048).unwrap(), "first\nsecond\nthird");
    assert_eq!(logs.tail(&id(0), 2, 2048).unwrap(), "second\nthird");
    assert_eq!(logs.tail(&id(0), 80, 14).unwrap(), "second\nthird");
    assert_eq!(logs.tail(&id(0), 80, 3).unwrap(), "ird");
}

#[test]
fn the_log_of_a_pod_that_has_ended_stays_until_the_pod_is_deleted() {
    let logs = SharedLogs::default();
    let pod = Uid::from("uid");
    let kept = || logs.lock().len();
    logs.pod_exists(&pod);
    logs.append(&id(0), LogStream::Stdout, b"done\n", at(1));
    logs.ended(&id(0), false);
    logs.sandbox_removed(&pod);
    assert_eq!(kept(), 1);
    logs.pod_deleted(&pod);
    assert_eq!(kept(), 0);
    logs.append(&id(0), LogStream::Stdout, b"still stopping\n", at(2));
    logs.sandbox_removed(&pod);
    assert_eq!(kept(), 0);
    logs.append(&id(0), LogStream::Stdout, b"of before the process was started again\n", at(2));
    logs.synced();
    assert_eq!(kept(), 0);
}
