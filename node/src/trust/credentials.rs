//! Certificates of nodes: made by the cluster's authority, renewed long before they end, and checked for the cluster and
//! the node that they name as `caxton://CLUSTER/node/NODE`.
//!
//! No name of the network is looked at: an address says where a node is, never who it is. Sessions are not resumed,
//! because a resumed one is not checked again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use caxton_proto::{Digest, NodeId};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore, ServerConfig, SignatureScheme};
use tokio::sync::watch;
use uuid::Uuid;

use super::authority::{Authority, TlsError, pin_of, valid_for};
use super::shared_secret::SharedSecret;
use super::succession::authority;

/// How long a node's certificate is valid, in days.
const CERTIFICATE_DAYS: i64 = 30;
/// What connections between nodes speak.
const ALPN: &[u8] = b"h2";

/// Who a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertifiedNode {
    pub cluster: Uuid,
    pub node: NodeId,
}

impl CertifiedNode {
    fn uri(self) -> String {
        format!("caxton://{}/node/{:x}", self.cluster, self.node.0)
    }

    /// Who the certificate says that it is for. Says nothing of whether anybody vouches for that.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<CertifiedNode> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut named = certificate.valid_uri_names().filter_map(CertifiedNode::parse);
        let found = named.next()?;
        // One certificate is one node.
        named.next().is_none().then_some(found)
    }

    fn parse(uri: &str) -> Option<CertifiedNode> {
        let (cluster, node) = uri.strip_prefix("caxton://")?.split_once("/node/")?;
        let found = CertifiedNode { cluster: cluster.parse().ok()?, node: NodeId(u64::from_str_radix(node, 16).ok()?) };
        (found.uri() == uri).then_some(found)
    }
}

/// Why the other side's certificate was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefused {
    /// It names no node.
    #[error(
        "its certificate is not one of a node; it may be the port for clients (7411 unless told otherwise), and the one for nodes is another (7412 unless told otherwise)"
    )]
    NoNode,
    /// It is another node.
    #[error("it is certified as node {} of cluster {}, and node {} of cluster {} was meant", .found.node, .found.cluster, .meant.node, .meant.cluster)]
    AnotherNode {
        /// Who it is.
        found: CertifiedNode,
        /// Who was meant.
        meant: CertifiedNode,
    },
    /// Its authority is not the pinned one.
    #[error("its certificate does not come from the authority that is pinned")]
    AnotherAuthority,
}

impl From<CertificateRefused> for rustls::Error {
    fn from(why: CertificateRefused) -> rustls::Error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
    }
}

/// What a node shows to its peers, and how it checks them. A clone is a handle on the same.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    own: CertifiedNode,
    dir: PathBuf,
    current: Arc<Current>,
    trust: RwLock<Trust>,
    /// The secret that the cluster was founded with, if there is one.
    secret: Option<SharedSecret>,
    provider: Arc<CryptoProvider>,
    /// Counts the certificates.
    renewed: watch::Sender<u64>,
}

/// Whom a node believes.
#[derive(Clone)]
struct Trust {
    roots: Arc<RootCertStore>,
    pin: Digest,
}

impl Trust {
    /// The authority, and while it is being rotated the one before.
    fn of(authority: &Authority) -> Result<Trust, TlsError> {
        let mut roots = RootCertStore::empty();
        let before = authority.before.iter().map(|before| &before.certificate);
        for root in std::iter::once(&authority.certificate).chain(before) {
            roots.add(root.clone()).map_err(TlsError::Unusable)?;
        }
        let pin = pin_of(&authority.certificate).ok_or(TlsError::Unusable(CertificateRefused::NoNode.into()))?;
        Ok(Trust { roots: Arc::new(roots), pin })
    }
}

/// The certificate that new connections see.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Credentials {
    /// Makes a certificate for `own` with the authority in `dir`, which is made when there is none.
    pub fn open(dir: PathBuf, own: CertifiedNode) -> Result<Credentials, TlsError> {
        Credentials::open_with(dir, own, None)
    }

    /// The same for a cluster that was founded with a secret: whoever knows that recognises the node by it.
    pub fn open_with(dir: PathBuf, own: CertifiedNode, secret: Option<SharedSecret>) -> Result<Credentials, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = authority(&dir, &own.cluster.to_string())?;
        let trust = RwLock::new(Trust::of(&authority)?);
        let certificate = certify(&authority, own, secret.as_ref(), &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(certificate))));
        let renewed = watch::Sender::new(0);
        Ok(Credentials(Arc::new(Inner { own, dir, current, trust, secret, provider, renewed })))
    }

    fn trust(&self) -> Trust {
        self.0.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes when the certificate was made again.
    pub fn renewed(&self) -> watch::Receiver<u64> {
        self.0.renewed.subscribe()
    }

    /// The authority whose files are in the folder now.
    pub fn authority(&self) -> Result<Authority, TlsError> {
        authority(&self.0.dir, &self.0.own.cluster.to_string())
    }

    /// The folder with the authority's files.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub fn node(&self) -> NodeId {
        self.0.own.node
    }

    pub fn cluster(&self) -> Uuid {
        self.0.own.cluster
    }

    /// By what a node that is to join recognises this cluster.
    pub fn pin(&self) -> Digest {
        self.trust().pin
    }

    /// Makes the certificate again, of the authority whose files are there now; connections from now on see the new one.
    pub fn renew(&self) -> Result<(), TlsError> {
        let authority = self.authority()?;
        let trust = Trust::of(&authority)?;
        let certificate = Arc::new(certify(&authority, self.0.own, self.0.secret.as_ref(), &self.0.provider)?);
        *self.0.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
        *self.0.current.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
        self.0.renewed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// How connections are accepted: with a certificate of the cluster, or with none at all from whoever wants to join.
    pub fn server(&self) -> Result<ServerConfig, TlsError> {
        let clients = WebPkiClientVerifier::builder_with_provider(self.trust().roots, Arc::clone(&self.0.provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| TlsError::Unusable(rustls::Error::General(error.to_string())))?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.0.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Unusable)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&self.0.current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// How the node `to` is connected to.
    pub fn client(&self, to: NodeId) -> Result<ClientConfig, TlsError> {
        let meant = CertifiedNode { cluster: self.0.own.cluster, node: to };
        let expected = Expected::Node { meant, roots: self.trust().roots };
        let config = client(&self.0.provider, expected)?;
        Ok(finished(config.with_client_cert_resolver(Arc::clone(&self.0.current) as Arc<dyn ResolvesClientCert>)))
    }
}

/// How a cluster is connected to of which nothing is known but its authority's pin, without a certificate.
pub fn stranger(pin: Digest) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(finished(client(&provider, Expected::Pinned { pin })?.with_no_client_auth()))
}

fn client(
    provider: &Arc<CryptoProvider>,
    expected: Expected,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let verifier = PeerVerifier { expected, algorithms: provider.signature_verification_algorithms };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finished(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

fn certify(
    authority: &Authority,
    own: CertifiedNode,
    secret: Option<&SharedSecret>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let make = |source| TlsError::Make { names: vec![own.uri()], source };
    let key = KeyPair::generate().map_err(make)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("caxton node {}", own.node));
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(own.uri()).map_err(make)?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, CERTIFICATE_DAYS);
    let certificate = params.signed_by(&key, &authority.issuer).map_err(make)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    // The authority goes along: a node that is to join knows nothing but the digest of its key.
    let mut chain = vec![certificate.der().clone(), authority.certificate.clone()];
    if let Some(before) = &authority.before {
        chain.extend([before.cross.clone(), before.certificate.clone()]);
    }
    if let Some(secret) = secret.filter(|secret| Some(secret.pin()) != pin_of(&authority.certificate)) {
        chain.extend(secret.vouch_for(authority).map_err(make)?);
    }
    CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Unusable)
}

/// Whom the other side has to be.
#[derive(Debug)]
enum Expected {
    /// This node, certified by one of these.
    Node { meant: CertifiedNode, roots: Arc<RootCertStore> },
    /// A node of the cluster with this authority.
    Pinned { pin: Digest },
}

#[derive(Debug)]
struct PeerVerifier {
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        // Refused in any case, and first, because it is said: it is no node, whoever certified it.
        let found = CertifiedNode::of(end_entity).ok_or(CertificateRefused::NoNode)?;
        let algorithms = self.algorithms.all;
        let pinned;
        let roots = match &self.expected {
            Expected::Node { roots, .. } => &**roots,
            Expected::Pinned { pin } => {
                let authority = intermediates.iter().find(|it| pin_of(it) == Some(*pin));
                let mut found = RootCertStore::empty();
                found.add(authority.ok_or(CertificateRefused::AnotherAuthority)?.clone().into_owned())?;
                pinned = found;
                &pinned
            }
        };
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        match &self.expected {
            Expected::Node { meant, .. } if found != *meant => {
                Err(CertificateRefused::AnotherNode { found, meant: *meant }.into())
            }
            Expected::Node { .. } | Expected::Pinned { .. } => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("nodes speak TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::succession::Succession;

    #[test]
    fn a_certificate_names_one_node_of_one_cluster() {
        let own = CertifiedNode { cluster: Uuid::from_u128(7), node: NodeId(0xabc) };
        assert_eq!(CertifiedNode::parse(&own.uri()), Some(own));
        for bad in ["caxton://x/node/1", "https://a/node/1", "caxton://", &format!("{}/more", own.uri())] {
            assert_eq!(CertifiedNode::parse(bad), None, "{bad}");
        }
        let dir = tempfile::tempdir().expect("a folder");
        let credentials = Credentials::open(dir.path().to_owned(), own).expect("made");
        let shown = credentials.0.current.get();
        assert_eq!(CertifiedNode::of(&shown.cert[0]), Some(own));
        assert_eq!(CertifiedNode::of(&shown.cert[1]), None, "the authority is no node");
        assert_eq!(pin_of(&shown.cert[1]), Some(credentials.pin()));
        credentials.renew().expect("renewed");
        assert_ne!(credentials.0.current.get().cert[0], shown.cert[0]);
        assert_eq!(credentials.0.current.get().cert[1], shown.cert[1]);
    }

    fn verify(expected: Expected, shown: &CertifiedKey) -> Result<(), rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        let verifier = PeerVerifier { expected, algorithms: provider.signature_verification_algorithms };
        let name = ServerName::try_from("node.invalid").expect("a name");
        verifier.verify_server_cert(&shown.cert[0], &shown.cert[1..], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn who_knows_the_authority_before_its_successor_trusts_both_until_the_rotation_is_finished() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = CertifiedNode { cluster: Uuid::from_u128(7), node: NodeId(1) };
        let ours = Credentials::open(dir.path().to_owned(), own).expect("made");
        let (old_pin, old_roots, old_shown) = (ours.pin(), ours.trust().roots, ours.0.current.get());
        let node = |roots: &Arc<RootCertStore>| Expected::Node { meant: own, roots: Arc::clone(roots) };
        let next = Succession::of(&ours.authority().expect("there")).expect("made");
        next.begin(dir.path()).expect("begun");
        ours.renew().expect("renewed");
        let shown = ours.0.current.get();
        assert_ne!(ours.pin(), old_pin);
        for (expected, what) in [
            (node(&ours.trust().roots), "a node that knows both"),
            (node(&old_roots), "a node that was away"),
            (Expected::Pinned { pin: old_pin }, "a token from before"),
            (Expected::Pinned { pin: ours.pin() }, "a token from now"),
        ] {
            assert_eq!(verify(expected, &shown), Ok(()), "{what}");
        }
        assert_eq!(verify(node(&ours.trust().roots), &old_shown), Ok(()), "a node that was away shows the old one");
        // The same from the files, after a restart.
        let again = Credentials::open(dir.path().to_owned(), own).expect("read");
        assert_eq!(verify(node(&old_roots), &again.0.current.get()), Ok(()));
        next.end(dir.path()).expect("finished");
        ours.renew().expect("renewed");
        let shown = ours.0.current.get();
        assert_eq!(verify(node(&ours.trust().roots), &shown), Ok(()));
        assert!(verify(node(&old_roots), &shown).is_err(), "a node that never heard of it");
        assert!(verify(Expected::Pinned { pin: old_pin }, &shown).is_err(), "a token from before");
        assert!(verify(node(&ours.trust().roots), &old_shown).is_err(), "the old certificate");
    }

    #[test]
    fn another_node_another_cluster_and_another_authority_are_refused() {
        let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let cluster = Uuid::from_u128(7);
        let of = |node| CertifiedNode { cluster, node: NodeId(node) };
        let ours = Credentials::open(one.path().to_owned(), of(1)).expect("made");
        let theirs = Credentials::open(two.path().to_owned(), of(1)).expect("made");
        let shown = ours.0.current.get();
        let node = |meant| Expected::Node { meant, roots: ours.trust().roots };
        assert!(verify(node(of(1)), &shown).is_ok());
        assert!(verify(Expected::Pinned { pin: ours.pin() }, &shown).is_ok());
        assert!(verify(node(of(2)), &shown).is_err(), "another node");
        let elsewhere = CertifiedNode { cluster: Uuid::from_u128(8), node: NodeId(1) };
        assert!(verify(node(elsewhere), &shown).is_err(), "another cluster");
        assert!(verify(node(of(1)), &theirs.0.current.get()).is_err(), "another authority");
        assert!(verify(Expected::Pinned { pin: theirs.pin() }, &shown).is_err(), "another pin");
    }
}
