//! Host names of this server. A foreign page whose own name resolves to this machine (DNS rebinding) would otherwise
//! count as same-origin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::{HeaderMap, Request, header};

use super::{codes::ErrorCode, problem::Problem};

/// Accepted host names: loopback ones, and the configured ones.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Vec<String>);

/// A host with an optional port: `name`, `name:8080`, `[::1]:8080`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// In lower case, without a trailing dot.
    name: String,
    port: Option<u16>,
}

impl Authority {
    /// Parses it; `None` if it is invalid.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                (
                    IpAddr::from(address).to_canonical().to_string(),
                    port.strip_prefix(':').or(Some("").filter(|_| port.is_empty()))?,
                )
            }
            None => {
                let (name, port) = text.split_once(':').unwrap_or((text, ""));
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                (ipv4(&name).map_or(name, |address| address.to_string()), port)
            }
        };
        let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
        (!name.is_empty()).then_some(Self { name, port })
    }

    /// Whether both refer to the same host and port, given a scheme.
    pub(super) fn is_same(&self, other: &Self, scheme: &str) -> bool {
        let usual = if scheme == "https" { 443 } else { 80 };
        self.name == other.name && self.port.unwrap_or(usual) == other.port.unwrap_or(usual)
    }
}

/// An IPv4 address as parsed by resolvers: `127.0.0.1`, and `127.1`, `0x7f.1` or `2130706433`.
fn ipv4(name: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| match part {
        // A sign is not a digit.
        signed if signed.contains('+') => None,
        hex if hex.starts_with("0x") => u32::from_str_radix(&hex[2..], 16).ok(),
        octal if octal.starts_with('0') && octal.len() > 1 => u32::from_str_radix(&octal[1..], 8).ok(),
        decimal => decimal.parse().ok(),
    };
    let parts: Vec<u32> = name.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let room = 32 - 8 * u32::try_from(first.len()).ok()?;
    if room < 32 && *last >= 1 << room {
        return None;
    }
    let high = first.iter().zip([24, 16, 8]).map(|(part, shift)| part << shift).sum::<u32>();
    Some(Ipv4Addr::from(high | last))
}

impl Hosts {
    pub(super) fn new(allowed: &[String]) -> Self {
        Self(allowed.iter().filter_map(|name| Authority::parse(name.trim())).map(|authority| authority.name).collect())
    }

    fn know(&self, name: &str) -> bool {
        let loopback = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        name == "localhost" || loopback || self.0.iter().any(|allowed| allowed == name)
    }

    /// The host of a request; `None` if it has none and may be without.
    ///
    /// # Errors
    /// 421 if it is not one of ours, 400 if it is ambiguous.
    pub(super) fn check<B>(&self, request: &Request<B>, may_be_absent: bool) -> Result<Option<Authority>, Problem> {
        let named = named(request.headers()).map_err(|detail| refused(ErrorCode::InvalidHost, detail))?;
        // HTTP/2 has it in the URI, as do requests to proxies.
        let addressed = request.uri().authority().map(|authority| Authority::parse(authority.as_str()));
        let host = match (named, addressed) {
            (None, None) if may_be_absent => return Ok(None),
            (Some(named), Some(addressed)) if addressed.as_ref() != Some(&named) => {
                let detail = "differs from the host in the request URL; send the same in both";
                return Err(refused(ErrorCode::InvalidHost, detail));
            }
            (named, addressed) => named.or(addressed.flatten()),
        };
        let unknown = "unknown Host header; use the IP address, or add the name with --allowed-hosts";
        let host = host.filter(|host| self.know(&host.name));
        host.map(Some).ok_or_else(|| refused(ErrorCode::UnknownHost, unknown))
    }
}

fn refused(code: ErrorCode, detail: &str) -> Problem {
    Problem::field(code, "Host", detail)
}

/// The Host header, which must be unique.
fn named(headers: &HeaderMap) -> Result<Option<Authority>, &'static str> {
    let mut values = headers.get_all(header::HOST).into_iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("is given more than once");
    }
    // An invalid name cannot be ours: replaced by an empty one, which is unknown.
    let name = first.to_str().ok().and_then(Authority::parse);
    Ok(Some(name.unwrap_or(Authority { name: String::new(), port: None })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::get(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn names_are_read_once_and_compared_whole() {
        let hosts = Hosts::new(&["Watch.Example".to_owned(), String::new(), " ".to_owned(), "10.0.0.7".to_owned()]);
        let status = |host: &str| match hosts.check(&request("/", &[host]), false) {
            Ok(_) => 200,
            Err(problem) => problem.status().as_u16(),
        };
        for ours in [
            "localhost",
            "LOCALHOST:7",
            "localhost.",
            "127.0.0.1:8080",
            "127.1",
            "127.0.1",
            "0x7f.1",
            "2130706433",
            "017700000001",
            "127.255.255.254",
            "[::1]:8080",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[0:0:0:0:0:0:0:1]:1",
            "watch.example",
            "watch.example.:443",
            "10.0.0.7",
            "10.7:80",
            "localhost:",
        ] {
            assert_eq!(status(ours), 200, "{ours}");
        }
        for foreign in [
            "",
            " ",
            ":80",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[[[127.0.0.1",
            "[127.0.0.1]",
            "[::1",
            "[::1]x",
            "[::1]]",
            "::1",
            "127.0.0.1:port",
            "127.0.0.1:99999",
            "user@localhost",
            "localhost@evil",
            "128.1",
            "127.1.2.3.4",
            "127.0.0.256",
            "127.16777216",
            "0.0.0.0",
            "[::]",
            "localhost..",
            "watch.example.evil",
            "watch",
            "+127.1",
            "127.+1",
            "0x+7f.1",
        ] {
            assert_eq!(status(foreign), 421, "{foreign}");
        }
    }

    #[test]
    fn there_is_one_host_and_it_is_that_of_the_address() {
        let hosts = Hosts::new(&[]);
        let status = |uri: &str, names: &[&str], may_be_absent| match hosts.check(&request(uri, names), may_be_absent) {
            Ok(_) => 200,
            Err(problem) => problem.status().as_u16(),
        };
        assert_eq!(status("/", &["localhost", "localhost"], false), 400);
        assert_eq!(status("/", &["localhost", "evil.example"], true), 400);
        assert_eq!(status("http://evil.example/", &["localhost"], false), 400);
        assert_eq!(status("http://localhost:80/", &["localhost:81"], false), 400);
        assert_eq!(status("http://evil.example/", &[], true), 421);
        assert_eq!(status("http://127.0.0.1:8080/", &["127.0.0.1:8080"], false), 200);
        assert_eq!(status("http://[::1]:8080/", &[], false), 200);
        assert_eq!(status("/", &[], false), 421);
        assert_eq!(status("/", &[], true), 200);
    }
}
