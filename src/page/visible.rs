//! Escaping of text on pages. All templates use it, so none can omit it (`askama.toml`).

use std::fmt::{self, Write};

use askama::filters::{Escaper, Html};

use crate::event::visible::visible;

/// Escapes HTML and shows hidden characters as code points, in names, titles, errors and details.
#[derive(Debug, Clone, Copy)]
pub struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, dest: W, text: &str) -> fmt::Result {
        Html.write_escaped_str(dest, &visible(text))
    }
}
