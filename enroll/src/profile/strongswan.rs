//! strongSwan on Linux and on Android.

use super::{Connection, ESP_PROPOSALS, IKE_PROPOSALS, Identity, ProfileError, ProfileFile, file};
use crate::pem::base64;

/// `swanctl.conf` with `x509`, `x509ca` and `private` beside it, as they go into `/etc/swanctl`.
pub(super) fn swanctl(connection: &Connection<'_>, identity: &Identity<'_>) -> Vec<ProfileFile> {
    let Connection { cluster, gateway, client, settings, .. } = connection;
    let own = connection.identity();
    let routes = settings.selectors();
    let text = format!(
        "# Copy this directory's files to /etc/swanctl, the private key {client}-key.pem to /etc/swanctl/private (mode 600),\n\
         # then: swanctl --load-all && swanctl --initiate --child {cluster}\n\
         connections {{\n\
         \x20   {cluster} {{\n\
         \x20       version = 2\n\
         \x20       remote_addrs = {gateway}\n\
         \x20       vips = 0.0.0.0\n\
         \x20       proposals = {IKE_PROPOSALS}\n\
         \x20       dpd_delay = 30s\n\
         \x20       local {{\n\
         \x20           auth = pubkey\n\
         \x20           certs = {client}.pem\n\
         \x20           id = {own}\n\
         \x20       }}\n\
         \x20       remote {{\n\
         \x20           auth = pubkey\n\
         \x20           cacerts = {cluster}-ca.pem\n\
         \x20           id = {gateway}\n\
         \x20       }}\n\
         \x20       children {{\n\
         \x20           {cluster} {{\n\
         \x20               remote_ts = {routes}\n\
         \x20               esp_proposals = {ESP_PROPOSALS}\n\
         \x20               dpd_action = restart\n\
         \x20           }}\n\
         \x20       }}\n\
         \x20   }}\n\
         }}\n"
    );
    let mut files = vec![file("swanctl.conf".to_owned(), text)];
    files.extend(connection.pem_files(identity, "x509/", "x509ca/", "private/"));
    files
}

/// A `.sswan` file: JSON, with the PKCS#12 file in it where the key is at hand.
pub(super) fn sswan(connection: &Connection<'_>, identity: &Identity<'_>) -> Result<Vec<ProfileFile>, ProfileError> {
    let Connection { cluster, gateway, client, settings, authority } = connection;
    let bundle = match identity.key {
        Some(_) => format!(", \"p12\": \"{}\"", base64(&connection.bundle(identity)?)),
        None => String::new(),
    };
    let routes: Vec<String> = settings.routes.iter().map(|route| format!("\"{route}\"")).collect();
    let split = if routes.is_empty() {
        String::new()
    } else {
        format!("  \"split-tunneling\": {{ \"subnets\": [{}] }},\n", routes.join(", "))
    };
    let dns: Vec<String> = settings.dns.iter().map(|server| format!("\"{server}\"")).collect();
    let dns = if dns.is_empty() { String::new() } else { format!("  \"dns-servers\": [{}],\n", dns.join(", ")) };
    // The app takes one proposal, not a list.
    let ike = IKE_PROPOSALS.split(',').next().unwrap_or_default();
    let esp = ESP_PROPOSALS.split(',').next().unwrap_or_default();
    // No value can hold a quotation mark: names have their own alphabet.
    let text = format!(
        "{{\n  \"uuid\": \"{uuid}\",\n  \"name\": \"{cluster}\",\n  \"type\": \"ikev2-cert\",\n  \"remote\": {{ \"addr\": \
         \"{gateway}\", \"id\": \"{gateway}\", \"cert\": \"{ca}\" }},\n  \"local\": {{ \"id\": \"{own}\"{bundle} }},\n\
         {split}{dns}  \"ike-proposal\": \"{ike}\",\n  \"esp-proposal\": \"{esp}\"\n}}\n",
        uuid = connection.uuid(identity, "sswan"),
        ca = base64(authority),
        own = connection.identity(),
    );
    let secret = identity.key.is_some();
    Ok(vec![ProfileFile { path: format!("{client}.sswan"), content: text.into_bytes(), secret }])
}
