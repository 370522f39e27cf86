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
use crate::runtime::{ImageError, ImageInfo, PullPolicy};

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

    /// Asks for the image.
    pub(super) fn begin_pull(&mut self, pod: &PodView, context: &mut Context<'_>) {
        self.step = Step::Pulling;
        let policy = self.pull_policy();
        if policy == PullPolicy::Always {
            self.say_pulling(pod, context);
        }
        context.pull(self.spec.image.as_deref().unwrap_or_default(), policy);
    }

    /// Whether it waits for this answer.
    pub(crate) fn awaits_image(&self, image: &str, policy: PullPolicy) -> bool {
        self.step == Step::Pulling && self.image() == image && self.pull_policy() == policy
    }

    /// The image is there, or cannot be had.
    pub(crate) fn image_answered(
        &mut self,
        pod: &PodView,
        address: IpAddr,
        result: &Result<ImageInfo, ImageError>,
        context: &mut Context<'_>,
    ) {
        match result {
            Ok(info) => {
                self.pull_backoff.reset();
                self.image_id.clone_from(&info.id);
                self.say_pulled(pod, info, context);
                self.create(pod, address, context);
            }
            Err(error) => self.pull_failed(pod, error, context),
        }
    }

    fn say_pulling(&self, pod: &PodView, context: &mut Context<'_>) {
        let message = format!("Pulling image {:?}", self.image());
        self.event(pod, context, EventType::Normal, reasons::PULLING, message);
    }

    fn say_pulled(&self, pod: &PodView, info: &ImageInfo, context: &mut Context<'_>) {
        let (image, policy) = (self.image(), self.pull_policy());
        let message = if info.present && policy != PullPolicy::Always {
            format!("Container image {image:?} already present on machine")
        } else {
            if policy != PullPolicy::Always {
                self.say_pulling(pod, context);
            }
            let took = go_duration(Duration::from_millis(info.pull_millis));
            format!(
                "Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {} bytes.",
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
            ImageError::Pull(why) => {
                if self.pull_policy() != PullPolicy::Always {
                    self.say_pulling(pod, context);
                }
                let event = format!("Failed to pull image {image:?}: {why}");
                (reasons::ERR_IMAGE_PULL, Some((reasons::FAILED, event, why.clone())))
            }
        };
        let Some((event_reason, event, message)) = message else { return };
        let now = context.now.mono;
        // What does not change by trying is said once; a failed pull each time.
        let is_pull = matches!(error, ImageError::Pull(_));
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
