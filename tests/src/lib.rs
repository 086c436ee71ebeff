//! The lab: a network in namespaces, with real peers and an observer that judges what is on the wire.
//!
//! A [`Lab`] is one run. It makes [`Switch`]es and [`Namespace`]s, joins them by [`Cable`]s that can be cut, and
//! takes everything down when it is dropped, interrupted, or found dead by the next run. In the namespaces run
//! [`strongswan`] (which nobody here wrote), an inside [`http`] server, and the gateway under test.
//!
//! It needs root, `iproute2` and the packages that `./test` installs.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod echo;
pub mod enrollment;
pub mod figures;
pub mod hostile;
pub mod http;
mod interrupt;
mod lab;
pub mod load;
mod namespace;
pub mod nat;
pub mod observer;
mod pace;
pub mod pair;
pub mod pki;
mod process;
pub mod run;
pub mod strongswan;
pub mod vitals;

pub use lab::{Lab, sweep};
pub use namespace::{Cable, Namespace, Switch};
pub use process::{Process, cpu_time};
