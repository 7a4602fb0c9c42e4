//! The conversations of a simulation at any moment, derived from a seed.
//!
//! Conversations begin at an even rate: a history before the start, and new ones as time passes. Each has a timeline of
//! messages, some of them hours or days late, and sometimes a late rating. Guarantees: the same seed gives the same
//! world, because every random number derives from the seed, the conversation's number and the purpose.

use chrono::{DateTime, Utc};
use fastrand::Rng;

/// Microseconds in a second.
const SECOND: i64 = 1_000_000;

/// The settings of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldSettings {
    /// The seed of all random numbers.
    pub seed: u64,
    /// The number of conversations in the history at the start.
    pub conversations: u32,
    /// The number of days that the history spans at the start.
    pub days: u32,
    /// The average number of messages of a finished conversation.
    pub messages: u32,
    /// When the history ends and the simulation starts.
    pub now: DateTime<Utc>,
}

/// A world of conversations.
#[derive(Debug, Clone, Copy)]
pub struct World {
    settings: WorldSettings,
    start: i64,
    /// The time from the beginning of one conversation to the next.
    step: i64,
}

/// The events of one conversation (times in microseconds since 1970).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timeline {
    /// The times of the messages, ascending; the conversation begins with the first.
    pub(super) messages: Vec<i64>,
    /// When the customer rates it.
    pub(super) rated_at: Option<i64>,
}

/// The three times of a conversation that the API's bounds can apply to, at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    pub(super) last_message_at: i64,
}

impl World {
    /// Makes the world of `settings`.
    pub fn new(settings: WorldSettings) -> Self {
        let span = i64::from(settings.days.max(1)) * 86_400 * SECOND;
        let start = settings.now.timestamp_micros().saturating_sub(span);
        let step = (span / i64::from(settings.conversations.max(1))).max(1);
        World { settings, start, step }
    }

    /// When the history ends and the simulation starts.
    pub fn now(&self) -> DateTime<Utc> {
        self.settings.now
    }

    /// Counts the conversations that have begun at `now` (microseconds).
    pub(super) fn begun(&self, now: i64) -> u64 {
        if self.settings.conversations == 0 || now < self.start {
            return 0;
        }
        let mut count = u64::try_from((now - self.start) / self.step).unwrap_or(0) + 1;
        while count > 0 && self.begins(count - 1) > now {
            count -= 1;
        }
        count
    }

    /// Returns when conversation `number` begins.
    fn begins(&self, number: u64) -> i64 {
        let slot = i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(self.step);
        let jitter = self.rng(number, 1).i64(0..self.step);
        self.start.saturating_add(slot).saturating_add(jitter)
    }

    /// Returns the random numbers of one conversation and one purpose.
    pub(super) fn rng(&self, number: u64, purpose: u64) -> Rng {
        let mut mix = Rng::with_seed(self.settings.seed ^ number.rotate_left(20) ^ purpose.rotate_left(56));
        Rng::with_seed(mix.u64(..))
    }

    /// Returns the events of conversation `number`.
    pub(super) fn timeline(&self, number: u64) -> Timeline {
        let mut rng = self.rng(number, 2);
        let most = usize::try_from(self.settings.messages.max(1)).unwrap_or(1) * 2 - 1;
        let count = rng.usize(1..=most);
        // One in four pauses for an hour to three days.
        let pause_before = if rng.u8(0..4) == 0 { rng.usize(1..=most) } else { 0 };
        let mut at = self.begins(number);
        let mut messages = Vec::with_capacity(count);
        for index in 0..count {
            if index > 0 {
                at += rng.i64(2 * SECOND..180 * SECOND);
            }
            if index > 0 && index == pause_before {
                at += rng.i64(3_600 * SECOND..3 * 86_400 * SECOND);
            }
            messages.push(at);
        }
        let rated_at = (rng.u8(0..3) == 0).then(|| at + rng.i64(30 * SECOND..7_200 * SECOND));
        Timeline { messages, rated_at }
    }
}

impl Timeline {
    /// Counts the messages at `now`.
    pub(super) fn visible(&self, now: i64) -> usize {
        self.messages.partition_point(|at| *at <= now)
    }

    /// Returns the three times at `now`; `None` if the conversation has not begun.
    pub(super) fn times(&self, now: i64) -> Option<Times> {
        let created_at = *self.messages.first().filter(|at| **at <= now)?;
        let last_message_at = *self.messages.get(..self.visible(now))?.last()?;
        let rated_at = self.rated_at.filter(|at| *at <= now);
        Some(Times { created_at, last_message_at, updated_at: rated_at.unwrap_or(last_message_at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        let now = DateTime::from_timestamp(1_709_251_200, 0).unwrap();
        World::new(WorldSettings { seed: 7, conversations: 200, days: 10, messages: 5, now })
    }

    #[test]
    fn the_history_has_the_requested_size_and_grows() {
        let world = world();
        let now = world.now().timestamp_micros();
        assert_eq!(world.begun(now), 200);
        let day = 86_400 * SECOND;
        assert!((219..=221).contains(&world.begun(now + day)));
        assert!((99..=101).contains(&world.begun(now - 5 * day)));
        assert_eq!(world.begun(now - 11 * day), 0);
    }

    #[test]
    fn conversations_only_grow() {
        let world = world();
        let now = world.now().timestamp_micros();
        let mut changed = 0;
        for number in 0..200 {
            let timeline = world.timeline(number);
            assert_eq!(timeline, world.timeline(number));
            assert!(timeline.messages.is_sorted());
            let (before, after) = (timeline.times(now).unwrap(), timeline.times(now + 86_400 * SECOND).unwrap());
            assert_eq!(before.created_at, after.created_at);
            assert!(before.updated_at <= after.updated_at);
            assert!(before.updated_at <= now);
            changed += u32::from(before != after);
        }
        assert!(changed > 0, "some conversations get later messages");
    }
}
