//! Who a node is.

use std::fmt;
use std::net::SocketAddr;

use wire::{Cause, DecodeError, Reader, Writer};

/// A number drawn at random at each start of the program: a restarted program is a new member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartId(pub u64);

impl fmt::Display for StartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One of the networks between the nodes, by its place in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(u8);

impl Network {
    /// How many networks can connect the nodes.
    pub const COUNT: usize = 4;

    /// Makes the network with that number, 0 to 3.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 4 { Some(Self(number)) } else { None }
    }

    /// The number, 0 to 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All networks, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..4).map(Self)
    }
}

/// A node's address on each network; `None` where it has none.
pub type Addresses = [Option<SocketAddr>; Network::COUNT];

/// A node's name, as its certificate states it: 1 to 32 octets of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// The text is no node name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node name has 1 to 32 octets")]
pub struct NameError;

impl Name {
    /// The longest name, in octets.
    pub const LEN_MAX: usize = 32;

    /// Makes a name.
    ///
    /// # Errors
    /// The text is empty or longer than [`Name::LEN_MAX`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > Self::LEN_MAX { Err(NameError) } else { Ok(Self(text.into())) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u8(u8::try_from(self.0.len()).unwrap_or(0));
        w.bytes(self.0.as_bytes());
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let error = r.error("Name", Cause::Range);
        let len = usize::from(r.u8("Name")?);
        let text = std::str::from_utf8(r.bytes("Name", len)?).map_err(|_| error)?;
        Self::new(text).map_err(|_| error)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node as others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name that its certificate states.
    pub name: Name,
    /// Which start of its program this is.
    pub start: StartId,
    /// Where its keepalives come from and go to.
    pub addresses: Addresses,
    /// Its capacity in relation to the others', from its calibration; at least 1.
    pub weight: u16,
}

impl Identity {
    pub(crate) fn encode(&self, w: &mut Writer) {
        self.name.encode(w);
        w.u64(self.start.0);
        w.u16(self.weight);
        for address in &self.addresses {
            encode_address(w, *address);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = Name::decode(r)?;
        let start = StartId(r.u64("Start")?);
        let weight = r.u16("Weight")?;
        if weight == 0 {
            return Err(r.error("Weight", Cause::Range));
        }
        let mut addresses = Addresses::default();
        for address in &mut addresses {
            *address = decode_address(r)?;
        }
        Ok(Self { name, start, addresses, weight })
    }
}

pub(crate) fn encode_address(w: &mut Writer, address: Option<SocketAddr>) {
    match address {
        None => w.u8(0),
        Some(SocketAddr::V4(a)) => {
            w.u8(4);
            w.bytes(&a.ip().octets());
            w.u16(a.port());
        }
        Some(SocketAddr::V6(a)) => {
            w.u8(6);
            w.bytes(&a.ip().octets());
            w.u16(a.port());
            w.u32(a.scope_id());
        }
    }
}

pub(crate) fn decode_address(r: &mut Reader<'_>) -> Result<Option<SocketAddr>, DecodeError> {
    let error = r.error("Address family", Cause::Range);
    match r.u8("Address family")? {
        0 => Ok(None),
        4 => {
            let ip: [u8; 4] = r.array("Address")?;
            Ok(Some(SocketAddr::from((ip, r.u16("Port")?))))
        }
        6 => {
            let ip: [u8; 16] = r.array("Address")?;
            let port = r.u16("Port")?;
            let scope = r.u32("Scope")?;
            Ok(Some(std::net::SocketAddrV6::new(ip.into(), port, 0, scope).into()))
        }
        _ => Err(error),
    }
}
