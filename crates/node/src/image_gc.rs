//! Which images to remove when the disk fills: the kubelet's thresholds, never one that a container has.
//!
//! It only decides; the runtime says what there is and removes. Images that were imported by hand are not among what it says: nobody could
//! fetch them again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_base::{Instant, Now};

use crate::runtime::{DiskUse, RuntimeCommand, StoredImage};

/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_mins(5);
/// From this use of the disk on images are removed (`imageGCHighThresholdPercent`).
const HIGH_THRESHOLD_PERCENT: u64 = 85;
/// Until it is no more than this (`imageGCLowThresholdPercent`).
const LOW_THRESHOLD_PERCENT: u64 = 80;
/// How old an image has to be (`imageMinimumGCAge`): it may have been fetched for a container that is about to be created.
const AGE_MIN: Duration = Duration::from_mins(2);

/// When each image was first seen and last in use.
#[derive(Debug)]
pub(crate) struct ImageCollector {
    next: Instant,
    known: BTreeMap<String, Record>,
    /// Removals without an answer.
    removing: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    first_seen: Instant,
    last_used: Instant,
}

impl ImageCollector {
    pub(crate) fn new() -> Self {
        Self { next: Instant::ZERO + INTERVAL, known: BTreeMap::new(), removing: BTreeSet::new() }
    }

    /// The node begins: the first look is an interval away.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.next = now + INTERVAL;
    }

    pub(crate) fn next_wakeup(&self) -> Instant {
        self.next
    }

    /// Asks what there is, when it is time to.
    pub(crate) fn advance(&mut self, now: Instant) -> Option<RuntimeCommand> {
        if self.next > now {
            return None;
        }
        self.next = now + INTERVAL;
        Some(RuntimeCommand::ListImages)
    }

    /// What there is; what to remove of it, and what to say when that is not enough.
    pub(crate) fn listed(
        &mut self,
        now: Now,
        disk: DiskUse,
        images: &[StoredImage],
        in_use: &BTreeSet<String>,
    ) -> (Vec<RuntimeCommand>, Option<String>) {
        self.remember(now.mono, images, in_use);
        let used = disk.capacity.saturating_sub(disk.available);
        if disk.capacity == 0 || used.saturating_mul(100) < disk.capacity.saturating_mul(HIGH_THRESHOLD_PERCENT) {
            return (Vec::new(), None);
        }
        let wanted = used.saturating_sub(disk.capacity / 100 * LOW_THRESHOLD_PERCENT);
        let mut unused: Vec<&StoredImage> = images
            .iter()
            .filter(|image| !in_use.contains(&image.id) && !self.removing.contains(&image.id))
            .filter(|image| self.known.get(&image.id).is_some_and(|known| known.first_seen + AGE_MIN <= now.mono))
            .collect();
        // Who was not used for the longest time goes first, and of these the oldest.
        unused.sort_by_key(|image| {
            self.known.get(&image.id).map(|known| (known.last_used, known.first_seen, image.id.clone()))
        });
        let mut freed = 0_u64;
        let mut commands = Vec::new();
        for image in unused {
            if freed >= wanted {
                break;
            }
            freed = freed.saturating_add(image.size);
            self.removing.insert(image.id.clone());
            commands.push(RuntimeCommand::RemoveImage(image.id.clone()));
        }
        let shortfall = (freed < wanted).then(|| {
            format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
                 {freed} bytes eligible to free."
            )
        });
        (commands, shortfall)
    }

    /// A removal was answered.
    pub(crate) fn removed(&mut self, id: &str) {
        self.removing.remove(id);
    }

    fn remember(&mut self, now: Instant, images: &[StoredImage], in_use: &BTreeSet<String>) {
        self.known.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            // What was there when the agent began was last used before that, nobody knows when.
            let record =
                self.known.entry(image.id.clone()).or_insert(Record { first_seen: now, last_used: Instant::ZERO });
            if in_use.contains(&image.id) {
                record.last_used = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_base::Timestamp;

    use super::*;

    fn at(minutes: u64) -> Now {
        Now { mono: Instant::ZERO + Duration::from_mins(minutes), wall: Timestamp::EPOCH }
    }

    fn disk(used: u64) -> DiskUse {
        DiskUse { capacity: 1000, available: 1000 - used }
    }

    fn images(names: &[&str]) -> Vec<StoredImage> {
        names.iter().map(|name| StoredImage { id: (*name).to_owned(), size: 60 }).collect()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn removals(commands: &[RuntimeCommand]) -> Vec<&str> {
        commands
            .iter()
            .filter_map(|command| match command {
                RuntimeCommand::RemoveImage(id) => Some(id.as_str()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_full_disk_loses_the_images_that_were_not_used_for_the_longest_time() {
        let mut collector = ImageCollector::new();
        let there = images(&["a", "b", "c", "d"]);
        collector.listed(at(5), disk(100), &there, &names(&["a", "b", "c"]));
        collector.listed(at(10), disk(100), &there, &names(&["a", "b"]));
        let (commands, shortfall) = collector.listed(at(15), disk(850), &there, &names(&["a"]));
        assert_eq!(removals(&commands), ["d"], "it was never used, and is enough to come down to 80 percent");
        assert_eq!(shortfall, None);
        let (commands, _) = collector.listed(at(20), disk(900), &images(&["a", "b", "c"]), &names(&["a"]));
        assert_eq!(removals(&commands), ["c", "b"]);
    }

    #[test]
    fn an_image_in_use_or_just_fetched_stays_and_the_lack_is_told() {
        let mut collector = ImageCollector::new();
        collector.listed(at(5), disk(100), &images(&["used"]), &names(&["used"]));
        let (commands, shortfall) = collector.listed(at(6), disk(950), &images(&["used", "new"]), &names(&["used"]));
        assert_eq!(removals(&commands), [""; 0]);
        assert!(shortfall.is_some_and(|message| message.contains("Attempted to free 150 bytes")));
    }

    #[test]
    fn below_the_threshold_nothing_goes() {
        let mut collector = ImageCollector::new();
        collector.listed(at(0), disk(0), &images(&["a"]), &names(&[]));
        let (commands, shortfall) = collector.listed(at(60), disk(849), &images(&["a"]), &names(&[]));
        assert_eq!((removals(&commands), shortfall), (vec![], None));
    }

    #[test]
    fn what_is_being_removed_is_not_removed_twice() {
        let mut collector = ImageCollector::new();
        collector.listed(at(0), disk(0), &images(&["a"]), &names(&[]));
        let (commands, _) = collector.listed(at(10), disk(860), &images(&["a"]), &names(&[]));
        assert_eq!(removals(&commands), ["a"]);
        let (commands, _) = collector.listed(at(15), disk(860), &images(&["a"]), &names(&[]));
        assert_eq!(removals(&commands), [""; 0]);
        collector.removed("a");
        let (commands, _) = collector.listed(at(20), disk(860), &images(&["a"]), &names(&[]));
        assert_eq!(removals(&commands), ["a"]);
    }
}
