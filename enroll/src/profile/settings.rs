//! Networks and name servers: what a profile number stands for, and what a full reply carries as its last block.

use std::fmt;
use std::net::IpAddr;

use wire::Prefix;

use crate::name::{GatewayName, Profile};

/// What a client routes into the tunnel and whom it asks for names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Networks behind the gateway; none means that all traffic goes there.
    pub routes: Vec<Prefix>,
    /// Name servers behind the gateway.
    pub dns: Vec<IpAddr>,
}

/// Why a text holds no settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A line is no `name=value`.
    #[error("a line is not of the form name=value")]
    Line,
    /// A network is none.
    #[error("a route is no network such as 10.0.0.0/8")]
    Route,
    /// The gateway is missing, or no name.
    #[error("the gateway's name is missing")]
    Gateway,
    /// A name server is no address.
    #[error("a name server is no address")]
    Dns,
}

impl Settings {
    /// Reads `routes=10.0.0.0/8,…` and `dns=10.0.0.53,…`, a line each; lines with other names are for newer clients.
    ///
    /// # Errors
    /// A line is malformed.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once('=').ok_or(SettingsError::Line)?;
            let values = value.split(',').map(str::trim).filter(|value| !value.is_empty());
            match name.trim() {
                "routes" => {
                    settings.routes =
                        values.map(str::parse).collect::<Result<_, _>>().map_err(|_| SettingsError::Route)?;
                }
                "dns" => {
                    settings.dns = values.map(str::parse).collect::<Result<_, _>>().map_err(|_| SettingsError::Dns)?;
                }
                _ => {}
            }
        }
        Ok(settings)
    }

    /// The networks, or all of them where none is named.
    pub(super) fn selectors(&self) -> String {
        if self.routes.is_empty() { "0.0.0.0/0".to_owned() } else { joined(&self.routes, ", ") }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.routes.is_empty() {
            writeln!(f, "routes={}", joined(&self.routes, ","))?;
        }
        if !self.dns.is_empty() {
            writeln!(f, "dns={}", joined(&self.dns, ","))?;
        }
        Ok(())
    }
}

/// What the last block of a full reply says: where to connect, which profile, and what that stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileBlock {
    /// Where to connect, and the name that the gateway's certificate must show.
    pub gateway: GatewayName,
    /// The profile's number.
    pub profile: Profile,
    /// Networks and name servers.
    pub settings: Settings,
}

impl ProfileBlock {
    /// Reads the block.
    ///
    /// # Errors
    /// A line is malformed, or the gateway is missing.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let value = |name: &str| {
            text.lines().filter_map(|line| line.split_once('=')).find(|(n, _)| n.trim() == name).map(|(_, v)| v.trim())
        };
        let gateway = value("gateway").and_then(|name| GatewayName::new(name).ok()).ok_or(SettingsError::Gateway)?;
        let profile = value("profile").and_then(|number| number.parse().ok()).and_then(Profile::new);
        Ok(Self { gateway, profile: profile.unwrap_or_default(), settings: Settings::parse(text)? })
    }
}

impl fmt::Display for ProfileBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gateway={}\nprofile={}\n{}", self.gateway, self.profile.value(), self.settings)
    }
}

/// The items with `between` between them.
pub(super) fn joined<T: fmt::Display>(items: &[T], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}
