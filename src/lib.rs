//! taskwatch is a task queue and monitor: tasks in Postgres, every change an event in one ordered log, and a stream and
//! pages that show it.
//!
//! # One direction, one writer, one publisher
//!
//! ```text
//! HTTP report ─► http/api ─► store::writer ─► Postgres (rows + events, ONE transaction) ─► feed::tailer
//!  (parse, check)             (group commit)   positions 1, 2, 3 … dense, in commit order      │ in order, once
//!                                                                                              ▼
//!      pages, snapshot ◄── board (fold of events), then wake-ups, callbacks ◄───────── each event
//!                                                                                              │
//!      SSE clients ◄── http/stream ◄── feed::byte_reader (shared) ◄── feed::hub (ring of frames)
//! ```
//!
//! # Laws
//!
//! Each has a test in `tests/it/laws.rs` or `tests/it/viewers.rs`.
//!
//! 1. Only [`store::writer`] changes tasks or appends events, always both in one transaction; beside it only the SQL
//!    function `taskwatch.enqueue`, under the same lock.
//! 2. Positions are dense, in commit order, never reused: the log's lock is taken last, and the head read after that.
//! 3. Only [`feed::tailer`] reads the log forward and publishes events, once per process.
//! 4. An event never changes once it has a position: what is stored is what is sent, byte for byte.
//! 5. Everything shown is a projection of the log: [`board::Board::apply`].
//! 6. Viewers add no database load: a fragment is rendered once and shared.
//! 7. A slow or dead reader costs a cursor, never a queue.
//! 8. [`model`], [`event`], [`command`] and [`board`] do no I/O, read no clock and draw no randomness.
//!
//! # Folders
//!
//! [`model`] → [`event`] → [`command`], [`board`] → [`store`] → [`feed`] → [`page`], [`maintenance`] → [`http`]; a
//! folder uses only those before it. [`app`] uses all. Handlers cannot access the hub. [`demo`], [`tail`] and [`probe`]
//! use the public API only.
//!
//! | to add | edit |
//! | --- | --- |
//! | an event kind | its row in [`event::kind`], the place that emits it |
//! | a filter | its row in `src/event/filter/table.rs` |
//! | a command with its API call | `src/command/x.rs`, its handler and route in `src/http/api` |
//! | a page | `src/page/pages/x.rs`, `templates/x.html`, its row in [`page::PAGES`] |
//! | a periodic job | its file in `src/maintenance`, its row in [`maintenance::JOBS`] |
//! | a metric | its row in [`metrics`] |
//! | a setting | its field in [`config::Settings`] |

pub mod app;
pub mod base_path;
pub mod board;
pub mod clock;
pub mod command;
pub mod config;
pub mod demo;
pub mod embedded;
pub mod event;
pub mod feed;
pub mod http;
pub mod maintenance;
pub mod metrics;
pub mod model;
pub mod page;
pub mod probe;
pub mod program;
pub mod store;
pub mod tail;
pub mod telemetry;
