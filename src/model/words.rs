//! Closed sets of words: enums with one spelling everywhere.

/// An enum whose variants are words in JSON, SQL and URLs: `Name { Variant = "word", … }`.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:tt),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// All variants.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in JSON, SQL, URLs and pages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    other => Err(format!("invalid value '{other}'; supported: {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use crate::model::{dependency::DependencyPolicy, operator::OperatorAction, step::EventReason, task::Outcome};

    /// The words of one set can be read and written everywhere.
    fn check<T>(all: &[T], word: fn(T) -> &'static str)
    where
        T: Copy + PartialEq + std::fmt::Debug + std::fmt::Display + std::str::FromStr<Err = String>,
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        for one in all {
            let json = format!("\"{}\"", word(*one));
            assert_eq!((word(*one).parse::<T>(), one.to_string()), (Ok(*one), word(*one).to_owned()));
            assert_eq!(serde_json::to_string(one).unwrap(), json);
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *one);
        }
        let error = "neither".parse::<T>().unwrap_err();
        assert!(error.starts_with("invalid value 'neither'") && error.ends_with(word(all[all.len() - 1])), "{error}");
    }

    #[test]
    fn a_word_is_the_same_in_json_in_sql_and_on_pages() {
        check(DependencyPolicy::ALL, DependencyPolicy::as_str);
        check(OperatorAction::ALL, OperatorAction::as_str);
        check(EventReason::ALL, EventReason::as_str);
        check(Outcome::ALL, Outcome::as_str);
    }

    #[test]
    fn a_word_in_other_letters_is_another_word() {
        for text in ["Fail", "FAIL", " fail", "fail ", ""] {
            let error = text.parse::<DependencyPolicy>().unwrap_err();
            assert_eq!(error, format!("invalid value '{text}'; supported: fail, cancel, ignore"));
        }
    }
}
