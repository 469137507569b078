//! The secret that a machine gives to all nodes of a cluster, so that nobody carries tokens: the founder makes the
//! authority's key from it, and every other node knows from it whom to trust and what to show.
//!
//! HKDF-SHA256 with one label per purpose: nothing that is derived tells anything of the secret, or of the rest.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use caxton_proto::Digest;
use rcgen::{CertificateParams, KeyPair};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::authority::{Authority, pin_of};
use super::succession::certified_by;

/// The least bytes of the secret, white space around it not counted.
pub const SECRET_BYTES_MIN: usize = 32;
const SECRET_BYTES_MAX: usize = 4_096;
/// What stands before the seed of an Ed25519 key in PKCS#8 (RFC 8410).
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What the authority that was made from a secret is called where it vouches for its successor.
const SECRET_AUTHORITY: &str = "Caxton CA of the cluster's secret";

/// Why a cluster's secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file cannot be read.
    #[error("the cluster's secret in {} cannot be read", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("the cluster's secret in {} can be read by everybody (mode {mode:o}); run `chmod o-rwx` on it", .path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// It is too short, or too long to be one.
    #[error("the cluster's secret in {} has {bytes} bytes, and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} are wanted; make one with `openssl rand -hex 32`", .path.display())]
    Length {
        path: PathBuf,
        /// How long it is.
        bytes: usize,
    },
    /// A key could not be made from it.
    #[error("no key can be made from the cluster's secret")]
    Key(#[source] rcgen::Error),
}

/// What is made from the secret. The secret itself is not kept.
pub struct SharedSecret {
    authority: KeyPair,
    credential: [u8; 32],
    pin: Digest,
}

impl SharedSecret {
    /// Reads the secret's file.
    pub fn read(path: &Path) -> Result<SharedSecret, SecretFileError> {
        let read = |source| SecretFileError::Read { path: path.to_owned(), source };
        let mode = std::fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
        // A group may read it (a Kubernetes secret is mounted with the pod's group), the world may not.
        if mode & 0o007 != 0 {
            return Err(SecretFileError::Exposed { path: path.to_owned(), mode });
        }
        let bytes = std::fs::read(path).map_err(read)?;
        let secret = bytes.trim_ascii();
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(SecretFileError::Length { path: path.to_owned(), bytes: secret.len() });
        }
        SharedSecret::of(secret).map_err(SecretFileError::Key)
    }

    fn of(secret: &[u8]) -> Result<SharedSecret, rcgen::Error> {
        let root = Salt::new(HKDF_SHA256, b"caxton cluster secret 1").extract(secret);
        let seed = derive(&root, b"authority")?;
        let key = [&ED25519_PKCS8[..], &seed].concat();
        let authority = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key))?;
        // Any certificate of the key has its pin.
        let certificate = CertificateParams::default().self_signed(&authority)?;
        let pin = pin_of(certificate.der()).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        Ok(SharedSecret { authority, credential: derive(&root, b"join")?, pin })
    }

    /// The key of the cluster's authority, in PEM.
    pub fn authority_pem(&self) -> String {
        self.authority.serialize_pem()
    }

    /// How the authority that was made from the secret certifies the one that took its place, and its own certificate:
    /// nodes that join know the secret and nothing of rotations.
    pub fn vouch_for(&self, authority: &Authority) -> Result<[CertificateDer<'static>; 2], rcgen::Error> {
        certified_by(authority, &self.authority, SECRET_AUTHORITY)
    }

    /// By what the cluster is recognised.
    pub fn pin(&self) -> Digest {
        self.pin
    }

    /// What a node shows to be let in.
    pub fn credential(&self) -> &[u8; 32] {
        &self.credential
    }
}

fn derive(root: &Prk, label: &[u8]) -> Result<[u8; 32], rcgen::Error> {
    let mut out = [0; 32];
    let filled = root.expand(&[label], HKDF_SHA256).and_then(|okm| okm.fill(&mut out));
    filled.map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::authority::CA_KEY_FILE;
    use crate::trust::succession::authority;

    fn secret(text: &str) -> SharedSecret {
        SharedSecret::of(text.as_bytes()).expect("a key")
    }

    #[test]
    fn one_secret_makes_one_cluster_and_another_another() {
        let (one, same, other) = (secret("one"), secret("one"), secret("other"));
        assert_eq!((one.pin(), one.credential()), (same.pin(), same.credential()));
        assert_ne!(one.pin(), other.pin());
        assert_ne!(one.credential(), other.credential());
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(CA_KEY_FILE), one.authority_pem()).expect("written");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.path().join(CA_KEY_FILE), mode).expect("set");
        let authority = authority(dir.path(), "a cluster").expect("made from the key");
        assert_eq!(pin_of(&authority.certificate), Some(one.pin()));
    }

    #[test]
    fn a_short_or_exposed_secret_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        std::fs::write(&path, "too short").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        assert!(matches!(SharedSecret::read(&path), Err(SecretFileError::Length { bytes: 9, .. })));
        std::fs::write(&path, format!("{}\n", "x".repeat(32))).expect("written");
        assert!(SharedSecret::read(&path).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(SharedSecret::read(&path), Err(SecretFileError::Exposed { .. })));
    }
}
