//! Who comes to a cluster besides well-behaved clients: clients with wrong settings, and copies of its nodes.

use super::*;

/// What a strongSwan client says of itself, and how it wants to be served.
pub struct Guest<'a> {
    /// Its identity, a DNS name.
    pub identity: &'a str,
    /// How it proves that.
    pub proof: Proof<'a>,
    /// Its IKE proposal, in strongSwan's words.
    pub ike_proposal: &'a str,
    /// Its ESP proposal.
    pub esp_proposal: &'a str,
    /// Settings for the `charon` section of its strongswan.conf.
    pub extra: &'a str,
}

/// How a client proves who it is.
pub enum Proof<'a> {
    /// By a certificate of the trusted authority.
    Certificate,
    /// By that certificate, and the authority behind it.
    Own(&'a crate::pki::Certificate),
    /// By that secret.
    PreSharedKey(&'a str),
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Self {
            identity: "guest.lab.test",
            proof: Proof::Certificate,
            ike_proposal: "aes128gcm16-prfsha256-x25519",
            esp_proposal: "aes128gcm16",
            extra: "",
        }
    }
}

impl Cluster {
    /// Starts a strongSwan client with such settings, the `number`th; it is not connected yet.
    ///
    /// # Errors
    /// strongSwan is not installed.
    pub fn guest(&self, number: u8, guest: &Guest<'_>) -> Result<Client> {
        let authority = self.authority.pem();
        let issued;
        let credential = match guest.proof {
            Proof::Certificate => {
                issued = self.authority.issue(guest.identity, KeyKind::EcdsaP256, &[])?;
                Credential::Certificate { own: &issued, authority: &authority }
            }
            Proof::Own(own) => Credential::Certificate { own, authority: &authority },
            Proof::PreSharedKey(secret) => Credential::PreSharedKey(secret),
        };
        let settings = Settings {
            ike_proposal: guest.ike_proposal,
            esp_proposal: guest.esp_proposal,
            extra: guest.extra,
            ..client_settings(guest.identity, credential)
        };
        self.client_as(number, &settings)
    }

    /// A machine that was made by copying the `number`th node: the same name, addresses, certificate and files.
    ///
    /// # Errors
    /// There is such a copy already.
    pub fn copy_of(&self, number: u8) -> Result<Node> {
        let size = u8::try_from(self.nodes.len()).context("the number of nodes")?;
        self.build_node(&format!("copy{number}"), number, size)
    }

    /// Lets the `number`th node read a copy of its own of all files of the cluster, and returns their directory.
    ///
    /// # Errors
    /// A file cannot be copied.
    pub fn part_files(&self, number: u8) -> Result<PathBuf> {
        let own = self.lab.subdirectory(&format!("files{number}"))?;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            fs::copy(entry.path(), own.join(entry.file_name()))?;
        }
        let file = self.nodes[usize::from(number) - 1].config_file();
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace(&self.directory.display().to_string(), &own.display().to_string()))?;
        Ok(own)
    }
}
