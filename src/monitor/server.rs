//! The socket, the limits, and the page for each path.

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

/// Requests answered at the same time; more get 503.
const CLIENTS_MAX: usize = 16;
/// Time for one request, from its first octet to the last octet of the reply.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to read the rest of a refused request, so that its reply is not lost.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The thread `monitor` behind a listening socket. Dropping it ends the thread; replies under way are
/// finished within their deadline.
#[derive(Debug)]
pub struct MonitorServer {
    stop: Arc<StopFlag>,
    thread: Option<JoinHandle<()>>,
}

impl MonitorServer {
    /// Answers the clients of `listener`, which should be on loopback.
    ///
    /// # Errors
    /// When the host has no thread or file descriptor left.
    pub fn start(listener: TcpListener, data: Arc<dyn MonitorData>) -> io::Result<Self> {
        let stop = Arc::new(StopFlag::new()?);
        let flag = Arc::clone(&stop);
        let thread = spawn("monitor", move || serve(&listener, &flag, &data))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for MonitorServer {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            // That thread logs its own panic.
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

/// Counts one client until it is dropped.
struct ClientCountGuard(Arc<AtomicUsize>);

impl Drop for ClientCountGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve_client(stream: TcpStream, data: &dyn MonitorData) -> io::Result<()> {
    let socket = stream.try_clone()?;
    let (mut stream, _) = interruptible_stream(stream, SystemClock.now() + REQUEST_TIMEOUT)?;
    let Some(asked) = read_head(&mut stream, data)? else { return Ok(()) };
    let (reply, method) = match &asked {
        Ok(request) => (HttpReply::for_request(request, data), request.method),
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

/// Reads one head; `None` if the client sends nothing.
fn read_head(
    stream: &mut Box<dyn Stream>,
    data: &dyn MonitorData,
) -> io::Result<Option<Result<HttpRequest, RequestError>>> {
    let hostname = data.status().hostname;
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

/// A reply.
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

    fn for_request(request: &HttpRequest, data: &dyn MonitorData) -> Self {
        match request.path.as_str() {
            "/" => Self::ok(HTML, overview_page::page(data)),
            "/queue" => Self::ok(HTML, queue_page::page(data)),
            "/queue.json" => Self::ok(JSON, format!("{:#}\n", data.queue_json())),
            "/traces" => Self::ok(HTML, traces_page::page(data, &request.query)),
            "/metrics" => Self::ok(OPENMETRICS, data.metrics().to_openmetrics()),
            "/debug/vars" => Self::ok(JSON, format!("{:#}\n", debug_vars(data))),
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

/// All counters, and the version, name and uptime. Names have underscores, as those of the counters do.
fn debug_vars(data: &dyn MonitorData) -> serde_json::Value {
    let status = data.status();
    let mut vars = data.metrics().to_json();
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

        /// The body of a page that exists.
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
    fn the_overview_page_shows_the_state_of_the_server() {
        let page = TestMonitor::new().page("/");
        for shown in
            ["mail.here.example", "0.1.0", "3 d 4 h", "1284", "RCPT", "/queue", "/metrics", "451 4.7.1"]
        {
            assert!(page.contains(shown), "{shown} in {page}");
        }
    }

    #[test]
    fn counters_are_shown_as_openmetrics_and_as_json() {
        let monitor = TestMonitor::new();
        assert!(monitor.get("/metrics").contains(OPENMETRICS));
        let text = monitor.page("/metrics");
        assert!(
            text.contains("postrider_queue_messages_accepted_total 1284\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
        let vars: serde_json::Value = serde_json::from_str(&monitor.page("/debug/vars")).unwrap();
        assert_eq!(vars["queue_messages_accepted"], 1284);
        assert_eq!(vars["session_command"]["RCPT"], 2);
        assert_eq!(vars["uptime_seconds"], 273_600);
    }

    #[test]
    fn the_queue_page_shows_each_message_with_its_recipients() {
        let monitor = TestMonitor::new();
        let page = monitor.page("/queue");
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
        let queue: serde_json::Value = serde_json::from_str(&monitor.page("/queue.json")).unwrap();
        assert_eq!(queue["count"], 2);
    }

    #[test]
    fn traces_are_shown_event_by_event_and_can_be_filtered() {
        let monitor = TestMonitor::new();
        let all = monitor.page("/traces");
        assert!(all.contains("EHLO there.example") && all.contains("140 ms") && all.contains("451 4.7.1"));
        let sessions = monitor.page("/traces?kind=session");
        assert!(sessions.contains("EHLO there.example") && !sessions.contains("451 4.7.1"));
        let errors = monitor.page("/traces?errors");
        assert!(!errors.contains("EHLO there.example") && errors.contains("<tr class=\"bad\">"));
        assert!(monitor.page("/traces?kind=%3Cscript%3E").contains("Nothing of this kind"));
    }

    #[test]
    fn text_from_outside_is_never_markup() {
        let monitor = TestMonitor::new();
        for path in ["/", "/queue", "/traces", "/traces?errors"] {
            let page = monitor.page(path);
            assert!(
                !page.contains("<script") && !page.contains("<i>") && !page.contains("<b>come"),
                "{path}"
            );
        }
        assert!(monitor.page("/traces").contains("&lt;script&gt;alert(&#39;greylisted&#39;)"));
    }

    #[test]
    fn a_request_that_is_not_allowed_is_refused() {
        let monitor = TestMonitor::new();
        assert!(monitor.get("/exit").starts_with("HTTP/1.1 404 "));
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
            let reply = monitor.say(said.as_bytes());
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
            assert!(reply.contains("Allow: GET, HEAD\r\n"), "{reply}");
        }
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(20_000));
        assert!(monitor.say(endless.as_bytes()).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn the_reply_to_head_has_no_body() {
        let monitor = TestMonitor::new();
        let reply = monitor.say(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\n"), "{reply}");
        assert!(!reply.contains("Content-Length: 0\r\n"), "{reply}");
    }

    #[test]
    fn silent_clients_do_not_block_others_for_long() {
        let monitor = TestMonitor::new();
        let idle: Vec<_> = (0..CLIENTS_MAX).map(|_| TcpStream::connect(monitor.address).unwrap()).collect();
        let mut one_more = TcpStream::connect(monitor.address).unwrap();
        let mut reply = String::new();
        one_more.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
        drop(idle);
        // Their threads end only when they notice. Until then a request that is not read may reset the
        // connection and lose the 503.
        let deadline = SystemClock.now() + REQUEST_TIMEOUT;
        let request = request_for("/");
        let is_answered =
            || monitor.try_to_say(request.as_bytes()).is_ok_and(|reply| reply.starts_with("HTTP/1.1 200 "));
        while !is_answered() {
            assert!(SystemClock.now() < deadline);
        }
    }
}
