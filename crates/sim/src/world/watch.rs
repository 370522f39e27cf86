//! Clients that follow a resource through any members: a list, then a watch, and where that ends another one from the last revision
//! on, at whoever answers. What they are told is compared with what happened.

use std::time::Duration;

use bytes::Bytes;
use coracle_api::{GroupResource, Method, Request, Resource, Response, UserInfo};
use coracle_apiserver::Watcher;
use coracle_base::{Instant, Rng};
use serde_json::Value;

use super::request::{Flow, Origin};
use super::{Event, World};
use crate::Class;
use crate::invariants::watches::{Place, Topic};

/// How long a watch lasts, in seconds: from the first on, and so many more.
const LASTS_SECONDS: (u64, u64) = (3, 12);
/// How long a client waits before it tries again, at most.
const RETRY: Duration = Duration::from_millis(500);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// One client.
#[derive(Debug)]
pub(crate) struct Follower {
    path: String,
    pub(crate) topic: Topic,
    pub(crate) place: Place,
    listed: bool,
    /// Which attempt this is: what belongs to an earlier one does not happen.
    attempt: u64,
    stream: Option<Stream>,
    rng: Rng,
}

/// A stream from a member.
#[derive(Debug)]
struct Stream {
    member: usize,
    watcher: Box<Watcher>,
    /// When what was sent last arrives: nothing overtakes it.
    arrives: Instant,
    wakes: Option<Instant>,
}

impl Follower {
    fn watches(&self, resource: &GroupResource) -> bool {
        self.topic.resource == *resource
    }
}

impl World {
    /// A new client, of one namespace or of all.
    pub(crate) fn follow(&mut self, resource: &Resource, path: String, namespace: Option<String>) {
        let topic = Topic::new(resource.group_resource.clone(), namespace, self.seen.revision());
        let rng = self.rng.fork();
        let place = Place::default();
        self.followers.push(Follower { path, topic, place, listed: false, attempt: 0, stream: None, rng });
        self.ask_again(self.followers.len() - 1);
    }

    /// A client tries (again) soon, at some member.
    fn ask_again(&mut self, f: usize) {
        let follower = &mut self.followers[f];
        follower.stream = None;
        follower.attempt += 1;
        let (attempt, delay) = (follower.attempt, Duration::from_micros(follower.rng.below(RETRY.as_micros() as u64)));
        self.schedule(delay, Event::Follow { follower: f, attempt });
    }

    pub(super) fn begin_following(&mut self, f: usize, attempt: u64) {
        let members = self.members.len() as u64;
        let follower = &mut self.followers[f];
        if follower.attempt != attempt {
            return;
        }
        let member = follower.rng.below(members) as usize;
        let mut request = Request::new(Method::Get, &follower.path, UserInfo::admin("watcher"));
        if follower.listed {
            let seconds = LASTS_SECONDS.0 + follower.rng.below(LASTS_SECONDS.1);
            request = request
                .query("watch", "true")
                .query("allowWatchBookmarks", "true")
                .query("resourceVersion", follower.place.position.to_string())
                .query("timeoutSeconds", seconds.to_string());
        }
        let flow = Flow::new(Origin::Follower { follower: f, attempt }, None, request).via(member);
        self.schedule(Duration::ZERO, Event::Arrive(Box::new(flow)));
        self.schedule(PATIENCE, Event::Unfollow { follower: f, attempt });
    }

    /// A client gives up waiting for an answer.
    pub(super) fn stop_waiting(&mut self, f: usize, attempt: u64) {
        let follower = &self.followers[f];
        if follower.attempt == attempt && follower.stream.is_none() {
            self.ask_again(f);
        }
    }

    /// A list, or that there is no watch.
    pub(super) fn follower_answered(&mut self, f: usize, attempt: u64, response: &Response) {
        let follower = &mut self.followers[f];
        if follower.attempt != attempt {
            return;
        }
        match response.failure() {
            None => {
                let list: Value = serde_json::from_slice(&response.body.concat()).expect("a list is JSON");
                if let Err(broken) = follower.topic.listed(&mut follower.place, &list, &self.seen) {
                    panic!("{broken}");
                }
                follower.listed = true;
            }
            Some(status) if status.code == 410 => self.expired(f),
            Some(_) => {}
        }
        self.ask_again(f);
    }

    /// A client lists again, because what it missed is gone.
    fn expired(&mut self, f: usize) {
        let times = self.members.iter().filter_map(|member| Some(member.plane()?.view().time()));
        let now = times.max().unwrap_or_default();
        let window = self.settings.store.window;
        let follower = &mut self.followers[f];
        if let Err(broken) = follower.topic.expired(follower.place, window, now) {
            panic!("{broken}");
        }
        follower.listed = false;
    }

    /// A member begins a stream.
    pub(super) fn stream(&mut self, member: usize, f: usize, attempt: u64, watcher: Box<Watcher>) {
        let now = self.now.mono;
        let follower = &mut self.followers[f];
        if follower.attempt == attempt {
            follower.stream = Some(Stream { member, watcher, arrives: now, wakes: None });
            self.totals.add(Class::Rewatches, u64::from(attempt > 2));
            self.poll_watch(f);
        }
    }

    /// A member's view has moved: its streams are told.
    pub(super) fn poll_watches(&mut self, member: usize) {
        for f in 0..self.followers.len() {
            if self.followers[f].stream.as_ref().is_some_and(|stream| stream.member == member) {
                self.poll_watch(f);
            }
        }
    }

    fn poll_watch(&mut self, f: usize) {
        let (now, delay) = (self.now, self.travel());
        let follower = &mut self.followers[f];
        let Some(stream) = &mut follower.stream else { return };
        let Some(view) = self.members[stream.member].serving_view() else { return };
        let poll = stream.watcher.poll(view, now);
        stream.arrives = stream.arrives.max(now.mono + delay);
        let (attempt, arrives) = (follower.attempt, stream.arrives);
        let wakes = poll.wake_at.filter(|at| stream.wakes.replace(*at) != Some(*at));
        if poll.closed || !poll.frames.is_empty() {
            let (frames, closed) = (poll.frames, poll.closed);
            self.schedule_at(arrives, Event::Frames { follower: f, attempt, frames, closed });
        }
        if let Some(at) = wakes {
            self.schedule_at(at, Event::Watch { follower: f, attempt });
        }
    }

    /// The time has come that a stream asked for.
    pub(super) fn wake_watch(&mut self, f: usize, attempt: u64) {
        let (now, follower) = (self.now.mono, &self.followers[f]);
        if follower.attempt == attempt && follower.stream.as_ref().is_some_and(|stream| stream.wakes == Some(now)) {
            self.poll_watch(f);
        }
    }

    pub(super) fn frames(&mut self, f: usize, attempt: u64, frames: &[Bytes], closed: bool) {
        if self.followers[f].attempt != attempt {
            return;
        }
        for frame in frames {
            if self.loses_event() {
                continue;
            }
            let frame: Value = serde_json::from_slice(frame).expect("a frame is JSON");
            if frame["type"] == "ERROR" {
                assert_eq!(frame["object"]["code"], 410, "a watch ends in {frame}");
                self.expired(f);
                continue;
            }
            let follower = &mut self.followers[f];
            if let Err(broken) = follower.topic.heard(&mut follower.place, &frame) {
                panic!("{broken}");
            }
        }
        if closed {
            self.ask_again(f);
        }
    }

    /// A member is gone, and with it what its streams had on their way.
    pub(super) fn streams_lost(&mut self, member: usize) {
        for f in 0..self.followers.len() {
            if self.followers[f].stream.as_ref().is_some_and(|stream| stream.member == member) {
                self.ask_again(f);
            }
        }
    }

    /// What happened, for those who watch it.
    pub(super) fn note_for_followers(&mut self, before: coracle_base::Timestamp, changes: &[coracle_store::Change]) {
        for follower in &mut self.followers {
            let matters = |change: &coracle_store::Change| {
                change.object().is_some_and(|object| follower.watches(&object.key().resource))
            };
            if changes.iter().any(matters) {
                follower.topic.changed(before, changes);
            }
        }
    }
}
