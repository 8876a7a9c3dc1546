//! Everything that the product promises, driven through its real edges: a real Postgres, real HTTP, a real browser,
//! the real binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
#![expect(clippy::disallowed_methods, reason = "a test looks at the machine's own clock")]
#![expect(clippy::print_stdout, reason = "some tests measure, and say what they saw")]

mod accessibility;
mod api;
mod attacks;
mod bad_input;
mod blocked;
mod bounds;
mod browser;
mod celery;
mod chaos;
mod clients;
mod cloudevents;
mod cron;
mod databases;
mod delivery;
mod documents;
mod doors;
mod enqueue;
mod families;
mod feed;
mod filters;
mod forms;
mod fuzz;
mod generated;
mod groups;
mod harness;
mod health;
mod identity;
mod interaction;
mod json_text;
mod laws;
mod live;
mod local_safety;
mod log_search;
mod maintenance;
mod monitoring;
mod mounted;
mod names;
mod nginx;
mod observe;
mod operators;
mod orphans;
mod pages;
mod process;
mod projects;
mod queues;
mod replay;
mod requests;
mod retention;
mod scheduling;
mod schemas;
mod shell;
mod sql_enqueue;
mod startup;
mod state_machine;
mod stream;
mod tail;
mod time_travel;
mod times;
mod unreadable;
mod upgrade;
mod viewers;
mod visible_text;
mod wall;
mod worker_liveness;
mod writer;
mod writing;
