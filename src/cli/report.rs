//! `report`: reads a lake, and writes its page.

use std::io::{IsTerminal, Write};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use object_store::path::Path;

use super::args::ReportArgs;
use super::output;
use super::progress::clear;
use super::runs::Context;
use crate::clock::{Clock, Instant};
use crate::counted::counted;
use crate::error::{Error, Result};
use crate::report::{PartitionsRead, page, report};
use crate::store::Store;
use crate::verify::{Verification, verify};

/// The time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the command.
pub(super) async fn run(args: &ReportArgs, context: &Context) -> Result<()> {
    let lake = args.of.open(context.clock)?;
    // A wrong address is said before a year is read.
    let target = Target::of(args, context.clock)?;
    let reading = async {
        let verification = if args.verify { Some(verify(&lake, context.clock).await?) } else { None };
        let mut shown = Shown::new(context);
        let made = report(&lake, args.settings(), verification.as_ref(), |read| shown.show(read)).await;
        clear(shown.bar, &context.bars);
        Ok::<_, Error>((made?, verification.as_ref().map_or(0, Verification::problems)))
    };
    let (made, problems) = tokio::select! {
        biased;
        () = context.shutdown.cancelled() => return Err(Error::interrupted()),
        made = reading => made?,
    };
    target.write(page(&made).into_bytes()).await?;
    if args.of.json {
        let json = serde_json::to_string(&made);
        output::line(&json.map_err(|error| Error::bug("cannot write the numbers of the page").caused_by(error))?);
    }
    if let Target::Object { store, key } = &target {
        tracing::info!("wrote {}/{key}: {} to {}", store.url(), made.first_day, made.last_day);
    }
    for reason in &made.unreadable {
        tracing::warn!("{reason}");
    }
    match (made.unreadable.len(), problems) {
        (0, 0) => Ok(()),
        (0, problems) => Err(Error::integrity(format!("the lake has {}", counted(problems, "problem")))
            .with_hint("run `decagon-lake verify`, which lists them with what to do")),
        (left_out, _) => {
            let partitions = counted(left_out, "damaged partition");
            Err(Error::integrity(format!("the page is without {partitions}"))
                .with_hint("run `decagon-lake verify`, which lists what is wrong with what to do"))
        }
    }
}

/// Where the page goes.
enum Target {
    Stdout,
    /// Something on this machine that is no file, such as a pipe.
    Pipe(PathBuf),
    Object {
        store: Box<Store>,
        key: Path,
    },
}

impl Target {
    fn of(args: &ReportArgs, clock: Clock) -> Result<Self> {
        let mut out = args.out.clone();
        let no_name =
            || Error::usage(format!("--out {} names no file", args.out)).with_hint("give a file such as report.html");
        if out == "-" && args.of.json {
            return Err(Error::usage("--out - and --json both write to stdout").with_hint("give --out a file"));
        }
        if out == "-" {
            return Ok(Target::Stdout);
        }
        if let Ok(found) = std::fs::metadata(&out) {
            let path = FilePath::new(&out).canonicalize();
            let path = path.map_err(|error| Error::store(format!("cannot open {out}")).caused_by(error))?;
            match found {
                found if found.is_dir() => return Err(no_name()),
                found if !found.is_file() => return Ok(Target::Pipe(path)),
                // A link stays one; the file that it leads to is replaced.
                _ => out = path.display().to_string(),
            }
        }
        let (folder, name) = match out.rsplit_once('/') {
            Some((folder, name)) => (if folder.is_empty() { "/" } else { folder }, name),
            None => (".", out.as_str()),
        };
        if matches!(name, "" | "." | "..") || folder.ends_with(":/") {
            return Err(no_name());
        }
        let key = Path::parse(name).map_err(|error| no_name().caused_by(error))?;
        Ok(Target::Object { store: Box::new(Store::open_for("--out", folder, &args.of.store.options(), clock)?), key })
    }

    async fn write(&self, body: Vec<u8>) -> Result<()> {
        match self {
            Target::Stdout => {
                // A closed pipe is no failure, because its reader has seen enough.
                let _ = std::io::stdout().write_all(&body);
                Ok(())
            }
            Target::Pipe(path) => {
                let pipe = path.clone();
                let writing = move || std::fs::File::options().write(true).open(pipe)?.write_all(&body);
                let written = tokio::task::spawn_blocking(writing).await;
                let written = written.map_err(|error| Error::bug("the writing failed").caused_by(error))?;
                written.map_err(|error| Error::store(format!("cannot write to {}", path.display())).caused_by(error))
            }
            Target::Object { store, key } => store.put(key, body).await,
        }
    }
}

/// The progress: a bar on a terminal, otherwise a log line now and then.
struct Shown {
    bar: Option<ProgressBar>,
    clock: Clock,
    due: Instant,
}

impl Shown {
    fn new(context: &Context) -> Self {
        let is_drawn = std::io::stderr().is_terminal() && !context.quiet;
        let bar = is_drawn.then(|| {
            let bar = context.bars.add(ProgressBar::new(0));
            let style = ProgressStyle::with_template("{bar:30} {pos} of {len} partitions · about {eta} left");
            style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
        });
        Shown { bar, clock: context.clock, due: context.clock.instant() + LOG_INTERVAL }
    }

    fn show(&mut self, PartitionsRead { done, all }: PartitionsRead) {
        if let Some(bar) = &self.bar {
            bar.set_length(all);
            bar.set_position(done);
            return;
        }
        let now = self.clock.instant();
        if now >= self.due {
            self.due = now + LOG_INTERVAL;
            tracing::info!("read {done} of {all} partitions");
        }
    }
}
