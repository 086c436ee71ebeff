use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;

use super::*;

fn ecdsa() -> (SigningKey, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let spki = [P256_SPKI_PREFIX.as_slice(), pair.public_key().as_ref()].concat();
    (SigningKey::from_pkcs8_der(pair.to_pkcs8v1().unwrap().as_ref()).unwrap(), spki)
}

fn rsa(size: KeySize) -> (SigningKey, Vec<u8>) {
    let pair = RsaKeyPair::generate(size).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    (SigningKey::from_pkcs8_der(pkcs8.as_ref()).unwrap(), spki.as_ref().to_vec())
}

#[test]
fn the_identifiers_are_those_that_rfc_7427_prints() {
    // RFC 7427 appendix A.4.3.
    let printed = "3041 0609 2a86 4886 f70d 0101 0a30 34a0 0f30 0d06 0960 8648 0165 0304 0201 0500 \
                   a11c 301a 0609 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0201 0500 a203 0201 20";
    let hex: String = SignatureScheme::RsaPssSha256.algorithm_identifier().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, printed.replace(' ', ""));
    // RFC 7427 appendix A.3.2.
    let hex: String = ECDSA_WITH_SHA256.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "300a06082a8648ce3d040302");
}

#[test]
fn every_scheme_signs_what_verify_accepts_and_nothing_else() {
    for (key, spki) in [ecdsa(), rsa(KeySize::Rsa2048)] {
        for scheme in [
            SignatureScheme::RsaPssSha256,
            SignatureScheme::RsaPssSha384,
            SignatureScheme::RsaPssSha512,
            SignatureScheme::EcdsaP256Sha256,
        ] {
            let fits = SignatureScheme::choose(key.kind(), &[scheme.hash()]) == Some(scheme);
            let signed = key.sign(scheme, b"octets");
            assert_eq!(signed.is_ok(), fits, "{scheme:?}");
            let Ok(signature) = signed else { continue };
            let identifier = scheme.algorithm_identifier();
            assert_eq!(verify(&identifier, &spki, b"octets", &signature), Ok(()), "{scheme:?}");
            assert_eq!(verify(&identifier, &spki, b"octet", &signature), Err(SignatureError::Wrong), "{scheme:?}");
            for len in 0..signature.len() {
                assert!(verify(&identifier, &spki, b"octets", &signature[..len]).is_err(), "{scheme:?} cut at {len}");
            }
        }
    }
}

#[test]
fn auth_method_9_carries_r_and_s_in_64_octets() {
    let (key, spki) = ecdsa();
    assert_eq!(SignatureScheme::choose(key.kind(), &[]), Some(SignatureScheme::EcdsaP256Sha256Raw));
    let signature = key.sign(SignatureScheme::EcdsaP256Sha256Raw, b"octets").unwrap();
    assert_eq!(signature.len(), 64);
    assert_eq!(verify_ecdsa_p256_raw(&spki, b"octets", &signature), Ok(()));
    assert_eq!(verify_ecdsa_p256_raw(&spki, b"other", &signature), Err(SignatureError::Wrong));
    let der_form = key.sign(SignatureScheme::EcdsaP256Sha256, b"octets").unwrap();
    assert_eq!(verify_ecdsa_p256_raw(&spki, b"octets", &der_form), Err(SignatureError::Wrong));
}

#[test]
fn pss_hash_identifiers_without_null_are_accepted_too() {
    let (key, spki) = rsa(KeySize::Rsa2048);
    let signature = key.sign(SignatureScheme::RsaPssSha256, b"octets").unwrap();
    let absent = pss_identifier(&SHA256_OID, 32, HashParameters::Absent);
    assert_eq!(verify(&absent, &spki, b"octets", &signature), Ok(()));
}

#[test]
fn an_rsa_signature_of_charons_default_padding_is_accepted_and_never_made() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let signature = sign_rsa(&pair, &aws_lc_rs::signature::RSA_PKCS1_SHA256, b"octets").unwrap();
    assert_eq!(verify(&SHA256_WITH_RSA, spki.as_ref(), b"octets", &signature), Ok(()));
    assert_eq!(
        verify(&SHA384_WITH_RSA, spki.as_ref(), b"octets", &signature),
        Err(SignatureError::Wrong),
        "the hash is bound by the identifier"
    );
}

#[test]
fn an_identifier_off_the_list_or_a_key_of_another_kind_is_refused() {
    let ((ec, ec_spki), (rsa, rsa_spki)) = (ecdsa(), rsa(KeySize::Rsa2048));
    let signature = ec.sign(SignatureScheme::EcdsaP256Sha256, b"octets").unwrap();
    let sha1_with_rsa = rsa_pkcs1(0x05);
    // RFC 7427 appendix A.4.1: PSS with empty parameters means SHA-1.
    let pss_default = [&[0x30, 0x0d][..], &RSASSA_PSS_OID, &[0x30, 0x00]].concat();
    let wrong_salt = pss_identifier(&SHA256_OID, 20, HashParameters::Null);
    let trailing = [&ECDSA_WITH_SHA256[..], &[0x05, 0x00]].concat();
    for identifier in [&sha1_with_rsa[..], &pss_default, &wrong_salt, &trailing, &[], &[0x30]] {
        let refused = verify(identifier, &rsa_spki, b"octets", &signature);
        assert_eq!(refused, Err(SignatureError::UnsupportedAlgorithm), "{identifier:02x?}");
    }
    let mismatch = verify(&ECDSA_WITH_SHA256, &rsa_spki, b"octets", &signature);
    assert_eq!(mismatch, Err(SignatureError::KeyMismatch));
    assert!(ec.matches(&ec_spki) && rsa.matches(&rsa_spki) && !ec.matches(&rsa_spki) && !rsa.matches(&ec_spki));
}

#[test]
fn a_public_key_cut_anywhere_is_a_mismatch_never_a_panic() {
    for (key, spki) in [ecdsa(), rsa(KeySize::Rsa2048)] {
        for len in 0..spki.len() {
            assert!(PublicKey::of(&spki[..len]).is_err(), "cut at {len}");
            assert!(!key.matches(&spki[..len]), "cut at {len}");
        }
    }
}

#[test]
fn a_key_file_of_another_form_says_how_to_convert_it() {
    let sec1 = b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    assert_eq!(SigningKey::from_pem(sec1).err(), Some(SignatureError::NotPkcs8));
    assert_eq!(SigningKey::from_pem(b"nothing").err(), Some(SignatureError::NotPem));
    assert_eq!(SigningKey::from_pkcs8_der(&[0x30, 0x00]).err(), Some(SignatureError::UnsupportedKey));
}
