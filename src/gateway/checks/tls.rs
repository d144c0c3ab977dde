//! TLS for checks over HTTPS, between two buffers.
//!
//! Whoever answers is accepted: certificates are not verified, nor signatures made with them, as AWS does not for targets. What is shown is that
//! the target speaks TLS, not who it is; a check carries nothing that has to be kept secret. So a certificate that has expired, is
//! signed by itself or of a form that a library dislikes is no reason to take an appliance out of service. Sessions are not resumed: each check is a whole handshake.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr as Address, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, InvalidMessage, SignatureScheme};

/// Characters of what the library says.
const LONGEST: usize = 160;

/// What all checks share; an error is one of the library's, in its words.
pub(super) fn config() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let anybody = Arc::new(Anybody(provider.clone()));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| words(&error))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// One connection's.
#[derive(Debug)]
pub(super) struct Tls {
    connection: ClientConnection,
    out: Vec<u8>,
    sent: usize,
}

impl Tls {
    /// Begins a handshake, and sends this when it is complete.
    pub fn new(config: &Arc<ClientConfig>, target: Ipv4Addr, request: &[u8]) -> Result<Self, String> {
        // An address is not told to the target as a name (RFC 6066 section 3).
        let name = ServerName::IpAddress(IpAddr::V4(Address::from(target.octets())));
        let mut connection = ClientConnection::new(config.clone(), name).map_err(|error| words(&error))?;
        connection.writer().write_all(request).map_err(|error| error.to_string())?;
        let mut tls = Tls { connection, out: Vec::new(), sent: 0 };
        tls.gather()?;
        Ok(tls)
    }

    /// Is the handshake still under way?
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes what came; `plain` gets what was in it.
    pub fn take(&mut self, mut bytes: &[u8], mut plain: impl FnMut(&[u8])) -> Result<(), String> {
        while !bytes.is_empty() {
            let read = self.connection.read_tls(&mut bytes).map_err(|error| error.to_string())?;
            let state = self.connection.process_new_packets().map_err(|error| words(&error))?;
            let mut left = state.plaintext_bytes_to_read();
            let mut piece = [0; 1024];
            while left > 0 {
                let n = self.connection.reader().read(&mut piece).unwrap_or(0);
                let Some(got) = piece.get(..n).filter(|got| !got.is_empty()) else { break };
                plain(got);
                left = left.saturating_sub(n);
            }
            if read == 0 {
                break; // behind the farewell nothing is read
            }
        }
        self.gather()
    }

    /// Bytes to be sent.
    pub fn pending(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or(&[])
    }

    /// So many of them were.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
    }

    fn gather(&mut self) -> Result<(), String> {
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.out).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// What the library says, not longer than a line.
fn words(error: &Error) -> String {
    match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "what answers does not speak TLS".to_owned(),
        error => error.to_string().chars().take(LONGEST).collect(),
    }
}

/// Takes anybody for whoever he says he is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Those of the provider, and old ones: what is not verified may be anything.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.signature_verification_algorithms.supported_schemes();
        schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
        schemes
    }
}
