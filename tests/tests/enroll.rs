//! Certificates by text through the two commands as they are installed: kills, full disks, wrong input, drift of what
//! scripts rely on, and strongSwan.

#[path = "enroll/crash.rs"]
mod crash;
#[path = "enroll/desk.rs"]
mod desk;
#[path = "enroll/drift.rs"]
mod drift;
#[path = "enroll/sentences.rs"]
mod sentences;
#[path = "enroll/strongswan.rs"]
mod strongswan;
