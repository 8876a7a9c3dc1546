//! Settings: each is a flag and an environment variable `TASKWATCH_…`. The README's table is checked against this.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use chrono::TimeDelta;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::{
    base_path::BasePath,
    model::{instance::InstanceColour, lease::StalledPolicy},
};

/// Task queue and monitor: tasks in Postgres, an ordered event stream, live dashboards.
#[derive(Debug, Parser)]
#[command(name = "taskwatch", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Command (default: serve).
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of `serve`, given without the word.
    #[command(flatten)]
    pub settings: Settings,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the API, event stream and dashboard (default).
    Serve(Settings),
    /// Generate demo load over the public API.
    Demo(DemoSettings),
    /// Follow the event stream in the terminal; reconnects automatically.
    Tail(TailSettings),
    /// Verify the event log against the tables; exits 1 on any difference.
    Verify(DatabaseSettings),
    /// Give the event log a new epoch so that every client restarts from a snapshot; use it after restoring a backup.
    NewEpoch(DatabaseSettings),
    /// Print the OpenAPI document.
    Openapi(OpenapiSettings),
    /// Check that a running server answers; exits 1 if not. For container health checks.
    Health(HealthSettings),
    /// Print the health of a running server; exits 1 unless it is ok.
    Status(ServerSettings),
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
pub struct DatabaseSettings {
    /// PostgreSQL 14+ connection URL (postgres://user:password@host:5432/database); without it, a private instance in the data directory is used.
    #[arg(long, env = "TASKWATCH_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Directory of the private database and its logs; default `$XDG_DATA_HOME/taskwatch`, else `~/.local/share/taskwatch`, as root `/var/lib/taskwatch`.
    #[arg(long, env = "TASKWATCH_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DatabaseSettings {
    /// The URL given by flag, by `TASKWATCH_DATABASE_URL`, or by plain `DATABASE_URL`. Bytes that are no UTF-8 are
    /// replaced, which makes it a URL that is refused.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let plain = || std::env::var_os("DATABASE_URL").map(|url| url.to_string_lossy().into_owned());
        self.database_url.clone().or_else(plain).filter(|url| !url.trim().is_empty())
    }

    /// The data folder: as given, for root `/var/lib/taskwatch`, else `$XDG_DATA_HOME/taskwatch` or
    /// `~/.local/share/taskwatch`.
    ///
    /// # Errors
    /// When none is given and there is no home folder to put one into.
    pub fn folder(&self) -> Result<PathBuf, String> {
        if let Some(folder) = self.data_dir.as_ref().filter(|folder| !folder.as_os_str().is_empty()) {
            return Ok(folder.clone());
        }
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/taskwatch".into());
        }
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|folder| folder.join("taskwatch"))
            .ok_or_else(|| {
                "HOME is not set; choose the data directory with --data-dir or TASKWATCH_DATA_DIR".to_owned()
            })
    }
}

/// A running taskwatch.
#[derive(Debug, Clone, Args)]
pub struct ServerSettings {
    /// Server URL; default: the listen address of this environment, http://127.0.0.1:8080.
    #[arg(long, env = "TASKWATCH_URL")]
    pub url: Option<String>,
    /// Where a server with the same environment listens.
    #[arg(long, env = "TASKWATCH_LISTEN", default_value = "127.0.0.1:8080", hide = true)]
    pub listen: String,
}

impl ServerSettings {
    /// The server's address, without a slash at its end.
    #[must_use]
    pub fn address(&self) -> String {
        self.url.as_ref().map_or_else(|| format!("http://{}", self.listen), |url| url.trim_end_matches('/').to_owned())
    }
}

/// Settings of `health`.
#[derive(Debug, Clone, Args)]
pub struct HealthSettings {
    /// The taskwatch to ask.
    #[command(flatten)]
    pub server: ServerSettings,
    /// Check readiness (/readyz) instead of liveness (/healthz).
    #[arg(long)]
    pub ready: bool,
}

/// A URL as it may be shown: without user name and password.
#[must_use]
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    // The last one: a password may hold others.
    let Some((_, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    if scheme.is_empty() { format!("…@{host}") } else { format!("{scheme}://…@{host}") }
}

/// An address to listen on; names are resolved, loopback and IPv4 first.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let cannot = |why: String| format!("{why}; write it as ADDRESS:PORT, such as 127.0.0.1:8080 or localhost:8080");
    let mut found: Vec<_> = text.to_socket_addrs().map_err(|error| cannot(error.to_string()))?.collect();
    found.sort_by_key(|address| (!address.ip().is_loopback(), address.is_ipv6()));
    found.first().copied().ok_or_else(|| cannot("host not found".to_owned()))
}

/// Live mode of the pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LiveMode {
    /// Polling only.
    Off,
    /// Polling, live on request.
    #[default]
    Allowed,
    /// Live by default.
    Default,
}

/// Settings of the server.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Listen address; non-loopback addresses are refused until authentication is available.
    #[arg(long, env = "TASKWATCH_LISTEN", default_value = "127.0.0.1:8080", value_parser = listen_address)]
    pub listen: SocketAddr,
    /// Additional Host names to accept (comma-separated); loopback names are always accepted.
    #[arg(long, env = "TASKWATCH_ALLOWED_HOSTS", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,
    /// URL path prefix behind a reverse proxy, e.g. /taskwatch (the proxy may strip it or not).
    #[arg(long, env = "TASKWATCH_BASE_PATH", default_value_t)]
    pub base_path: BasePath,
    /// Where the data is.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// Live pages: `off` (polling only), `allowed` (polling, live on request) or `default` (live).
    #[arg(long, env = "TASKWATCH_LIVE_PAGES", value_enum, default_value_t = LiveMode::Allowed)]
    pub live_pages: LiveMode,
    /// Name of this instance, shown on every page, e.g. prod-eu (at most 24 characters).
    #[arg(long, env = "TASKWATCH_INSTANCE_NAME", default_value = "", value_parser = instance_name)]
    pub instance_name: String,
    /// Colour of a stripe on top of every page, to tell instances apart.
    #[arg(long, env = "TASKWATCH_INSTANCE_COLOUR", value_enum, default_value_t = InstanceColour::None)]
    pub instance_colour: InstanceColour,
    /// Page refresh interval in seconds (2–3600).
    #[arg(long, env = "TASKWATCH_POLL_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub poll_seconds: u32,
    /// Heartbeat interval requested from workers, in seconds.
    #[arg(long, env = "TASKWATCH_HEARTBEAT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub heartbeat_seconds: u32,
    /// A worker without a heartbeat for this long is lost (seconds); at least the lease duration.
    #[arg(long, env = "TASKWATCH_WORKER_TTL_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub worker_ttl_seconds: u32,
    /// An unfinished observed task without a report for this long is ended as stalled (days); a newer report reopens it; 0 = never.
    #[arg(long, env = "TASKWATCH_OBSERVED_STALE_DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(0..=36500))]
    pub observed_stale_days: u32,
    /// A connector without a report for this long is unknown (seconds).
    #[arg(long, env = "TASKWATCH_CONNECTOR_STALE_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub connector_stale_seconds: u32,
    /// Lease duration of a claim, extended by reports and heartbeats (seconds).
    #[arg(long, env = "TASKWATCH_LEASE_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub lease_seconds: u32,
    /// What to do with stalled tasks: `retry` (requeue while attempts are left, else fail), `fail` or `report` (only).
    #[arg(long, env = "TASKWATCH_STALLED_POLICY", value_enum, default_value_t = StalledPolicy::Retry)]
    pub stalled_policy: StalledPolicy,
    /// Stream heartbeat interval in seconds (±10%).
    #[arg(long, env = "TASKWATCH_STREAM_HEARTBEAT_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(5..=60))]
    pub stream_heartbeat_seconds: u32,
    /// Maximum number of concurrent stream clients.
    #[arg(long, env = "TASKWATCH_STREAM_MAX_CLIENTS", default_value_t = 10_000)]
    pub stream_max_clients: u32,
    /// Maximum number of concurrent stream clients per IP address.
    #[arg(long, env = "TASKWATCH_STREAM_MAX_PER_ADDRESS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub stream_max_per_address: u32,
    /// Gzip streams for clients that accept it: on or off.
    #[arg(long, env = "TASKWATCH_STREAM_COMPRESSION", default_value = "on", value_parser = on_or_off, action = ArgAction::Set)]
    pub stream_compression: bool,
    /// Close streams after this many seconds so that clients reconnect (±10%); 0 = never.
    #[arg(long, env = "TASKWATCH_STREAM_MAX_AGE_SECONDS", default_value_t = 43_200)]
    pub stream_max_age_seconds: u32,
    /// Proxy IP addresses whose X-Forwarded-For and X-Forwarded-Proto are trusted (comma-separated).
    #[arg(long, env = "TASKWATCH_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpAddr>,
    /// Memory for recent events, MiB.
    #[arg(long, env = "TASKWATCH_EVENT_CACHE_MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub event_cache_mib: u32,
    /// Maximum size of a stored event in bytes; larger events are truncated.
    #[arg(long, env = "TASKWATCH_MAX_EVENT_BYTES", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(8192..=50000))]
    pub max_event_bytes: u32,
    /// Days to keep finished tasks, stopped workers and bulk actions; 0 = forever.
    #[arg(long, env = "TASKWATCH_RETAIN_TASKS_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=36500))]
    pub retain_tasks_days: u32,
    /// Days to keep events; 0 = forever.
    #[arg(long, env = "TASKWATCH_RETAIN_EVENTS_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=36500))]
    pub retain_events_days: u32,
    /// Run the built-in demo load.
    #[arg(long, env = "TASKWATCH_DEMO")]
    pub demo: bool,
    /// Log filter, e.g. info or taskwatch=debug; text on a terminal, JSON otherwise.
    #[arg(long, env = "TASKWATCH_LOG", default_value = "info")]
    pub log: String,
}

/// Settings of the demo.
#[derive(Debug, Clone, Args)]
pub struct DemoSettings {
    /// Server URL.
    #[arg(long, env = "TASKWATCH_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Tasks per second.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// Number of workers.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub workers: u32,
    /// Stop after this many seconds; 0 = run until interrupted.
    #[arg(long, default_value_t = 0)]
    pub seconds: u64,
}

fn instance_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.chars().count() > 24 || name.chars().any(char::is_control) {
        return Err("must be at most 24 characters, without control characters".to_owned());
    }
    Ok(name.to_owned())
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("invalid value '{other}': expected on or off")),
    }
}

/// Settings of `openapi`.
#[derive(Debug, Clone, Args)]
pub struct OpenapiSettings {
    /// OpenAPI version: 3.1, or 3.0 for generators that do not support it.
    #[arg(long, default_value = "3.1", value_parser = ["3.0", "3.1"])]
    pub version: String,
}

/// Settings of `tail`.
#[derive(Debug, Clone, Args)]
pub struct TailSettings {
    /// Server URL.
    #[arg(long, env = "TASKWATCH_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Start at: now, earliest, or after an event ID.
    #[arg(long, default_value = "now")]
    pub after: String,
    /// Print events as JSON lines.
    #[arg(long)]
    pub json: bool,
    /// Exit after this many events.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_events: Option<u64>,
    /// Filters, e.g. queue=default types=task_failed,task_retry (same as /events).
    #[arg(value_name = "NAME=VALUE")]
    pub filters: Vec<String>,
}

impl Settings {
    /// Length of a lease.
    #[must_use]
    pub fn lease(&self) -> TimeDelta {
        TimeDelta::seconds(self.lease_seconds.into())
    }

    /// A worker that is silent for so long is worth a word: two heartbeats and a half.
    #[must_use]
    pub fn quiet(&self) -> TimeDelta {
        TimeDelta::milliseconds(2_500 * i64::from(self.heartbeat_seconds))
    }

    /// What is wrong with them, in a sentence.
    ///
    /// # Errors
    /// When they contradict each other or are unsafe.
    pub fn check(&self) -> Result<(), String> {
        if !self.listen.ip().is_loopback() {
            return Err(format!(
                "refusing to listen on {} without authentication; use --listen 127.0.0.1:{}",
                self.listen,
                self.listen.port()
            ));
        }
        if self.worker_ttl_seconds <= self.heartbeat_seconds {
            return Err("--worker-ttl-seconds must exceed --heartbeat-seconds".to_owned());
        }
        if self.lease_seconds <= self.heartbeat_seconds {
            return Err("--lease-seconds must exceed --heartbeat-seconds".to_owned());
        }
        if self.worker_ttl_seconds < self.lease_seconds {
            return Err(format!(
                "--worker-ttl-seconds ({}) must be at least --lease-seconds ({})",
                self.worker_ttl_seconds, self.lease_seconds
            ));
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Cli::parse_from(["taskwatch"]).settings
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Result<Settings, String> {
        let cli = Cli::try_parse_from(["taskwatch"].iter().chain(arguments)).map_err(|error| error.to_string())?;
        Ok(cli.settings)
    }

    fn checked(arguments: &[&str]) -> Result<(), String> {
        settings(arguments)?.check()
    }

    #[test]
    fn the_defaults_are_valid_and_local() {
        let settings = Settings::default();
        assert_eq!(settings.check(), Ok(()));
        assert!(settings.listen.ip().is_loopback() && settings.base_path.is_root() && settings.stream_compression);
        assert_eq!((settings.lease(), settings.quiet()), (TimeDelta::seconds(60), TimeDelta::seconds(25)));
    }

    #[test]
    fn a_number_beyond_its_range_names_the_setting_and_the_range() {
        for (flag, low, high) in [
            ("--poll-seconds", 2_u64, 3_600),
            ("--heartbeat-seconds", 1, 3_600),
            ("--worker-ttl-seconds", 1, 86_400),
            ("--connector-stale-seconds", 1, 86_400),
            ("--lease-seconds", 1, 86_400),
            ("--stream-heartbeat-seconds", 5, 60),
            ("--event-cache-mib", 1, 65_536),
            ("--max-event-bytes", 8_192, 50_000),
            ("--observed-stale-days", 0, 36_500),
            ("--retain-tasks-days", 0, 36_500),
            ("--retain-events-days", 0, 36_500),
        ] {
            for right in [low, high] {
                assert!(settings(&[flag, &right.to_string()]).is_ok(), "{flag} {right}");
            }
            let below = if low == 0 { "-1".to_owned() } else { (low - 1).to_string() };
            for wrong in [below, (high + 1).to_string(), "ten".to_owned(), String::new()] {
                let error = settings(&[&format!("{flag}={wrong}")]).unwrap_err();
                assert!(error.contains(flag), "{flag} {wrong}: {error}");
            }
            let error = settings(&[flag, &(high + 1).to_string()]).unwrap_err();
            assert!(error.contains(&format!("{low}..={high}")), "{error}");
        }
    }

    #[test]
    fn a_choice_that_is_none_names_those_that_are() {
        for (flag, wrong, choices) in [
            ("--live-pages", "on", vec!["off", "allowed", "default"]),
            ("--stalled-policy", "drop", vec!["retry", "fail", "report"]),
            ("--stream-compression", "true", vec!["on", "off"]),
        ] {
            let error = settings(&[flag, wrong]).unwrap_err();
            assert!(error.contains(flag) && choices.iter().all(|choice| error.contains(choice)), "{error}");
            for choice in choices {
                assert!(settings(&[flag, choice]).is_ok(), "{flag} {choice}");
            }
        }
        assert_eq!(settings(&["--stream-compression", "off"]).map(|settings| settings.stream_compression), Ok(false));
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (arguments, named) in [
            (vec!["--heartbeat-seconds", "60"], "--worker-ttl-seconds must exceed --heartbeat-seconds"),
            (vec!["--lease-seconds", "10"], "--lease-seconds must exceed --heartbeat-seconds"),
            (vec!["--lease-seconds", "61"], "--worker-ttl-seconds (60) must be at least --lease-seconds (61)"),
            (vec!["--listen", "192.0.2.1:80"], "refusing to listen on 192.0.2.1:80 without authentication"),
            (vec!["--listen", "0.0.0.0:8080"], "use --listen 127.0.0.1:8080"),
            (vec!["--listen", "[::]:8080"], "use --listen 127.0.0.1:8080"),
        ] {
            let error = checked(&arguments).unwrap_err();
            assert!(error.contains(named), "{arguments:?}: {error}");
        }
        assert_eq!(checked(&["--heartbeat-seconds", "59"]), Ok(()));
        assert_eq!(checked(&["--lease-seconds", "11"]), Ok(()));
        assert_eq!(checked(&["--listen", "[::1]:0"]), Ok(()));
        assert_eq!(checked(&["--listen", "127.255.255.254:1"]), Ok(()));
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let both = settings(&["--allowed-hosts", "a.example,b.example", "--trusted-proxies", "192.0.2.1,::1"]).unwrap();
        assert_eq!(both.allowed_hosts, ["a.example", "b.example"]);
        assert_eq!(both.trusted_proxies, [IpAddr::from([192, 0, 2, 1]), "::1".parse().unwrap()]);
        assert!(settings(&["--trusted-proxies", "proxy.example"]).unwrap_err().contains("--trusted-proxies"));
    }

    #[test]
    fn an_address_to_listen_on_needs_a_port() {
        for wrong in ["127.0.0.1", "", "127.0.0.1:99999", "::1:x"] {
            let error = listen_address(wrong).unwrap_err();
            assert!(error.ends_with("write it as ADDRESS:PORT, such as 127.0.0.1:8080 or localhost:8080"), "{error}");
        }
        assert_eq!(listen_address("[::1]:8080").map(|address| address.port()), Ok(8_080));
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, right) in [
            ("postgres://u:p@db:5432/x", "postgres://…@db:5432/x"),
            ("postgres://u:p@ss@db/x", "postgres://…@db/x"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("u:p@db", "…@db"),
            ("", ""),
        ] {
            assert_eq!(shown(url), right, "{url}");
        }
    }

    #[test]
    fn a_program_finds_the_server_of_its_environment() {
        let server =
            |url: Option<&str>| ServerSettings { url: url.map(str::to_owned), listen: "127.0.0.1:9".to_owned() };
        assert_eq!(server(None).address(), "http://127.0.0.1:9");
        assert_eq!(server(Some("https://host/watch//")).address(), "https://host/watch");
    }

    #[test]
    fn a_given_folder_and_url_are_used_as_they_are() {
        let given =
            |url: &str, dir: &str| DatabaseSettings { database_url: Some(url.to_owned()), data_dir: Some(dir.into()) };
        assert_eq!(given("postgres://db/x", "rel/dir").folder(), Ok(PathBuf::from("rel/dir")));
        assert_eq!(given("postgres://db/x", "d").url().as_deref(), Some("postgres://db/x"));
        assert_eq!(given(" \n", "d").url(), None, "an empty variable is none");
    }

    #[test]
    fn settings_stand_before_no_other_command() {
        assert!(Cli::try_parse_from(["taskwatch", "--poll-seconds", "5", "serve"]).is_err());
        let cli = Cli::try_parse_from(["taskwatch", "serve", "--poll-seconds", "7"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Serve(settings)) if settings.poll_seconds == 7));
        let tail =
            Cli::try_parse_from(["taskwatch", "tail", "--max-events", "1", "queue=a", "types=task_failed"]).unwrap();
        let Some(Command::Tail(tail)) = tail.command else { panic!("it is tail") };
        assert_eq!((tail.max_events, tail.filters.len(), tail.after.as_str()), (Some(1), 2, "now"));
        for wrong in [&["tail", "--max-events", "0"][..], &["openapi", "--version", "2.0"], &["demo", "--workers", "0"]]
        {
            assert!(Cli::try_parse_from(["taskwatch"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}
