//! The recovery key: AES-256-GCM over the cluster's keys, bound to the archive's header, so that the keys of one archive
//! do not open as another's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use caxton_proto::Digest;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::files::{FileError, random, read_or_create};

/// What a recovery key's file begins with; the number is the version.
const PREFIX: &str = "caxton-recovery-key-1 ";

/// A recovery key: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryKey([u8; 32]);

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecoveryKey({})", self.id())
    }
}

/// Why a recovery key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the file of the recovery key cannot be read or made")]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("{} holds no recovery key", .path.display())]
    NotAKey { path: PathBuf },
    /// The archive was sealed with another key.
    #[error("the archive's keys were sealed with the recovery key {wanted}, and this one is {given}")]
    Another {
        wanted: String,
        /// The one that was given.
        given: String,
    },
    /// The archive is not what was written under this key.
    #[error(
        "the archive was changed after it was written: its digests are not those that the recovery key authenticates"
    )]
    Forged,
    /// The cipher refuses.
    #[error("the cluster's keys do not open: {what}")]
    Damaged {
        /// What about them.
        what: &'static str,
    },
}

impl RecoveryKey {
    /// The key in a file, which is made, for its owner only, when there is none.
    pub fn read_or_make(path: &Path) -> Result<RecoveryKey, KeyError> {
        let mint = || Ok(format!("{PREFIX}{}\n", hex::encode(random::<32>()?)).into_bytes());
        RecoveryKey::of(&read_or_create(path, mint)?, path)
    }

    /// The key in a file.
    pub fn read(path: &Path) -> Result<RecoveryKey, KeyError> {
        let missing = || {
            Err(FileError::Io {
                path: path.to_owned(),
                what: "is not there",
                source: std::io::ErrorKind::NotFound.into(),
            })
        };
        RecoveryKey::of(&read_or_create(path, missing)?, path)
    }

    fn of(bytes: &[u8], path: &Path) -> Result<RecoveryKey, KeyError> {
        let text = std::str::from_utf8(bytes).ok().and_then(|text| text.trim().strip_prefix(PREFIX));
        text.and_then(RecoveryKey::from_hex).ok_or_else(|| KeyError::NotAKey { path: path.to_owned() })
    }

    /// The key in 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<RecoveryKey> {
        Some(RecoveryKey(hex::decode(text.trim()).ok()?.try_into().ok()?))
    }

    /// The key in 64 hexadecimal digits, for whoever seals with it.
    pub fn reveal(&self) -> String {
        hex::encode(self.0)
    }

    /// Says which key it is, and nothing of what it is.
    pub fn id(&self) -> String {
        let digest = Digest::of(&[b"caxton recovery key\0".as_slice(), &self.0].concat());
        hex::encode(&digest.as_bytes()[..8])
    }

    /// Seals the cluster's keys for the archive with this header.
    pub fn seal(&self, header: &[u8], files: &BTreeMap<String, bytes::Bytes>) -> Result<Vec<u8>, KeyError> {
        let damaged = |what| KeyError::Damaged { what };
        let files: BTreeMap<&String, String> = files.iter().map(|(name, bytes)| (name, hex::encode(bytes))).collect();
        let mut bytes = serde_json::to_vec(&files).map_err(|_| damaged("they cannot be written"))?;
        let nonce = random::<NONCE_LEN>()?;
        let sealed = Nonce::assume_unique_for_key(nonce);
        let key = self.cipher()?;
        key.seal_in_place_append_tag(sealed, aad(header), &mut bytes).map_err(|_| damaged("they cannot be sealed"))?;
        Ok([nonce.as_slice(), &bytes].concat())
    }

    /// The cluster's keys, by the names of their files below the data directory.
    pub fn open(&self, header: &[u8], sealed: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, KeyError> {
        let damaged = |what| KeyError::Damaged { what };
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(damaged("they are too short"))?;
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.cipher()?.open_in_place(nonce, aad(header), &mut bytes);
        let plain = plain.map_err(|_| damaged("they are not what was sealed"))?;
        let files: BTreeMap<String, String> =
            serde_json::from_slice(plain).map_err(|_| damaged("they make no sense"))?;
        let decode = |(name, text): (String, String)| Some((name, hex::decode(text).ok()?));
        files.into_iter().map(decode).collect::<Option<_>>().ok_or(damaged("they make no sense"))
    }

    /// Authenticates an archive by the digest of its digests, in hexadecimal digits.
    pub fn authenticate(&self, sums: &Digest) -> String {
        hex::encode(hmac::sign(&self.authenticator(), sums.as_bytes()))
    }

    /// Whether this key authenticated these digests, compared in constant time.
    pub fn check(&self, sums: &Digest, proof: &str) -> Result<(), KeyError> {
        let proof = hex::decode(proof).map_err(|_| KeyError::Forged)?;
        hmac::verify(&self.authenticator(), sums.as_bytes(), &proof).map_err(|_| KeyError::Forged)
    }

    /// A key of its own, so that what seals and what authenticates have nothing to do with each other.
    fn authenticator(&self) -> hmac::Key {
        let base = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&base, b"caxton backup sums 1").as_ref())
    }

    fn cipher(&self) -> Result<LessSafeKey, KeyError> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0);
        key.map(LessSafeKey::new).map_err(|_| KeyError::Damaged { what: "the cipher takes no such key" })
    }
}

fn aad(header: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([b"caxton backup keys 1\0".as_slice(), header].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_open_with_their_key_in_their_archive_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.key");
        let key = RecoveryKey::read_or_make(&path).expect("made");
        assert_eq!(RecoveryKey::read(&path).expect("read"), key);
        let other = RecoveryKey::read_or_make(&dir.path().join("b.key")).expect("made");
        let files = BTreeMap::from([("keys/x".to_owned(), bytes::Bytes::from_static(b"secret"))]);
        let sealed = key.seal(b"header", &files).expect("sealed");
        assert_eq!(key.open(b"header", &sealed).expect("opens")["keys/x"], b"secret");
        assert!(!sealed.windows(6).any(|part| part == b"secret" || part == b"736563"), "the keys are in clear");
        assert!(other.open(b"header", &sealed).is_err(), "another key");
        assert!(key.open(b"another", &sealed).is_err(), "another archive");
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(key.open(b"header", &bad).is_err(), "byte {at}");
        }
        let (sums, proof) = (Digest::of(b"sums"), key.authenticate(&Digest::of(b"sums")));
        assert!(key.check(&sums, &proof).is_ok());
        for (by, of, what) in [
            (&other, &sums, proof.as_str()),
            (&key, &Digest::of(b"other"), &proof),
            (&key, &sums, "00"),
            (&key, &sums, "x"),
        ] {
            assert!(matches!(by.check(of, what), Err(KeyError::Forged)));
        }
        std::fs::write(&path, "something").expect("written");
        assert!(matches!(RecoveryKey::read(&path), Err(KeyError::NotAKey { .. })));
    }
}
