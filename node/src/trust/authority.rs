//! The certificate authority of a cluster: its key and certificate are two files of the folder `tls`, made once, and again
//! only by a rotation.

use std::path::{Path, PathBuf};

use caxton_proto::Digest;
use jiff::{ToSpan, tz::TimeZone};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::files::{FileError, read_or_create, write_private};
use crate::time::now;

/// The file of the folder `tls` with the authority's key.
pub const CA_KEY_FILE: &str = "ca.key";
/// The file of the folder `tls` with the authority's certificate.
pub const CA_FILE: &str = "ca.pem";
/// What an authority is called, before the id of the cluster that made it.
pub(super) const CA_NAME: &str = "Caxton CA ";
/// How long the authority's certificate is valid, in days.
pub(super) const CA_DAYS: i64 = 3650;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the authority.
    #[error("the certificate authority's files cannot be read or made")]
    File(#[from] FileError),
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
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
    /// What a rotation of the authority left is damaged.
    #[error("{} is damaged; put it back from another node's data directory", .path.display())]
    Succession {
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file of the operator's.
    #[error("{} does not hold what `{setting}` promises, in PEM", .path.display())]
    Pem {
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

/// What signs the certificates of a cluster's nodes.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    /// What clients and peers trust.
    pub certificate: CertificateDer<'static>,
    pub name: String,
    /// The authority before this one, while both are good.
    pub before: Option<Predecessor>,
}

/// An authority that has a successor.
#[derive(Clone)]
pub struct Predecessor {
    /// The successor, certified by this authority.
    pub cross: CertificateDer<'static>,
    /// This authority's certificate of itself.
    pub certificate: CertificateDer<'static>,
}

/// The digest of an authority's public key, by which a node that does not know the cluster yet recognises it.
pub fn pin_of(authority: &CertificateDer<'_>) -> Option<Digest> {
    let anchor = webpki::anchor_from_trusted_cert(authority).ok()?;
    Some(Digest::of(&anchor.subject_public_key_info))
}

/// Reads the authority's key and certificate from `dir`, and makes them when there are none.
pub(super) fn read_or_make(dir: &Path, cluster: &str, before: Option<Predecessor>) -> Result<Authority, TlsError> {
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
    Ok(Authority { issuer: Issuer::new(params, key), certificate, name, before })
}

/// What every authority's certificate says.
pub(super) fn authority_params(name: &str) -> CertificateParams {
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

/// Makes a certificate valid from yesterday, which forgives clocks that are off, for that many days.
pub fn valid_for(params: &mut CertificateParams, days: i64) {
    let today = now().to_zoned(TimeZone::UTC).date();
    let [from, to] = [-1, days].map(|days| {
        let date = today.saturating_add(days.days());
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    });
    (params.not_before, params.not_after) = (from, to);
}
