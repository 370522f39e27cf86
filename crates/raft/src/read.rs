//! Linearizable reads by read index: one round of heartbeats serves all reads that wait, and is asked again when it gets lost,
//! because the `raft` crate drops it silently without a leader or before the leader's term has committed anything.

use std::time::Duration;

use coracle_base::Instant;
use coracle_base::wire::Writer;

/// Which read became possible; chosen by who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// How many reads wait at most: far more than requests that a member serves at once.
const READS_MAX: usize = 10_000;
/// How long a read waits: a member that hears of no leader for so long says so.
const READ_WAIT: Duration = Duration::from_secs(10);

/// A read, and when it was asked for.
type Asked = (Instant, ReadId);

/// The reads that wait.
#[derive(Debug)]
pub(crate) struct Reads {
    /// What tells this start of this member from any other: an answer to an earlier start's round must not serve this one's.
    start: (u64, u64),
    rounds: u64,
    /// Not yet in a round: a round serves only what came before it.
    waiting: Vec<Asked>,
    round: Option<Round>,
    /// Possible once the index is applied.
    answered: Vec<(u64, Asked)>,
}

#[derive(Debug)]
struct Round {
    context: Vec<u8>,
    asked: Instant,
    reads: Vec<Asked>,
}

impl Reads {
    pub(crate) fn new(start: (u64, u64)) -> Self {
        Self { start, rounds: 0, waiting: Vec::new(), round: None, answered: Vec::new() }
    }

    /// Takes a read in; false when too many wait.
    pub(crate) fn push(&mut self, read: ReadId, now: Instant) -> bool {
        let on_their_way = self.round.as_ref().map_or(0, |round| round.reads.len());
        let room = self.waiting.len() + on_their_way + self.answered.len() < READS_MAX;
        if room {
            self.waiting.push((now, read));
        }
        room
    }

    /// The context of a round that is due: the first, or again when the last one has had no answer for `patience`.
    pub(crate) fn due(&mut self, now: Instant, patience: Duration) -> Option<Vec<u8>> {
        match &self.round {
            Some(round) if now.saturating_since(round.asked) < patience => return None,
            None if self.waiting.is_empty() => return None,
            _ => {}
        }
        let mut reads = self.round.take().map_or_else(Vec::new, |round| round.reads);
        reads.append(&mut self.waiting);
        self.rounds += 1;
        let mut context = Writer::default();
        for number in [self.start.0, self.start.1, self.rounds] {
            context.number(number);
        }
        let context = context.finish();
        self.round = Some(Round { context: context.clone(), asked: now, reads });
        Some(context)
    }

    /// When [`Self::due`] or [`Self::expired`] has something to say without anything else happening.
    pub(crate) fn next_wakeup(&self, patience: Duration) -> Option<Instant> {
        match &self.round {
            Some(round) => Some(round.asked + patience),
            None => self.waiting.first().map(|_| Instant::ZERO),
        }
    }

    /// Gives up the round on its way, so that it is asked again at once.
    pub(crate) fn retry(&mut self) {
        if let Some(round) = self.round.take() {
            self.waiting.splice(0..0, round.reads);
        }
    }

    /// A round was answered: its reads are possible once `index` is applied.
    pub(crate) fn answer(&mut self, context: &[u8], index: u64) {
        if self.round.as_ref().is_some_and(|round| round.context == context)
            && let Some(round) = self.round.take()
        {
            self.answered.extend(round.reads.into_iter().map(|read| (index, read)));
        }
    }

    /// The reads that are possible now.
    pub(crate) fn possible(&mut self, applied: u64) -> impl Iterator<Item = ReadId> {
        self.answered.extract_if(.., move |(index, _)| *index <= applied).map(|(_, (_, read))| read)
    }

    /// The reads that have waited too long. Those that only wait for entries to be applied are not among them.
    pub(crate) fn expired(&mut self, now: Instant) -> impl Iterator<Item = ReadId> {
        let late = move |(asked, _): &mut Asked| now.saturating_since(*asked) > READ_WAIT;
        let mut expired: Vec<Asked> = self.waiting.extract_if(.., late).collect();
        if let Some(round) = &mut self.round {
            expired.extend(round.reads.extract_if(.., late));
        }
        if self.round.as_ref().is_some_and(|round| round.reads.is_empty()) {
            self.round = None;
        }
        expired.into_iter().map(|(_, read)| read)
    }
}
