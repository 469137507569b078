//! The data keys of a node: AES-256-GCM under a random nonce, bound to the workspace and the name, so that a sealed
//! value that is moved to another name does not open.
//!
//! The file has a line `ID KEY` for each key. The first one seals; all of them open, which is how a key is replaced.

use std::path::{Path, PathBuf};

use caxton_proto::manifest::secret::SecretName;
use caxton_proto::{Digest, WorkspaceId};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::{NoSecret, SecretValue};
use crate::files::{FileError, read_or_create};
use crate::trust::DATA_KEY_FILE;

/// The length of a key, in bytes.
const KEY_LEN: usize = 32;
/// How many keys the file may hold.
const KEYS_MAX: usize = 16;

/// Why the data keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the file of the data keys cannot be read or made")]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("line {line} of {} is not a data key; put the file back from a backup: without it no secret opens", .path.display())]
    NotAKey {
        path: PathBuf,
        /// Where, from 1.
        line: usize,
    },
    /// The operating system gives no random bytes, or the cipher refuses.
    #[error("the secret cannot be sealed")]
    Seal,
}

/// Where a secret belongs; a sealed value opens there and nowhere else.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub workspace: &'a WorkspaceId,
    pub name: &'a SecretName,
}

impl Place<'_> {
    fn aad(self) -> Vec<u8> {
        // Neither name can hold a zero byte, so no two places look alike.
        format!("caxton secret 1\0{}\0{}", self.workspace, self.name).into_bytes()
    }

    fn damaged(self) -> NoSecret {
        NoSecret::Damaged { name: self.name.clone() }
    }
}

struct DataKey {
    id: String,
    key: LessSafeKey,
}

/// The keys of a node, at least one.
pub(super) struct DataKeys {
    sealing: DataKey,
    older: Vec<DataKey>,
}

impl DataKeys {
    pub(super) fn open(data_dir: &Path) -> Result<DataKeys, KeyError> {
        let path = data_dir.join(DATA_KEY_FILE);
        let mint = || {
            let mut key = [0; KEY_LEN];
            SystemRandom::new().fill(&mut key).map_err(|_| FileError::Random)?;
            Ok(format!("{} {}\n", id_of(&key), hex::encode(key)).into_bytes())
        };
        let text = read_or_create(&path, mint)?;
        let not_a_key = |line| KeyError::NotAKey { path: path.clone(), line };
        let text = String::from_utf8(text).map_err(|_| not_a_key(1))?;
        let mut keys = Vec::new();
        for (line, text) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let key = parse(text).filter(|_| keys.len() < KEYS_MAX);
            keys.push(key.ok_or_else(|| not_a_key(line + 1))?);
        }
        if keys.is_empty() {
            return Err(not_a_key(1));
        }
        let sealing = keys.remove(0);
        Ok(DataKeys { sealing, older: keys })
    }

    /// The id of the key, and nonce, ciphertext and tag.
    pub(super) fn seal(&self, place: Place<'_>, value: &SecretValue) -> Result<(String, Vec<u8>), KeyError> {
        self.seal_bytes(place.aad(), value.expose().as_bytes())
    }

    /// The same of bytes that are bound to `aad`.
    pub(super) fn seal_bytes(&self, aad: Vec<u8>, plain: &[u8]) -> Result<(String, Vec<u8>), KeyError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| KeyError::Seal)?;
        let mut bytes = plain.to_vec();
        let (nonce_used, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(aad));
        self.sealing.key.seal_in_place_append_tag(nonce_used, aad, &mut bytes).map_err(|_| KeyError::Seal)?;
        Ok((self.sealing.id.clone(), [nonce.as_slice(), &bytes].concat()))
    }

    /// Nothing when the key is another, or the bytes were changed.
    pub(super) fn open_bytes(&self, aad: Vec<u8>, key: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let known = std::iter::once(&self.sealing).chain(&self.older).find(|known| known.id == key)?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        Some(known.key.open_in_place(nonce, Aad::from(aad), &mut bytes).ok()?.to_vec())
    }

    pub(super) fn open_sealed(&self, place: Place<'_>, key: &str, sealed: &[u8]) -> Result<SecretValue, NoSecret> {
        let known = std::iter::once(&self.sealing).chain(&self.older).find(|known| known.id == key);
        let known = known.ok_or_else(|| NoSecret::OtherKey { name: place.name.clone(), key: key.to_owned() })?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(|| place.damaged())?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| place.damaged())?;
        let mut bytes = sealed.to_vec();
        let opened = known.key.open_in_place(nonce, Aad::from(place.aad()), &mut bytes).map_err(|_| place.damaged())?;
        let text = String::from_utf8(opened.to_vec()).map_err(|_| place.damaged())?;
        SecretValue::new(text).map_err(|_| place.damaged())
    }
}

/// A key's id says which key it is and nothing of what it is.
fn id_of(key: &[u8]) -> String {
    let digest = Digest::of(&[b"caxton data key\0", key].concat());
    hex::encode(&digest.as_bytes()[..8])
}

fn parse(line: &str) -> Option<DataKey> {
    let (id, key) = line.trim().split_once(' ')?;
    let key = hex::decode(key.trim()).ok().filter(|key| key.len() == KEY_LEN && id == id_of(key))?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?);
    Some(DataKey { id: id.to_owned(), key })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const VALUE: &str = "sk-very-secret-0123456789";

    fn keys(dir: &Path) -> DataKeys {
        DataKeys::open(dir).expect("keys")
    }

    fn at(place: &(WorkspaceId, SecretName)) -> Place<'_> {
        Place { workspace: &place.0, name: &place.1 }
    }

    fn place(workspace: &str, name: &str) -> (WorkspaceId, SecretName) {
        (workspace.parse().expect("a name"), name.parse().expect("a name"))
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let (home, value) = (place("demo", "KEY"), SecretValue::new(VALUE.into()).expect("a value"));
        let (key, sealed) = keys(dir.path()).seal(at(&home), &value).expect("sealed");
        assert!(!sealed.windows(6).any(|part| VALUE.as_bytes().starts_with(part)), "the value is in its sealed form");
        assert!(!format!("{value:?}").contains("sk-"), "Debug shows the value");
        let again = keys(dir.path());
        assert_eq!(again.open_sealed(at(&home), &key, &sealed).expect("opens").expose(), VALUE);
        for other in [place("demo", "OTHER"), place("else", "KEY")] {
            let refused = again.open_sealed(at(&other), &key, &sealed).expect_err("another place");
            assert!(matches!(refused, NoSecret::Damaged { .. }) && !refused.to_string().contains("sk-"));
        }
        for at_byte in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at_byte] ^= 1;
            assert!(again.open_sealed(at(&home), &key, &changed).is_err(), "byte {at_byte} was changed");
        }
        for len in 0..sealed.len() {
            assert!(again.open_sealed(at(&home), &key, &sealed[..len]).is_err(), "{len} bytes of it opened");
        }
        let (_, second) = again.seal(at(&home), &value).expect("sealed");
        assert_ne!(sealed, second, "a nonce was used twice");
    }

    #[test]
    fn an_older_key_still_opens_and_another_node_s_is_named() {
        let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (home, value) = (place("demo", "KEY"), SecretValue::new(VALUE.into()).expect("a value"));
        let (key, sealed) = keys(one.path()).seal(at(&home), &value).expect("sealed");
        let refused = keys(two.path()).open_sealed(at(&home), &key, &sealed).expect_err("another key");
        assert!(refused.to_string().contains(&key) && refused.to_string().contains(DATA_KEY_FILE), "{refused}");
        let file = |dir: &Path| dir.join(DATA_KEY_FILE);
        let both = [one.path(), two.path()].map(|dir| std::fs::read_to_string(file(dir)).expect("a file"));
        std::fs::write(file(two.path()), format!("{}{}", both[1], both[0])).expect("written");
        let joined = keys(two.path());
        assert_eq!(joined.open_sealed(at(&home), &key, &sealed).expect("opens").expose(), VALUE);
        assert_ne!(joined.seal(at(&home), &value).expect("sealed").0, key, "the first key seals");
    }

    #[test]
    fn the_file_is_its_owner_s_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        keys(dir.path());
        let file = dir.path().join(DATA_KEY_FILE);
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        let good = std::fs::read_to_string(&file).expect("text");
        for bad in [String::new(), good.replace(' ', ""), good.replacen('0', "1", 1).to_uppercase(), good[..40].into()]
        {
            std::fs::write(&file, &bad).expect("written");
            let refused = DataKeys::open(dir.path()).err().expect("refused").to_string();
            assert!(!bad.split_whitespace().last().is_some_and(|key| refused.contains(key)), "{refused}");
        }
    }
}
