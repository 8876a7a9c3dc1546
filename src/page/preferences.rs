//! Preferences of a viewer, stored in a cookie.

/// Preferences of a viewer; stored in a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preferences {
    /// Theme.
    pub theme: &'static str,
    /// Time format.
    pub times: &'static str,
    /// Whether keyboard shortcuts are enabled.
    pub keys: &'static str,
}

/// Preferences: name and values, the first of which is the default.
pub const CHOICES: [(&str, &[&str]); 3] =
    [("theme", &["system", "light", "dark"]), ("times", &["relative", "utc", "local"]), ("keys", &["on", "off"])];

impl Default for Preferences {
    fn default() -> Self {
        Self { theme: CHOICES[0].1[0], times: CHOICES[1].1[0], keys: CHOICES[2].1[0] }
    }
}

impl Preferences {
    /// Parses the cookie value; invalid entries fall back to the default.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut read = Self::default();
        for pair in text.split('~') {
            let Some((name, value)) = pair.split_once('.') else { continue };
            read.set(name, value);
        }
        read
    }

    /// Sets a preference; false if the name or value is unknown.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let known = CHOICES.iter().find(|(choice, _)| *choice == name);
        let Some(value) = known.and_then(|(_, values)| values.iter().find(|known| **known == value)) else {
            return false;
        };
        match name {
            "theme" => self.theme = value,
            "times" => self.times = value,
            _ => self.keys = value,
        }
        true
    }

    /// Formats the cookie value.
    #[must_use]
    pub fn write(self) -> String {
        format!("theme.{}~times.{}~keys.{}", self.theme, self.times, self.keys)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn preferences_that_are_not_known_are_the_first_choice() {
        for text in [
            "",
            "~",
            "theme",
            "theme.",
            "theme.pink",
            "colour.dark",
            ".dark",
            "theme.dark.light",
            "\u{0}",
            "theme.DARK",
        ] {
            assert_eq!(Preferences::read(text), Preferences::default(), "{text}");
        }
        let mixed = Preferences::read("theme.pink~times.utc~x.y~keys.off~theme.dark");
        assert_eq!((mixed.theme, mixed.times, mixed.keys), ("dark", "utc", "off"));
    }

    #[test]
    fn every_choice_survives_its_cookie() {
        for (name, values) in CHOICES {
            for value in values {
                let mut chosen = Preferences::default();
                assert!(chosen.set(name, value), "{name} {value}");
                assert_eq!(Preferences::read(&chosen.write()), chosen);
                let plain = chosen.write().bytes().all(|byte| byte.is_ascii_alphanumeric() || b".~".contains(&byte));
                assert!(plain, "a cookie holds no other characters");
            }
        }
        let mut same = Preferences::default();
        assert!(!same.set("theme", "pink") && !same.set("colour", "dark"));
        assert_eq!(same, Preferences::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn no_cookie_stops_a_page(text in "\\PC{0,30}|(theme|times|keys|\\.|~|dark|utc|off){0,9}") {
            let read = Preferences::read(&text);
            prop_assert_eq!(Preferences::read(&read.write()), read);
        }
    }
}
