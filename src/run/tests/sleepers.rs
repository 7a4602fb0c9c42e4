//! A run sleeps at each call in turn, while others take over and time passes. When it wakes up, it changes nothing.

use super::*;

/// What happens while a run sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interlude {
    /// A sync takes over, time passes, and another sync follows.
    Syncs,
    /// A compaction takes over, and may have nothing to commit.
    Compaction,
    /// A `verify --repair` takes over, and finds nothing to repair.
    Repair,
}

/// Lets a run sleep at each call of a sync in turn, while others take over and time passes. Asserts that it changes
/// nothing when it wakes up.
async fn oversleep(api: &Api, meanwhile: Interlude, fates: &[Fate]) {
    let kept = Kept::ByLease;
    let made = Arc::new(Shelf::new());
    api.time.set(Duration::ZERO);
    sync(api, sound(&made), &kept).await.unwrap();
    let (mut runs, mut fenced, mut calls) = (0, 0, [0, 0]);
    for (phase, name) in [(0, "first"), (1, "second")] {
        for at in 1.. {
            let mut reached = false;
            for fate in fates {
                let case = format!("seed {SEED}, {name} sync, call {at} {fate:?}");
                let store = Arc::new(if phase == 0 { Shelf::new() } else { made.fork() });
                let faulty = Faulty::new(store.clone(), at, *fate);
                api.time.set(if phase == 0 { Duration::ZERO } else { LATER });
                let mut sleeper = std::pin::pin!(sync(api, faulty.clone(), &kept));
                runs += 1;
                tokio::select! {
                    result = &mut sleeper => {
                        result.unwrap();
                        continue;
                    }
                    () = faulty.falls_asleep() => {}
                }
                reached = true;
                calls[phase] = at;
                match meanwhile {
                    Interlude::Syncs => {
                        for passed in [if phase == 0 { Duration::ZERO } else { LATER }, LATER] {
                            api.time.set(passed);
                            let synced = sync(api, Faulty::an_hour_later(store.clone()), &kept).await;
                            synced.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                        }
                    }
                    Interlude::Compaction => {
                        let lake = lake(Faulty::an_hour_later(store.clone()), &kept);
                        match compact_in(lake).await {
                            Ok(_) => {}
                            // There was no lake yet.
                            Err(error) => assert_eq!(error.kind(), Kind::Usage, "{case}: {error:?}"),
                        }
                    }
                    Interlude::Repair => {
                        let lake = lake(Faulty::an_hour_later(store.clone()), &kept);
                        match repair_in(lake).await {
                            Ok(found) => assert_eq!(found.removed_versions, 0, "{case}"),
                            Err(error) => assert_eq!(error.kind(), Kind::Usage, "{case}: {error:?}"),
                        }
                    }
                }
                faulty.wake();
                match sleeper.await {
                    // The run had done everything, or nothing yet.
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Held, "{case}: {}", error.chain().join(": "));
                        fenced += 1;
                    }
                }
                if meanwhile == Interlude::Syncs {
                    assert_tables(&store, &api.truth[1], &case).await;
                }
                api.time.set(LATER);
                sync(api, sound(&store), &kept).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                assert_exact(&store, &api.truth[1], &case).await;
                if api.format == Format::Delta {
                    assert_vacuumed(&store, &case).await;
                }
            }
            if !reached {
                break;
            }
        }
    }
    println!(
        "{meanwhile:?}: {} calls of a first sync and {} of a second, each {fates:?}: {runs} runs, {fenced} fenced",
        calls[0], calls[1]
    );
}

#[tokio::test]
async fn a_run_may_sleep_at_any_call_while_others_take_over() {
    oversleep(&Api::start(), Interlude::Syncs, &[Fate::SleepsBefore, Fate::SleepsAfter]).await;
}

#[tokio::test]
async fn a_run_may_sleep_at_any_call_while_a_compaction_takes_over() {
    oversleep(&Api::start(), Interlude::Compaction, &[Fate::SleepsBefore, Fate::SleepsAfter]).await;
}

#[tokio::test]
async fn a_run_may_sleep_at_any_call_while_a_repair_takes_over() {
    oversleep(&Api::start(), Interlude::Repair, &[Fate::SleepsBefore]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_a_delta_lake_may_sleep_at_any_call_while_others_take_over() {
    oversleep(&Api::for_delta(), Interlude::Syncs, &[Fate::SleepsBefore]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_a_delta_lake_may_sleep_at_any_call_while_a_compaction_takes_over() {
    oversleep(&Api::for_delta(), Interlude::Compaction, &[Fate::SleepsAfter]).await;
}
