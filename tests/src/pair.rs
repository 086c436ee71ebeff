//! strongSwan as a gateway, alone or with a strongSwan client: the reference that ours is measured against.

use std::net::SocketAddr;

use anyhow::Result;

use crate::cluster::{GATEWAY_ID, INSIDE_ADDRESS, OUTSIDE_ADDRESS, POOL, PROTECTED, SERVER};
use crate::lab::Lab;
use crate::namespace::{Namespace, Switch};
use crate::pki::{Authority, Certificate, KeyKind};
use crate::strongswan::{Charon, Credential, Log, Role, Settings};

/// A strongSwan gateway, in the place of the cluster and with its addresses.
pub struct StrongSwanGateway {
    /// The gateway.
    pub charon: Charon,
    /// The wire before it.
    pub wire: Switch,
    /// Where it runs.
    pub middle: Namespace,
    /// A host behind it.
    pub inside: Namespace,
    authority: Authority,
    // Last, so that the programs end before their namespaces go.
    lab: Lab,
}

/// How clients of a [`StrongSwanGateway`] prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By [`StrongSwanGateway::SECRET`].
    PreSharedKey,
    /// By ECDSA P-256 certificates.
    Ecdsa,
}

impl StrongSwanGateway {
    /// The secret that it shares with its clients.
    pub const SECRET: &str = "a secret that only the reference knows";

    /// Builds the network and starts the gateway for clients whose identity matches `client_id`, such as `*.lab.test`.
    ///
    /// # Errors
    /// Something is not installed, or the caller is not root.
    pub fn start(client_id: &str, method: Method, log: Log) -> Result<Self> {
        let lab = Lab::new()?;
        let (wire, lan) = (lab.switch("out")?, lab.switch("in")?);
        let (middle, inside) = (lab.namespace("gw")?, lab.namespace("srv")?);
        wire.plug("gw", &middle, "out")?;
        lan.plug("gw", &middle, "in")?;
        lan.plug("srv", &inside, "in")?;
        middle
            .ip(&[format!("addr add {OUTSIDE_ADDRESS}/24 dev out"), format!("addr add {INSIDE_ADDRESS}/24 dev in")])?;
        middle.sysctl(&[("net/ipv4/ip_forward", "1")])?;
        inside.ip(&[format!("addr add {SERVER}/24 dev in"), format!("route add {POOL} via {INSIDE_ADDRESS}")])?;
        let authority = Authority::new("Lab CA")?;
        let own = authority.issue(GATEWAY_ID, KeyKind::EcdsaP256, &[])?;
        let pem = authority.pem();
        let settings = Settings {
            local_id: GATEWAY_ID,
            remote_id: client_id,
            credential: match method {
                Method::PreSharedKey => Credential::PreSharedKey(Self::SECRET),
                Method::Ecdsa => Credential::Certificate { own: &own, authority: &pem },
            },
            ike_proposal: "aes128gcm16-prfsha256-x25519",
            esp_proposal: "aes128gcm16",
            local_selector: Some(PROTECTED),
            remote_selector: None,
            role: Role::Gateway { pool: POOL },
            extra: "dos_protection = no\n  ikesa_table_size = 4096\n  ikesa_table_segments = 16",
            connection_extra: "",
            child_extra: "",
            log,
        };
        let charon = Charon::start(&lab, &middle, "gateway", &settings)?;
        Ok(Self { charon, wire, middle, inside, authority, lab })
    }

    /// A namespace on the outside network, with the address 198.51.100.`host`.
    ///
    /// # Errors
    /// The name is taken.
    pub fn outside_host(&self, name: &str, host: u8) -> Result<Namespace> {
        let namespace = self.lab.namespace(name)?;
        self.wire.plug(name, &namespace, "out")?;
        namespace.ip(&[format!("addr add 198.51.100.{host}/24 dev out")])?;
        Ok(namespace)
    }

    /// Issues a certificate that the gateway trusts.
    ///
    /// # Errors
    /// `name` is no DNS name.
    pub fn issue(&self, name: &str) -> Result<Certificate> {
        self.authority.issue(name, KeyKind::EcdsaP256, &[])
    }

    /// The authority that the gateway trusts, in PEM.
    #[must_use]
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// Where a server behind the gateway can listen.
    #[must_use]
    pub fn server_address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((SERVER, port))
    }
}

/// A strongSwan client before a strongSwan gateway.
pub struct StrongSwanPair {
    /// The client.
    pub client: Charon,
    /// Where the client runs.
    pub outside: Namespace,
    /// The gateway.
    pub gateway: StrongSwanGateway,
}

impl StrongSwanPair {
    /// Builds the network and starts both ends; the client is not yet connected.
    ///
    /// # Errors
    /// As [`StrongSwanGateway::start`].
    pub fn start() -> Result<Self> {
        let id = "c1.lab.test";
        let gateway = StrongSwanGateway::start(id, Method::Ecdsa, Log::Exchanges)?;
        let outside = gateway.outside_host("c1", 101)?;
        let own = gateway.issue(id)?;
        let settings = Settings {
            local_id: id,
            remote_id: GATEWAY_ID,
            credential: Credential::Certificate { own: &own, authority: &gateway.authority() },
            ike_proposal: "aes128gcm16-prfsha256-x25519",
            esp_proposal: "aes128gcm16",
            local_selector: None,
            remote_selector: Some(PROTECTED),
            role: Role::Client { gateway: OUTSIDE_ADDRESS.into(), liveness_s: 10 },
            extra: "",
            connection_extra: "",
            child_extra: "",
            log: Log::Exchanges,
        };
        let client = Charon::start(&gateway.lab, &outside, "c1", &settings)?;
        Ok(Self { client, outside, gateway })
    }
}
