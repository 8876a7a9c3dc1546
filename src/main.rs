//! The program: see [`taskwatch::program`].

use std::process::ExitCode;

/// Connections keep buffers of 8 KiB that are mostly untouched; this allocator does not touch their unused pages.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    taskwatch::program::main()
}
