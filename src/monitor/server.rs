//! The socket, the limits, and which page has which path.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use super::monitor_data::MonitorData;
use super::request::{self, HEAD_OCTETS_MAX, HttpMethod, HttpRequest, RequestError};
use super::{overview_page, queue_page, traces_page};
use crate::sys::{AcceptLoop, Clock as _, StopFlag, Stream, SystemClock, interruptible_stream, spawn};

/// Requests answered at once; more are told to come back.
const CLIENTS_MAX: usize = 16;
/// Time for one request, from its first octet to the last of the reply.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for what we never read, so that the reply is not lost with it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The thread `monitor` behind a listening socket. Dropping it ends it; replies under way are
/// finished within their deadline.
#[derive(Debug)]
pub struct MonitorServer {
    stop: Arc<StopFlag>,
    thread: Option<JoinHandle<()>>,
}

impl MonitorServer {
    /// Shows pages to whoever connects to `listener`, which should be on loopback.
    ///
    /// # Errors
    /// When the host has no thread or file descriptor to give.
    pub fn start(listener: TcpListener, shows: Arc<dyn MonitorData>) -> io::Result<Self> {
        let stop = Arc::new(StopFlag::new()?);
        let theirs = Arc::clone(&stop);
        let thread = spawn("monitor", move || serve(&listener, &theirs, &shows))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for MonitorServer {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, stop: &StopFlag, data: &Arc<dyn MonitorData>) {
    let mut clients = match AcceptLoop::new(listener, stop, "the monitoring port") {
        Ok(clients) => clients,
        Err(e) => return log::error!("the monitoring port is closed: {e}"),
    };
    let count = Arc::new(AtomicUsize::new(0));
    while let Some((stream, _)) = clients.next_client() {
        let guard = ClientCountGuard(Arc::clone(&count));
        if count.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            // The reply fits into the socket's buffer.
            drop(stream.set_nonblocking(true).and_then(|()| (&stream).write_all(&too_busy_reply())));
            continue;
        }
        let data = Arc::clone(data);
        let started = spawn("monitor-client", move || {
            let _guard = guard;
            if let Err(e) = serve_client(stream, &*data) {
                log::debug!("a client of the monitor left: {e}");
            }
        });
        if let Err(e) = started {
            log::warn!("no thread for a client of the monitor: {e}");
        }
    }
}

/// One client, counted until it is gone, come what may.
struct ClientCountGuard(Arc<AtomicUsize>);

impl Drop for ClientCountGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve_client(stream: TcpStream, shows: &dyn MonitorData) -> io::Result<()> {
    let socket = stream.try_clone()?;
    let (mut stream, _) = interruptible_stream(stream, SystemClock.now() + REQUEST_TIMEOUT)?;
    let Some(asked) = read_head(&mut stream, shows)? else { return Ok(()) };
    let (reply, method) = match &asked {
        Ok(request) => (HttpReply::for_request(request, shows), request.method),
        Err(refusal) => (HttpReply::for_error(*refusal), HttpMethod::Get),
    };
    stream.write_all(&reply.to_octets(method))?;
    stream.flush()?;
    if asked.is_err() {
        // Closing a socket that holds unread octets resets it, and the reply may be lost.
        socket.shutdown(Shutdown::Write)?;
        stream.set_deadline(SystemClock.now() + DRAIN_TIMEOUT);
        let mut waste = [0; 4096];
        let mut octets = 0;
        while octets < 64 * 1024 {
            match stream.read(&mut waste) {
                Ok(0) | Err(_) => break,
                Ok(count) => octets += count,
            }
        }
    }
    Ok(())
}

/// Reads one head; nothing if the client says nothing.
fn read_head(
    stream: &mut Box<dyn Stream>,
    shows: &dyn MonitorData,
) -> io::Result<Option<Result<HttpRequest, RequestError>>> {
    let hostname = shows.status().hostname;
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let count = match stream.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            return Ok((!head.is_empty()).then_some(Err(RequestError::Malformed)));
        }
        let room = HEAD_OCTETS_MAX.saturating_sub(head.len());
        head.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
        if let Some(asked) = request::parse_request(&head, &hostname) {
            return Ok(Some(asked));
        }
    }
}

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a client is sent.
struct HttpReply {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl HttpReply {
    fn ok(content_type: &'static str, body: String) -> Self {
        Self { status: "200 OK", content_type, body }
    }

    fn text(status: &'static str, sentence: &str) -> Self {
        Self { status, content_type: TEXT, body: format!("{sentence}\n") }
    }

    fn for_request(request: &HttpRequest, shows: &dyn MonitorData) -> Self {
        match request.path.as_str() {
            "/" => Self::ok(HTML, overview_page::page(shows)),
            "/queue" => Self::ok(HTML, queue_page::page(shows)),
            "/queue.json" => Self::ok(JSON, format!("{:#}\n", shows.queue_json())),
            "/traces" => Self::ok(HTML, traces_page::page(shows, &request.query)),
            "/metrics" => Self::ok(OPENMETRICS, shows.metrics().to_openmetrics()),
            "/debug/vars" => Self::ok(JSON, format!("{:#}\n", debug_vars(shows))),
            _ => Self::text("404 Not Found", "There is no such page; / has links to those there are."),
        }
    }

    fn for_error(refusal: RequestError) -> Self {
        match refusal {
            RequestError::Malformed => {
                Self::text("400 Bad Request", "This is not a request that we understand.")
            }
            RequestError::MethodNotAllowed => {
                Self::text("405 Method Not Allowed", "Pages here can only be read.")
            }
            RequestError::MisdirectedHost => Self::text(
                "421 Misdirected Request",
                "Ask by an address, by the name localhost, or by postrider's own hostname.",
            ),
            RequestError::TooLarge => {
                Self::text("431 Request Header Fields Too Large", "The request is too large.")
            }
        }
    }

    fn to_octets(&self, method: HttpMethod) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let mut octets = format!(
            "HTTP/1.1 {status}\r\n\
             Content-Type: {content_type}\r\n\
             Content-Length: {}\r\n\
             Allow: GET, HEAD\r\n\
             Cache-Control: no-store\r\n\
             Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Referrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n\
             Connection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if method == HttpMethod::Get {
            octets.extend_from_slice(body.as_bytes());
        }
        octets
    }
}

fn too_busy_reply() -> Vec<u8> {
    HttpReply::text("503 Service Unavailable", "Too many ask at once; come back in a moment.")
        .to_octets(HttpMethod::Get)
}

/// Everything that is counted, with what the server is.
fn debug_vars(shows: &dyn MonitorData) -> serde_json::Value {
    let status = shows.status();
    let mut vars = shows.metrics().to_json();
    if let Some(vars) = vars.as_object_mut() {
        vars.insert("version".to_owned(), json!(status.version));
        vars.insert("hostname".to_owned(), json!(status.hostname));
        vars.insert("uptime_seconds".to_owned(), json!(status.uptime.as_secs()));
    }
    vars
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::fakes::TestClock;
    use crate::monitor::sample_data::SampleData;

    fn sample() -> SampleData {
        let clock = Arc::new(TestClock::default());
        SampleData::new(Arc::clone(&clock) as _, |time| clock.advance(time))
    }

    struct TestMonitor {
        address: SocketAddr,
        _monitor: MonitorServer,
    }

    impl TestMonitor {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            Self { address, _monitor: MonitorServer::start(listener, Arc::new(sample())).unwrap() }
        }

        fn say(&self, octets: &[u8]) -> String {
            self.try_to_say(octets).unwrap()
        }

        fn try_to_say(&self, octets: &[u8]) -> io::Result<String> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.write_all(octets)?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply)
        }

        fn get(&self, path: &str) -> String {
            self.say(request_for(path).as_bytes())
        }

        /// The body of a page that is there.
        fn page(&self, path: &str) -> String {
            let reply = self.get(path);
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            assert!(head.contains("default-src 'none'") && head.contains("nosniff"), "{head}");
            assert!(head.contains("Cache-Control: no-store"), "{head}");
            body.to_owned()
        }
    }

    fn request_for(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }

    #[test]
    fn the_index_page_says_how_the_server_is() {
        let page = TestMonitor::new().page("/");
        for shown in
            ["mail.here.example", "0.1.0", "3 d 4 h", "1284", "RCPT", "/queue", "/metrics", "451 4.7.1"]
        {
            assert!(page.contains(shown), "{shown} in {page}");
        }
    }

    #[test]
    fn counters_are_shown_as_openmetrics_and_as_json() {
        let house = TestMonitor::new();
        assert!(house.get("/metrics").contains(OPENMETRICS));
        let text = house.page("/metrics");
        assert!(
            text.contains("postrider_queue_messages_accepted_total 1284\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
        let vars: serde_json::Value = serde_json::from_str(&house.page("/debug/vars")).unwrap();
        assert_eq!(vars["queue_messages_accepted"], 1284);
        assert_eq!(vars["session_command"]["RCPT"], 2);
        assert_eq!(vars["uptime_seconds"], 273_600);
    }

    #[test]
    fn the_queue_is_dumped_with_each_messages_story() {
        let house = TestMonitor::new();
        let page = house.page("/queue");
        for shown in [
            sample().items[0].id.as_str(),
            "1 h 30 min old",
            "bücher.example",
            "null reverse-path",
            "bo@there.example",
            "deferred",
            "421 4.3.2",
            "tried 4 times",
            "no such mailbox",
            "held",
        ] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
        let queue: serde_json::Value = serde_json::from_str(&house.page("/queue.json")).unwrap();
        assert_eq!(queue["count"], 2);
    }

    #[test]
    fn traces_are_shown_event_by_event_and_can_be_sifted() {
        let house = TestMonitor::new();
        let all = house.page("/traces");
        assert!(all.contains("EHLO there.example") && all.contains("140 ms") && all.contains("451 4.7.1"));
        let sessions = house.page("/traces?kind=session");
        assert!(sessions.contains("EHLO there.example") && !sessions.contains("451 4.7.1"));
        let errors = house.page("/traces?errors");
        assert!(!errors.contains("EHLO there.example") && errors.contains("<tr class=\"bad\">"));
        assert!(house.page("/traces?kind=%3Cscript%3E").contains("Nothing of this kind"));
    }

    #[test]
    fn words_from_outside_are_never_markup() {
        let house = TestMonitor::new();
        for path in ["/", "/queue", "/traces", "/traces?errors"] {
            let page = house.page(path);
            assert!(
                !page.contains("<script") && !page.contains("<i>") && !page.contains("<b>come"),
                "{path}"
            );
        }
        assert!(house.page("/traces").contains("&lt;script&gt;alert(&#39;greylisted&#39;)"));
    }

    #[test]
    fn what_we_do_not_answer_is_refused_cleanly() {
        let house = TestMonitor::new();
        assert!(house.get("/exit").starts_with("HTTP/1.1 404 "));
        let post = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n{}",
            "x".repeat(50_000)
        );
        for (said, status) in [
            (post.as_str(), "405"),
            ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
            ("EHLO there.example\r\n", "400"),
            ("\x16\x03\x01\x02\x00", "400"),
        ] {
            let reply = house.say(said.as_bytes());
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
            assert!(reply.contains("Allow: GET, HEAD\r\n"), "{reply}");
        }
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(20_000));
        assert!(house.say(endless.as_bytes()).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn head_is_get_without_the_body() {
        let house = TestMonitor::new();
        let reply = house.say(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\n"), "{reply}");
        assert!(!reply.contains("Content-Length: 0\r\n"), "{reply}");
    }

    #[test]
    fn those_who_ask_and_say_nothing_more_do_not_keep_others_out_for_long() {
        let house = TestMonitor::new();
        let idle: Vec<_> = (0..CLIENTS_MAX).map(|_| TcpStream::connect(house.address).unwrap()).collect();
        let mut one_more = TcpStream::connect(house.address).unwrap();
        let mut reply = String::new();
        one_more.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
        drop(idle);
        // Their threads notice in their own time. Until then a request that nobody read may reset the
        // connection, and take the 503 with it.
        let deadline = SystemClock.now() + REQUEST_TIMEOUT;
        let request = request_for("/");
        let is_answered =
            || house.try_to_say(request.as_bytes()).is_ok_and(|reply| reply.starts_with("HTTP/1.1 200 "));
        while !is_answered() {
            assert!(SystemClock.now() < deadline);
        }
    }
}
