//! Clients that send numbered messages to the server of a test, and record each 250.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::load_message::{LoadMessage, MessageSizes};
use super::test_server::connect;
use crate::sys::{Mutex, spawn};

/// Clients that send messages until they are stopped, all messages are sent, or the server is gone.
#[derive(Clone)]
pub struct LoadGenerator(Arc<LoadState>);

struct LoadState {
    address: SocketAddr,
    /// The recipients, each of which gets messages in turn.
    recipients: Vec<String>,
    sizes: MessageSizes,
    /// How many messages are sent in all.
    messages_max: usize,
    next_number: AtomicUsize,
    accepted: Mutex<BTreeSet<usize>>,
    is_stopping: AtomicBool,
    /// The last error of any client.
    last_error: Mutex<Option<io::Error>>,
}

impl LoadGenerator {
    /// Any number of messages of all sizes for this server and recipient. No client is started yet.
    #[must_use]
    pub fn new(address: SocketAddr, to: &str) -> Self {
        Self::with_recipients(address, vec![to.to_owned()], MessageSizes::Mixed, usize::MAX)
    }

    /// At most `most` messages for these recipients in turn.
    pub(super) fn with_recipients(
        address: SocketAddr,
        recipients: Vec<String>,
        sizes: MessageSizes,
        most: usize,
    ) -> Self {
        Self(Arc::new(LoadState {
            address,
            recipients,
            sizes,
            messages_max: most,
            next_number: AtomicUsize::new(0),
            accepted: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            last_error: Mutex::default(),
        }))
    }

    /// Starts this many clients.
    ///
    /// # Errors
    /// When the host cannot start a thread.
    pub fn start_clients(&self, clients: usize) -> io::Result<Vec<JoinHandle<()>>> {
        self.0.is_stopping.store(false, Ordering::Relaxed);
        let begin = |n| {
            let shared = Arc::clone(&self.0);
            spawn(format!("client-{n}"), move || {
                if let Err(e) = shared.run_client() {
                    *shared.last_error.lock() = Some(e);
                }
            })
        };
        (0..clients).map(begin).collect()
    }

    /// Stops the clients after their current message. Errors of clients are ignored: the server may be gone.
    pub fn stop_clients(&self, clients: Vec<JoinHandle<()>>) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
        for client in clients {
            let _ = client.join();
        }
    }

    /// Sends all messages.
    pub(super) fn send_all(&self, clients: usize) -> Result<(), String> {
        let cannot = |e: io::Error| format!("a message cannot be sent: {e}");
        for client in self.start_clients(clients).map_err(cannot)? {
            let _ = client.join();
        }
        self.0.last_error.lock().take().map_or(Ok(()), |e| Err(cannot(e)))
    }

    /// The numbers of the messages that were accepted with 250.
    #[must_use]
    pub fn accepted(&self) -> BTreeSet<usize> {
        self.0.accepted.lock().clone()
    }

    /// The number of a complete message.
    #[must_use]
    pub fn parse_number(octets: &[u8]) -> Option<usize> {
        LoadMessage::parse_number(octets)
    }
}

impl LoadState {
    /// Runs one client, until it is stopped or the server is gone.
    fn run_client(&self) -> io::Result<()> {
        let mut reader = BufReader::new(connect(self.address)?);
        let mut exchange = |text: &str, code: &str| -> io::Result<()> {
            reader.get_mut().write_all(text.as_bytes())?;
            let mut line = String::new();
            loop {
                line.clear();
                let is_end = reader.read_line(&mut line)? == 0;
                if is_end || line.as_bytes().get(3) != Some(&b'-') {
                    break;
                }
            }
            if line.starts_with(code) { Ok(()) } else { Err(io::Error::other(line)) }
        };
        exchange("", "220")?;
        exchange("EHLO there.example\r\n", "250")?;
        while !self.is_stopping.load(Ordering::Relaxed) {
            let number = self.next_number.fetch_add(1, Ordering::Relaxed);
            if number >= self.messages_max {
                break;
            }
            let to = self.recipients.iter().cycle().nth(number % self.recipients.len().max(1));
            exchange("MAIL FROM:<bo@there.example>\r\n", "250")?;
            exchange(&format!("RCPT TO:<{}>\r\n", to.map_or("", String::as_str)), "250")?;
            exchange("DATA\r\n", "354")?;
            exchange(&format!("{}.\r\n", LoadMessage::format(number, self.sizes.lines(number))), "250")?;
            self.accepted.lock().insert(number);
        }
        exchange("QUIT\r\n", "221")
    }
}
