//! What enrollments cost: requests checked and issued, mails read, foreign requests refused; on one core.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, Result};
use enroll::{
    Algorithm, AllowedKeys, Answer, Approval, Authority, ClientName, ClusterName, Code, GatewayName, Grant,
    KeyStanding, PrivateKey, Profile, Rank, Reader, Request, RequestedKey, Role, Serial, Terms, Ticket, TicketKeys,
    TicketNumber, TicketOrder, UnixTime, Validity,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::cpu_time;
use crate::figures::{Bound, Figures, median};

/// Measures processor time, the median of some rounds.
pub(super) fn run() -> Result<Figures> {
    let mut figures = Figures::new("enroll");
    let desk = Desk::new()?;
    let issue = rounds(|| desk.check_and_issue())?;
    figures.add("requests_checked_and_issued", 1.0 / issue, "/s", Some(Bound::AtLeast(2000.0)));
    let sign = rounds(|| desk.sign_only())?;
    figures.compare("cost_of_one", issue * 1e6, "µs", "two signature operations alone", sign * 1e6, sign / issue, None);
    let read = rounds(|| desk.read_mail())?;
    figures.add("mail_of_100_kB_read", read * 1e3, "ms", Some(Bound::AtMost(5.0)));
    let refuse = rounds(|| desk.refuse_foreign())?;
    figures.add("foreign_request_refused", refuse * 1e6, "µs", Some(Bound::AtMost(50.0)));
    Ok(figures)
}

/// Processor time in seconds that one piece of work takes: the median of rounds that are long enough to be counted.
fn rounds(mut work: impl FnMut() -> Result<usize>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (start, mut pieces) = (cpu_time(std::process::id()), 0);
        let spent = loop {
            pieces += work()?;
            let spent = cpu_time(std::process::id()).saturating_sub(start);
            if spent >= ROUND_TIME {
                break spent;
            }
        };
        times.push(spent.as_secs_f64() / pieces as f64);
    }
    Ok(median(&times))
}

/// A gateway's desk with one ticket, its request, and a mail around it.
struct Desk {
    authority: Authority,
    terms: Terms,
    order: TicketOrder,
    keys: TicketKeys,
    key: PrivateKey,
    symbols: Vec<enroll::Symbol>,
    foreign: Vec<enroll::Symbol>,
    mail: String,
}

impl Desk {
    fn new() -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(1);
        let cluster = ClusterName::new("hq-vpn")?;
        let days = Validity::new(START_DAY, 4000)?;
        let ca = PrivateKey::draw(Algorithm::P256, &mut rng)?;
        let authority = Authority::create(cluster.clone(), Rank::Sole, ca.into(), Serial::draw(&mut rng), days)?;
        let ticket = TicketNumber::draw(&mut rng);
        let code = Code::draw(Role::Client, ticket, &mut rng);
        let keys = TicketKeys::derive(&code);
        let key = PrivateKey::draw(Algorithm::P256, &mut rng)?;
        let (message, _) = Request::compose(&keys.request, &RequestedKey::Whole(*key.public()));
        let other = TicketKeys::derive(&Code::draw(Role::Client, ticket, &mut rng));
        let (foreign, _) = Request::compose(&other.request, &RequestedKey::Whole(*key.public()));
        let terms = Terms {
            serial: Serial::draw(&mut rng),
            validity: Validity::new(START_DAY, 398)?,
            cluster,
            client: ClientName::new("alice-laptop")?,
            gateway: GatewayName::new("vpn.example.org")?,
            profile: Profile::default(),
        };
        let order = TicketOrder {
            role: Role::Client,
            name: terms.client.clone(),
            profile: Profile::default(),
            expires: NOW.after(Duration::from_hours(1)),
            approval: Approval::Auto,
            keys: AllowedKeys::ALL,
        };
        // A long thread: older mails quoted, each with a clock time, a signature and words that are no lines.
        let quoted = "> On Fri, 20 Nov 2026 at 09:41:07 +0000, Bob wrote:\n> > Please see 12: the attached agenda for 10:30.\n\
                      > > Kind regards, Bob <bob@example.org> =20\n> > -- \n> > +44 20 7946 0018, 09:00 to 17:00\n>\n";
        let half = quoted.repeat(MAIL_OCTETS / quoted.len() / 2);
        let mail = format!("{half}\n> {}\n{half}", message.to_string().replace('\n', "\n> "));
        Ok(Self {
            authority,
            terms,
            order,
            keys,
            key,
            symbols: message.symbols().to_vec(),
            foreign: foreign.symbols().to_vec(),
            mail,
        })
    }

    /// MAC, ticket, serial, certificate, all forms of the reply: what a request costs but for the disk.
    fn check_and_issue(&self) -> Result<usize> {
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..BATCH {
            let mut ticket = Ticket::open(NOW, self.order.clone(), self.keys.clone(), [])?;
            let request = Request::decode(ticket.request_key().context("a key")?, &self.symbols)?;
            let Answer::Consume(hash) = ticket.handle_request(NOW, &request, KeyStanding::New) else {
                anyhow::bail!("the request is not accepted");
            };
            let grant = Grant { hash, serial: Serial::draw(&mut rng), validity: self.terms.validity };
            let key = ticket.consume(NOW, grant)?;
            let mac = ticket.reply_key().context("a key")?;
            let replies = self.authority.reply(mac, &grant, &key, &self.terms, &[], b"routes=10.0.0.0/8\n")?;
            black_box(ticket.store_replies(&grant, replies)?);
        }
        Ok(BATCH)
    }

    /// One signature and one check of it, by the same library.
    fn sign_only(&self) -> Result<usize> {
        for _ in 0..BATCH {
            let signature = self.key.sign(b"a certificate")?;
            self.key.public().verify(b"a certificate", &signature)?;
        }
        Ok(BATCH)
    }

    fn read_mail(&self) -> Result<usize> {
        let mut reader = Reader::default();
        reader.add(&self.mail);
        let read = reader.resolve(|symbols| Request::decode(&self.keys.request, symbols))?;
        black_box(read.message);
        Ok(1)
    }

    fn refuse_foreign(&self) -> Result<usize> {
        for _ in 0..BATCH {
            let refused = Request::decode(&self.keys.request, black_box(&self.foreign));
            anyhow::ensure!(refused.is_err(), "a foreign request is accepted");
        }
        Ok(BATCH)
    }
}

/// 2026-11-21, 00:00 UTC.
const NOW: UnixTime = UnixTime { seconds: 1_795_219_200 };
/// The day before.
const START_DAY: u16 = 20_777;
const ROUNDS: usize = 5;
/// Long against the 10 ms that processor time is counted in.
const ROUND_TIME: Duration = Duration::from_millis(500);
const BATCH: usize = 100;
const MAIL_OCTETS: usize = 100_000;
