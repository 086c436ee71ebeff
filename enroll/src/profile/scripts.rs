//! Scripts that set a connection up: PowerShell for Windows, a shell script for NetworkManager.

use std::net::IpAddr;

use wire::Prefix;

use super::{Connection, ESP_PROPOSALS, IKE_PROPOSALS, Identity, ProfileError, ProfileFile, file};
use crate::pem::base64;

/// A script that imports CA and key and adds the connection with the policy of the default proposals.
pub(super) fn power_shell(
    connection: &Connection<'_>,
    identity: &Identity<'_>,
) -> Result<Vec<ProfileFile>, ProfileError> {
    let Connection { cluster, gateway, client, settings, authority } = connection;
    let bundle = base64(&connection.bundle(identity)?);
    let authority = base64(authority);
    let split = if settings.routes.is_empty() { "" } else { " -SplitTunneling" };
    let routes: String = settings
        .routes
        .iter()
        .map(|route| {
            format!(
                "Add-VpnConnectionRoute -ConnectionName '{cluster}' -DestinationPrefix '{route}' -AllUserConnection\n"
            )
        })
        .collect();
    let text = format!(
        "#Requires -RunAsAdministrator\n\
         # Sets up the VPN connection {cluster} for {client}. Run it in PowerShell as administrator, then delete it: your key is in it.\n\
         $ErrorActionPreference = 'Stop'\n\
         $passphrase = Read-Host -AsSecureString 'Passphrase of this profile'\n\
         $authority = [Security.Cryptography.X509Certificates.X509Certificate2]::new([Convert]::FromBase64String('{authority}'))\n\
         $store = [Security.Cryptography.X509Certificates.X509Store]::new('Root', 'LocalMachine')\n\
         $store.Open('ReadWrite'); $store.Add($authority); $store.Close()\n\
         $file = New-TemporaryFile\n\
         try {{\n\
         \x20   [IO.File]::WriteAllBytes($file, [Convert]::FromBase64String('{bundle}'))\n\
         \x20   Import-PfxCertificate -FilePath $file -CertStoreLocation Cert:\\LocalMachine\\My -Password $passphrase | Out-Null\n\
         }} finally {{ Remove-Item $file }}\n\
         Add-VpnConnection -Name '{cluster}' -ServerAddress '{gateway}' -TunnelType Ikev2 -AuthenticationMethod MachineCertificate -MachineCertificateIssuerFilter $authority -AllUserConnection{split} -Force\n\
         Set-VpnConnectionIPsecConfiguration -ConnectionName '{cluster}' -AuthenticationTransformConstants GCMAES256 -CipherTransformConstants GCMAES256 -EncryptionMethod GCMAES256 -IntegrityCheckMethod SHA384 -DHGroup ECP256 -PfsGroup ECP256 -AllUserConnection -Force\n\
         {routes}\
         Write-Host \"Done: connect with  rasdial '{cluster}'\"\n"
    );
    // PowerShell reads CRLF, and so does Notepad.
    let content = text.replace('\n', "\r\n").into_bytes();
    Ok(vec![ProfileFile { path: format!("{client}.ps1"), content, secret: true }])
}

/// A script beside the PEM files that it names.
pub(super) fn network_manager(connection: &Connection<'_>, identity: &Identity<'_>) -> Vec<ProfileFile> {
    let Connection { cluster, gateway, client, settings, .. } = connection;
    let own = connection.identity();
    let split = if settings.routes.is_empty() { "" } else { "    ipv4.never-default yes ipv6.never-default yes \\\n" };
    let route = |route: &Prefix| format!("    +{}.routes '{route}' \\\n", family(route.address()));
    let routes: String = settings.routes.iter().map(route).collect();
    let dns: String =
        settings.dns.iter().map(|server| format!("    +{}.dns '{server}' \\\n", family(*server))).collect();
    let (ike, esp) = (IKE_PROPOSALS.replace(',', ";"), ESP_PROPOSALS.replace(',', ";"));
    let text = format!(
        "#!/bin/sh\n\
         # Adds the VPN connection {cluster} for {client} to NetworkManager (package network-manager-strongswan).\n\
         # Run it beside its PEM files, which must stay there.\n\
         set -eu\n\
         here=$(cd \"$(dirname \"$0\")\" && pwd)\n\
         nmcli connection add type vpn vpn-type strongswan con-name '{cluster}' ifname '*' \\\n\
         {split}{routes}{dns}\
         \x20   vpn.data \"address = {gateway}, remote-identity = {gateway}, local-identity = {own}, certificate = $here/{cluster}-ca.pem, method = key, usercert = $here/{client}.pem, userkey = $here/{client}-key.pem, virtual = yes, proposal = yes, ike = {ike}, esp = {esp}\"\n\
         echo \"Done: connect with  nmcli connection up '{cluster}'\"\n"
    );
    let mut files = vec![file(format!("{client}-networkmanager.sh"), text)];
    files.extend(connection.pem_files(identity, "", "", ""));
    files
}

/// The settings of NetworkManager that an address belongs to.
const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}
