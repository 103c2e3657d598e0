//! Parses and checks the head of a request. Has no sockets.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::mail::Domain;

/// Longest head in octets: request line and fields.
pub(super) const HEAD_OCTETS_MAX: usize = 8 * 1024;
const FIELDS_MAX: usize = 64;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpRequest {
    pub(super) method: HttpMethod,
    /// The path; begins with `/`.
    pub(super) path: String,
    /// The text after the `?`; empty without one.
    pub(super) query: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpMethod {
    Get,
    Head,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestError {
    /// 400: not HTTP, or not a request to a server.
    Malformed,
    /// 405: pages can only be read.
    MethodNotAllowed,
    /// 421 (RFC 9110 §15.5.20): the request is for another host.
    MisdirectedHost,
    /// 431: the head is too large.
    TooLarge,
}

/// Parses the head as far as it has arrived; `None` if it is not complete. Requests may be for an address,
/// `localhost` or `hostname`.
pub(super) fn parse_request(head: &[u8], hostname: &Domain) -> Option<Result<HttpRequest, RequestError>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => Some(check_request(&parsed, hostname)),
        Ok(httparse::Status::Partial) if head.len() < HEAD_OCTETS_MAX => None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Some(Err(RequestError::TooLarge))
        }
        Err(_) => Some(Err(RequestError::Malformed)),
    }
}

fn check_request(parsed: &httparse::Request<'_, '_>, hostname: &Domain) -> Result<HttpRequest, RequestError> {
    let mut hosts = parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next(), parsed.version) {
        (Some(host), None, _) if is_own_host(host.value, hostname) => {}
        (Some(_), None, _) => return Err(RequestError::MisdirectedHost),
        // No browser sends HTTP/1.0; a person with netcat may.
        (None, _, Some(0)) => {}
        // RFC 9112 §3.2: exactly one Host field.
        (Some(_), Some(_), _) | (None, _, _) => return Err(RequestError::Malformed),
    }
    let method = match parsed.method {
        Some("GET") => HttpMethod::Get,
        Some("HEAD") => HttpMethod::Head,
        _ => return Err(RequestError::MethodNotAllowed),
    };
    let target = parsed.path.filter(|target| target.starts_with('/')).ok_or(RequestError::Malformed)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(HttpRequest { method, path: path.to_owned(), query: query.to_owned() })
}

/// A name that nobody else can point at this host: an address, `localhost`, or the server's hostname.
fn is_own_host(host: &[u8], hostname: &Domain) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split_once(']').is_some_and(|(v6, port)| v6.parse::<Ipv6Addr>().is_ok() && is_port(port));
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    is_port(port)
        && (name.eq_ignore_ascii_case("localhost")
            || name.parse::<Ipv4Addr>().is_ok()
            || Domain::parse(name).is_ok_and(|name| name == *hostname))
}

/// Nothing, or a colon and digits.
fn is_port(port: &str) -> bool {
    port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &str) -> Option<Result<HttpRequest, RequestError>> {
        parse_request(head.as_bytes(), &Domain::parse("mail.bücher.example").unwrap())
    }

    fn get(path: &str, query: &str) -> Option<Result<HttpRequest, RequestError>> {
        Some(Ok(HttpRequest { method: HttpMethod::Get, path: path.into(), query: query.into() }))
    }

    #[test]
    fn a_request_is_read_once_it_is_complete() {
        assert_eq!(answer("GET / HTTP/1.1\r\nHost: localhost\r\n"), None);
        assert_eq!(answer("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), get("/", ""));
        assert_eq!(answer("GET /traces?a=b?c HTTP/1.0\r\n\r\n"), get("/traces", "a=b?c"));
        assert_eq!(answer("\x16\x03\x01"), Some(Err(RequestError::Malformed)));
        assert_eq!(answer("EHLO there.example\r\n\r\n"), Some(Err(RequestError::Malformed)));
        assert_eq!(answer("GET http://localhost/ HTTP/1.0\r\n\r\n"), Some(Err(RequestError::Malformed)));
    }

    #[test]
    fn only_get_and_head_are_allowed() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(answer(&head), Some(Err(RequestError::MethodNotAllowed)), "{method}");
        }
    }

    #[test]
    fn a_name_that_others_can_point_at_this_host_is_refused() {
        let host = |host: &str| answer(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        for ours in [
            "localhost",
            "LOCALHOST:10990",
            "127.0.0.1:10990",
            "[::1]",
            "[::1]:10990",
            "mail.xn--bcher-kva.example",
            "Mail.Xn--Bcher-Kva.example:80",
        ] {
            assert_eq!(host(ours), get("/", ""), "{ours}");
        }
        for other in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "127.0.0.1:x", ""]
        {
            assert_eq!(host(other), Some(Err(RequestError::MisdirectedHost)), "{other}");
        }
        let two = "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n";
        assert_eq!(answer(two), Some(Err(RequestError::Malformed)));
        assert_eq!(answer("GET / HTTP/1.1\r\n\r\n"), Some(Err(RequestError::Malformed)));
    }

    #[test]
    fn a_head_that_is_too_large_is_refused() {
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_OCTETS_MAX));
        assert_eq!(answer(&endless), Some(Err(RequestError::TooLarge)));
        let many = format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(answer(&many), Some(Err(RequestError::TooLarge)));
    }
}
