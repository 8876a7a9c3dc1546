//! What tells one instance of the program from another.

use super::words::words;

words! {
    /// The colour of an instance: a stripe on top of its pages.
    #[derive(Default, clap::ValueEnum)]
    InstanceColour {
        /// No stripe.
        #[default]
        None = "none",
        /// As for production.
        Red = "red",
        /// As for staging.
        Amber = "amber",
        /// As for tests.
        Green = "green",
        /// Blue.
        Blue = "blue",
        /// Violet.
        Violet = "violet",
    }
}
