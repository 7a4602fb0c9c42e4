//! Writes a page as one HTML file, with its styles and the script that draws the charts from the tables.
//!
//! Guarantees: the page loads nothing, because its content security policy forbids it. Whatever a customer typed stays
//! text, because every value is escaped. Without JavaScript the tables are shown.
//! Must not depend on: what is counted.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::figure::{Cell, Chart, ChartStep, ColumnRole, Figure, FigureColumn, ReportPage, Scheme, Section, Unit};
use crate::status::Level;

/// The styles.
const CSS: &str = include_str!("page/report.css");
/// The script, bundled from `web/report`.
const SCRIPT: &str = include_str!("page/report.js");

/// Writes a page.
pub fn page(of: &ReportPage) -> String {
    let days = format!("{} to {}", of.first_day, of.last_day);
    let made = of.made_at.format("%Y-%m-%d %H:%M UTC");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(content_security_policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(concat!("decagon-lake ", env!("CARGO_PKG_VERSION")));
                title { "Decagon conversations, " (days) }
                style { (PreEscaped(CSS)) }
            }
            body {
                a.skip href="#support" { "Skip to the figures" }
                header {
                    h1 { "Decagon conversations" }
                    p.sub { (days) " · " (of.lake) " · made " (made) }
                    p class={ "health " (level(of.level)) } { (of.health) }
                    nav { @for section in &of.sections { a href={ "#" (section.id) } { (section.title) } " " } }
                }
                main { @for it in &of.sections { (section(it)) } }
                footer { "Made by decagon-lake " (env!("CARGO_PKG_VERSION")) ". All times are in UTC." }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    markup.into_string()
}

/// Nothing is loaded, and only the page's own script runs.
fn content_security_policy() -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(SCRIPT));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
    )
}

fn level(of: Level) -> &'static str {
    match of {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Bad => "bad",
    }
}

fn section(of: &Section) -> Markup {
    html! {
        section id=(of.id) {
            h2 { (of.title) }
            dl.tiles {
                @for tile in &of.tiles {
                    div.tile { dt { (tile.name) } dd { (tile.value) } dd.note { (tile.note) } }
                }
            }
            @if !of.facts.is_empty() {
                ul.facts { @for fact in &of.facts { li class=(level(fact.level)) { (fact.text) } } }
            }
            div.grid { @for it in &of.figures { (figure(it)) } }
        }
    }
}

fn figure(of: &Figure) -> Markup {
    let class = match (of.chart.is_some(), of.is_wide) {
        (true, false) => "chart",
        (true, true) => "chart wide",
        (false, false) => "table",
        (false, true) => "table wide",
    };
    let ChartAttributes { kind, step, scheme, scale } = of.chart.map(ChartAttributes::of).unwrap_or_default();
    html! {
        figure class=(class) id=(of.id) data-chart=[kind] data-step=[step] data-scheme=[scheme] data-scale=[scale]
            data-unit=[of.things] {
            figcaption { h3 { (of.title) } p { (of.note) } }
            @if of.rows.is_empty() {
                p.empty { (of.empty) }
            } @else if kind.is_some() {
                div.plot {}
                details { summary { "Show the numbers" } (table(of)) }
            } @else {
                (table(of))
            }
        }
    }
}

/// What the script reads about a chart.
#[derive(Default)]
struct ChartAttributes {
    kind: Option<&'static str>,
    step: Option<&'static str>,
    scheme: Option<&'static str>,
    scale: Option<&'static str>,
}

impl ChartAttributes {
    fn of(chart: Chart) -> Self {
        let of = |kind, step, scheme| ChartAttributes { kind: Some(kind), step: step_name(step), scheme, scale: None };
        match chart {
            Chart::StackedBars(step, scheme) => of("stacked-bars", step, scheme_name(scheme)),
            Chart::Lines(step) => of("lines", step, None),
            Chart::LogLines(step) => ChartAttributes { scale: Some("log"), ..of("lines", step, None) },
            Chart::Ranked => of("ranked", ChartStep::None, None),
            Chart::RankedShares => of("ranked-shares", ChartStep::None, Some("rating")),
            Chart::Heatmap => of("heatmap", ChartStep::None, None),
            Chart::Calendar(step) => of("calendar", step, None),
        }
    }
}

fn step_name(of: ChartStep) -> Option<&'static str> {
    match of {
        ChartStep::None => None,
        ChartStep::Day => Some("day"),
        ChartStep::Week => Some("week"),
        ChartStep::Month => Some("month"),
    }
}

fn scheme_name(of: Scheme) -> Option<&'static str> {
    match of {
        Scheme::Plain => None,
        Scheme::Deflection => Some("deflection"),
        Scheme::Rating => Some("rating"),
    }
}

fn table(of: &Figure) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label={ (of.title) ", table" } {
            table {
                thead { tr { @for column in &of.columns { (heading(column)) } } }
                tbody { @for row in &of.rows { tr { @for (place, value) in row.iter().enumerate() { (cell(place, value)) } } } }
            }
        }
    }
}

fn heading(of: &FigureColumn) -> Markup {
    let role = match of.role {
        ColumnRole::X => "x",
        ColumnRole::Series => "series",
        ColumnRole::Note => "note",
        ColumnRole::State => "state",
    };
    let unit = match of.unit {
        Unit::Text => "text",
        Unit::Date => "date",
        Unit::Time => "time",
        Unit::Count => "count",
        Unit::Percent => "percent",
        Unit::Rating => "rating",
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
    };
    html! { th scope="col" data-role=(role) data-type=(unit) { (of.name) } }
}

fn cell(place: usize, of: &Cell) -> Markup {
    html! {
        @if place == 0 {
            th scope="row" data-value=(of.value()) { (of) }
        } @else {
            td data-value=(of.value()) { (of) }
        }
    }
}
