// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS: a client whose bytes a test sends one by one, and a server.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::DigitallySignedStruct;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::SignatureScheme;
use rustls::StreamOwned;
use rustls::SupportedProtocolVersion;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;

use super::PATIENCE;
use super::client::Client;
use super::client::Stream;
use super::ports::free_port;

/// Directives for a server that speaks TLS with the files of `certificate()`.
pub const DIRECTIVES: &str = "
    ssl_certificate {prefix}/cert.pem;
    ssl_certificate_key {prefix}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;";

/// Returns a configuration with a certificate, and the free port that it has in place of `{tls}`.
pub fn with_port(http: &str) -> (String, u16) {
    let port = free_port();
    let http = [DIRECTIVES, http].concat();
    (http.replace("{tls}", &port.to_string()), port)
}

/// Makes a certificate in a folder.
pub fn certificate(folder: &Path) {
    let status = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '),
        )
        .args("-subj /CN=test -keyout key.pem -out cert.pem".split(' '))
        .current_dir(folder)
        .stderr(Stdio::null())
        .status()
        .expect("openssl is installed by make test");
    assert!(status.success());
}

/// Makes a certificate, `revoked.pem`, which the one of `certificate()` signs, and then revokes it
/// in `crl.pem`.
pub fn revoked(folder: &Path) {
    let config = "[ca]\ndefault_ca = ca\ndatabase = index.txt\ndefault_md = sha256\n";
    fs::write(folder.join("ca.cnf"), config).unwrap();
    fs::write(folder.join("index.txt"), "").unwrap();
    for args in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -CA cert.pem \
         -CAkey key.pem -subj /CN=revoked -keyout revoked.key -out revoked.pem",
        "ca -config ca.cnf -keyfile key.pem -cert cert.pem -revoke revoked.pem",
        "ca -config ca.cnf -keyfile key.pem -cert cert.pem -gencrl -crldays 2 -out crl.pem",
    ] {
        let status = Command::new("openssl")
            .args(args.split_whitespace())
            .current_dir(folder)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{args}");
    }
}

/// Returns the configuration of a server with a certificate of its own.
pub fn server_config() -> Arc<ServerConfig> {
    let folder = TempDir::new().unwrap();
    certificate(folder.path());
    let chain = CertificateDer::from_pem_file(folder.path().join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key);
    Arc::new(config.unwrap())
}

/// The server's side of a connection. One thread reads and writes alternately.
#[derive(Clone)]
pub struct Served(Arc<Mutex<StreamOwned<ServerConnection, TcpStream>>>);

impl Served {
    /// Uses an accepted connection.
    pub fn new(stream: TcpStream, config: Arc<ServerConfig>) -> Self {
        let session = ServerConnection::new(config).unwrap();
        Self(Arc::new(Mutex::new(StreamOwned::new(session, stream))))
    }

    /// Sends an alert that nothing follows (close_notify).
    pub fn close(&self) {
        let mut stream = self.0.lock().unwrap();
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}

impl Read for Served {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().read(bytes)
    }
}

impl Write for Served {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().unwrap().flush()
    }
}

/// Returns the configuration of a client.
pub fn config(version: &'static SupportedProtocolVersion, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.enable_early_data = true;
    Arc::new(config)
}

/// A client connection whose bytes are sent when the test says so.
pub struct Tls {
    session: ClientConnection,
    stream: TcpStream,
}

impl Tls {
    /// Connects. When this returns, the server's part of the handshake has arrived, and the client
    /// has sent nothing after it.
    pub fn begin(port: u16, version: &'static SupportedProtocolVersion, alpn: &[&str]) -> Self {
        Self::over(
            TcpStream::connect(("127.0.0.1", port)).unwrap(),
            version,
            alpn,
        )
    }

    /// Does the same on an existing connection.
    pub fn over(
        stream: TcpStream,
        version: &'static SupportedProtocolVersion,
        alpn: &[&str],
    ) -> Self {
        Self::new(stream, config(version, alpn)).shake_hands()
    }

    /// Continues the handshake until the server's part of it has arrived.
    pub fn shake_hands(mut self) -> Self {
        while self.session.is_handshaking() {
            let bytes = self.take();
            self.stream.write_all(&bytes).unwrap();
            self.session.read_tls(&mut self.stream).unwrap();
            self.session.process_new_packets().unwrap();
        }
        self
    }

    /// Makes a connection on which nothing has been sent. Connections with the same configuration
    /// resume each other's sessions.
    pub fn new(stream: TcpStream, config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("test").unwrap();
        let session = ClientConnection::new(config, name).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { session, stream }
    }

    /// Returns the bytes of records that do not wait for the handshake (0-RTT).
    pub fn seal_early(&mut self, plain: impl AsRef<[u8]>) -> Vec<u8> {
        let mut early = self.session.early_data().expect("a session before this");
        early.write_all(plain.as_ref()).unwrap();
        self.take()
    }

    /// Returns the bytes of the next records: the rest of the handshake, and then `plain`.
    pub fn seal(&mut self, plain: impl AsRef<[u8]>) -> Vec<u8> {
        self.session.writer().write_all(plain.as_ref()).unwrap();
        self.take()
    }

    /// Sends bytes unchanged.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends the rest of the handshake.
    pub fn finish(mut self) -> Self {
        let bytes = self.take();
        self.send_raw(&bytes);
        self
    }

    /// Returns a stream for everything that follows.
    pub fn into_stream(self) -> Box<dyn Stream> {
        Box::new(StreamOwned::new(self.session, self.stream))
    }

    /// Returns a client of HTTP/1.
    pub fn into_client(self) -> Client {
        Client::new(self.into_stream())
    }

    /// Waits until the server has sent something.
    pub fn read_some(&mut self) -> Vec<u8> {
        loop {
            let mut plain = vec![0; 16384];
            match self.session.reader().read(&mut plain) {
                Ok(size) => {
                    plain.truncate(size);
                    return plain;
                }
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            self.session.read_tls(&mut self.stream).unwrap();
            self.session.process_new_packets().unwrap();
        }
    }

    /// Returns the bytes that the session itself has to send.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut bytes).unwrap();
        }
        bytes
    }
}

/// A verifier that accepts every server, because all of them belong to the tests.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}
