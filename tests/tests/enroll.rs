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
#[path = "enroll/unheard.rs"]
mod unheard;

#[test]
fn the_demo_goes_from_ticket_to_revocation_on_two_terminals() {
    assert!(lab::demo::enroll().unwrap().all_met());
}
