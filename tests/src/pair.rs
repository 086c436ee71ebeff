//! A strongSwan client and a strongSwan gateway: the reference that our gateway is measured against.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::lab::Lab;
use crate::namespace::{Namespace, Switch};
use crate::pki::{Authority, KeyKind};
use crate::strongswan::{Charon, Credential, Log, Role, Settings};

/// The two, with a namespace for a server behind the gateway.
pub struct StrongSwanPair {
    /// The client.
    pub client: Charon,
    /// The gateway.
    pub gateway: Charon,
    /// The wire between the two.
    pub wire: Switch,
    /// Where the client runs.
    pub outside: Namespace,
    /// Where the gateway runs.
    pub middle: Namespace,
    /// Behind the gateway.
    pub inside: Namespace,
    // Last, so that the programs end before their namespaces go.
    _lab: Lab,
}

impl StrongSwanPair {
    /// Builds the network and starts both ends; the client is not yet connected.
    ///
    /// # Errors
    /// Something is not installed, or the caller is not root.
    pub fn start() -> Result<Self> {
        let lab = Lab::new()?;
        let wire = lab.switch("out")?;
        let lan = lab.switch("in")?;
        let outside = lab.namespace("c1")?;
        let middle = lab.namespace("gw")?;
        let inside = lab.namespace("srv")?;
        wire.plug("c1", &outside, "out")?;
        wire.plug("gw", &middle, "out")?;
        lan.plug("gw", &middle, "in")?;
        lan.plug("srv", &inside, "in")?;
        outside.ip(&["addr add 198.51.100.101/24 dev out".to_owned()])?;
        middle.ip(&["addr add 198.51.100.1/24 dev out".to_owned(), "addr add 10.1.0.1/24 dev in".to_owned()])?;
        middle.sysctl(&[("net/ipv4/ip_forward", "1")])?;
        inside.ip(&["addr add 10.1.0.100/24 dev in".to_owned(), "route add default via 10.1.0.1".to_owned()])?;

        let authority = Authority::new("Lab CA")?;
        let start = |namespace: &Namespace, name: &str, own_id: &str, other_id: &str, role: Role<'_>| {
            let own = authority.issue(own_id, KeyKind::EcdsaP256, &[])?;
            let inside = Some("10.1.0.0/24");
            let (local_selector, remote_selector) = match role {
                Role::Client { .. } => (None, inside),
                Role::Gateway { .. } => (inside, None),
            };
            let settings = Settings {
                local_id: own_id,
                remote_id: other_id,
                credential: Credential::Certificate { own: &own, authority: &authority.pem() },
                ike_proposal: "aes128gcm16-prfsha256-x25519",
                esp_proposal: "aes128gcm16",
                local_selector,
                remote_selector,
                role,
                extra: "",
                log: Log::Exchanges,
            };
            Charon::start(&lab, namespace, name, &settings)
        };
        let gateway = start(&middle, "gateway", "vpn.lab.test", "c1.lab.test", Role::Gateway { pool: "10.2.0.0/24" })?;
        let at = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
        let client =
            start(&outside, "client", "c1.lab.test", "vpn.lab.test", Role::Client { gateway: at, liveness_s: 10 })?;
        Ok(Self { client, gateway, wire, outside, middle, inside, _lab: lab })
    }

    /// Where a server behind the gateway can listen.
    #[must_use]
    pub fn server_address(&self) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, 100], 8080))
    }
}
