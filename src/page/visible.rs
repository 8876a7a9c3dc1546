//! Text on pages. Every template writes through this, so none can forget it (`askama.toml`).

use std::fmt::{self, Write};

use askama::filters::{Escaper, Html};

use crate::event::visible::visible;

/// Escapes for HTML and shows hidden characters as code points, in names as well as in titles, errors and facts.
#[derive(Debug, Clone, Copy)]
pub struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, dest: W, text: &str) -> fmt::Result {
        Html.write_escaped_str(dest, &visible(text))
    }
}
