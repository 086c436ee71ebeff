//! The clients: eight sessions that ask ten times a second and get data all the time.

use crate::app::{Heard, Request, is_over};
use crate::world::{Event, MS, Script, World};

/// Each so many ticks the sessions have more to send than their leases allow.
const BURST_EVERY: u64 = 16;

pub(crate) struct Client {
    pub(crate) session: u64,
    key: u64,
    message: u64,
    /// Since when it waits for an answer; 0 if it does not.
    pub(crate) asked: u64,
    /// On which part of a split LAN it is.
    part: u8,
}

impl World {
    pub(crate) fn log_in(&mut self) -> Client {
        let session = self.dice.word() >> 22;
        Client { session, key: 0, message: 1, asked: 0, part: self.dice.below(2) as u8 }
    }

    /// Whether a client's packets reach a node and the other way round.
    fn reaches(&self, client: usize, node: usize) -> bool {
        let split = self.air.part.iter().any(|part| *part != 0);
        !self.air.is_client_cut(node) && (!split || self.clients[client].part == self.air.part[node])
    }

    pub(crate) fn request(&mut self, client: usize) {
        let known = &self.clients[client];
        // It logs in anew a little before its association ends.
        if known.key != 0 && is_over(known.key, self.now + self.plan.life / 8, self.plan.life) {
            let part = known.part;
            self.clients[client] = Client { part, ..self.log_in() };
        }
        let Client { session, key, message, .. } = self.clients[client];
        if self.clients[client].asked == 0 {
            self.clients[client].asked = self.now;
        }
        for node in 0..self.nodes.len() {
            // The fence is closed for what comes in too.
            if !self.nodes[node].is_running() || !self.reaches(client, node) || !self.nodes[node].is_leased(self.now) {
                continue;
            }
            let now = self.nodes[node].clock(self.now);
            let noise = self.dice.word();
            let bug = self.plan.bug;
            let state = &mut self.nodes[node];
            match state.app.request(
                now,
                &mut state.replication,
                bug,
                Request { session, key, message },
                (self.now, noise),
            ) {
                Heard::Silent => {}
                Heard::Sent(sent) => self.leave(node, sent),
                Heard::Lost(lost) if !self.plan.is_lone() => self.violate(format!("I6: n{node}: {lost}")),
                Heard::Lost(_) => {
                    // The part that yielded had heard it last: the client begins anew.
                    self.check.count("sessions lost where parts went on alone");
                    let part = self.clients[client].part;
                    self.clients[client] = Client { part, ..self.log_in() };
                    break;
                }
            }
            self.drain(node);
        }
        let again = 100 * MS + self.dice.below(20 * MS);
        self.queue.push(self.now + again, Event::Request { client });
    }

    pub(crate) fn answer(&mut self, from: usize, Request { session, key, message }: Request) {
        let known = self.clients.iter().position(|client| client.session == session);
        let Some(client) = known.filter(|client| self.reaches(*client, from)) else { return };
        let client = &mut self.clients[client];
        if client.message == message && (message == 1 || client.key == key) {
            client.key = key;
            client.message += 1;
            client.asked = 0;
            self.check.count("answers");
        }
    }

    pub(crate) fn data(&mut self) {
        self.ticks += 1;
        for node in 0..self.nodes.len() {
            let burst = self.ticks.is_multiple_of(BURST_EVERY);
            self.data_of(node, burst);
        }
        self.judge_sets();
        let interval = match self.plan.script {
            Script::Random | Script::Stolen => 50 * MS,
            Script::QuickViews => 4 * MS,
        };
        self.queue.push(self.now + interval, Event::Data);
    }

    pub(crate) fn data_of(&mut self, node: usize, burst: bool) {
        if !self.nodes[node].is_running() {
            return;
        }
        let now = self.nodes[node].clock(self.now);
        let bug = self.plan.bug;
        let state = &mut self.nodes[node];
        for sent in state.app.data(now, &mut state.replication, (self.now, bug), burst) {
            self.leave(node, sent);
        }
        self.flush(node);
    }
}
