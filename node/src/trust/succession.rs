//! The successor of a cluster's authority, while both are good.
//!
//! The one before certifies the successor, and servers show that certificate along: whoever trusts the one before, a node
//! that was away, a client with an old file, a join token that was made earlier, comes to trust the successor by it, and
//! no node has to wait for another. All that is needed lies in one file, which is put in place whole; the authority's two
//! files are made from it again at every start until the rotation is finished.

use std::fs;
use std::path::Path;

use caxton_proto::Digest;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::authority::{
    Authority, CA_DAYS, CA_FILE, CA_KEY_FILE, CA_NAME, Predecessor, TlsError, authority_params, pin_of, read_or_make,
    valid_for,
};
use crate::files::{FileError, write_private};

/// The file of the folder `tls` that is there while two authorities are good.
pub const SUCCESSION_FILE: &str = "succession.json";
/// The file of the folder `tls` with the pin of the authority that the cluster began with; there once it was rotated.
pub const BORN_FILE: &str = "ca-born.pin";

/// A new authority, and what makes it known to whoever trusts the one before. All in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    key: String,
    certificate: String,
    /// The one before.
    before: String,
    /// The successor, certified by the one before.
    cross: String,
}

impl Succession {
    /// Makes a successor of the authority.
    pub fn of(now: &Authority) -> Result<Succession, TlsError> {
        let make = |source| TlsError::Make { names: vec![CA_NAME.trim().to_owned()], source };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = authority_params(&format!("{CA_NAME}{}", uuid::Uuid::new_v4()));
        valid_for(&mut params, CA_DAYS);
        let certificate = params.self_signed(&key).map_err(make)?.pem();
        let cross = params.signed_by(&key, &now.issuer).map_err(make)?.pem();
        Ok(Succession { key: key.serialize_pem(), certificate, before: pem_of(&now.certificate), cross })
    }

    /// The one in a folder `tls`, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Succession>, TlsError> {
        let path = dir.join(SUCCESSION_FILE);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(succession) => Ok(Some(succession)),
                Err(source) => Err(TlsError::Succession { path, source }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::Io { path, what: "cannot be read", source }.into()),
        }
    }

    /// Makes this the authority of a folder `tls`, beside the one before.
    pub fn begin(&self, dir: &Path) -> Result<(), TlsError> {
        let born = dir.join(BORN_FILE);
        if !born.exists() {
            let pin = self.predecessor().and_then(|before| pin_of(&before.certificate));
            let pin = pin.ok_or(TlsError::Unusable(rustls::Error::General("the authority has no key".to_owned())))?;
            write_private(&born, pin.to_string().as_bytes())?;
        }
        let text = serde_json::to_vec(self).unwrap_or_default();
        write_private(&dir.join(SUCCESSION_FILE), &text)?;
        self.put(dir)
    }

    /// Makes this the only authority of a folder `tls`.
    pub fn end(&self, dir: &Path) -> Result<(), TlsError> {
        self.put(dir)?;
        _ = fs::remove_file(dir.join(SUCCESSION_FILE));
        Ok(())
    }

    /// Writes the authority's files, unless they are there.
    fn put(&self, dir: &Path) -> Result<(), TlsError> {
        for (file, text) in [(CA_KEY_FILE, &self.key), (CA_FILE, &self.certificate)] {
            let path = dir.join(file);
            if fs::read_to_string(&path).ok().as_ref() != Some(text) {
                write_private(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The authority before the successor; nothing when its certificates cannot be read.
    fn predecessor(&self) -> Option<Predecessor> {
        let read = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).ok();
        Some(Predecessor { cross: read(&self.cross)?, certificate: read(&self.before)? })
    }
}

/// The authority of a folder `tls`: read, and made when there is none. While it is being rotated, the successor.
pub fn authority(dir: &Path, cluster: &str) -> Result<Authority, TlsError> {
    let succession = Succession::read(dir)?;
    if let Some(succession) = &succession {
        succession.put(dir)?;
    }
    read_or_make(dir, cluster, succession.and_then(|succession| succession.predecessor()))
}

/// The authority `of`, certified by another one, whose certificate of itself comes second.
pub fn certified_by(of: &Authority, by: &KeyPair, name: &str) -> Result<[CertificateDer<'static>; 2], rcgen::Error> {
    let mut above = authority_params(name);
    valid_for(&mut above, CA_DAYS);
    let root = above.self_signed(by)?;
    let mut params: CertificateParams = authority_params(&of.name);
    valid_for(&mut params, CA_DAYS);
    let cross = params.signed_by(of.issuer.key(), &Issuer::from_params(&above, by))?;
    Ok([cross.der().clone(), root.der().clone()])
}

/// The pin of the authority that the cluster began with, where it was rotated.
pub fn born(dir: &Path) -> Option<Digest> {
    fs::read_to_string(dir.join(BORN_FILE)).ok()?.trim().parse().ok()
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
