use super::*;
use crate::resources::PODS;

struct Recording {
    recorder: EventRecorder,
    rng: Rng,
    now: Now,
}

impl Recording {
    fn new() -> Self {
        let now = Now { wall: Timestamp::from_secs(1_800_000_000), ..Now::default() };
        Self { recorder: EventRecorder::default(), rng: Rng::seeded(1), now }
    }

    fn record(&mut self, pod: &str, message: &str) -> Option<EventWrite> {
        let key = ObjectKey::new(PODS, "default", pod);
        let record = EventRecord::new(&key, None, EventType::Warning, "BackOff", message);
        self.recorder.record("kubelet", Some("n1"), &record, self.now, &mut self.rng)
    }
}

fn text(write: Option<EventWrite>) -> String {
    match write {
        None => "dropped".into(),
        Some(EventWrite::Create { object, .. }) => format!("create {}", object["message"].as_str().unwrap()),
        Some(EventWrite::Count { patch, .. }) => {
            format!("count {} {}", patch["count"], patch["message"].as_str().unwrap())
        }
    }
}

#[test]
fn an_event_names_its_object_its_source_and_its_time() {
    let Some(EventWrite::Create { namespace, object }) = Recording::new().record("web", "again") else { panic!() };
    assert_eq!(namespace, "default");
    assert_eq!(
        object["involvedObject"],
        json!({"kind": "Pod", "apiVersion": "v1", "name": "web", "namespace": "default"})
    );
    assert_eq!(object["source"], json!({"component": "kubelet", "host": "n1"}));
    assert_eq!(object["firstTimestamp"], "2027-01-15T08:00:00Z");
    assert_eq!(object["type"], "Warning");
}

#[test]
fn events_of_one_moment_are_named_in_the_order_in_which_they_were_recorded() {
    let mut r = Recording::new();
    let names: Vec<String> = (0..10)
        .map(|n| match r.record("web", &n.to_string()) {
            Some(EventWrite::Create { object, .. }) => object["metadata"]["name"].as_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn equal_events_are_counted_up_until_they_may_have_expired() {
    let mut r = Recording::new();
    assert_eq!(text(r.record("web", "again")), "create again");
    assert_eq!(text(r.record("web", "again")), "count 2 again");
    assert_eq!(text(r.record("other", "again")), "create again");
    r.now = r.now.after(Duration::from_hours(1));
    assert_eq!(text(r.record("web", "again")), "create again");
}

#[test]
fn an_event_that_is_gone_is_created_anew() {
    let mut r = Recording::new();
    let Some(EventWrite::Create { object, .. }) = r.record("web", "again") else { panic!() };
    r.recorder.forget(object["metadata"]["name"].as_str().unwrap());
    assert_eq!(text(r.record("web", "again")), "create again");
}

#[test]
fn many_similar_events_are_combined() {
    let mut r = Recording::new();
    for n in 0..10 {
        assert_eq!(text(r.record("web", &n.to_string())), format!("create {n}"));
    }
    assert_eq!(text(r.record("web", "10")), format!("create {COMBINED}10"));
    assert_eq!(text(r.record("web", "11")), format!("count 2 {COMBINED}11"));
    assert_eq!(text(r.record("web", "3")), "count 2 3");
}

#[test]
fn a_flood_about_one_object_is_dropped_and_let_through_again_slowly() {
    let mut r = Recording::new();
    for _ in 0..25 {
        assert!(r.record("web", "again").is_some());
    }
    assert_eq!(r.record("web", "again"), None);
    assert!(r.record("other", "again").is_some());
    r.now = r.now.after(Duration::from_secs(301));
    assert_eq!(text(r.record("web", "again")), "count 26 again");
    assert_eq!(r.record("web", "again"), None);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut recent = Recent::default();
    for n in 0..REMEMBERED_MAX + 10 {
        recent.insert(n, ());
        recent.get(&0);
    }
    assert_eq!((recent.entries.len(), recent.by_use.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    assert!(recent.get(&0).is_some());
    assert!(recent.get(&1).is_none());
}
