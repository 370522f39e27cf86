//! A container's image: which policy, what is said, and when to try again.
//!
//! Source of the texts: the kubelet's image manager.

use std::net::IpAddr;
use std::time::Duration;

use super::{Container, Step};
use crate::EventType;
use crate::context::Context;
use crate::pod_spec::PodView;
use crate::reasons;
use crate::restart::go_duration;
use crate::runtime::{ImageError, ImageInfo, PullId, PullPolicy};

/// How long a failure to pull shows as `ErrImagePull` before it shows as `ImagePullBackOff`.
pub(super) const ERR_IMAGE_PULL_SHOWN: Duration = Duration::from_secs(1);

impl Container {
    /// `imagePullPolicy`, with the API server's default where it is absent.
    fn pull_policy(&self) -> PullPolicy {
        let image = self.image();
        let last = image.rsplit('/').next().unwrap_or(image);
        let floats = !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
        match self.spec.image_pull_policy.as_deref() {
            Some("Never") => PullPolicy::Never,
            Some("Always") => PullPolicy::Always,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            _ if floats => PullPolicy::Always,
            _ => PullPolicy::IfNotPresent,
        }
    }

    /// Tries to have the image, when it is time to.
    pub(crate) fn advance_pull(&mut self, pod: &PodView, context: &mut Context<'_>) {
        let now = context.now.mono;
        match self.step {
            Step::Idle => self.begin_pull(pod, context),
            Step::PullBackOff { until, .. } if until <= now => self.begin_pull(pod, context),
            Step::PullBackOff { failed, said: false, until } if failed + ERR_IMAGE_PULL_SHOWN <= now => {
                self.step = Step::PullBackOff { failed, until, said: true };
                self.say_pull_back_off(pod, context);
            }
            _ => {}
        }
    }

    /// Whether its image can still say which runtime it is for, because it is not created yet.
    pub(crate) fn may_decide(&self) -> bool {
        matches!(self.step, Step::Idle | Step::Pulling { .. } | Step::PullBackOff { .. } | Step::Pulled)
    }

    /// Asks for the image.
    pub(super) fn begin_pull(&mut self, pod: &PodView, context: &mut Context<'_>) {
        let policy = self.pull_policy();
        let (logins, missing) = context.logins(pod, self.image());
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            context.event(pod, None, EventType::Warning, reasons::FAILED_TO_RETRIEVE_IMAGE_PULL_SECRET, message);
        }
        let (pull, fetching) = context.pull(self.image(), policy, &logins, self.runtime);
        self.logins = logins;
        self.step = Step::Pulling { pull };
        self.said_pulling = false;
        if policy == PullPolicy::Always || fetching {
            self.say_pulling(pod, context);
        }
    }

    /// Whether it waits for this answer.
    pub(crate) fn awaits_image(&self, pull: PullId) -> bool {
        self.step == Step::Pulling { pull }
    }

    /// The image is there, or cannot be had. Without an address its pod has no sandbox yet.
    pub(crate) fn image_answered(
        &mut self,
        pod: &PodView,
        address: Option<IpAddr>,
        result: &Result<ImageInfo, ImageError>,
        context: &mut Context<'_>,
    ) {
        match result {
            Ok(info) => {
                self.pull_backoff.reset();
                self.image_id.clone_from(&info.id);
                self.image_user.clone_from(&info.user);
                self.say_pulled(pod, info, context);
                match address {
                    Some(address) => self.create(pod, address, context),
                    None => self.step = Step::Pulled,
                }
            }
            Err(error) => self.pull_failed(pod, error, context),
        }
    }

    /// Says that its image is being pulled, once.
    pub(crate) fn say_pulling(&mut self, pod: &PodView, context: &mut Context<'_>) {
        if std::mem::replace(&mut self.said_pulling, true) {
            return;
        }
        let message = format!("Pulling image {:?}", self.image());
        self.event(pod, context, EventType::Normal, reasons::PULLING, message);
    }

    fn say_pulled(&mut self, pod: &PodView, info: &ImageInfo, context: &mut Context<'_>) {
        let policy = self.pull_policy();
        let message = if info.present && policy != PullPolicy::Always {
            format!("Container image {:?} already present on machine", self.image())
        } else {
            self.say_pulling(pod, context);
            let took = go_duration(Duration::from_millis(info.pull_millis));
            let waited = go_duration(Duration::from_millis(info.waited_millis.max(info.pull_millis)));
            format!(
                "Successfully pulled image {:?} in {took} ({waited} including waiting). Image size: {} bytes.",
                self.image(),
                info.size
            )
        };
        self.event(pod, context, EventType::Normal, reasons::PULLED, message);
    }

    fn pull_failed(&mut self, pod: &PodView, error: &ImageError, context: &mut Context<'_>) {
        let image = self.image().to_owned();
        let before = self.waiting.as_ref().map(|(reason, _)| *reason);
        let (reason, message) = match error {
            ImageError::InvalidName(why) => {
                let message = format!("Failed to apply default image tag {image:?}: {why}");
                (reasons::INVALID_IMAGE_NAME, Some((reasons::INSPECT_FAILED, message.clone(), message)))
            }
            ImageError::NeverPull => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                (reasons::ERR_IMAGE_NEVER_PULL, Some((reasons::ERR_IMAGE_NEVER_PULL, message.clone(), message)))
            }
            ImageError::Pull(why) | ImageError::OtherKind(_, why) => {
                self.say_pulling(pod, context);
                let event = format!("Failed to pull image {image:?}: {why}");
                (reasons::ERR_IMAGE_PULL, Some((reasons::FAILED, event, why.clone())))
            }
        };
        let Some((event_reason, event, message)) = message else { return };
        let now = context.now.mono;
        // What does not change by trying is said once; a failed pull each time.
        let is_pull = matches!(error, ImageError::Pull(_) | ImageError::OtherKind(..));
        if is_pull || before != Some(reason) {
            self.event(pod, context, EventType::Warning, event_reason, event);
            self.event(pod, context, EventType::Warning, reasons::FAILED, format!("Error: {reason}"));
        }
        self.waiting = Some((reason, message));
        self.step = Step::PullBackOff { failed: now, until: now + self.pull_backoff.next_wait(), said: !is_pull };
    }

    /// Turns `ErrImagePull` into `ImagePullBackOff`.
    pub(super) fn say_pull_back_off(&mut self, pod: &PodView, context: &mut Context<'_>) {
        let back_off = format!("Back-off pulling image {:?}", self.image());
        let why = self.waiting.take().map(|(reason, message)| format!("{reason}: {message}")).unwrap_or_default();
        self.waiting = Some((reasons::IMAGE_PULL_BACK_OFF, format!("{back_off}: {why}")));
        self.event(pod, context, EventType::Normal, reasons::BACK_OFF, back_off);
        let message = format!("Error: {}", reasons::IMAGE_PULL_BACK_OFF);
        self.event(pod, context, EventType::Warning, reasons::FAILED, message);
    }
}
