//! Everything that the product promises, driven through its real edges: a real Postgres, real HTTP, a real browser,
//! the real binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
#![expect(clippy::print_stdout, reason = "some tests measure, and say what they saw")]

mod harness;

mod accessible;
mod api;
mod bad_input;
mod browser;
mod celery;
mod chaos;
mod clients;
mod delivery;
mod documents;
mod enqueue;
mod feed;
mod filters;
mod forms;
mod generated;
mod groups;
mod hands;
mod laws;
mod life;
mod live;
mod monitoring;
mod nginx;
mod observe;
mod operators;
mod pages;
mod past;
mod process;
mod queues;
mod replay;
mod requests;
mod retention;
mod schemas;
mod state_machine;
mod stream;
mod tail;
mod upkeep;
mod verdicts;
mod viewers;
mod wall;
mod writer;
