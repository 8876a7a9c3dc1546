//! The composition root: the only file that uses all folders. It spawns the named tasks; when one ends, all are
//! stopped.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use chrono::TimeDelta;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    command::WriterPolicy,
    config::Settings,
    demo,
    feed::{
        Callbacks, Tailer,
        claim_waiters::ClaimWaiters,
        stream_registry::StreamRegistry,
        tailer::{self, Wake},
        time_travel::TimeTravel,
    },
    http::{
        self,
        api::snapshot::Snapshots,
        documents::Documents,
        limits::Limits,
        state::{self, AppState},
    },
    maintenance::{self, Checkpoints, Lane, Reachable, Retention},
    metrics::{Metrics, Tallies},
    page::{Fragments, LivePages, summary},
    store::{
        EventLog, Store, Writer,
        witness::Witness,
        writer::{MAX_BATCH, WriterLoop},
    },
};

/// Channel capacity to the tailer, batches; on overflow they are read from the log.
const COMMITTED: usize = 64;
/// Channel capacity for ephemeral events, batches.
const EPHEMERAL: usize = 16;
/// How long requests and the writer may take to finish at shutdown. The whole shutdown takes at most 8 s: some
/// supervisors kill after 10 s.
const FINISH: Duration = Duration::from_millis(5_500);
/// How long the read connections may take to close.
const CLOSE: Duration = Duration::from_millis(500);

/// Inputs of a server in addition to its settings.
#[derive(Debug)]
pub struct Options {
    /// Connection options of the database.
    pub database: PgConnectOptions,
    /// The clock.
    pub clock: Clock,
    /// Lifecycle hooks.
    pub callbacks: Callbacks,
    /// Resource limits of clients.
    pub limits: Limits,
    /// Maximum number of commands per transaction: [`MAX_BATCH`], except in the comparison benchmark.
    pub max_batch: usize,
    /// File that records the head of the log, for a private database.
    pub witness: Option<Witness>,
}

impl Options {
    /// A server on a database, with defaults for the rest.
    #[must_use]
    pub fn new(database: PgConnectOptions) -> Self {
        Self {
            database,
            clock: Clock::default(),
            callbacks: Callbacks::default(),
            limits: Limits::default(),
            max_batch: MAX_BATCH,
            witness: None,
        }
    }
}

/// A started server: schema migrated, board up to date, socket open.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    stop: CancellationToken,
    stopping: CancellationToken,
    state: AppState,
    tasks: JoinSet<Ended>,
    demo: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

/// How long the demo's workers may take to deregister.
const DEMO: Duration = Duration::from_millis(1_500);

/// Name and result of a task that ended.
type Ended = (&'static str, anyhow::Result<()>);

impl App {
    /// Starts all tasks.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what to do.
    pub async fn start(settings: Settings, options: Options) -> anyhow::Result<Self> {
        let Options { database, clock, callbacks, limits, max_batch, witness } = options;
        let (listener, address) = listen(settings.listen)?;
        let (store, event_log) = open_log(database, &clock, witness.as_ref()).await?;
        let (committed_sender, committed) = mpsc::channel(COMMITTED);
        let (ephemeral_sender, ephemeral) = mpsc::channel(EPHEMERAL);
        let (claim_waiters, tallies, fragments) = <(ClaimWaiters, Arc<Tallies>, Fragments)>::default();
        let parts = tailer::Parts {
            store: store.clone(),
            ring_bytes: settings.event_cache_mib as usize * 1024 * 1024,
            callbacks: callbacks.clone(),
            wakes: wakes(&claim_waiters, &tallies),
            committed,
            ephemeral,
        };
        let (tailer, board, subscriptions) = Tailer::start(parts).await.context("cannot read the event log")?;
        let policy = writer_policy(&settings);
        let (writer, writer_loop) = Writer::new(store.clone(), clock.clone(), policy, max_batch, committed_sender);
        let checkpoints = Arc::new(Checkpoints::new(store.clone(), board.clone(), clock.clone()));
        let env = maintenance::Env {
            store: store.clone(),
            event_log: event_log.clone(),
            writer: writer.clone(),
            clock: clock.clone(),
            subscriptions: subscriptions.clone(),
            board: board.clone(),
            policy,
            retention: retention(&settings),
            ephemeral: ephemeral_sender,
            reachable: Reachable::since(clock.now()),
            checkpoints: checkpoints.clone(),
            witness: witness.map(Arc::new),
        };
        let state = AppState(Arc::new(state::Parts {
            stream_registry: stream_registry(&settings, &clock),
            settings,
            limits,
            url: format!("http://{address}"),
            time_travel: TimeTravel::new(store.for_requests()),
            store: store.for_requests(),
            writer,
            board,
            byte_readers: subscriptions.byte_readers(),
            subscriptions,
            claim_waiters,
            clock,
            snapshots: Snapshots::default(),
            frames: summary::Frames::default(),
            event_log,
            live_pages: LivePages::new(fragments.clone()),
            fragments,
            documents: Documents::default(),
            metrics: Metrics::new(callbacks, tallies, checkpoints.saved_at()),
            stopping: CancellationToken::new(),
        }));
        let tasks = spawn(&state, listener, writer_loop, tailer, env);
        let demo = state.settings.demo.then(|| run_demo(demo::Demo::new(format!("http://{address}"))));
        Ok(Self { address, stop: CancellationToken::new(), stopping: state.stopping.clone(), state, tasks, demo })
    }

    /// Listen address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shared state of the handlers.
    #[must_use]
    pub const fn state(&self) -> &AppState {
        &self.state
    }

    /// Token that stops the server when cancelled.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs until it is stopped or one of its tasks fails, then stops everything in order: requests, writer, tailer,
    /// pool.
    ///
    /// # Errors
    /// A task ended unexpectedly.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let first = tokio::select! {
            ended = self.tasks.join_next() => ended,
            () = self.stop.cancelled() => None,
        };
        if let Some((over, demo)) = self.demo.take() {
            // Its workers deregister over the API, so it is stopped first.
            over.cancel();
            let _ = tokio::time::timeout(DEMO, demo).await;
        }
        self.stopping.cancel();
        let mut failed = first.map_or(Ok(()), |ended| ended_by_itself(ended, "before it was told to"));
        let store = self.state.store.clone();
        // Drops the last writer handles, of this state and of the requests; then the writer stops, and the tailer with
        // it.
        drop(self.state);
        let rest = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended.map(|(_, result)| result).unwrap_or_else(|error| Err(error.into())) {
                    failed = Err(error);
                }
            }
        };
        if tokio::time::timeout(FINISH, rest).await.is_err() {
            tracing::warn!("shutdown timed out");
        }
        // With a timeout, so that a stuck connection does not block shutdown.
        let _ = tokio::time::timeout(CLOSE, store.close()).await;
        failed
    }
}

fn ended_by_itself(ended: Result<Ended, JoinError>, when: &str) -> anyhow::Result<()> {
    match ended {
        Ok((name, Ok(()))) => bail!("the {name} ended {when}"),
        Ok((name, Err(error))) => Err(error.context(format!("the {name} failed"))),
        Err(error) => Err(anyhow::Error::from(error).context("a task panicked")),
    }
}

async fn until(stopping: CancellationToken, name: &'static str, work: impl Future<Output = ()>) -> Ended {
    tokio::select! {
        () = work => {}
        () = stopping.cancelled() => {}
    }
    (name, Ok(()))
}

/// Opens the socket.
fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = http::server::listen(address).map_err(|error| cannot_listen(address, &error))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn retention(settings: &Settings) -> Retention {
    let days = |days: u32| TimeDelta::days(days.into());
    Retention {
        tasks: days(settings.retain_tasks_days),
        events: days(settings.retain_events_days),
        observed: days(settings.observed_stale_days),
    }
}

fn stream_registry(settings: &Settings, clock: &Clock) -> Arc<StreamRegistry> {
    let (most, most_each) = (settings.stream_max_clients as usize, settings.stream_max_per_address as usize);
    Arc::new(StreamRegistry::new(most, most_each, clock.clone()))
}

/// Opens the store and the log, and prepares the log for appends.
async fn open_log(
    database: PgConnectOptions,
    clock: &Clock,
    witness: Option<&Witness>,
) -> anyhow::Result<(Store, EventLog)> {
    let store = Store::open(database, clock.clone()).await?;
    if let Some(witness) = witness {
        witness.compare(&store).await.context("cannot read the event log")?;
    }
    let event_log = EventLog::new(store.clone());
    let head = event_log.ends().await?.head;
    event_log.ensure_partitions(head).await.context("cannot create event log partitions")?;
    Ok((store, event_log))
}

/// What is called with each event as soon as it is published.
fn wakes(claim_waiters: &ClaimWaiters, tallies: &Arc<Tallies>) -> Vec<Wake> {
    let (waiters, tallies) = (claim_waiters.clone(), tallies.clone());
    vec![Wake(Arc::new(move |event| waiters.wake(event))), Wake(Arc::new(move |event| tallies.count(event)))]
}

/// Spawns all tasks of the server.
fn spawn(
    state: &AppState,
    listener: TcpListener,
    writer: WriterLoop,
    tailer: Tailer,
    env: maintenance::Env,
) -> JoinSet<Ended> {
    let stopping = state.stopping.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        writer.run().await;
        ("writer", Ok(()))
    });
    tasks.spawn(async move {
        tailer.run().await;
        ("tailer", Ok(()))
    });
    tasks.spawn(until(stopping.clone(), "maintenance", maintenance::run(env.clone(), Lane::Prompt)));
    tasks.spawn(until(stopping.clone(), "slow maintenance", maintenance::run(env, Lane::Slow)));
    let (router, settings, limits) = (http::router(state.clone()), state.settings.clone(), state.limits);
    // Streams still receive events during shutdown.
    let delivering = state.byte_readers.clone().run(stopping.clone());
    tasks.spawn(async move {
        let serving = http::server::serve(listener, router, &settings, limits, stopping);
        tokio::select! {
            () = serving => {}
            () = delivering => {}
        }
        ("http", Ok(()))
    });
    tasks
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "port {} is taken; stop the other program or choose another with --listen {}",
                address.port(),
                SocketAddr::new(address.ip(), 0)
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("permission denied on {address}; use a port above 1023 with --listen")
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}; choose another address with --listen"),
    }
}

/// Starts the demo; cancelling the token stops it.
fn run_demo(demo: demo::Demo) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let over = CancellationToken::new();
    let stop = over.clone();
    let run = async move {
        if let Err(error) = demo.run(over).await {
            tracing::error!(error = format!("{error:#}"), "the demo cannot start");
        }
    };
    (stop, tokio::spawn(run))
}

/// The settings used by the writer's decisions.
fn writer_policy(settings: &Settings) -> WriterPolicy {
    WriterPolicy {
        lease: settings.lease(),
        worker_ttl: TimeDelta::seconds(settings.worker_ttl_seconds.into()),
        connector_stale: TimeDelta::seconds(settings.connector_stale_seconds.into()),
        stalled_policy: settings.stalled_policy,
        max_event_bytes: settings.max_event_bytes as usize,
    }
}
