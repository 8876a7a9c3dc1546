//! Parsing of `DATABASE_URL`; done here so that no part of a password ends up in a message or a log.

use std::str::FromStr;

use anyhow::bail;
use sqlx::postgres::PgConnectOptions;
use url::Url;

const FORM: &str = "invalid DATABASE_URL; expected postgres://user:password@host:5432/database";
const ESCAPE: &str =
    "if the user name or the password holds one of @ / ? # : % or a space, write it as %40 %2F %3F %23 %3A %25 %20";
/// Supported parameters.
const KNOWN: [&str; 19] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "options[",
];

/// Connection options from a URL such as `postgres://user:password@host:5432/database`.
///
/// # Errors
/// Not a Postgres URL; the message contains no part of it that may be secret.
pub(super) fn options(text: &str) -> anyhow::Result<PgConnectOptions> {
    let text = text.trim();
    if text.contains(char::REPLACEMENT_CHARACTER) {
        bail!("DATABASE_URL is no valid UTF-8; write other bytes as %XX");
    }
    if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
        bail!(FORM);
    }
    let Ok(mut url) = Url::parse(text) else { bail!("{FORM}; {ESCAPE}") };
    // After an unescaped '/', '?' or '#' the rest of a password is parsed as a path, a parameter or a fragment.
    let cut =
        url.path().contains('@') || url.fragment().is_some() || url.query_pairs().any(|(name, _)| name.contains('@'));
    if cut {
        bail!("DATABASE_URL cannot be read: its password seems to end too early; {ESCAPE}");
    }
    let is_known = |name: &str| {
        KNOWN.iter().any(|known| if known.ends_with('[') { name.starts_with(known) } else { name == *known })
    };
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let (known, unknown): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(name, _)| is_known(name));
    for (name, _) in &unknown {
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && name.len() <= 32;
        tracing::warn!("DATABASE_URL: {} is not understood and ignored", if plain { name } else { "a parameter" });
    }
    url.set_query(None);
    if !known.is_empty() {
        url.query_pairs_mut().extend_pairs(known);
    }
    // The message may describe the problem, but must not contain the value.
    let Ok(options) = PgConnectOptions::from_str(url.as_str()) else {
        bail!(
            "DATABASE_URL: a part of it or the value of a parameter (sslmode, port, hostaddr) is not understood; {ESCAPE}"
        );
    };
    Ok(options)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_it_is_no_part_of_it() {
        let options = options("  postgres://u:p@db.example:6432/watch\r\n").unwrap();
        assert_eq!(
            (options.get_host(), options.get_port(), options.get_database()),
            ("db.example", 6432, Some("watch"))
        );
    }

    #[test]
    fn a_password_that_cuts_the_address_is_the_named_cause_and_never_shown() {
        for url in [
            "postgres://u:CANARY@CANARY/CANARY@db:5432/x",
            "postgres://u:CANARY/CANARY@db:5432/x",
            "postgres://u:CANARY#CANARY@db/x",
            "postgres://u:p@CANARY#CANARY@db/x",
            "postgres://u:p@CANARY?CANARY@db/x",
            "postgres://u:p@CANARY:CANARY@db:port/x",
            "postgres://u:p@db/x?sslmode=CANARY",
            "postgres://u:p@db/x?statement-cache-capacity=CANARY",
            "postgres://u:%ff@db/x",
        ] {
            let error = format!("{:#}", options(url).unwrap_err());
            assert!(error.contains("%40") && !error.contains("CANARY"), "{url}: {error}");
        }
        // Accepted where '@' is escaped or harmless.
        for url in
            ["postgres://u:a%40b%2Fc@db/x", "postgres://u:a@b@db/x", "postgres://u@db/x?application_name=me@home"]
        {
            assert_eq!(options(url).unwrap().get_host(), "db", "{url}");
        }
    }

    #[test]
    fn other_parameters_are_left_out() {
        let url = "postgres://u:p@db/x?connect_timeout=5&application_name=a&options[geqo]=off&channel_binding=require";
        let options = options(url).unwrap();
        assert_eq!((options.get_application_name(), options.get_options()), (Some("a"), Some("-c geqo=off")));
    }

    #[test]
    fn an_address_of_another_kind_is_no_address() {
        for wrong in ["", " ", "mysql://u@db/x", "db:5432", "postgres:/u@db/x", "http://db/x", "POSTGRES://u@db/x"] {
            let error = options(wrong).unwrap_err().to_string();
            assert!(error.contains("expected postgres://user:password@host:5432/database"), "{wrong}: {error}");
        }
        assert!(options("postgres://u:\u{fffd}@db/x").unwrap_err().to_string().contains("no valid UTF-8"));
        assert_eq!(options("postgresql://u@db/x").unwrap().get_host(), "db");
    }

    #[test]
    fn every_parameter_that_is_known_is_passed_on() {
        let socket = options("postgres://u@localhost/x?host=/run/pg&port=6543&user=v&dbname=y").unwrap();
        assert_eq!(socket.get_socket().map(|path| path.display().to_string()).as_deref(), Some("/run/pg"));
        assert_eq!((socket.get_port(), socket.get_username(), socket.get_database()), (6_543, "v", Some("y")));
    }
}
