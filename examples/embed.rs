//! Exports an account from a program of your own: `embed LAKE BASE_URL`, with the key in DECAGON_API_KEY.
//! When you run it again, it fetches only the changes.

#![allow(clippy::print_stdout, reason = "an example prints")]

use decagon_lake::api::{ApiKey, Client, Options};
use decagon_lake::clock::Clock;
use decagon_lake::error::{Error, Result};
use decagon_lake::lake::Lake;
use decagon_lake::model::Table;
use decagon_lake::run::{SyncSettings, sync};
use decagon_lake::status::status;
use decagon_lake::store::StoreOptions;

#[tokio::main]
async fn main() -> Result<()> {
    let (Some(address), Some(base_url), Ok(key)) =
        (std::env::args().nth(1), std::env::args().nth(2), std::env::var("DECAGON_API_KEY"))
    else {
        return Err(Error::usage("usage: DECAGON_API_KEY=… embed LAKE BASE_URL"));
    };
    let clock = Clock::system();
    let lake = Lake::open(&address, &StoreOptions::default(), clock)?;
    let mut options = Options::new(ApiKey::new(&key, "DECAGON_API_KEY")?)?;
    options.base_url = base_url.parse().map_err(|error| Error::usage("BASE_URL is not a URL").caused_by(error))?;
    let mut client = Client::new(options, clock)?;

    let report = sync(&lake, &mut client, &SyncSettings::default()).await?;
    let rows = status(&lake, clock.now()).await?.tables.get(Table::Conversations).rows;
    println!("{} pages fetched, {rows} conversations in {}", report.pages, lake.url());
    Ok(())
}
