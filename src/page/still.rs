//! Contents of pages that do not change by themselves: errors, search results, settings, help.

use askama::Template;

use super::{Page, preferences::Preferences};

/// Content of an error page.
#[derive(Template)]
#[template(path = "error.html")]
pub struct Failure<'a> {
    /// Heading.
    pub heading: &'a str,
    /// What is wrong and what to do.
    pub detail: &'a str,
    /// Links to continue with: label and URL.
    pub refresh_options: Vec<(&'a str, String)>,
}

/// A page that was found for what someone pasted.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it is about.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
}

/// Several pages that were found.
#[derive(Template)]
#[template(path = "jump.html")]
pub struct JumpList<'a> {
    /// What was looked for.
    pub text: &'a str,
    /// The pages.
    pub found: Vec<Found>,
    /// Where the tasks are searched for it.
    pub search: String,
}

/// The preferences page.
#[derive(Template)]
#[template(path = "settings.html")]
pub struct Settings {
    /// Current preferences.
    pub preferences: Preferences,
}

/// The help page.
#[derive(Template)]
#[template(path = "help.html")]
pub struct Help {
    /// URL of the server.
    pub url: String,
    /// All pages, with their shortcuts.
    pub pages: &'static [Page],
}
