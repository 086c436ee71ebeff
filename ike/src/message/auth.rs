//! The payloads of authentication: Identification (RFC 7296 §3.5), Certificate (§3.6), Certificate Request (§3.7) and
//! Authentication (§3.8, RFC 7427 §3).

use wire::{Cause, DecodeError, Reader, Writer};

use auth::Identity;

/// Reads an Identification payload; gives the identity, if we know its type, and the octets that AUTH covers.
///
/// # Errors
/// It is shorter than its header, or longer than our bound.
pub(crate) fn decode_identity<'a>(mut r: Reader<'a>) -> Result<(Option<Identity>, &'a [u8]), DecodeError> {
    let mut whole = r;
    let id_type = r.u8("ID Type")?;
    r.bytes("RESERVED", 3)?;
    let data = r.take_rest();
    if data.len() > IDENTITY_LEN_MAX {
        return Err(r.error("Identification Data", Cause::Range));
    }
    Ok((Identity::decode(id_type, data).ok(), whole.take_rest()))
}

/// Octets of an identity at the most. Our bound.
const IDENTITY_LEN_MAX: usize = 1024;

/// Writes an Identification payload.
pub(crate) fn encode_identity(w: &mut Writer, identity: &Identity) {
    w.u8(identity.id_type());
    w.bytes(&[0; 3]);
    w.bytes(&identity.data());
}

/// X.509 Certificate - Signature (RFC 7296 §3.6), the one Cert Encoding that we take.
const X509_SIGNATURE: u8 = 4;

/// Reads a Certificate payload; `None` if its encoding is not an X.509 certificate.
///
/// # Errors
/// It is empty.
pub(crate) fn decode_certificate<'a>(mut r: Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    let encoding = r.u8("Cert Encoding")?;
    let data = r.take_rest();
    Ok((encoding == X509_SIGNATURE).then_some(data))
}

/// Writes a Certificate payload.
pub(crate) fn encode_certificate(w: &mut Writer, der: &[u8]) {
    w.u8(X509_SIGNATURE);
    w.bytes(der);
}

/// Writes a Certificate Request payload: SHA-1 hashes of the public keys of the trust anchors, one behind the other.
pub(crate) fn encode_certificate_request(w: &mut Writer, certification_authority: &[u8]) {
    w.u8(X509_SIGNATURE);
    w.bytes(certification_authority);
}

/// How an Authentication payload proves the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth<'a> {
    /// Shared Key Message Integrity Code, 2.
    SharedKey(&'a [u8]),
    /// ECDSA with SHA-256 on the P-256 curve, 9 (RFC 4754): r ‖ s.
    EcdsaP256(&'a [u8]),
    /// Digital Signature, 14 (RFC 7427).
    DigitalSignature {
        /// The AlgorithmIdentifier, DER.
        algorithm: &'a [u8],
        /// The signature.
        signature: &'a [u8],
    },
    /// A method that we do not take.
    Other(u8),
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let method = r.u8("Auth Method")?;
        r.bytes("RESERVED", 3)?;
        Ok(match method {
            2 => Self::SharedKey(r.take_rest()),
            9 => Self::EcdsaP256(r.take_rest()),
            14 => {
                let len = usize::from(r.u8("ASN.1 Length")?);
                let algorithm = r.bytes("AlgorithmIdentifier", len)?;
                Self::DigitalSignature { algorithm, signature: r.take_rest() }
            }
            other => Self::Other(other),
        })
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        let method = match self {
            Self::SharedKey(_) => 2,
            Self::EcdsaP256(_) => 9,
            Self::DigitalSignature { .. } => 14,
            Self::Other(method) => *method,
        };
        w.u8(method);
        w.bytes(&[0; 3]);
        match self {
            Self::SharedKey(data) | Self::EcdsaP256(data) => w.bytes(data),
            Self::DigitalSignature { algorithm, signature } => {
                // Our two algorithm identifiers have 67 and 12 octets.
                w.u8(u8::try_from(algorithm.len()).unwrap_or(u8::MAX));
                w.bytes(algorithm);
                w.bytes(signature);
            }
            Self::Other(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_round_trip_and_give_what_auth_covers() {
        let identity = Identity::Fqdn("vpn.example.org".into());
        let mut w = Writer::new();
        encode_identity(&mut w, &identity);
        let (read, covered) = decode_identity(Reader::new(w.as_slice())).unwrap();
        assert_eq!((read, covered), (Some(identity), w.as_slice()));
        assert_eq!(decode_identity(Reader::new(&[200, 0, 0, 0, 1])).unwrap().0, None);
    }

    #[test]
    fn an_identity_cut_in_its_header_or_beyond_the_bound_is_refused() {
        for len in 0..4 {
            assert!(decode_identity(Reader::new(&[2, 0, 0, 0][..len])).is_err());
        }
        let mut long = vec![11, 0, 0, 0];
        long.resize(4 + IDENTITY_LEN_MAX, b'x');
        assert!(decode_identity(Reader::new(&long)).is_ok());
        long.push(b'x');
        assert!(decode_identity(Reader::new(&long)).is_err());
    }

    #[test]
    fn every_auth_method_round_trips() {
        for auth in [
            Auth::SharedKey(b"mac"),
            Auth::EcdsaP256(&[1; 64]),
            Auth::DigitalSignature { algorithm: &[0x30, 0], signature: &[5; 70] },
            Auth::Other(1),
        ] {
            let mut w = Writer::new();
            auth.encode(&mut w);
            assert_eq!(Auth::decode(Reader::new(w.as_slice())), Ok(auth));
        }
    }

    #[test]
    fn an_algorithm_identifier_longer_than_the_payload_is_refused() {
        assert!(Auth::decode(Reader::new(&[14, 0, 0, 0, 3, 1, 2])).is_err());
        for len in 0..5 {
            assert!(Auth::decode(Reader::new(&[14, 0, 0, 0, 0][..len])).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn only_x509_certificates_are_taken() {
        assert_eq!(decode_certificate(Reader::new(&[4, 0x30])), Ok(Some(&[0x30][..])));
        assert_eq!(decode_certificate(Reader::new(&[12, 0x30])), Ok(None));
        assert!(decode_certificate(Reader::new(&[])).is_err());
    }
}
