//! TLS 1.3 for the API: a certificate authority of the node's own, or a certificate that the operator gives.
//!
//! Only the authority's key is on disk. The server's certificate is made at every start and again while the node runs,
//! long before it ends, so that it always fits the settings and never expires; an operator's files are read again when
//! they change.

pub mod succession;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use self::succession::Succession;
use crate::authn::{SecretError, read_or_create, write_private};
use crate::config::{Config, TlsMode};

/// The file of the folder `tls` with the authority's key.
pub const CA_KEY_FILE: &str = "ca.key";
/// The file of the folder `tls` with the authority's certificate.
pub const CA_FILE: &str = "ca.pem";
/// What an authority is called, before the id of the cluster that made it.
const CA_NAME: &str = "Caxton CA ";
/// How long the authority's certificate is valid, in days.
const CA_DAYS: i64 = 3650;
/// How long a server's certificate is valid, in days.
const CERTIFICATE_DAYS: i64 = 90;
/// How often the server's certificate is made, or read, again.
pub const RENEW_EVERY: Duration = Duration::from_secs(12 * 60 * 60);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the authority.
    #[error("the certificate authority's files cannot be read or made")]
    File(#[from] SecretError),
    /// The authority's certificate is there and its key is not.
    #[error("{} is missing beside ca.pem; put it back from a backup, or remove ca.pem too, after which clients need the new one", .path.display())]
    KeyMissing {
        /// The key's file.
        path: PathBuf,
    },
    /// A certificate could not be made.
    #[error("a certificate cannot be made for the names {names:?}; check `tls.names`")]
    Make {
        /// What it was for.
        names: Vec<String>,
        /// What was wrong.
        #[source]
        source: rcgen::Error,
    },
    /// The authority's key is damaged.
    #[error("{} does not hold the authority's key; put it back from a backup", .path.display())]
    CaKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
    /// What a rotation of the authority left is damaged.
    #[error("{} is damaged; put it back from another node's data directory", .path.display())]
    Succession {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file of the operator's.
    #[error("{} does not hold what `{setting}` promises, in PEM", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key do not belong together, or are of a kind that is not supported.
    #[error("the certificate cannot be used")]
    Unusable(#[source] rustls::Error),
}

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

/// Makes rustls use ring in this process, if nothing else was chosen before.
pub fn install_provider() {
    // The first provider stays; every part of this program installs the same one.
    _ = rustls::crypto::ring::default_provider().install_default();
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
                chain.extend(authority.before.map(|(cross, _)| cross));
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

/// What signs the certificates of a cluster's nodes.
pub struct Authority {
    /// Signs.
    pub issuer: Issuer<'static, KeyPair>,
    /// What clients and peers trust.
    pub certificate: CertificateDer<'static>,
    /// Its name.
    pub name: String,
    /// While the one before it is good as well: how that one certifies this one, and its own certificate.
    pub before: Option<(CertificateDer<'static>, CertificateDer<'static>)>,
}

/// The authority: its key and certificate are read from `dir`, and made when there are none.
pub fn authority(dir: &Path, cluster: &str) -> Result<Authority, TlsError> {
    let succession = Succession::read(dir)?;
    if let Some(succession) = &succession {
        succession.put(dir)?;
    }
    let (key_path, path) = (dir.join(CA_KEY_FILE), dir.join(CA_FILE));
    if path.exists() && !key_path.exists() {
        return Err(TlsError::KeyMissing { path: key_path });
    }
    let make = |source| TlsError::Make { names: vec![cluster.to_owned()], source };
    let new = KeyPair::generate().map_err(make)?;
    let key = read_or_create(&key_path, || Ok(new.serialize_pem().into_bytes()))?;
    let damaged = |source| TlsError::CaKey { path: key_path.clone(), source };
    let key = KeyPair::from_pem(&String::from_utf8_lossy(&key)).map_err(damaged)?;
    // An authority keeps its name: a cluster that was restored under a new id has the same one, and the same clients.
    let name = name_of(&path).unwrap_or_else(|| format!("{CA_NAME}{cluster}"));
    let mut params = authority_params(&name);
    valid_for(&mut params, CA_DAYS);
    if !path.exists() {
        // The authority is its name and its key: a certificate of it that was made later, from the same key, vouches
        // for the same servers.
        let certificate = params.self_signed(&key).map_err(make)?;
        write_private(&path, certificate.pem().as_bytes())?;
    }
    let wrong = |source| TlsError::Pem { path: path.clone(), setting: "tls/ca.pem", source };
    let certificate = CertificateDer::from_pem_file(&path).map_err(wrong)?;
    let before = succession.map(|succession| succession.chain()).transpose()?.flatten();
    Ok(Authority { issuer: Issuer::new(params, key), certificate, name, before })
}

/// What every authority's certificate says.
fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The common name of the authority whose certificate is in a file. Its names are all of one length, which is why they
/// can be found without reading the whole certificate.
fn name_of(path: &Path) -> Option<String> {
    let certificate = CertificateDer::from_pem_file(path).ok()?;
    let anchor = webpki::anchor_from_trusted_cert(&certificate).ok()?;
    let subject = String::from_utf8_lossy(&anchor.subject).into_owned();
    let name = &subject[subject.find(CA_NAME)?..];
    let id = name[CA_NAME.len()..].get(..uuid::fmt::Hyphenated::LENGTH)?;
    id.parse::<uuid::Uuid>().ok().map(|id| format!("{CA_NAME}{id}"))
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

/// Makes a certificate valid from yesterday, which forgives clocks that are off, for that many days.
pub fn valid_for(params: &mut CertificateParams, days: i64) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let [from, to] = [-1, days].map(|days| {
        let date = today.saturating_add(days.days());
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    });
    (params.not_before, params.not_after) = (from, to);
}
