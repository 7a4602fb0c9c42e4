//! Serves the simulated API over HTTP: authorization, rate limit, and time, which is also the `Date` of its responses.
//!
//! `POST /conversation/<action>` changes conversations, without a limit: [`Edits`] has the actions. It has five endpoints
//! of its own:
//! - `POST /_simulate/advance?seconds=N` lets time pass.
//! - `GET /_simulate/conversations` returns all conversations of this moment, one per line.
//! - `GET /_simulate/requests` returns the requests to the API: their number, gaps and `page_size`s.
//! - `POST /_simulate/hold?after=N` answers the next N requests to the API and holds later ones.
//! - `POST /_simulate/release` answers the held requests and all later ones.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::edits::{Edits, NoEdit};
use super::export::{PagePosition, Query, Refused, index};
use super::settings::Settings;
use super::world::World;
use crate::clock::{Clock, Instant};
use crate::error::{Error, Result};
use crate::model::{TimestampFilter, from_micros};

/// The part of the interval between requests that must have passed: real limiters count in windows and are not exact.
const TOLERANCE: f64 = 0.95;

/// The API's message about too many requests.
const LIMITED: &str = "Rate limit exceeded: 1 request per second.";

/// A simulated API that listens.
#[derive(Debug)]
pub struct Simulator {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world: World,
    settings: Settings,
    clock: Clock,
    started: Instant,
    state: Mutex<ServerState>,
    /// The number of the last request to answer, while later ones are held.
    last_answered: watch::Sender<Option<u32>>,
}

/// The export's order at a moment.
type Index = Arc<Vec<PagePosition>>;

/// The state of a running simulator.
#[derive(Debug, Default)]
struct ServerState {
    advanced: Duration,
    /// When the last request was admitted.
    last_request: Option<Instant>,
    /// The number of admitted requests.
    admitted: u32,
    /// The time between each request and the one before it.
    gaps: Vec<Duration>,
    /// The `page_size` of each admitted request.
    page_sizes: Vec<Option<String>>,
    /// The export's order at a moment, kept because it is expensive to compute.
    index: Option<(i64, TimestampFilter, Index)>,
    /// What was done to the conversations.
    edits: Arc<Edits>,
}

impl Simulator {
    /// Starts to listen; [`serve`](Simulator::serve) answers requests.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn bind(world: World, settings: Settings, clock: Clock) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", settings.port)).await.map_err(|error| {
            Error::usage(format!("cannot listen on --port {}", settings.port))
                .caused_by(error)
                .with_hint("pass another --port; 0 takes a free one")
        })?;
        let (started, state, last_answered) = (clock.instant(), Mutex::default(), watch::Sender::new(None));
        let shared = Shared { world, settings, clock, started, state, last_answered };
        Ok(Simulator { listener, shared: Arc::new(shared) })
    }

    /// Returns the base URL of the simulated API.
    ///
    /// # Errors
    /// Only on a bug: if the listener has no local address.
    pub fn url(&self) -> Result<String> {
        let address: SocketAddr =
            self.listener.local_addr().map_err(|error| Error::bug("no local address").caused_by(error))?;
        Ok(format!("http://{address}"))
    }

    /// Returns a handle on the simulation's time.
    pub fn time(&self) -> SimulatedTime {
        SimulatedTime(Arc::clone(&self.shared))
    }

    /// Answers requests until `shutdown`.
    ///
    /// # Errors
    /// If the system stops accepting connections.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<()> {
        let held = Arc::clone(&self.shared);
        let routes = Router::new()
            .route("/conversation/export", get(export))
            .route("/conversation/{action}", post(change))
            .route("/_simulate/advance", post(advance))
            .route("/_simulate/conversations", get(truth))
            .route("/_simulate/requests", get(requests))
            .route("/_simulate/hold", post(hold))
            .route("/_simulate/release", post(release))
            .with_state(self.shared);
        let stopped = async move {
            shutdown.cancelled().await;
            held.last_answered.send_replace(None);
        };
        axum::serve(self.listener, routes)
            .with_graceful_shutdown(stopped)
            .await
            .map_err(|error| Error::unreachable("the simulator stopped").caused_by(error))
    }
}

/// A handle on the time of a simulation.
#[derive(Debug, Clone)]
pub struct SimulatedTime(Arc<Shared>);

impl SimulatedTime {
    /// Lets `duration` pass.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.0.state();
        state.advanced = state.advanced.saturating_add(duration);
    }

    /// Sets how much time has passed since the start, in addition to real time.
    pub fn set(&self, passed: Duration) {
        self.0.state().advanced = passed;
    }

    /// Returns the conversations of this moment as the API has them, one line of JSON each.
    pub fn conversations(&self) -> impl Iterator<Item = String> + use<> {
        let (shared, now) = (Arc::clone(&self.0), self.0.now());
        let edits = Arc::clone(&shared.state().edits);
        edits.numbers(&shared.world, now).filter_map(move |number| {
            let json = edits.render(&shared.world, number, now, shared.settings.disputed.updated_at)?;
            Some(json + "\n")
        })
    }

    /// Makes a change as `POST /conversation/<action>` does. Returns whether the API accepts it.
    pub fn change(&self, action: &str, body: &str) -> bool {
        self.0.change(action, body).is_ok()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the simulation's time in microseconds, rounded down to a second.
    fn now(&self) -> i64 {
        let elapsed = (self.clock.instant() - self.started).mul_f64(self.settings.speed.max(0.0));
        let passed = elapsed.saturating_add(self.state().advanced);
        let secs = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
        self.world.now().timestamp_micros().saturating_add(secs.saturating_mul(1_000_000))
    }

    fn index(&self, now: i64, filter: TimestampFilter) -> Index {
        if let Some((at, of, known)) = &self.state().index
            && (*at, *of) == (now, filter)
        {
            return Arc::clone(known);
        }
        let edits = Arc::clone(&self.state().edits);
        let fresh = Arc::new(index(&self.world, &edits, filter, now));
        self.state().index = Some((now, filter, Arc::clone(&fresh)));
        fresh
    }

    fn change(&self, action: &str, body: &str) -> Result<(), NoEdit> {
        let now = self.now();
        let mut edits = Edits::clone(&self.state().edits);
        edits.apply(action, body, &self.world, now)?;
        let mut state = self.state();
        (state.edits, state.index) = (Arc::new(edits), None);
        Ok(())
    }

    /// Records a request to the API and returns its number; fails if it comes too soon after the last one.
    fn admit(&self, page_size: Option<&String>) -> Result<u32, Duration> {
        let now = self.clock.instant();
        let mut state = self.state();
        let gap = state.last_request.map(|last| now - last);
        state.gaps.extend(gap);
        let rate = self.settings.requests_per_second;
        let interval = if rate > 0.0 {
            Duration::try_from_secs_f64(TOLERANCE / rate).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        };
        match gap.and_then(|gap| interval.checked_sub(gap)).filter(|early| !early.is_zero()) {
            Some(early) => Err(early),
            None => {
                state.last_request = Some(now);
                state.page_sizes.push(page_size.cloned());
                state.admitted = state.admitted.wrapping_add(1);
                Ok(state.admitted)
            }
        }
    }

    /// Whether a request has the key.
    fn accepts(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        sent.and_then(|sent| sent.strip_prefix("Bearer ")) == Some(&self.settings.key)
    }

    /// Waits while request `number` is held.
    async fn until_released(&self, number: u32) {
        let mut last_answered = self.last_answered.subscribe();
        // It fails only after the simulator has ended, so nothing is held any more.
        let _ = last_answered.wait_for(|last| last.is_none_or(|last| number <= last)).await;
    }
}

fn detail(status: StatusCode, detail: &Value) -> Response {
    (status, axum::Json(json!({ "detail": detail }))).into_response()
}

/// Returns the known failures of the API in turn.
fn fault(number: u32, cursor: Option<&String>) -> Response {
    let gateway = |status: StatusCode| {
        let page = format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>");
        (status, [(header::CONTENT_TYPE, "text/html")], page).into_response()
    };
    match number % 5 {
        1 => gateway(StatusCode::SERVICE_UNAVAILABLE),
        2 => detail(StatusCode::TOO_MANY_REQUESTS, &json!(LIMITED)),
        3 => ([(header::CONTENT_TYPE, "application/json")], r#"{"conversations": [{"conversation_id": "cut"#)
            .into_response(),
        4 => gateway(StatusCode::INTERNAL_SERVER_ERROR),
        // An empty page whose next page begins at the same position. The cursor gets another text, because the same one
        // would mean the end.
        _ => axum::Json(
            json!({"conversations": [], "next_cursor": format!("{}_again", cursor.map_or("", String::as_str))}),
        )
        .into_response(),
    }
}

async fn export(
    State(shared): State<Arc<Shared>>,
    Parameters(parameters): Parameters<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let number = match shared.admit(parameters.get("page_size")) {
        Ok(number) => number,
        Err(early) => {
            let wait = early.as_secs().saturating_add(1).to_string();
            let limited = detail(StatusCode::TOO_MANY_REQUESTS, &json!(LIMITED));
            return ([(header::RETRY_AFTER, wait)], limited).into_response();
        }
    };
    shared.until_released(number).await;
    if let Some(faults) = number.checked_div(shared.settings.fault_every)
        && number.is_multiple_of(shared.settings.fault_every)
    {
        return fault(faults, parameters.get("cursor"));
    }
    if shared.settings.not_entitled {
        return detail(StatusCode::FORBIDDEN, &json!("This account is not entitled to the export API."));
    }
    if !shared.accepts(&headers) {
        return detail(StatusCode::UNAUTHORIZED, &json!("Invalid Authorization token."));
    }
    let Settings { disputed, page_size, time_per_conversation, .. } = &shared.settings;
    let query = match Query::parse(&parameters, disputed, page_size, number) {
        Ok(query) => query,
        Err(Refused { status, parameter, message }) => {
            let fault = json!([{"loc": ["query", parameter], "msg": message, "type": "value_error"}]);
            return detail(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), &fault);
        }
    };
    let (now, clock, time_per_conversation) = (shared.now(), shared.clock, *time_per_conversation);
    let page = tokio::task::spawn_blocking(move || {
        let index = shared.index(now, query.filter());
        let edits = Arc::clone(&shared.state().edits);
        query.page((&shared.world, &edits), &index, now, &shared.settings.disputed)
    });
    match page.await {
        Ok((body, conversations)) => {
            clock.sleep(time_per_conversation.saturating_mul(conversations)).await;
            ([(header::CONTENT_TYPE, "application/json".to_owned()), (header::DATE, date(now))], body).into_response()
        }
        Err(_) => detail(StatusCode::INTERNAL_SERVER_ERROR, &json!("Internal Server Error")),
    }
}

async fn change(
    State(shared): State<Arc<Shared>>,
    Path(action): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    if !shared.accepts(&headers) {
        return detail(StatusCode::UNAUTHORIZED, &json!("Invalid Authorization token."));
    }
    match shared.change(&action, &body) {
        Ok(()) => axum::Json(json!({"success": true})).into_response(),
        Err(NoEdit::Unknown) => detail(StatusCode::NOT_FOUND, &json!("Not Found")),
        Err(NoEdit::Malformed) => detail(StatusCode::UNPROCESSABLE_ENTITY, &json!("Field required")),
    }
}

/// Formats the simulation's time for the `Date` header.
fn date(now: i64) -> String {
    let now = from_micros(now).unwrap_or_default();
    httpdate::fmt_http_date(now.into())
}

async fn advance(
    State(shared): State<Arc<Shared>>,
    Parameters(parameters): Parameters<HashMap<String, String>>,
) -> Response {
    let Some(secs) = parameters.get("seconds").and_then(|text| text.parse().ok()) else {
        return detail(StatusCode::UNPROCESSABLE_ENTITY, &json!("pass seconds=N"));
    };
    SimulatedTime(shared).advance(Duration::from_secs(secs));
    StatusCode::NO_CONTENT.into_response()
}

async fn hold(
    State(shared): State<Arc<Shared>>,
    Parameters(parameters): Parameters<HashMap<String, String>>,
) -> Response {
    let Some(after) = parameters.get("after").and_then(|text| text.parse().ok()) else {
        return detail(StatusCode::UNPROCESSABLE_ENTITY, &json!("pass after=N"));
    };
    let last = shared.state().admitted.saturating_add(after);
    shared.last_answered.send_replace(Some(last));
    StatusCode::NO_CONTENT.into_response()
}

async fn release(State(shared): State<Arc<Shared>>) -> Response {
    shared.last_answered.send_replace(None);
    StatusCode::NO_CONTENT.into_response()
}

async fn truth(State(shared): State<Arc<Shared>>) -> Response {
    let lines = SimulatedTime(shared).conversations().map(Ok::<_, std::convert::Infallible>);
    Body::from_stream(stream::iter(lines)).into_response()
}

async fn requests(State(shared): State<Arc<Shared>>) -> Response {
    let state = shared.state();
    let gaps: Vec<f64> = state.gaps.iter().map(Duration::as_secs_f64).collect();
    let count = gaps.len() + usize::from(state.last_request.is_some());
    axum::Json(json!({ "requests": count, "gaps_secs": gaps, "page_sizes": state.page_sizes })).into_response()
}
