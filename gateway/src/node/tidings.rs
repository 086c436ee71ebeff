//! What the log says of the cluster and of work sets that come and go.

use std::collections::HashSet;
use std::time::Duration;

use cluster::View;
use cluster::membership::{Event, How, LeaveReason};
use tracing::{info, warn};
use wire::{Slot, Time, WorkSet};

use super::control::view_name;
use super::sessions::hex;
use crate::link::hello::Refusal;
use crate::link::{CurrentView, Note};

/// Why work sets came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The cluster was founded.
    Founded,
    /// Their owner is gone.
    TakenOver,
    /// Their owner has handed them over.
    HandedHere,
    /// This node has handed them over.
    HandedAway,
    /// This node has lost them.
    Lost,
}

impl From<How> for Cause {
    fn from(how: How) -> Self {
        match how {
            How::Founded => Self::Founded,
            How::Unplanned => Self::TakenOver,
            How::Planned => Self::HandedHere,
        }
    }
}

/// Work sets that came or went and are not told yet: they do so by the hundred, and are told in one line.
#[derive(Debug, Default)]
pub(super) struct Tidings {
    /// Since when something is untold, and when it is told if nothing else happens.
    due: Option<(Time, Time)>,
    untold: Vec<Told>,
}

#[derive(Debug)]
struct Told {
    cause: Cause,
    sets: HashSet<WorkSet>,
    sessions: usize,
}

impl Tidings {
    /// Notes that a set with so many sessions has come or gone.
    pub(super) fn note(&mut self, now: Time, cause: Cause, set: WorkSet, sessions: usize) {
        let begun = self.due.map_or(now, |(begun, _)| begun);
        self.due = Some((begun, (now + TELL_AFTER).min(begun + TELL_AFTER_MAX)));
        let at = self.untold.iter().position(|told| told.cause == cause).unwrap_or_else(|| {
            self.untold.push(Told { cause, sets: HashSet::new(), sessions: 0 });
            self.untold.len() - 1
        });
        let told = &mut self.untold[at];
        told.sets.insert(set);
        told.sessions += sessions;
    }

    /// When the next line is due.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.due.map(|(_, at)| at)
    }

    /// Writes the lines that are due. `sessions` are those that live here, with their sets.
    pub(super) fn tell(&mut self, now: Time, sessions: impl Fn() -> Vec<(WorkSet, u64)>) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.due = None;
        for Told { cause, sets, sessions: count } in self.untold.drain(..) {
            let came = matches!(cause, Cause::Founded | Cause::TakenOver | Cause::HandedHere);
            let names: Vec<String> = if came && (1..=NAMED_MAX).contains(&count) {
                sessions().into_iter().filter(|(set, _)| sets.contains(set)).map(|(_, session)| hex(session)).collect()
            } else {
                Vec::new()
            };
            let sessions = (!names.is_empty()).then(|| names.join(" "));
            let what = format!("{} with {}", number(sets.len(), "work set"), number(count, "session"));
            match cause {
                Cause::Founded => info!("the cluster is founded; this node begins with {} work sets", sets.len()),
                Cause::TakenOver => info!(sessions, "this node has taken over {what} of a node that is gone"),
                Cause::HandedHere => info!(sessions, "this node was handed {what} by another"),
                Cause::HandedAway => info!("this node has handed {what} to others"),
                Cause::Lost => warn!("this node has lost {what}; others go on with them"),
            }
        }
    }
}

/// Tells of a view that is in force.
pub(super) fn tell_view(current: &CurrentView) {
    let view = &current.view;
    let part = |slot: Slot| {
        let mut parts = Vec::new();
        if slot == view.master() {
            parts.push("master");
        }
        if !view.full().contains(slot) {
            parts.push("learner");
        }
        if slot == current.own {
            parts.push("this node");
        }
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    };
    let members = view.members().iter().map(|member| format!("{}{}", member.identity.name.as_str(), part(member.slot)));
    let members = members.collect::<Vec<_>>().join(", ");
    if view.is_unproven() {
        warn!(
            view = view_name(view),
            "this node goes on without a majority of the cluster, which may work elsewhere: {members}"
        );
    } else {
        info!(view = view_name(view), "the cluster is now {members}");
    }
}

/// Tells of what the link notes.
pub(super) fn tell_note(view: Option<&View>, note: Note) {
    match note {
        Note::Membership(event) => tell_membership(view, event),
        Note::Left(LeaveReason::VotedOut) => {
            warn!(
                "the cluster went on without this node, which it had not heard; this node serves nobody until it has joined again"
            );
        }
        Note::Left(LeaveReason::Healing) => {
            warn!(
                "a larger part of the cluster is back; this node hands itself to it and serves nobody until it has joined"
            );
        }
        Note::Left(LeaveReason::FoundingFailed) => warn!("the cluster could not be founded; this node tries again"),
        Note::Connected { name, address } => info!(%address, "linked to {name}"),
        Note::Disconnected { name, why } if is_ordinary(why.refusal) => {
            info!("the link to {name} has ended: {}", why.detail)
        }
        Note::Disconnected { name, why } => warn!("the link to {name} has ended: {why}"),
        Note::Refused { name, address, why } => {
            let who = name.unwrap_or_else(|| "a node".to_owned());
            let address = address.map(|address| address.to_string());
            if is_ordinary(why.refusal) {
                info!(address, "no link to {who} yet: {}", why.detail);
            } else {
                warn!(address, "no link to {who}: {why}");
            }
        }
    }
}

fn tell_membership(view: Option<&View>, event: Event) {
    let name = |slot| {
        let member = view.and_then(|view| view.member(slot));
        member.map_or_else(|| "a member".to_owned(), |member| member.identity.name.as_str().to_owned())
    };
    match event {
        Event::Alone => info!("no other node of the cluster answers yet; waiting for them"),
        Event::JoinAsked(name) => info!("{} asks to join", name.as_str()),
        Event::Refused(refusal) => warn!("this node is not let into the cluster: {refusal}"),
        Event::Silent(slot) => warn!("nothing is heard of {} any more; the others go on without it", name(slot)),
        Event::Shunned(slot) => {
            warn!("{} is asked to stop: another member does not hear it, or it holds the others up", name(slot));
        }
        Event::WentOnAlone => warn!("this node goes on alone: it hears no other member on any network"),
    }
}

/// What happens in a healthy cluster, too: nodes start and stop.
const fn is_ordinary(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Replaced | Refusal::Goodbye | Refusal::Silent => true,
        Refusal::UnknownCa
        | Refusal::Certificate
        | Refusal::Name
        | Refusal::UnknownMember
        | Refusal::OtherCluster
        | Refusal::OtherConfiguration
        | Refusal::SameIdentity
        | Refusal::Version
        | Refusal::Protocol
        | Refusal::TooSlow => false,
    }
}

fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What comes and goes without a longer pause stands in one line …
const TELL_AFTER: Duration = Duration::from_millis(700);
/// … but for what takes longer than this.
const TELL_AFTER_MAX: Duration = Duration::from_secs(5);
/// Sessions are named if there are no more.
const NAMED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_without_a_pause_is_told_at_once_afterwards() {
        let mut tidings = Tidings::default();
        let at = |millis| Time::from_millis(millis);
        assert_eq!(tidings.poll_timeout(), None);
        for (millis, set) in (0..).step_by(500).zip(WorkSet::all()).take(4) {
            tidings.note(at(millis), Cause::HandedHere, set, 1);
        }
        assert_eq!(tidings.poll_timeout(), Some(at(1500) + TELL_AFTER));
        assert_eq!((tidings.untold.len(), tidings.untold[0].sets.len(), tidings.untold[0].sessions), (1, 4, 4));
        for (millis, set) in (2000..).step_by(500).zip(WorkSet::all()).take(20) {
            tidings.note(at(millis), Cause::HandedAway, set, 0);
        }
        assert_eq!(tidings.poll_timeout(), Some(at(0) + TELL_AFTER_MAX), "a long move is told in parts");
        tidings.tell(at(6000), Vec::new);
        assert_eq!((tidings.poll_timeout(), tidings.untold.len()), (None, 0));
    }
}
