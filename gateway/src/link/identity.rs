//! Who a node is to its neighbours: its certificate, its key, and the cluster's CA.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::x509::Certificate;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// The protocol's name in the TLS handshake; a new wire format that old nodes cannot read takes a new number.
const ALPN: &[u8] = b"cryptocluster/1";

/// A node's certificate chain and key, and the CA that its neighbours must be certified by.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    anchors: Arc<RootCertStore>,
}

/// Why a node cannot show its identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read, or holds nothing that is expected there.
    #[error("{file}: cannot read the {what} ({error}); put it there, or correct [membership] in node.toml")]
    File {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the reader said.
        error: rustls_pki_types::pem::Error,
    },
    /// The CA's certificate is not usable as a trust anchor.
    #[error("the CA's certificate of [membership] in node.toml cannot be a trust anchor")]
    Anchor(#[source] rustls::Error),
    /// The certificate does not name this node.
    #[error("the cluster certificate does not name this node: it needs the DNS name {0:?} as subject alternative name")]
    OtherName(String),
    /// A name that cannot stand in a certificate.
    #[error("{0:?} cannot be a member's name: letters, digits, dots and hyphens only")]
    Name(String),
    /// Certificate and key do not belong together, or TLS cannot use them.
    #[error("TLS cannot use the certificate and key of [membership] in node.toml; see that they belong together")]
    Tls(#[source] rustls::Error),
    /// The CA's certificate cannot verify clients.
    #[error("TLS cannot use the CA's certificate of [membership] in node.toml")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

impl Identity {
    /// Takes a chain, its key and the CA's certificates.
    ///
    /// # Errors
    /// One of the anchors is no certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        anchors: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let mut store = RootCertStore::empty();
        for anchor in anchors {
            store.add(anchor).map_err(IdentityError::Anchor)?;
        }
        Ok(Self { chain, key, anchors: Arc::new(store) })
    }

    /// Reads the three PEM files.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it should.
    pub fn load(certificate: &Path, key: &Path, ca: &Path) -> Result<Self, IdentityError> {
        let certificates = |file: &Path, what| {
            CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| IdentityError::File { file: file.into(), what, error })
        };
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| IdentityError::File {
            file: key.into(),
            what: "private key of the cluster certificate",
            error,
        })?;
        Self::new(
            certificates(certificate, "cluster certificate")?,
            private,
            certificates(ca, "certificate of the cluster's CA")?,
        )
    }

    /// Whether the own certificate names `name`.
    ///
    /// # Errors
    /// It does not, or `name` cannot stand in a certificate.
    pub fn check_own_name(&self, name: &str) -> Result<(), IdentityError> {
        ServerName::try_from(name).map_err(|_| IdentityError::Name(name.into()))?;
        if names(&self.chain, name) { Ok(()) } else { Err(IdentityError::OtherName(name.into())) }
    }

    /// Whether this node can show itself to its neighbours under `name`.
    ///
    /// # Errors
    /// The certificate names somebody else, is not its key's, or TLS cannot use it.
    pub fn check(&self, name: &str) -> Result<(), IdentityError> {
        self.check_own_name(name)?;
        self.client()?;
        self.server()?;
        Ok(())
    }

    /// A secret that only this node knows and that outlives its restarts.
    pub(super) fn stable_secret(&self) -> &[u8] {
        self.key.secret_der()
    }

    /// TLS towards a neighbour that this node dials.
    pub(super) fn client(&self) -> Result<rustls::ClientConfig, IdentityError> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(IdentityError::Tls)?
            .with_root_certificates(Arc::clone(&self.anchors))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(IdentityError::Tls)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would not show its certificate again, which may have expired since.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// TLS towards a neighbour that dials this node.
    pub(super) fn server(&self) -> Result<rustls::ServerConfig, IdentityError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.anchors), provider())
            .build()
            .map_err(IdentityError::Verifier)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(IdentityError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(IdentityError::Tls)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// Whether the first certificate of `chain` names `name` as a DNS subject alternative name. A wildcard names no node, or its
/// holder would be all of them.
pub(super) fn names(chain: &[CertificateDer<'_>], name: &str) -> bool {
    let Some(Ok(leaf)) = chain.first().map(|leaf| Certificate::from_der(leaf)) else {
        return false;
    };
    leaf.alternative_names().contains(&auth::Identity::Fqdn(name.to_owned()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
