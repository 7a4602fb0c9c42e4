//! The simulated API, and the demo on it: a first sync, a day that passes, a second sync, and what to ask.

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use indicatif::{DecimalBytes, HumanCount};
use tokio_util::sync::CancellationToken;

use super::args::{DemoArgs, SimulateArgs};
use super::runs::{Context, follow};
use super::{examples, output, screen};
use crate::api::{ApiKey, Client, Options};
use crate::clock::Clock;
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::lake::{Lake, RunReport};
use crate::layout;
use crate::model::{PartitionBy, Table};
use crate::run::{self, SyncSettings};
use crate::simulate::{Disputed, PageSizeRule, Settings, Simulator, World};
use crate::status::{recent_days, situation};
use crate::store::StoreOptions;

const DAY: Duration = Duration::from_secs(86_400);
/// What the simulator of the demo and its client agree on.
const KEY: &str = "demo-key";

/// The fastest a simulation goes: a year in half a minute.
const FASTEST: f64 = 1e6;

/// Runs the demo.
pub(super) async fn demo(args: &DemoArgs, context: &Context) -> Result<()> {
    let started = context.clock.instant();
    let lake = fresh_lake(&args.lake, context.clock).await?;
    // A day passes before the second sync, and ends now.
    let history_ends = context.clock.now() - DAY;
    let world = World::new(args.world.settings(history_ends));
    let simulator = Simulator::bind(world, Settings::without_limits(KEY), context.clock).await?;
    let time = simulator.time();
    let key = ApiKey::new(KEY, "the demo")?;
    let options = Options {
        base_url: simulator.url()?.parse().map_err(no_address)?,
        requests_per_second: 0.0,
        ..Options::new(key)?
    };
    let mut client = Client::new(options, context.clock)?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(simulator.serve(stop.clone()));

    let first = sync(&lake, &mut client, args.partition_by, context).await?;
    time.advance(DAY);
    tracing::info!("a day passes in the simulation");
    let second = sync(&lake, &mut client, args.partition_by, context).await?;
    stop.cancel();
    serving.await.map_err(|error| Error::bug("the simulator failed").caused_by(error))??;

    let situation = situation(&lake).await?;
    let fetched = first.staged_rows.get(Table::Conversations) + second.staged_rows.get(Table::Conversations);
    screen::show(&situation, &recent_days(&lake, context.clock.now().date_naive()).await?);
    output::line("");
    output::line(&format!(
        "{} of conversations fetched, {} resolved, {} of Parquet, {:.1} s",
        counted(HumanCount(fetched), "version"),
        counted(HumanCount(first.duplicates_resolved + second.duplicates_resolved), "duplicate"),
        DecimalBytes(Table::ALL.iter().map(|table| situation.status.tables.get(*table).bytes).sum()),
        (context.clock.instant() - started).as_secs_f64(),
    ));
    output::line(&examples::duckdb(lake.url(), args.partition_by));
    output::line(&examples::spark(lake.url(), args.partition_by));
    Ok(())
}

/// The demo's lake, without what an earlier demo left there. Nothing else is ever removed.
async fn fresh_lake(path: &Path, clock: Clock) -> Result<Lake> {
    let lake = Lake::open(&path.display().to_string(), &StoreOptions::default(), clock)?;
    let occupied = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && lake.store().get(&layout::demo_mark()).await?.is_none() {
        return Err(Error::usage(format!("--lake {} has something in it that no demo made", path.display()))
            .with_hint("give a folder that is not there yet"));
    }
    for folder in layout::folders() {
        let keys = lake.store().list(folder).map_ok(|object| object.location).try_collect().await?;
        lake.store().delete(keys).await?;
    }
    lake.store().put(&layout::demo_mark(), b"{}\n".to_vec()).await?;
    Ok(lake)
}

/// A sync with every other default. The environment is that of the user's real account, and has no say here.
async fn sync(lake: &Lake, client: &mut Client, by: PartitionBy, context: &Context) -> Result<RunReport> {
    let control = context.control();
    let mut settings = SyncSettings::default();
    settings.export.fetch.partition_by = Some(by);
    settings.export.fetch.control = control.clone();
    follow(control, run::sync(lake, client, &settings), false, context).await
}

fn no_address(error: url::ParseError) -> Error {
    Error::bug("the simulator's own address is none").caused_by(error)
}

/// Serves the simulated API until the process is asked to stop.
pub(super) async fn simulate(args: &SimulateArgs, context: &Context) -> Result<()> {
    let now = args.now.unwrap_or_else(|| context.clock.now());
    let settings = Settings {
        port: args.port,
        key: args.accept_key.clone(),
        requests_per_second: args.requests_per_second,
        speed: args.speed.min(FASTEST),
        fault_every: args.fault_every,
        not_entitled: args.not_entitled,
        page_size: PageSizeRule {
            first: args.on_page_size,
            then: args.then_after.zip(args.then_on_page_size),
            largest: args.largest_page,
        },
        time_per_conversation: Duration::from_millis(args.millis_per_conversation),
        disputed: Disputed {
            cursor_name: args.cursor_name,
            default_filter: args.default_filter,
            updated_at: !args.no_updated_at,
            ignores_filter: args.ignore_filter,
        },
    };
    let world = World::new(args.world.settings(now));
    let simulator = Simulator::bind(world, settings, context.clock).await?;
    let url = simulator.url()?;
    output::line(&url);
    tracing::info!(
        "simulating the export API; try DECAGON_API_KEY={} decagon-lake sync --base-url {url} --lake ./lake",
        args.accept_key
    );
    simulator.serve(context.shutdown.clone()).await
}
