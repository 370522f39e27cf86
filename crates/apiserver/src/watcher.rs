//! A watch as a machine: it pulls changes out of views at its own pace and turns them into frames.
//!
//! Nothing in the brain knows of it: a driver polls it when [`View::last_change`] of its resource has moved or its time has come.

mod frame;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::{GroupResource, Object, Resource, Revision};
use coracle_base::{Instant, Now};
use coracle_store::{Change, View};

use crate::answer::{self, Presenter};
use crate::context::Context;
use crate::error;
use crate::request::negotiate::Encoding;
use crate::request::options::ListOptions;
use crate::strategy::Strategy;
use crate::verb::list;

/// At most this many events in one poll: a slow client's backlog is told in slices, so that no poll takes long.
const EVENTS_MAX: usize = 256;
/// At most about this many bytes in one poll.
const BYTES_MAX: usize = 1 << 20;
/// Bookmarks come this often.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);
/// The last bookmark comes this long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With the objects that are there.
    WithCurrent,
    /// With what changes after a revision.
    After(Revision),
}

/// What a poll gives.
#[derive(Debug)]
pub struct WatchPoll {
    /// Frames to send, in order; each is one line of JSON.
    pub frames: Vec<Bytes>,
    /// The watch is over: end the stream after these frames.
    pub closed: bool,
    /// Poll again at this time at the latest, even if nothing changes; it may be now, when there is more than one poll tells.
    pub wake_at: Option<Instant>,
}

/// A running watch.
#[derive(Debug)]
pub struct Watcher {
    resource: Resource,
    strategy: &'static dyn Strategy,
    encoding: Encoding,
    namespace: Option<String>,
    options: ListOptions,
    /// Everything up to here has been told, once `initial` is.
    position: Revision,
    /// The objects that were there at the start and are not told yet; `None` once all are.
    initial: Option<VecDeque<Arc<Object>>>,
    deadline: Instant,
    next_bookmark: Instant,
    columns_told: bool,
    warnings: Vec<String>,
}

impl Watcher {
    pub(crate) fn new(
        context: &Context<'_>,
        options: ListOptions,
        namespace: Option<String>,
        begin: Begin,
        timeout: Duration,
    ) -> Self {
        let deadline = context.now.mono + timeout;
        let mut watcher = Self {
            resource: context.resource.clone(),
            strategy: context.strategy,
            encoding: context.encoding,
            namespace,
            options,
            position: context.view.revision(),
            initial: None,
            deadline,
            next_bookmark: context.now.mono,
            columns_told: false,
            warnings: context.warnings.clone(),
        };
        watcher.next_bookmark = watcher.bookmark_after(context.now.mono);
        match begin {
            Begin::After(revision) => watcher.position = revision,
            Begin::WithCurrent => {
                let all = context.view.list(&watcher.resource.group_resource, watcher.namespace.as_deref());
                watcher.initial = Some(all.filter(|object| watcher.takes(object)).cloned().collect());
            }
        }
        watcher
    }

    /// The resource that is watched: poll when [`View::last_change`] of it has moved.
    pub fn resource(&self) -> &GroupResource {
        &self.resource.group_resource
    }

    /// The headers of the answer that the frames follow, names in lower case.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![("content-type", self.content_type().to_owned()), ("cache-control", "no-cache, private".to_owned())];
        headers.extend(self.warnings.iter().map(|warning| ("warning", answer::warning(warning))));
        headers
    }

    /// The content type of that answer.
    pub fn content_type(&self) -> &'static str {
        self.encoding.content_type()
    }

    /// Tells what is new in a view.
    pub fn poll(&mut self, view: &View, now: Now) -> WatchPoll {
        let mut told = Told::default();
        self.tell_initial(now, &mut told);
        if told.is_full() {
            // There may be changes behind what was there at the start.
            told.full = true;
        } else {
            self.tell_changes(view, now, &mut told);
        }
        if now.mono >= self.deadline {
            return WatchPoll { frames: told.frames, closed: true, wake_at: None };
        }
        if !told.full && !told.closed && self.options.bookmarks && now.mono >= self.next_bookmark {
            let frame = self.bookmark(now, frame::InitialEventsEnd::No);
            told.push(frame);
            self.next_bookmark = self.bookmark_after(now.mono);
        }
        let next = if self.options.bookmarks { self.deadline.min(self.next_bookmark) } else { self.deadline };
        let wake_at = if told.full { now.mono } else { next };
        WatchPoll { frames: told.frames, closed: told.closed, wake_at: (!told.closed).then_some(wake_at) }
    }

    /// The next bookmark's time: in a minute, or shortly before the end where that comes first.
    fn bookmark_after(&self, now: Instant) -> Instant {
        let left = self.deadline.saturating_since(now);
        let last = now + left.saturating_sub(LAST_BOOKMARK);
        if last > now { (now + BOOKMARK_EVERY).min(last) } else { self.deadline }
    }

    fn tell_initial(&mut self, now: Now, told: &mut Told) {
        let Some(mut waiting) = self.initial.take() else { return };
        while let Some(object) = waiting.pop_front() {
            let frame = self.event("ADDED", &object, now);
            told.push(frame);
            if told.is_full() && !waiting.is_empty() {
                told.full = true;
                self.initial = Some(waiting);
                return;
            }
        }
        if self.options.bookmarks {
            let frame = self.bookmark(now, frame::InitialEventsEnd::Yes);
            told.push(frame);
        }
    }

    fn tell_changes(&mut self, view: &View, now: Now, told: &mut Told) {
        if view.revision() <= self.position {
            return;
        }
        let changes = match view.changes_after(&self.resource.group_resource, self.position) {
            Ok(changes) => changes,
            Err(expired) => {
                told.push(frame::error(&error::expired(&expired)));
                told.closed = true;
                return;
            }
        };
        for change in changes {
            // A transaction's changes are told together: a position is a revision.
            if told.is_full() && change.revision > self.position {
                told.full = true;
                return;
            }
            self.tell(&change, now, told);
            self.position = change.revision;
        }
        self.position = view.revision();
    }

    fn tell(&mut self, change: &Change, now: Now, told: &mut Told) {
        let before = change.old.as_ref().filter(|object| self.takes(object));
        let after = change.new.as_ref().filter(|object| self.takes(object));
        let frame = match (before, after) {
            (None, None) => return,
            (None, Some(object)) => self.event("ADDED", object, now),
            (Some(_), Some(object)) => self.event("MODIFIED", object, now),
            (Some(object), None) => {
                let last = Object::clone(object).at(change.revision);
                self.event("DELETED", &last, now)
            }
        };
        told.push(frame);
    }

    fn takes(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| &*object.key().namespace == namespace)
            && list::matches(&self.options, object)
    }

    fn presenter(&self, now: Now) -> Presenter<'_> {
        Presenter { resource: &self.resource, strategy: self.strategy, encoding: self.encoding, now }
    }
}

/// What one poll has told so far.
#[derive(Debug, Default)]
struct Told {
    frames: Vec<Bytes>,
    bytes: usize,
    /// There is more to tell than this poll may.
    full: bool,
    closed: bool,
}

impl Told {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }

    fn is_full(&self) -> bool {
        self.full || self.frames.len() >= EVENTS_MAX || self.bytes >= BYTES_MAX
    }
}
