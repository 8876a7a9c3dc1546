//! The command line.

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use sqlx::postgres::PgConnectOptions;
use taskwatch::{
    app::{App, Options},
    config::{Cli, Command, DatabaseSettings, DemoSettings, OpenapiSettings, Settings, TailSettings},
    demo::Demo,
    http, page,
    store::{Store, embedded::Embedded, verify},
    tail, telemetry,
};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Connections keep buffers of 8 KiB that are hardly touched; this allocator leaves their untouched pages alone.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Stopped as asked.
const STOPPED: u8 = 0;
/// Failed while running, or `verify` found a difference.
const FAILED: u8 = 1;
/// Bad settings, or nothing to start with.
const BAD_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    // clap itself ends with 2 on bad flags.
    let cli = Cli::parse();
    let ended = match cli.command.unwrap_or(Command::Serve(cli.settings)) {
        Command::Serve(settings) => serve(settings),
        Command::Demo(settings) => demo(&settings),
        Command::Tail(settings) => follow(settings),
        Command::Verify(settings) => check(&settings),
        Command::Openapi(settings) => describe(&settings),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        // Whoever read the output has gone, as in `| head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(STOPPED),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "taskwatch: {error:#}");
            ExitCode::from(error.downcast_ref::<BadSettings>().map_or(FAILED, |_| BAD_SETTINGS))
        }
    }
}

/// The program cannot start as it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadSettings(String);

fn bad_settings(error: &anyhow::Error) -> anyhow::Error {
    BadSettings(format!("{error:#}")).into()
}

fn describe(settings: &OpenapiSettings) -> anyhow::Result<u8> {
    let version = settings.version.parse().map_err(BadSettings)?;
    print(&format!("{:#}", http::api::document(&page::BasePath::default(), version)))?;
    Ok(STOPPED)
}

fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The database: a server of the user's, or our own. Must run on the main thread, before the runtime.
fn database(settings: &DatabaseSettings) -> anyhow::Result<(PgConnectOptions, Option<Embedded>)> {
    if let Some(url) = settings.url() {
        return Ok((Store::options(&url).map_err(|error| bad_settings(&error))?, None));
    }
    let folder = settings.folder();
    let embedded = Embedded::start(&folder, &[])?;
    tracing::info!(
        "database: private PostgreSQL {} in {}/pg (unix socket, no port); set DATABASE_URL to use your own server",
        embedded.major(),
        folder.display()
    );
    Ok((embedded.options(), Some(embedded)))
}

fn serve(settings: Settings) -> anyhow::Result<u8> {
    settings.check().map_err(BadSettings)?;
    telemetry::start(&settings.log).map_err(|error| bad_settings(&error))?;
    let (options, mut embedded) = database(&settings.database).map_err(|error| bad_settings(&error))?;
    let external = embedded.is_none();
    let served = Runtime::new()?.block_on(async {
        let signals = Signals::listen()?;
        let started = App::start(settings, Options::new(options)).await;
        let app = started.map_err(|error| {
            let advice = if external { "; check DATABASE_URL, or unset it to use a private database" } else { "" };
            bad_settings(&error.context(format!("cannot start{advice}")))
        })?;
        let stop = app.stop();
        print(&format!("taskwatch listening on http://{}", app.address()))?;
        let watch = async {
            tokio::select! {
                () = signals.asked() => None,
                sentence = database_ended(embedded.as_mut()) => Some(sentence),
            }
        };
        let mut run = std::pin::pin!(app.run());
        let ended = tokio::select! {
            ended = run.as_mut() => return ended,
            ended = watch => ended,
        };
        stop.cancel();
        match ended {
            // Without its database there is nothing to finish.
            Some(sentence) => anyhow::bail!(sentence),
            None => run.await,
        }
    });
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    served.map(|()| STOPPED)
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they end the program in order. To be called before the program says that it is up.
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    async fn asked(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        tracing::info!("stopping");
    }
}

/// Waits for the private database to end by itself, which it should not.
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
    Runtime::new()?.block_on(async {
        let signals = Signals::listen()?;
        let stopping = CancellationToken::new();
        let demo = Demo::of(settings)?;
        let seconds = settings.seconds;
        let over = async {
            match seconds {
                0 => std::future::pending().await,
                seconds => tokio::time::sleep(std::time::Duration::from_secs(seconds)).await,
            }
        };
        let mut run = std::pin::pin!(demo.run(stopping.clone()));
        tokio::select! {
            () = run.as_mut() => return Ok(STOPPED),
            () = signals.asked() => {}
            () = over => {}
        }
        stopping.cancel();
        run.await;
        Ok(STOPPED)
    })
}

fn follow(settings: TailSettings) -> anyhow::Result<u8> {
    Runtime::new()?.block_on(async {
        let signals = Signals::listen()?;
        tokio::select! {
            ended = tail::run(settings) => match ended {
                Err(error) if is_broken_pipe(&error) => Err(error),
                Err(error) => Err(bad_settings(&error)),
                Ok(()) => Ok(STOPPED),
            },
            () = signals.asked() => Ok(STOPPED),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn check(settings: &DatabaseSettings) -> anyhow::Result<u8> {
    telemetry::start("warn")?;
    // A server that runs goes on; it is checked at one moment.
    let another = settings.url().is_none().then(|| Embedded::of_another(&settings.folder())).flatten();
    let (options, embedded) = match another {
        Some(options) => (options, None),
        None => database(settings).map_err(|error| bad_settings(&error))?,
    };
    let checked = Runtime::new()?.block_on(async {
        let store = Store::open(options).await?;
        let report = verify::verify(&store).await.context("cannot check");
        store.close().await;
        report
    });
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    let report = checked?;
    print(&report.to_string())?;
    Ok(if report.differences.is_empty() { STOPPED } else { FAILED })
}
