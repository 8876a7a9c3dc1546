//! Explains in one sentence why a database cannot be used, and what to do.

/// The database cannot be used; the sentence gives the reason and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub(super) String);

impl From<anyhow::Error> for Unusable {
    fn from(error: anyhow::Error) -> Self {
        let advice = error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>()).and_then(advice);
        let sentence = sentence(&error);
        Self(advice.map_or_else(|| sentence.clone(), |advice| format!("{sentence}; {advice}")))
    }
}

impl From<sqlx::Error> for Unusable {
    fn from(error: sqlx::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

/// An error and its causes, without repetition: many errors already contain the text of their cause.
#[must_use]
pub fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !sentence.contains(&cause) {
            if !sentence.is_empty() {
                sentence.push_str(": ");
            }
            sentence.push_str(&cause);
        }
    }
    sentence
}

/// Advice for an error of a database or a pooler.
fn advice(error: &sqlx::Error) -> Option<String> {
    let text = error.to_string();
    if let Some((_, parameter)) = text.split_once("unsupported startup parameter: ") {
        // Must come from DATABASE_URL or PGOPTIONS: taskwatch itself sends no parameter that poolers reject.
        let name = parameter.split_whitespace().next().unwrap_or_default();
        return Some(format!(
            "the pooler refuses it: set ignore_startup_parameters = {name} in pgbouncer.ini, or leave options out of DATABASE_URL and PGOPTIONS"
        ));
    }
    if text.contains("NotValidForName") || text.contains("not valid for name") {
        return Some(
            "the certificate is for another name: connect by that name, or use sslmode=verify-ca in DATABASE_URL"
                .to_owned(),
        );
    }
    if ["CaUsedAsEndEntity", "UnknownIssuer", "BadSignature"].iter().any(|cause| text.contains(cause)) {
        return Some(
            "a certificate that signs itself is not taken as a server's: make a CA and a certificate signed by it, give the server the latter and name the CA's file with sslrootcert= in DATABASE_URL"
                .to_owned(),
        );
    }
    let sqlx::Error::Database(database) = error else { return None };
    match database.code()?.as_ref() {
        "53300" => Some(
            "taskwatch needs at least 3 connections and uses up to 12: raise the limit (ALTER ROLE … CONNECTION LIMIT, or max_connections), or end other clients"
                .to_owned(),
        ),
        "3D000" => Some("create it first, as with createdb".to_owned()),
        "42501" => Some("give this user the right, or make it the owner of the schema taskwatch".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "Connection refused");
        let error = Err::<(), _>(sqlx::Error::Io(io)).context("cannot reach it").unwrap_err();
        assert_eq!(sentence(&error).matches("Connection refused").count(), 1);
        assert!(sentence(&error).starts_with("cannot reach it: "));
    }

    #[test]
    fn a_pooler_and_a_certificate_get_their_advice() {
        let io = |text: &str| sqlx::Error::Io(std::io::Error::other(text.to_owned()));
        let pooler = advice(&io("unsupported startup parameter: options")).unwrap();
        assert!(pooler.contains("ignore_startup_parameters = options"), "{pooler}");
        assert!(advice(&io("invalid peer certificate: CaUsedAsEndEntity")).unwrap().contains("make a CA"));
        let name = "invalid peer certificate: certificate not valid for name \"db\"";
        assert!(advice(&io(name)).unwrap().contains("another name"));
        assert!(advice(&io("invalid peer certificate: certificate expired")).is_none());
        assert!(advice(&io("connection reset")).is_none());
    }

    #[test]
    fn causes_that_say_something_new_are_added_in_order() {
        let error = anyhow::anyhow!("disk full").context("cannot write").context("cannot start");
        assert_eq!(sentence(&error), "cannot start: cannot write: disk full");
        let repeated = anyhow::anyhow!("disk full").context("cannot write: disk full");
        assert_eq!(sentence(&repeated), "cannot write: disk full");
    }

    #[test]
    fn advice_follows_the_sentence() {
        let error =
            sqlx::Error::Io(std::io::Error::other("unsupported startup parameter: extra_float_digits from peer"));
        let text = Unusable::from(error).to_string();
        assert!(
            text.contains("; the pooler refuses it: set ignore_startup_parameters = extra_float_digits in"),
            "{text}"
        );
        let plain = Unusable::from(anyhow::anyhow!("no route").context("cannot connect")).to_string();
        assert_eq!(plain, "cannot connect: no route");
    }
}
