//! Apple's configuration profile for iOS and macOS.

use plist::{Dictionary, Value};

use super::{Connection, Identity, ProfileError, ProfileFile};

/// The profile as an XML property list: key, CA and connection. Who hands it out signs it.
pub(super) fn mobile_config(
    connection: &Connection<'_>,
    identity: &Identity<'_>,
) -> Result<Vec<ProfileFile>, ProfileError> {
    let Connection { cluster, gateway, client, settings, authority } = connection;
    let uuid = |purpose: &str| connection.uuid(identity, purpose);
    let payload = |kind: &str, purpose: &str, name: String| {
        dictionary([
            ("PayloadType", text(kind)),
            ("PayloadVersion", Value::Integer(1.into())),
            ("PayloadIdentifier", text(&format!("invalid.{cluster}.{purpose}"))),
            ("PayloadUUID", text(&uuid(purpose))),
            ("PayloadDisplayName", Value::String(name)),
        ])
    };
    let mut own = payload("com.apple.security.pkcs12", "key", client.to_string());
    own.insert("PayloadContent".to_owned(), Value::Data(connection.bundle(identity)?));
    let mut root = payload("com.apple.security.root", "ca", cluster.ca_common_name());
    root.insert("PayloadContent".to_owned(), Value::Data(authority.to_vec()));
    let association = || {
        Value::Dictionary(dictionary([
            ("EncryptionAlgorithm", text("AES-256-GCM")),
            ("IntegrityAlgorithm", text("SHA2-384")),
            // P-256 (RFC 5903 §5).
            ("DiffieHellmanGroup", Value::Integer(19.into())),
        ]))
    };
    let mut vpn = payload("com.apple.vpn.managed", "vpn", cluster.to_string());
    vpn.insert("UserDefinedName".to_owned(), text(cluster.as_str()));
    vpn.insert("VPNType".to_owned(), text("IKEv2"));
    vpn.insert(
        "IKEv2".to_owned(),
        Value::Dictionary(dictionary([
            ("RemoteAddress", text(gateway.as_str())),
            ("RemoteIdentifier", text(gateway.as_str())),
            ("LocalIdentifier", text(&connection.identity())),
            ("AuthenticationMethod", text("Certificate")),
            ("PayloadCertificateUUID", text(&uuid("key"))),
            ("CertificateType", text("ECDSA256")),
            ("ServerCertificateIssuerCommonName", text(&cluster.ca_common_name())),
            ("ServerCertificateCommonName", text(gateway.as_str())),
            ("EnablePFS", Value::Boolean(true)),
            ("DeadPeerDetectionRate", text("Medium")),
            ("IKESecurityAssociationParameters", association()),
            ("ChildSecurityAssociationParameters", association()),
        ])),
    );
    if !settings.dns.is_empty() {
        let servers = settings.dns.iter().map(|server| text(&server.to_string())).collect();
        vpn.insert("DNS".to_owned(), Value::Dictionary(dictionary([("ServerAddresses", Value::Array(servers))])));
    }
    let mut whole = payload("Configuration", "profile", format!("VPN {cluster}"));
    let content = [own, root, vpn].map(Value::Dictionary).to_vec();
    whole.insert("PayloadContent".to_owned(), Value::Array(content));
    let mut content = Vec::new();
    Value::Dictionary(whole).to_writer_xml(&mut content).map_err(|_| ProfileError::Library)?;
    Ok(vec![ProfileFile { path: format!("{client}.mobileconfig"), content, secret: true }])
}

fn dictionary<const N: usize>(entries: [(&str, Value); N]) -> Dictionary {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}
