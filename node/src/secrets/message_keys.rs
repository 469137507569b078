//! The Ed25519 keys with which senders sign messages: sealed with the data key before they go into a shard's log.
//!
//! Of a key that nodes hold the seed is sealed, of any other the public key. Either way a row that somebody changed, or made,
//! opens as no key: only who has the data key makes one.

use caxton_proto::WorkspaceId;
use caxton_proto::acl::Address;
use caxton_proto::mailbox::{KEY_BYTES, KeyId, SIGNATURE_BYTES, SetKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::{KeyError, SecretStore};

/// A key pair that is open: it signs.
pub struct SigningPair {
    pair: Ed25519KeyPair,
}

impl SigningPair {
    /// A new one, and its seed.
    fn draw() -> Result<(SigningPair, [u8; KEY_BYTES]), KeyError> {
        let mut seed = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::Seal)?;
        Ok((SigningPair::of(&seed).ok_or(KeyError::Seal)?, seed))
    }

    /// The pair of a seed.
    pub fn of(seed: &[u8]) -> Option<SigningPair> {
        Some(SigningPair { pair: Ed25519KeyPair::from_seed_unchecked(seed).ok()? })
    }

    /// The pair of a private key in PKCS#8, as `openssl genpkey -algorithm ed25519` writes it.
    pub fn of_pkcs8(bytes: &[u8]) -> Option<SigningPair> {
        Some(SigningPair { pair: Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).ok()? })
    }

    /// The public key.
    pub fn public(&self) -> [u8; KEY_BYTES] {
        let mut public = [0; KEY_BYTES];
        // An Ed25519 key always has as many.
        let bytes = self.pair.public_key().as_ref();
        public.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        public
    }

    /// A signature over bytes.
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.iter_mut().zip(self.pair.sign(bytes).as_ref()).for_each(|(to, from)| *to = *from);
        signature
    }
}

/// Whether a signature over bytes is that of a public key.
pub fn is_signed(public: &[u8; KEY_BYTES], bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(bytes, signature).is_ok()
}

/// A sealed key opens as that of its owner in its workspace, and as nothing else.
fn aad(workspace: &WorkspaceId, owner: &Address, key: KeyId, held: bool) -> Vec<u8> {
    let kind = if held { "seed" } else { "public" };
    format!("caxton message key 1\0{workspace}\0{owner}\0{key}\0{kind}").into_bytes()
}

impl SecretStore {
    /// A new key for a sender, that the nodes hold.
    pub fn draw_message_key(
        &self,
        workspace: &WorkspaceId,
        owner: &Address,
        overlap_ms: Option<i64>,
    ) -> Result<SetKey, KeyError> {
        let (pair, seed) = SigningPair::draw()?;
        let public = pair.public();
        let bound = aad(workspace, owner, KeyId::of(&public), true);
        let (sealed_with, sealed) = self.keys.seal_bytes(bound, &seed)?;
        Ok(SetKey { owner: owner.clone(), public, held: true, sealed_with, sealed, overlap_ms })
    }

    /// The public key of a sender who holds the other half.
    pub fn note_message_key(
        &self,
        workspace: &WorkspaceId,
        owner: &Address,
        public: [u8; KEY_BYTES],
        overlap_ms: Option<i64>,
    ) -> Result<SetKey, KeyError> {
        let bound = aad(workspace, owner, KeyId::of(&public), false);
        let (sealed_with, sealed) = self.keys.seal_bytes(bound, &public)?;
        Ok(SetKey { owner: owner.clone(), public, held: false, sealed_with, sealed, overlap_ms })
    }

    /// Opens a key that a shard keeps: the pair where the nodes hold it. Nothing where it does not open as this sender's key: it was
    /// changed, or sealed with a data key that this node does not have.
    pub fn open_message_key(&self, workspace: &WorkspaceId, key: &SetKey) -> Option<Option<SigningPair>> {
        let bound = aad(workspace, &key.owner, KeyId::of(&key.public), key.held);
        let opened = self.keys.open_bytes(bound, &key.sealed_with, &key.sealed)?;
        if !key.held {
            return (opened == key.public).then_some(None);
        }
        let pair = SigningPair::of(&opened)?;
        (pair.public() == key.public).then_some(Some(pair))
    }
}
