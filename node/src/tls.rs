//! TLS 1.3 for the API: a certificate authority of the node's own, or a certificate that the operator gives.
//!
//! Only the authority's key is on disk. The server's certificate is made at every start and again while the node runs,
//! long before it ends, so that it always fits the settings and never expires; an operator's files are read again when
//! they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::{Config, TlsMode};
use crate::trust::authority::valid_for;
use crate::trust::succession::authority;
use crate::trust::{TlsError, install_provider};

/// How long a server's certificate is valid, in days.
const CERTIFICATE_DAYS: i64 = 90;
/// How often the server's certificate is made, or read, again.
pub const RENEW_EVERY: Duration = Duration::from_secs(12 * 60 * 60);

/// Where the server's certificate comes from.
enum From {
    /// The node's own authority signs it for these names.
    Own { dir: PathBuf, cluster: String, names: Vec<String> },
    /// The operator gives it.
    Files { certificate: PathBuf, key: PathBuf },
}

/// The API's TLS.
pub struct Tls {
    from: From,
    current: Arc<Current>,
    server: Arc<rustls::ServerConfig>,
}

/// The certificate that new connections see.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Whether the settings ask for TLS.
pub fn is_wanted(config: &Config) -> bool {
    match config.tls.mode {
        TlsMode::Always => true,
        TlsMode::Auto => !config.http.bind.ip().is_loopback(),
    }
}

impl Tls {
    /// Reads or makes what TLS needs.
    pub fn open(config: &Config, cluster: &str) -> Result<Tls, TlsError> {
        install_provider();
        let given = &config.tls.certificate_file;
        let from = if given.as_os_str().is_empty() {
            let dir = config.data.dir.join("tls");
            From::Own { dir, cluster: cluster.to_owned(), names: names(config) }
        } else {
            From::Files { certificate: given.clone(), key: config.tls.key_file.clone() }
        };
        let current = Arc::new(Current(RwLock::new(Arc::new(from.certificate()?))));
        let mut server = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls { from, current, server: Arc::new(server) })
    }

    /// What connections are accepted with.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.server.clone().into()
    }

    /// Makes or reads the certificate again; connections from now on see it.
    pub fn renew(&self) -> Result<(), TlsError> {
        let certificate = Arc::new(self.from.certificate()?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
        Ok(())
    }
}

/// The names that the node's own certificate is for.
fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let bind = config.http.bind.ip();
    if !bind.is_unspecified() {
        names.push(bind.to_string());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // A host's name may have characters that no certificate can carry; it is only one name of several.
    if host.trim().chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) && !host.trim().is_empty() {
        names.push(host.trim().to_owned());
    }
    names.extend(config.tls.names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

impl From {
    fn certificate(&self) -> Result<CertifiedKey, TlsError> {
        let (chain, key) = match self {
            From::Own { dir, cluster, names } => {
                let authority = authority(dir, cluster)?;
                let (mut chain, key) = issue(&authority.issuer, names)?;
                // Clients that know the authority before this one only.
                chain.extend(authority.before.map(|before| before.cross));
                (chain, key)
            }
            From::Files { certificate, key } => read(certificate, key)?,
        };
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(TlsError::Unusable)
    }
}

type Chain = Vec<CertificateDer<'static>>;

fn read(certificate: &Path, key: &Path) -> Result<(Chain, PrivateKeyDer<'static>), TlsError> {
    let wrong = |path: &Path, setting| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, setting, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(|certificates| certificates.collect());
    let chain = chain.map_err(wrong(certificate, "tls.certificate_file"))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(wrong(key, "tls.key_file"))?;
    Ok((chain, key))
}

fn issue(authority: &Issuer<'static, KeyPair>, names: &[String]) -> Result<(Chain, PrivateKeyDer<'static>), TlsError> {
    let make = |source| TlsError::Make { names: names.to_vec(), source };
    let key = KeyPair::generate().map_err(make)?;
    let mut params = CertificateParams::new(names).map_err(make)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "caxton");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, CERTIFICATE_DAYS);
    let certificate = params.signed_by(&key, authority).map_err(make)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Ok((vec![certificate.der().clone()], key))
}
