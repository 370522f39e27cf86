//! The network between members: what is lost, late, doubled, out of order, or cut.

use std::collections::BTreeSet;
use std::time::Duration;

use coracle_base::Rng;
use coracle_raft::MemberId;

/// How bad the network is; each probability in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// How many messages are lost.
    pub loss: u64,
    /// How many arrive twice.
    pub duplicates: u64,
    /// The longest that a message is on its way: those of one pair overtake each other.
    pub delay: Duration,
}

impl Default for Weather {
    fn default() -> Self {
        Self { loss: 0, duplicates: 0, delay: Duration::from_millis(2) }
    }
}

/// The network between members.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    /// From whom to whom nothing goes.
    cuts: BTreeSet<(MemberId, MemberId)>,
    rng: Rng,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
}

impl Network {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { weather: Weather::default(), cuts: BTreeSet::new(), rng, lost: 0, doubled: 0 }
    }

    /// Nothing goes from one member to another any more.
    pub(crate) fn cut(&mut self, from: MemberId, to: MemberId) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn heal_member(&mut self, member: MemberId) {
        self.cuts.retain(|(from, to)| *from != member && *to != member);
    }

    pub(crate) fn is_cut(&self, from: MemberId, to: MemberId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// After which times a message arrives: mostly once, sometimes never, sometimes twice.
    pub(crate) fn send(&mut self, from: MemberId, to: MemberId) -> Vec<Duration> {
        if self.is_cut(from, to) || self.rng.below(1000) < self.weather.loss {
            self.lost += 1;
            return Vec::new();
        }
        let mut arrivals = vec![self.delay()];
        if self.rng.below(1000) < self.weather.duplicates {
            self.doubled += 1;
            arrivals.push(self.delay());
        }
        arrivals
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(50 + self.rng.below(self.weather.delay.as_micros() as u64))
    }
}
