//! The size of pages follows the API's answers, whatever they are.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn at(days: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(days)
}

fn auto() -> PageSize {
    PageSize::new(PageSizeChoice::Auto, None, at(0))
}

/// The same in a later run.
fn later(size: &PageSize, days: i64) -> PageSize {
    let kept = serde_json::to_string(&size.learned()).unwrap();
    PageSize::new(PageSizeChoice::Auto, serde_json::from_str(&kept).unwrap(), at(days))
}

fn cursor(text: &str) -> Cursor {
    let raw = RawValue::from_string(format!("\"{text}\"")).unwrap();
    Cursor::from_json(&raw).unwrap().unwrap()
}

fn come(size: &mut PageSize, pages: u32, rows: usize) {
    for _ in 0..pages {
        size.came(rows, Some(&cursor("opaque")), at(0));
    }
}

#[test]
fn failures_halve_it_and_pages_let_it_grow_again() {
    let mut size = auto();
    let halves: Vec<_> = std::iter::from_fn(|| size.failed().then(|| size.asked().unwrap())).collect();
    assert_eq!(halves, [500, 250, 125, 62, 31, 25]);
    assert_eq!(size.asked(), None, "perhaps the parameter itself fails");
    assert!(!size.failed() && size.asked() == Some(25), "it does not: then both take turns");
    come(&mut size, 7, 25);
    assert_eq!(size.asked(), Some(25));
    come(&mut size, 1, 25);
    assert_eq!(size.asked(), Some(50));
    come(&mut size, 5 * 8, 50);
    assert_eq!(size.asked(), Some(1_000));
}

#[test]
fn a_size_that_fails_whenever_it_is_reached_is_tried_more_and_more_rarely() {
    let mut size = auto();
    let waits: Vec<u32> = (0..8)
        .map(|_| {
            assert!(size.failed() && size.asked() == Some(500));
            let mut pages = 0;
            while size.asked() == Some(500) {
                size = later(&size, 0);
                come(&mut size, 1, 500);
                pages += 1;
            }
            pages
        })
        .collect();
    assert_eq!(waits, [8, 16, 32, 64, 128, 256, 256, 256], "also by later runs");
    come(&mut size, 256, 1_000);
    assert!(size.failed());
    come(&mut size, 8, 500);
    assert_eq!(size.asked(), Some(1_000), "forgiven after as many pages");
}

#[test]
fn a_refusal_counts_once_a_page_came_without_it() {
    let mut size = auto();
    assert!(size.refused() && size.asked().is_none());
    assert!(!size.refused(), "so something else was refused");
    size.gave_up();
    assert_eq!((size.asked(), size.learned()), (Some(1_000), None), "nothing was learned");

    assert!(size.refused());
    assert!(!size.failed() && size.asked().is_none(), "a failure that passes says nothing of the refusal");
    come(&mut size, 3, 100);
    assert_eq!(size.asked(), None);
    assert_eq!(later(&size, 6).asked(), None);
    let mut again = later(&size, 7);
    assert_eq!(again.asked(), Some(1_000), "the API may have learned it");
    again.came(100, None, at(7));
    assert_eq!(later(&again, 8).asked(), Some(1_000));
}

#[test]
fn a_parameter_that_always_fails_is_left_out_but_not_after_one_outage() {
    let mut size = auto();
    let fail = |size: &mut PageSize| {
        while size.asked().is_some() {
            size.failed();
        }
    };
    fail(&mut size);
    come(&mut size, 1, 100);
    assert_eq!(size.asked(), Some(25));
    come(&mut size, 1, 25);
    fail(&mut size);
    come(&mut size, 1, 100);
    assert_eq!(size.asked(), Some(25), "a page came in between");
    fail(&mut size);
    come(&mut size, 1, 100);
    assert_eq!((size.asked(), later(&size, 1).asked()), (None, None));
}

#[test]
fn pages_that_are_capped_are_halved_as_they_come() {
    let mut size = auto();
    come(&mut size, 3, 100);
    assert_eq!(size.asked(), Some(1_000), "a cap and a server that ignores it look alike: asking costs nothing");
    assert!(size.was_too_large());
    assert_eq!(size.asked(), Some(50));
    let mut few = auto();
    come(&mut few, 3, 2);
    assert!(few.failed() && few.asked() == Some(50), "pages of a filtered export say little");
    let mut last = auto();
    last.came(100, None, at(0));
    assert!(last.failed() && last.asked() == Some(500), "nor does the last one");
}

#[test]
fn a_number_and_none_stay() {
    for (choice, asked) in [(PageSizeChoice::Unset, None), (PageSizeChoice::Fixed(7), Some(7))] {
        let known = Some(LearnedPageSize { size: 50, ..LearnedPageSize::NOTHING });
        let mut size = PageSize::new(choice, known, at(0));
        assert!(!size.failed() && !size.refused() && !size.was_too_large() && !size.enlarge());
        come(&mut size, 100, 7);
        assert_eq!((size.asked(), size.learned()), (asked, known), "{choice:?}");
    }
}

#[test]
fn a_cursor_that_may_count_pages_gets_no_larger_page() {
    let mut size = auto();
    assert!(size.failed());
    for number in 2..50 {
        size.came(500, Some(&cursor(&number.to_string())), at(0));
    }
    assert_eq!(size.asked(), Some(500), "page 50 of larger ones begins behind what has not come yet");
    assert!(size.failed() && size.asked() == Some(250), "of smaller ones, it begins before");
    while size.failed() {}
    assert!(!size.failed() && size.asked() == Some(25), "without page_size, pages may be larger");
    assert!(!size.refused() && size.asked() == Some(25));

    let mut resumed = auto();
    for (text, brought_by, asked) in [
        ("3", None, None),
        ("3", Some(40), Some(40)),
        ("opaque", None, Some(1_000)),
        ("1709251200", Some(40), Some(1_000)),
    ] {
        resumed.begin_walk(Some(&cursor(text)), brought_by);
        assert_eq!(resumed.asked(), asked, "{text}, {brought_by:?}");
    }
    resumed.begin_walk(Some(&cursor("3")), Some(40));
    resumed.begin_walk(None, None);
    assert_eq!(resumed.asked(), Some(1_000));
}

#[test]
fn what_is_kept_may_be_of_another_release() {
    let learned = |json: &str| serde_json::from_str::<LearnedPageSize>(json).unwrap();
    for (json, asked) in [(r#"{"size": 0}"#, 25), (r#"{"size": 4000000000, "patience": 0, "pages": 9}"#, 1_000)] {
        assert_eq!(PageSize::new(PageSizeChoice::Auto, Some(learned(json)), at(0)).asked(), Some(asked), "{json}");
    }
}

/// What a server does with a request.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Page {
        rows: usize,
        counts: bool,
    },
    Refuses,
    Fails,
    TooLarge,
    Repeats,
    /// The run ends, and another begins so many days later.
    Dies(i64),
}

fn answer() -> impl Strategy<Value = Reply> {
    prop_oneof![
        4 => (0_usize..3_000, any::<bool>()).prop_map(|(rows, counts)| Reply::Page { rows, counts }),
        1 => Just(Reply::Refuses),
        2 => Just(Reply::Fails),
        1 => Just(Reply::TooLarge),
        1 => Just(Reply::Repeats),
        1 => (0_i64..20).prop_map(Reply::Dies),
    ]
}

proptest! {
    #[test]
    fn whatever_the_api_answers_it_stays_within_bounds(answers in prop::collection::vec(answer(), 0..200)) {
        let (mut size, mut day) = (auto(), 0);
        for answer in answers {
            let before = size.asked();
            let smaller = |size: &PageSize| size.asked().is_some_and(|now| before.is_some_and(|before| now < before));
            match answer {
                Reply::Page { rows, counts } => {
                    let next = cursor(if counts { "12" } else { "opaque" });
                    size.came(rows, Some(&next), at(day));
                    prop_assert!(!counts || before.is_none() || size.asked() <= before, "no larger page of a number");
                }
                Reply::Refuses => {
                    let refused = size.refused();
                    prop_assert!(!refused || before.is_some() && size.asked().is_none());
                    prop_assert!(refused || size.asked() == before);
                }
                Reply::Fails => prop_assert_eq!(size.failed(), smaller(&size)),
                Reply::TooLarge => prop_assert_eq!(size.was_too_large(), smaller(&size)),
                Reply::Repeats => prop_assert_eq!(size.enlarge(), size.asked() > before),
                Reply::Dies(days) => {
                    day += days;
                    size.gave_up();
                    size = later(&size, day);
                }
            }
            prop_assert!(size.asked().is_none_or(|asked| (SMALLEST..=LARGEST).contains(&asked)));
        }
        // Once the API honors all sizes, they are used again: a week after a refusal, and by and by after failures.
        size.gave_up();
        let mut size = later(&size, day + 7);
        come(&mut size, 7 * LONGEST_PATIENCE, 1_000);
        prop_assert_eq!(size.asked(), Some(LARGEST));
    }

    /// However the API fails, a request is sent with each smaller size once, and then both ways in turn.
    #[test]
    fn a_request_that_keeps_failing_is_tried_in_every_way(pages in 0_u32..600, rows in 0_usize..2_000) {
        let mut size = auto();
        size.failed();
        come(&mut size, pages, rows);
        let asked: Vec<_> = (0..10).map(|_| { size.failed(); size.asked() }).collect();
        prop_assert!(asked.iter().flatten().is_sorted_by(|one, next| one >= next));
        prop_assert!(asked.contains(&Some(SMALLEST)) && asked.contains(&None));
    }
}
