//! Which version of Coracle a cluster's members take themselves for. What that means is decided in the engine.

use super::ClusterBuilder;
use crate::FEATURE_LEVEL;

impl ClusterBuilder {
    /// Runs as a version of Coracle that understands this feature level, at least 1, instead of [`FEATURE_LEVEL`]: for tests of upgrades. A
    /// cluster uses the least level of its members; a member that understands less than its cluster uses stops, and says so.
    #[must_use]
    pub fn feature_level(mut self, level: u32) -> Self {
        self.feature_level = Some(level.max(1));
        self
    }

    pub(crate) fn level(&self) -> u32 {
        self.feature_level.unwrap_or(FEATURE_LEVEL)
    }
}
