//! How walks move the state of a lake.

use super::*;

fn at(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(secs, 0).unwrap()
}

fn walk(newest: Option<i64>, started: i64) -> Walk {
    let request = Request { window: Window::EVERYTHING, page_size: None, user_filters: None };
    Walk { newest_change: newest.map(at), ..Walk::new(request, at(started)) }
}

#[test]
fn the_watermark_is_the_newest_change_but_not_after_the_start_and_never_goes_back() {
    let mut state = State::default();
    state.record(Purpose::Incremental, &walk(Some(50), 100), false);
    assert_eq!(state.watermark(), None, "an unfinished walk moves nothing");
    state.record(Purpose::Incremental, &walk(Some(50), 100), true);
    assert_eq!(state.watermark(), Some(at(50)));
    state.record(Purpose::Incremental, &walk(Some(9_999), 200), true);
    assert_eq!(state.watermark(), Some(at(200)), "a far-off date does not push it ahead");
    state.record(Purpose::Incremental, &walk(None, 300), true);
    state.record(Purpose::Incremental, &walk(Some(10), 300), true);
    assert_eq!(state.watermark(), Some(at(200)));
    assert!(state.incremental.unwrap().walk.is_none());
}

#[test]
fn where_nothing_says_when_it_changed_the_start_less_the_overlap_is_the_watermark() {
    let mut state = State::default();
    let unread = |conversations, started| Walk { conversations, overlap_secs: 600, ..walk(None, started) };
    state.record(Purpose::Incremental, &unread(0, 10_000), true);
    assert_eq!(state.watermark(), None, "nothing was seen");
    state.record(Purpose::Incremental, &unread(7, 10_000), true);
    assert_eq!(state.watermark(), Some(at(9_400)));
    state.record(Purpose::Incremental, &unread(0, 20_000), true);
    assert_eq!(state.watermark(), Some(at(9_400)));
}

#[test]
fn a_backfill_leaves_the_incremental_state_alone() {
    let mut state = State::default();
    let mut backfill = walk(Some(50), 100);
    backfill.request.window.to = Some(at(60));
    state.record(Purpose::Backfill, &backfill, false);
    assert_eq!(state.backfill(&backfill.request.window), Some(&backfill));
    assert_eq!(state.backfill(&Window::EVERYTHING), None);
    state.record(Purpose::Backfill, &backfill, true);
    assert_eq!(state, State::default());
}
