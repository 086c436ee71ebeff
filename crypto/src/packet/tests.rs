use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn secret(text: &str) -> Secret {
    Secret::new(hex(text))
}

struct Case {
    name: &'static str,
    key: &'static str,
    salt: &'static str,
    iv: &'static str,
    header: &'static str,
    plaintext: &'static str,
    ciphertext: &'static str,
    icv: &'static str,
}

/// draft-mcgrew-gcm-test-01 §4, the cases without extended sequence numbers: whole ESP packets.
const GCM: [Case; 3] = [
    Case {
        name: "128 bits",
        key: "feffe9928665731c6d6a8f9467308308",
        salt: "cafebabe",
        iv: "facedbaddecaf888",
        header: "0000a5f80000000a",
        plaintext: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100000100000000000003736970
            0963796265726369747902646b00000100010001",
        ciphertext: "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0e
            ec416642cfbb85a5b47e48a4ec3b9ba95d918bd1",
        icv: "83b70d3aa8bc6ee4c309e9d85a41ad4a",
    },
    Case {
        name: "192 bits",
        key: "feffe9928665731c6d6a8f9467308308feffe9928665731c",
        salt: "cafebabe",
        iv: "facedbaddecaf888",
        header: "0000a5f80000000a",
        plaintext: "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
        ciphertext: "a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc77",
        icv: "95457b9652037f5318027b5b4cd7a636",
    },
    Case {
        name: "256 bits",
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        salt: "11223344",
        iv: "0102030405060708",
        header: "4a2cbfe300000002",
        plaintext: "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b4
            0101040201020201",
        ciphertext: "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f054565
            9f14e99def842d8e",
        icv: "b335f4eecfdbf831824b4c4915956c96",
    },
];

#[test]
fn gcm_packets_match_the_published_ones() {
    for case in GCM {
        let material = secret(&format!("{}{}", case.key, case.salt));
        let bits = u16::try_from(hex(case.key).len() * 8).unwrap();
        let key = PacketKey::new(Encryption::AesGcm16(bits), None, &material, &Secret::default()).unwrap();
        let header = hex(case.header).try_into().unwrap();
        let plaintext = hex(case.plaintext);
        let (mut out, mut icv) = (vec![0; plaintext.len()], [0; 16]);
        key.seal(header, &hex(case.iv), &plaintext, &mut out, &mut icv).unwrap();
        assert_eq!(out, hex(case.ciphertext), "{}", case.name);
        assert_eq!(icv.to_vec(), hex(case.icv), "{}", case.name);
        key.open(header, &hex(case.iv), &mut out, &icv).unwrap();
        assert_eq!(out, plaintext, "{}", case.name);
    }
}

#[test]
fn cbc_matches_rfc_3602_case_5() {
    let cipher = Aes::new(&secret("90d382b410eeba7ad938c46cec1a82bf")).unwrap();
    let iv = hex("e96e8c08ab465763fd098d45dd3ff893");
    let plaintext =
        hex("08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627
        28292a2b2c2d2e2f30313233343536370102030405060708090a0b0c0d0e0e01");
    let mut data = plaintext.clone();
    cipher.encrypt(&iv, &mut data).unwrap();
    assert_eq!(
        data,
        hex("f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52
            775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6")
    );
    cipher.decrypt(&iv, &mut data).unwrap();
    assert_eq!(data, plaintext);
}

/// RFC 4868 §2.7.2.1 to §2.7.2.3, case 1: "Hi There" under a key of 0x0b.
#[test]
fn hmac_matches_rfc_4868() {
    for (integrity, tag) in [
        (Integrity::HmacSha2_256_128, "198a607eb44bfbc69903a0f1cf2bbdc5"),
        (Integrity::HmacSha2_384_192, "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
        (Integrity::HmacSha2_512_256, "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"),
    ] {
        let key = HmacKey::new(integrity, &Secret::new(vec![0x0b; integrity.key_len()])).unwrap();
        let mut seen = Vec::new();
        key.tag(*b"Hi There", &[], &[], |tag| {
            seen.extend_from_slice(&tag[..integrity.icv_len()]);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, hex(tag), "{integrity:?}");
    }
}

fn every_suite() -> Vec<PacketKey> {
    let mut keys = Vec::new();
    for bits in [128, 192, 256] {
        let gcm = Encryption::AesGcm16(bits);
        keys.push(
            PacketKey::new(gcm, None, &Secret::new(vec![7; gcm.key_material_len()]), &Secret::default()).unwrap(),
        );
        for integrity in [Integrity::HmacSha2_256_128, Integrity::HmacSha2_384_192, Integrity::HmacSha2_512_256] {
            let cbc = Encryption::AesCbc(bits);
            let (key, mac) = (vec![7; cbc.key_material_len()], vec![9; integrity.key_len()]);
            keys.push(PacketKey::new(cbc, Some(integrity), &Secret::new(key), &Secret::new(mac)).unwrap());
        }
    }
    keys
}

#[test]
fn a_packet_changed_anywhere_is_refused_in_every_suite() {
    for key in every_suite() {
        let (header, iv, plaintext) = ([1; 8], vec![2; key.iv_len()], [3; 48]);
        let (mut sealed, mut icv) = ([0; 48], vec![0; key.icv_len()]);
        key.seal(header, &iv, &plaintext, &mut sealed, &mut icv).unwrap();
        let open =
            |header, iv: &[u8], mut data: [u8; 48], icv: &[u8]| key.open(header, iv, &mut data, icv).map(|()| data);
        assert_eq!(open(header, &iv, sealed, &icv), Ok(plaintext));
        let (mut other_header, mut other_iv, mut other_data, mut other_icv) = (header, iv.clone(), sealed, icv.clone());
        other_header[7] ^= 1;
        other_iv[0] ^= 1;
        other_data[47] ^= 0x80;
        other_icv[key.icv_len() - 1] ^= 1;
        assert_eq!(open(other_header, &iv, sealed, &icv), Err(PacketError::Integrity));
        assert_eq!(open(header, &other_iv, sealed, &icv), Err(PacketError::Integrity));
        assert_eq!(open(header, &iv, other_data, &icv), Err(PacketError::Integrity));
        assert_eq!(open(header, &iv, sealed, &other_icv), Err(PacketError::Integrity));
        assert_eq!(open(header, &iv, sealed, &icv[1..]), Err(PacketError::Length));
    }
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let (gcm, cbc, mac) = (Encryption::AesGcm16(128), Encryption::AesCbc(128), Integrity::HmacSha2_256_128);
    let secret = |len| Secret::new(vec![0; len]);
    for (encryption, integrity, key, mac_key) in [
        (gcm, None, 16, 0),
        (gcm, None, 20, 32),
        (gcm, Some(mac), 20, 32),
        (cbc, None, 16, 0),
        (cbc, Some(mac), 16, 31),
        (cbc, Some(mac), 20, 32),
    ] {
        let made = PacketKey::new(encryption, integrity, &secret(key), &secret(mac_key));
        assert!(made.is_err(), "{encryption:?} {integrity:?} {key} {mac_key}");
    }
}

#[test]
fn cbc_refuses_a_length_that_is_no_multiple_of_its_block() {
    let cipher = Aes::new(&secret("90d382b410eeba7ad938c46cec1a82bf")).unwrap();
    assert_eq!(cipher.encrypt(&[0; 16], &mut [0; 17]), Err(PacketError::Length));
    assert_eq!(cipher.encrypt(&[0; 8], &mut [0; 16]), Err(PacketError::Length));
}

#[test]
fn drawn_ivs_differ_and_follow_from_the_seed() {
    let (mut a, mut b, mut other) = (CbcIvSource::new([1; 32]), CbcIvSource::new([1; 32]), CbcIvSource::new([2; 32]));
    let first = a.draw();
    assert_eq!(first, b.draw());
    assert_ne!(first, other.draw());
    assert_ne!(first, a.draw());
}
