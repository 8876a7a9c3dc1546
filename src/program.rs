//! The command line.

use std::{io::Write, process::ExitCode};

use crate::{
    app::{App, Options},
    base_path::{BasePath, CONFLICT},
    clock::Clock,
    config::{Cli, Command, DatabaseSettings, DemoSettings, OpenapiSettings, ServerSettings, Settings, TailSettings},
    demo::Demo,
    embedded::{Embedded, Interrupted},
    http, page, probe,
    store::{
        Store,
        failure::{Unusable, sentence},
        verify,
        witness::Witness,
    },
    tail, telemetry,
};
use anyhow::Context;
use clap::Parser;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Clean shutdown.
const STOPPED: u8 = 0;
/// Runtime failure, or `verify` found a difference.
const FAILED: u8 = 1;
/// Invalid settings or startup failure.
const BAD_SETTINGS: u8 = 2;

/// Runs the program with the arguments and the environment of the process.
///
/// It is part of the library, so that everything it awaits is compiled once, there.
#[must_use]
pub fn main() -> ExitCode {
    // clap itself exits with 2 on invalid flags.
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve(cli.settings));
    if let Command::Serve(Settings { database, .. }) | Command::Verify(database) = &command
        && database.url().is_none()
    {
        Embedded::forget_environment();
    }
    let ended = match command {
        Command::Serve(settings) => serve(settings),
        Command::Demo(settings) => demo(&settings),
        Command::Tail(settings) => follow(settings),
        Command::Verify(settings) => check(&settings),
        Command::NewEpoch(settings) => new_epoch(&settings),
        Command::Openapi(settings) => describe(&settings),
        Command::Health(settings) => Runtime::new()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(probe::health(&settings)))
            .map(|()| STOPPED),
        Command::Status(settings) => status(&settings),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is::<Interrupted>() => ExitCode::from(STOPPED),
        // The reader of the output has exited, as in `| head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(STOPPED),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "taskwatch: {}", sentence(&error));
            ExitCode::from(error.downcast_ref::<BadSettings>().map_or(FAILED, |_| BAD_SETTINGS))
        }
    }
}

/// The program cannot start with these settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadSettings(String);

fn bad_settings(error: anyhow::Error) -> anyhow::Error {
    if error.is::<Interrupted>() { error } else { BadSettings(sentence(&error)).into() }
}

fn describe(settings: &OpenapiSettings) -> anyhow::Result<u8> {
    let version = settings.version.parse().map_err(BadSettings)?;
    print(&format!("{:#}", http::api::document(&BasePath::default(), version)))?;
    Ok(STOPPED)
}

fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The database: the user's server, or a private one. Must run on the main thread.
fn database(
    settings: &DatabaseSettings,
    stop: &CancellationToken,
) -> anyhow::Result<(PgConnectOptions, Option<Embedded>)> {
    if let Some(url) = settings.url() {
        return Ok((Store::options(&url)?, None));
    }
    let folder = settings.folder().map_err(anyhow::Error::msg)?;
    let embedded = Embedded::start_unless(&folder, &[], stop)?;
    tracing::info!(
        "using a private PostgreSQL {} in {}/pg; set DATABASE_URL to use your own",
        embedded.major(),
        folder.display()
    );
    Ok((embedded.options(), Some(embedded)))
}

fn serve(settings: Settings) -> anyhow::Result<u8> {
    settings.check().map_err(BadSettings)?;
    if page::hides_a_page(&settings.base_path) {
        return Err(BadSettings(format!("--base-path {}: {CONFLICT}", settings.base_path)).into());
    }
    telemetry::start(&settings.log).map_err(bad_settings)?;
    let runtime = Runtime::new()?;
    // From here on a signal triggers a graceful shutdown, also during startup.
    let stop = CancellationToken::new();
    let signals = {
        let _context = runtime.enter();
        Signals::listen()?
    };
    let cancelled = stop.clone();
    runtime.spawn(async move {
        signals.asked().await;
        cancelled.cancel();
    });
    http::server::raise_file_limit();
    let (options, mut embedded) = database(&settings.database, &stop).map_err(bad_settings)?;
    let served = runtime.block_on(run(settings, options, embedded.as_mut(), stop));
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    served.map(|()| STOPPED)
}

/// Starts the server and runs it until it is stopped or fails.
async fn run(
    settings: Settings,
    options: PgConnectOptions,
    embedded: Option<&mut Embedded>,
    asked: CancellationToken,
) -> anyhow::Result<()> {
    let external = embedded.is_none();
    let witness = embedded.as_ref().map(|embedded| Witness::new(embedded.data_dir()));
    let options = Options { witness, ..Options::new(options) };
    let started = tokio::select! {
        started = App::start(settings, options) => started,
        () = asked.cancelled() => return Ok(()),
    };
    let app = started.map_err(|error| {
        let advice = if external && error.is::<Unusable>() {
            "; check DATABASE_URL, or unset it to use a private database"
        } else {
            ""
        };
        anyhow::Error::from(BadSettings(format!("cannot start: {}{advice}", sentence(&error))))
    })?;
    let stop = app.stop();
    print(&format!("taskwatch listening on http://{}", app.address()))?;
    let watch = async {
        tokio::select! {
            () = asked.cancelled() => None,
            sentence = database_ended(embedded) => Some(sentence),
        }
    };
    let mut run = std::pin::pin!(app.run());
    let ended = tokio::select! {
        ended = run.as_mut() => return ended,
        ended = watch => ended,
    };
    stop.cancel();
    match ended {
        // Without its database a graceful shutdown is impossible.
        Some(sentence) => anyhow::bail!(sentence),
        None => run.await,
    }
}

/// SIGINT (Ctrl-C) and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on these signals trigger a graceful shutdown. Must be called before startup is reported.
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    async fn asked(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        tracing::info!("shutting down");
    }
}

/// Waits for an unexpected exit of the private database.
async fn database_ended(embedded: Option<&mut Embedded>) -> String {
    let Some(embedded) = embedded else { return std::future::pending().await };
    loop {
        if let Some(sentence) = embedded.ended() {
            return sentence;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
}

fn demo(settings: &DemoSettings) -> anyhow::Result<u8> {
    telemetry::start("info")?;
    let demo = Demo::of(settings).map_err(bad_settings)?;
    Runtime::new()?.block_on(async {
        let signals = Signals::listen()?;
        let stopping = CancellationToken::new();
        let seconds = settings.seconds;
        let over = async {
            match seconds {
                0 => std::future::pending().await,
                seconds => tokio::time::sleep(std::time::Duration::from_secs(seconds)).await,
            }
        };
        let mut run = std::pin::pin!(demo.run(stopping.clone()));
        let asked = tokio::select! {
            ended = run.as_mut() => return ended.map(|()| STOPPED),
            () = signals.asked() => true,
            () = over => false,
        };
        stopping.cancel();
        let ended = run.await;
        // A stop request during startup is a clean shutdown, whatever the result.
        if asked { Ok(STOPPED) } else { ended.map(|()| STOPPED) }
    })
}

fn status(settings: &ServerSettings) -> anyhow::Result<u8> {
    let status = Runtime::new()?.block_on(probe::status(settings)).map_err(bad_settings)?;
    print(&status.line)?;
    Ok(if status.ok { STOPPED } else { FAILED })
}

fn follow(settings: TailSettings) -> anyhow::Result<u8> {
    Runtime::new()?.block_on(async {
        let signals = Signals::listen()?;
        tokio::select! {
            ended = tail::run(settings) => match ended {
                Err(error) if is_broken_pipe(&error) => Err(error),
                Err(error) => Err(bad_settings(error)),
                Ok(()) => Ok(STOPPED),
            },
            () = signals.asked() => Ok(STOPPED),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Runs a command on an existing database: no directory, database or schema is created.
fn with_store<T>(
    settings: &DatabaseSettings,
    work: impl AsyncFnOnce(&Store) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    telemetry::start("warn")?;
    let (options, embedded) = existing(settings).map_err(bad_settings)?;
    let done = Runtime::new()?.block_on(async {
        let store = Store::existing(options, Clock::default()).await.map_err(|error| bad_settings(error.into()))?;
        let done = work(&store).await;
        store.close().await;
        done
    });
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    done
}

fn check(settings: &DatabaseSettings) -> anyhow::Result<u8> {
    let report = with_store(settings, async |store| verify::verify(store).await.context("cannot check"))?;
    print(&report.to_string())?;
    Ok(if report.differences.is_empty() { STOPPED } else { FAILED })
}

fn new_epoch(settings: &DatabaseSettings) -> anyhow::Result<u8> {
    let (old, new) = with_store(settings, async |store| Ok(store.renew_epoch().await?))?;
    print(&format!("the event log now has epoch {new} (was {old}); clients restart from a snapshot"))?;
    Ok(STOPPED)
}

/// The existing database. A server running on it is not disturbed; the command sees one consistent snapshot.
fn existing(settings: &DatabaseSettings) -> anyhow::Result<(PgConnectOptions, Option<Embedded>)> {
    if settings.url().is_none() {
        let folder = settings.folder().map_err(anyhow::Error::msg)?;
        Embedded::must_exist(&folder)?;
        if let Some(options) = Embedded::of_another(&folder) {
            return Ok((options, None));
        }
    }
    database(settings, &CancellationToken::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_was_interrupted_is_no_fault_of_the_settings() {
        assert!(bad_settings(Interrupted.into()).is::<Interrupted>());
        let error = bad_settings(anyhow::anyhow!("no route").context("cannot connect"));
        assert!(error.is::<BadSettings>());
        assert_eq!(error.to_string(), "cannot connect: no route", "said in one sentence");
    }

    #[test]
    fn a_reader_that_has_gone_is_told_from_other_failures() {
        let io = |kind: std::io::ErrorKind| anyhow::Error::from(std::io::Error::from(kind));
        assert!(is_broken_pipe(&io(std::io::ErrorKind::BrokenPipe)));
        assert!(is_broken_pipe(&io(std::io::ErrorKind::BrokenPipe).context("cannot print")));
        assert!(!is_broken_pipe(&io(std::io::ErrorKind::ConnectionReset)));
        assert!(!is_broken_pipe(&anyhow::anyhow!("Broken pipe")));
    }
}
