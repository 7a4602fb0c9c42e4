//! How transitions move the state of a lake.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::lake::{Asked, Compared};
use crate::model::{Request, RowTimes, RunId};

fn at(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(secs, 0).unwrap()
}

fn walk(newest: Option<i64>, started: i64) -> Walk {
    let request = Request { window: Window::EVERYTHING, user_filters: None };
    Walk { newest_change: newest.map(at), ..Walk::new(request, at(started)) }
}

#[test]
fn a_reconciliation_keeps_what_it_has_seen_until_its_walk_begins_again() {
    let flush = |number| FlushId { run: RunId::new(at(0), 1), number };
    let noted =
        |missing| FlushNotes { compared: Compared { missing, ids: 5, ..Compared::default() }, hashes: vec![0; 40] };
    let mut state = State::default();
    state.note(&walk(None, 10), &flush(0), noted(1));
    assert_eq!(state, State::default(), "there is none");
    state.reconciliation = Some(Reconciliation::new(Asked::default(), walk(None, 9), 7));
    for (number, started) in [(0, 10), (1, 10), (2, 10)] {
        state.note(&walk(None, started), &flush(number), noted(1));
        state.advance_walk(Purpose::Reconcile, &walk(None, started));
    }
    let known = state.reconciliation.clone().unwrap();
    assert_eq!((known.seen.len(), known.compared.missing, known.compared.ids, known.is_walked), (3, 3, 15, false));
    assert_eq!(state.named_keys(), (0..3).map(|number| layout::seen(&flush(number))).collect());
    let mut again = state.clone();
    again.note(&walk(None, 20), &flush(3), noted(2));
    again.complete_walk(Purpose::Reconcile, &walk(None, 20));
    let known = again.reconciliation.clone().unwrap();
    assert_eq!((known.seen, known.compared.missing, known.is_walked), (vec![flush(3)], 2, true));
    assert_eq!(again.watermark(), None, "it moves no watermark");
    again.discard_walk(Purpose::Reconcile, &walk(None, 20));
    assert_eq!(again.reconciliation, None);
}

#[test]
fn the_watermark_is_the_newest_change_but_never_after_the_start_and_never_moves_back() {
    let mut state = State::default();
    state.advance_walk(Purpose::Incremental, &walk(Some(50), 100));
    assert_eq!(state.watermark(), None, "an unfinished walk moves nothing");
    state.complete_walk(Purpose::Incremental, &walk(Some(50), 100));
    assert_eq!(state.watermark(), Some(at(50)));
    state.complete_walk(Purpose::Incremental, &walk(Some(9_999), 200));
    assert_eq!(state.watermark(), Some(at(200)), "a date in the future does not move it past the start");
    state.complete_walk(Purpose::Incremental, &walk(None, 300));
    state.complete_walk(Purpose::Incremental, &walk(Some(10), 300));
    assert_eq!(state.watermark(), Some(at(200)));
    assert!(state.incremental.unwrap().walk.is_none());
}

#[test]
fn without_change_times_the_watermark_is_the_start_less_the_overlap() {
    let mut state = State::default();
    let unread = |conversations, started| Walk { conversations, overlap_secs: 600, ..walk(None, started) };
    state.complete_walk(Purpose::Incremental, &unread(0, 10_000));
    assert_eq!(state.watermark(), None, "nothing was seen");
    state.complete_walk(Purpose::Incremental, &unread(7, 10_000));
    assert_eq!(state.watermark(), Some(at(9_400)));
    state.complete_walk(Purpose::Incremental, &unread(0, 20_000));
    assert_eq!(state.watermark(), Some(at(9_400)));
}

#[test]
fn a_backfill_does_not_change_the_incremental_export() {
    let mut state = State::default();
    let mut backfill = walk(Some(50), 100);
    backfill.request.window.to = Some(at(60));
    state.advance_walk(Purpose::Backfill, &backfill);
    assert_eq!(state.backfill(&backfill.request.window), Some(&backfill));
    assert_eq!(state.backfill(&Window::EVERYTHING), None);
    state.complete_walk(Purpose::Backfill, &backfill);
    assert_eq!(state, State::default());
}

/// One transition; numbers select among the partitions and flushes that there are.
#[derive(Debug, Clone)]
enum Transition {
    Stage { days: BTreeSet<u32> },
    Fold { day: u32, first: usize, count: usize },
    Compact { days: BTreeSet<u32>, count: usize },
    Discard { day: u32, flush: usize },
    Walk { newest: Option<i64>, started: i64, conversations: u64, end: WalkEnd },
}

#[derive(Debug, Clone, Copy)]
enum WalkEnd {
    Unfinished,
    Complete,
    Discarded,
}

fn transitions() -> impl Strategy<Value = Vec<Transition>> {
    let day = 1..4_u32;
    let days = || proptest::collection::btree_set(1..4_u32, 0..4);
    let end = prop_oneof![Just(WalkEnd::Unfinished), Just(WalkEnd::Complete), Just(WalkEnd::Discarded)];
    let walk = (proptest::option::of(0..100_i64), 0..100_i64, 0..3_u64, end);
    let transition = prop_oneof![
        4 => days().prop_map(|days| Transition::Stage { days }),
        1 => (day.clone(), 0..4_usize, 0..4_usize)
            .prop_map(|(day, first, count)| Transition::Fold { day, first, count }),
        1 => (days(), 0..4_usize).prop_map(|(days, count)| Transition::Compact { days, count }),
        1 => (day, 0..4_usize).prop_map(|(day, flush)| Transition::Discard { day, flush }),
        2 => walk.prop_map(|(newest, started, conversations, end)| {
            Transition::Walk { newest, started, conversations, end }
        }),
    ];
    proptest::collection::vec(transition, 0..40)
}

fn date(day: u32) -> CreatedDate {
    format!("2024-01-{day:02}").parse().unwrap()
}

fn flush(number: u32) -> FlushId {
    FlushId { run: RunId::new(DateTime::UNIX_EPOCH, 1), number }
}

fn staged(flush: &FlushId, dates: impl IntoIterator<Item = CreatedDate>) -> StagedFlush {
    StagedFlush {
        flush: flush.clone(),
        dates: dates.into_iter().map(|date| (date, Extent::default())).collect(),
        overlap: None,
    }
}

/// The flushes that have staged files in a partition, oldest first.
fn flushes_of(state: &State, date: CreatedDate) -> Vec<FlushId> {
    state.staged_by_date().remove(&date).into_iter().flatten().map(|(flush, _)| flush.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Exactly the files are named that were staged, or folded together, and not compacted, folded or discarded since;
    /// the watermark never moves back, and never past the start of the walk that moves it.
    #[test]
    fn staged_files_are_named_once_until_they_are_used_and_the_watermark_moves_forward(sequence in transitions()) {
        let (mut state, mut expected) = (State::default(), BTreeSet::new());
        for (number, transition) in (0..).zip(sequence) {
            let new = flush(number);
            let before = state.watermark();
            let mut latest_start = before;
            match transition {
                Transition::Stage { days } => {
                    expected.extend(days.iter().map(|day| (date(*day), new.clone())));
                    state.stage(staged(&new, days.into_iter().map(date)));
                }
                Transition::Fold { day, first, count } => {
                    let date = date(day);
                    let flushes: Vec<_> = flushes_of(&state, date).into_iter().skip(first).take(count).collect();
                    if !flushes.is_empty() {
                        let mut order = flushes_of(&state, date);
                        order.splice(first..first + flushes.len(), [new.clone()]);
                        state.fold_staged(date, &flushes, staged(&new, [date]));
                        prop_assert_eq!(flushes_of(&state, date), order, "in the place of what it was made of");
                        expected.retain(|(of, flush)| *of != date || !flushes.contains(flush));
                        expected.insert((date, new));
                    }
                }
                Transition::Compact { days, count } => {
                    let replacement = |day: u32| {
                        let flushes = flushes_of(&state, date(day)).into_iter().take(count).collect();
                        let (written_at, extent) = (DateTime::UNIX_EPOCH, Extent::default());
                        let replaces = crate::model::PerTable::default();
                        let (file, etags, times) = (new.clone(), crate::model::PerTable::default(), RowTimes::default());
                        (date(day), Replacement { file, written_at, extent, etags, form: 1, times, replaces, flushes })
                    };
                    let dates: BTreeMap<_, _> = days.into_iter().map(replacement).collect();
                    let known = state.staged_keys();
                    let removed = state.remove_compacted(&dates);
                    expected.retain(|(date, flush)| dates.get(date).is_none_or(|it| !it.flushes.contains(flush)));
                    let left: HashSet<_> = known.into_iter().filter(|key| !removed.contains(key)).collect();
                    prop_assert_eq!(state.staged_keys(), left, "the keys of what is named no more");
                }
                Transition::Discard { day, flush } => {
                    if let Some(flush) = flushes_of(&state, date(day)).get(flush) {
                        state.discard_staged(flush, date(day));
                        expected.remove(&(date(day), flush.clone()));
                    }
                }
                Transition::Walk { newest, started, conversations, end } => {
                    let walk = Walk { conversations, overlap_secs: 10, ..walk(newest, started) };
                    match end {
                        WalkEnd::Unfinished => state.advance_walk(Purpose::Incremental, &walk),
                        WalkEnd::Complete => state.complete_walk(Purpose::Incremental, &walk),
                        WalkEnd::Discarded => state.discard_walk(Purpose::Incremental, &walk),
                    }
                    if let WalkEnd::Complete = end {
                        latest_start = before.max(Some(at(started)));
                    }
                }
            }
            prop_assert!(before <= state.watermark() && state.watermark() <= latest_start);
            let named: Vec<_> = state.staged.iter().flat_map(StagedFlush::files).map(|file| file.key).collect();
            let keys = |(date, flush)| Table::ALL.map(|table| layout::staged_file(table, date, &flush));
            let expected: HashSet<_> = expected.iter().cloned().flat_map(keys).collect();
            prop_assert_eq!(named.len(), expected.len(), "none is named twice");
            prop_assert_eq!(named.into_iter().collect::<HashSet<_>>(), expected);
            prop_assert!(state.staged.iter().all(|flush| !flush.dates.is_empty()));
        }
    }
}
