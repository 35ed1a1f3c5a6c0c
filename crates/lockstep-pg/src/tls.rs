//! TLS to PostgreSQL, for queries and for replication alike, with the meaning that libpq gives to `sslmode`.

use crate::error::PgError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use x509_cert::der::Decode;

/// Whether TLS is spoken, and what is asked of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mode {
    /// Never TLS.
    Disable,
    /// Without TLS; with it if the server refuses that.
    Allow,
    /// With TLS; without it if the server refuses that.
    #[default]
    Prefer,
    /// TLS, whatever the certificate says; with `sslrootcert`, as [`Mode::VerifyCa`].
    Require,
    /// TLS, and a trusted authority signed the certificate.
    VerifyCa,
    /// The same, and the certificate is for the host of the URL.
    VerifyFull,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The authorities that the system trusts.
    System,
    /// The certificates in a file.
    File(String),
}

/// What the URL says about TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// `sslmode`.
    pub mode: Mode,
    /// `sslrootcert`.
    pub roots: Option<Roots>,
    /// `sslcert` and `sslkey`.
    pub identity: Option<(String, String)>,
}

/// Makes TLS sessions. Cloning it is cheap.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    verifies_name: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("verifies_name", &self.verifies_name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// [`PgError::Url`], which does not repeat their names: they come from the URL.
    pub fn new(options: &TlsOptions) -> Result<Self, PgError> {
        let provider = Arc::new(ring::default_provider());
        let verifies = options.mode >= Mode::VerifyCa || options.roots.is_some();
        let trusted = if verifies { certificates(options.roots.as_ref())? } else { Vec::new() };
        let verifies_name = options.mode == Mode::VerifyFull;
        let verifier = Verifier::new(trusted, verifies, verifies_name, provider.clone())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("TLS", &error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("sslkey", &error))?;
                builder
                    .with_client_auth_cert(read_file("sslcert", cert)?, key)
                    .map_err(|error| wrong("sslcert", &error))?
            }
        };
        // Servers since 17 ask for it when TLS begins without their protocol's question; older ones do not look.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self { config: Arc::new(config), verifies_name })
    }

    /// Speaks TLS over `stream`.
    ///
    /// # Errors
    /// If the handshake fails or the certificate is not what was asked for.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<Secure<S>> {
        let stream = TlsConnector::from(self.config.clone()).connect(self.name(host)?, stream).await?;
        Ok(Secure(stream))
    }

    /// A host that is no name that a certificate can carry is only wrong where the certificate's name matters.
    fn name(&self, host: &str) -> io::Result<ServerName<'static>> {
        match ServerName::try_from(host.to_owned()) {
            Ok(name) => Ok(name),
            Err(_) if !self.verifies_name => {
                Ok(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
            }
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
        }
    }
}

fn wrong(option: &str, error: &dyn std::fmt::Display) -> PgError {
    PgError::Url(format!("{option}: {error}"))
}

fn certificates(roots: Option<&Roots>) -> Result<Vec<CertificateDer<'static>>, PgError> {
    match roots {
        Some(Roots::File(file)) => read_file("sslrootcert", file),
        Some(Roots::System) | None => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(wrong(
                    "sslrootcert=system",
                    &"this system trusts no authority; install its certificates (Debian: ca-certificates)",
                ));
            }
            Ok(found.certs)
        }
    }
}

fn read_file(option: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, PgError> {
    let bytes =
        std::fs::read(Path::new(file)).map_err(|error| wrong(&format!("the file of {option}"), &error))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| wrong(option, &error))?;
    if all.is_empty() { Err(wrong(option, &"no certificate is in this file")) } else { Ok(all) }
}

/// What a certificate must satisfy.
#[derive(Debug)]
struct Verifier {
    /// None: nothing.
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// A server's own certificate may be named as trusted, as people do who signed it themselves.
    trusted: Vec<CertificateDer<'static>>,
    verifies_name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        trusted: Vec<CertificateDer<'static>>,
        verifies: bool,
        verifies_name: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, PgError> {
        let chains = if verifies {
            let mut roots = RootCertStore::empty();
            // A system's store may hold certificates of kinds that nobody uses any more.
            let (added, _) = roots.add_parsable_certificates(trusted.iter().cloned());
            if added == 0 {
                return Err(wrong("sslrootcert", &"no certificate in it can be used"));
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
            Some(verifier.build().map_err(|error| wrong("sslrootcert", &error))?)
        } else {
            None
        };
        Ok(Self { chains, trusted, verifies_name, provider })
    }

    fn verify_trusted(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let bad = || rustls::Error::from(CertificateError::BadEncoding);
        let parsed = x509_cert::Certificate::from_der(certificate).map_err(|_| bad())?;
        let validity = parsed.tbs_certificate.validity;
        let now = now.as_secs();
        if now < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        if self.verifies_name {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chains) = &self.chains else { return Ok(ServerCertVerified::assertion()) };
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            self.verify_trusted(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        match chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: everything else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.verifies_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS session.
#[derive(Debug)]
pub struct Secure<S>(tokio_rustls::client::TlsStream<S>);

impl<S> Secure<S> {
    /// What SCRAM binds a password's proof to (RFC 5929): a hash of the server's certificate. None where the
    /// certificate's signature has no hash of its own, as Ed25519.
    pub fn end_point(&self) -> Option<Vec<u8>> {
        end_point(self.0.get_ref().1.peer_certificates()?.first()?)
    }
}

/// The certificate's hash by the hash of its signature; MD5 and SHA-1 count as SHA-256.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(match hash_of(&parsed.signature_algorithm.oid.to_string())? {
        256 => Sha256::digest(certificate).to_vec(),
        384 => Sha384::digest(certificate).to_vec(),
        _ => Sha512::digest(certificate).to_vec(),
    })
}

/// The hash of a signature algorithm, in bits.
fn hash_of(oid: &str) -> Option<u32> {
    Some(match oid {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => 256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => 384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => 512,
        _ => return None,
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secure<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secure<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Secure<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// [`Tls`] for one host, as tokio-postgres wants it.
#[derive(Debug, Clone)]
pub struct ForHost(Tls, String);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Secure<S>;
    type TlsConnect = ForHost;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<ForHost> {
        Ok(ForHost(self.clone(), domain.to_owned()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for ForHost {
    type Stream = Secure<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secure<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.0.connect(&self.1, stream).await })
    }
}

/// What to do about a certificate that was not accepted.
pub(crate) fn advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(|e| e.get_ref());
        let rustls = inner.and_then(|e| e.downcast_ref::<rustls::Error>());
        match rustls.or_else(|| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => return Some(certificate_advice(why)),
            Some(_) => return None,
            None => next = error.source(),
        }
    }
    None
}

fn certificate_advice(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use the host name that the certificate carries, or sslmode=verify-ca, which does not look at it"
        }
        CertificateError::UnknownIssuer => {
            "name the file with the authority's certificate: sslrootcert=FILE in the URL"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the server's certificate"
        }
        _ => "look at the server's ssl_cert_file and at sslrootcert in the URL",
    }
}
