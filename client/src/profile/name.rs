//! The names of profiles.

use std::fmt;
use std::str::FromStr;

use enroll::TicketNumber;
use serde::Serialize;

use crate::fault::Fault;

/// A profile's name, which is also its directory's: it leads to no other place. It has no slash and no control
/// character, begins with no dot, and ends with none of the extensions that the client gives to half-written files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct ProfileName(String);

impl ProfileName {
    /// Makes a name of what a reply calls its cluster or gateway, which may be anything that its sender chose.
    pub(crate) fn of_cluster(cluster: &str) -> Self {
        let plain: String = cluster.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
        plain.trim_start_matches('.').parse().unwrap_or_else(|_| Self("profile".to_owned()))
    }

    /// The name of another profile of the same cluster.
    pub(crate) fn with_ticket(&self, ticket: TicketNumber) -> Self {
        Self(format!("{}-{ticket}", self.0))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = Fault;

    fn from_str(name: &str) -> Result<Self, Fault> {
        if name.is_empty() || name.starts_with('.') || name.ends_with(".new") || !name.chars().all(is_plain) {
            return Err(Fault::ProfileName(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn is_plain(character: char) -> bool {
    character != '/' && !character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for good in ["hq-vpn", "vpn.example.org", "2001:db8::1", "plain"] {
            assert_eq!(good.parse::<ProfileName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a.new", "a\nb"] {
            assert!(matches!(bad.parse::<ProfileName>(), Err(Fault::ProfileName(_))), "{bad:?}");
        }
    }
}
