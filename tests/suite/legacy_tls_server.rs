//! A mail server with old TLS: TLS 1.2, one CBC suite, on OpenSSL.
//!
//! rustls offers no such suite, so only the legacy TLS library can connect. The server follows no script: it
//! accepts every message and records each connection. Ends when dropped.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream, SslVersion};
use openssl::x509::X509;

use crate::test_server::WAIT_TIMEOUT;

const SUITE: &str = "ECDHE-ECDSA-AES128-SHA";

/// The server.
pub struct LegacyTlsServer {
    /// The port on 127.0.0.1.
    pub port: u16,
    connections: Arc<Mutex<Vec<ObservedConnection>>>,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What happened on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedConnection {
    /// STARTTLS without a common suite.
    HandshakeFailed,
    /// A message over TLS with this version and suite.
    Encrypted { version: String, suite: String, message: String },
    /// A command other than STARTTLS after EHLO.
    Plain(String),
}

impl LegacyTlsServer {
    /// Starts a server with a self-signed certificate.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, is_stopped) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let acceptor = acceptor();
        let thread = std::thread::spawn({
            let (connections, is_stopped) =
                (Arc::<Mutex<Vec<ObservedConnection>>>::clone(&connections), Arc::clone(&is_stopped));
            move || {
                for stream in listener.incoming() {
                    if is_stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    // A client may close the connection before the end.
                    if let Ok(Some(one)) = stream.and_then(|stream| serve_connection(stream, &acceptor)) {
                        connections.lock().unwrap().push(one);
                    }
                }
            }
        });
        Self { port, connections, is_stopped, thread: Some(thread) }
    }

    /// The connections so far.
    pub fn connections(&self) -> Vec<ObservedConnection> {
        self.connections.lock().unwrap().clone()
    }
}

impl Drop for LegacyTlsServer {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn acceptor() -> SslAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["old.example".to_owned()]).unwrap();
    let mut builder = SslAcceptor::mozilla_intermediate(SslMethod::tls()).unwrap();
    builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    builder.set_cipher_list(SUITE).unwrap();
    builder
        .set_private_key(&PKey::private_key_from_pem(made.signing_key.serialize_pem().as_bytes()).unwrap())
        .unwrap();
    builder.set_certificate(&X509::from_pem(made.cert.pem().as_bytes()).unwrap()).unwrap();
    builder.build()
}

fn serve_connection(mut stream: TcpStream, acceptor: &SslAcceptor) -> io::Result<Option<ObservedConnection>> {
    stream.set_read_timeout(Some(WAIT_TIMEOUT))?;
    stream.write_all(b"220 old.example\r\n")?;
    read_line(&mut stream)?;
    stream.write_all(b"250-old.example\r\n250 STARTTLS\r\n")?;
    let command = read_line(&mut stream)?;
    if command != "STARTTLS" {
        return Ok(Some(ObservedConnection::Plain(command)));
    }
    stream.write_all(b"220 go\r\n")?;
    match acceptor.accept(stream) {
        Ok(stream) => receive_over_tls(stream).map(Some),
        Err(_) => Ok(Some(ObservedConnection::HandshakeFailed)),
    }
}

fn receive_over_tls(mut stream: SslStream<TcpStream>) -> io::Result<ObservedConnection> {
    let (version, suite) =
        (stream.ssl().version_str().to_owned(), stream.ssl().current_cipher().unwrap().name().to_owned());
    let mut message = String::new();
    loop {
        let command = read_line(&mut stream)?;
        match command.split(' ').next() {
            Some("DATA") => {
                stream.write_all(b"354 go\r\n")?;
                loop {
                    match read_line(&mut stream)?.as_str() {
                        "." => break,
                        text => message = message + text + "\n",
                    }
                }
                stream.write_all(b"250 taken\r\n")?;
            }
            Some("QUIT") => {
                stream.write_all(b"221 bye\r\n")?;
                return Ok(ObservedConnection::Encrypted { version, suite, message });
            }
            _ => stream.write_all(b"250 ok\r\n")?,
        }
    }
}

/// Reads octet by octet, because a handshake may follow the line.
fn read_line(stream: &mut impl Read) -> io::Result<String> {
    let mut octets = Vec::new();
    while !octets.ends_with(b"\r\n") {
        let mut one = [0];
        stream.read_exact(&mut one)?;
        octets.push(one[0]);
    }
    Ok(String::from_utf8_lossy(&octets).trim_end().to_owned())
}
