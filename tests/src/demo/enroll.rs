//! `./demo enroll --once`: from a ticket to a certificate and its end, as both people see it on their terminals.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::enrollment::{Party, Said, Scratch, text};
use crate::figures::{Bound, Figures};
use crate::run;

/// Plays both sides, shows their terminals, and checks what came out with openssl.
///
/// # Errors
/// A command fails, or openssl does not agree.
pub fn enroll() -> Result<Figures> {
    let scratch = Scratch::new("demo")?;
    let play = Play {
        admin: Party::administrator(&scratch.path("store"))?,
        alice: Party::device(&scratch.path("alice"))?,
        thief: Party::device(&scratch.path("thief"))?,
        scratch,
    };
    let mut figures = Figures::new("demo enroll");
    let start = Instant::now();
    let code = play.ticket()?;
    let (request, serial) = play.enroll(&code)?;
    figures.add("ticket_to_certificate", start.elapsed().as_secs_f64(), "s", None);
    play.repeat(&request, &serial)?;
    play.steal(&code)?;
    let renewed = play.renew()?;
    play.revoke(&serial, &renewed)?;
    play.look_back()?;
    println!();
    figures.add("steps_as_expected", 6.0, "of 6", Some(Bound::AtLeast(6.0)));
    Ok(figures)
}

struct Play {
    admin: Party,
    alice: Party,
    thief: Party,
    scratch: Scratch,
}

impl Play {
    /// The CA, a profile, and a ticket whose request must be approved by its words.
    fn ticket(&self) -> Result<String> {
        act("The administrator makes a CA on a machine without a network, a profile, and a ticket for Alice.");
        self.show("admin", &self.admin, &["init", "--ca-only", "--cluster", "hq-vpn", "--gateway", "vpn.example.org"])?;
        self.show("admin", &self.admin, &["profile", "set", "1", "office", "--routes", "10.0.0.0/8"])?;
        let shown =
            self.show("admin", &self.admin, &["ticket", "new", "alice-laptop", "--profile", "office", "--ask"])?;
        let code = shown.lines().map(str::trim).find(|line| line.len() == CODE_LEN && !line.contains(' '));
        Ok(code.context("the code on the screen")?.to_owned())
    }

    /// Alice types the code, mistyping it once; her request goes by mail, the words by telephone, the reply back.
    fn enroll(&self, code: &str) -> Result<(String, String)> {
        act("Alice hears the code by telephone and types it; the first time she mistypes a character.");
        let mut terminal = self.alice.on_terminal(&["enroll"])?;
        terminal.expect("code:")?;
        let wrong = if code.ends_with('7') { "8" } else { "7" };
        terminal.enter(&format!("{}{wrong}", &code[..code.len() - 1]))?;
        terminal.expect("look at group 5 first")?;
        terminal.expect("code:")?;
        terminal.enter(&code.to_lowercase())?;
        terminal.expect("nothing is lost.")?;
        let screen = terminal.screen();
        print_screen("alice", "$ ccvpn enroll");
        print_screen("alice", &screen);
        let request = lines_of(&screen);
        ensure!(request.len() == 3, "a request has three lines: {request:?}");
        let json = self.alice.json(&["enroll"])?;
        let words = text(&json, "words")?;

        act("Her request reaches the administrator in a mail, quoted and re-wrapped. Without the words it waits.");
        let mail = format!("At 10:02 Alice wrote:\n> {}\n> Regards, Alice\n", request.join("\n> "));
        let mail = self.scratch.put("request.eml", &mail)?;
        let waits = self.run("admin", &self.admin, &["enroll", "accept", &mail])?;
        ensure!(waits.code == Some(5) && waits.err.contains("six words"), "{waits:?}");
        let shown = self.show("admin", &self.admin, &["enroll", "accept", &mail, "--words", &words])?;
        let reply = lines_of(&shown);
        let serial = serial_in(&shown)?;

        act("Alice pastes the reply; both compare the final words.");
        for line in &reply {
            terminal.enter(line)?;
        }
        terminal.expect("they agree")?;
        terminal.enter("they agree")?;
        let (code, whole) = terminal.finish()?;
        print_screen("alice", whole.strip_prefix(&screen).unwrap_or(&whole));
        ensure!(code == Some(0), "the terminal's command ended with {code:?}");
        self.show("alice", &self.alice, &["profile", "show", "hq-vpn"])?;

        act("openssl, which knows nothing of all this, verifies what Alice's program rebuilt from ten lines.");
        let ca = text(self.admin.json(&["ca", "list"])?.get(0).context("a CA")?, "certificate")?;
        let ca = self.scratch.put("ca.pem", &ca)?;
        let own = self.scratch.path("alice/profiles/hq-vpn/certificate.pem").display().to_string();
        verify(&["-CAfile", &ca, "-x509_strict", "-purpose", "sslclient", &own])?;
        Ok((mail, serial))
    }

    /// The same request again gets the same reply.
    fn repeat(&self, mail: &str, serial: &str) -> Result<()> {
        act("The mail comes a second time: the same reply, no second certificate.");
        let shown = self.show("admin", &self.admin, &["enroll", "accept", mail, "--form", "short"])?;
        ensure!(shown.contains("answered before") && serial_in(&shown)? == serial, "{shown}");
        Ok(())
    }

    /// Another device with the same code is refused, and the administrator is told.
    fn steal(&self, code: &str) -> Result<()> {
        act("Somebody who read the code over Alice's shoulder tries it too: rejected, with an alarm in the journal.");
        let file = self.scratch.put("code", code)?;
        let request = self.thief.json(&["enroll", "--file", &file])?;
        let request = self.scratch.put("thief.txt", &text(&request, "request")?)?;
        let rejected = self.run("admin", &self.admin, &["enroll", "accept", &request])?;
        ensure!(rejected.code == Some(5) && rejected.out.contains("REJECTED"), "{rejected:?}");
        let rejection = self.scratch.put("rejection.txt", &lines_of(&rejected.out).join("\n"))?;
        let told = self.run("thief", &self.thief, &["enroll", "--file", &rejection])?;
        ensure!(told.code == Some(5) && told.err.contains("another request used this ticket"), "{told:?}");
        Ok(())
    }

    /// A new key and a new certificate for the same name.
    fn renew(&self) -> Result<String> {
        act(
            "A year later Alice renews: a new key, no code; her device takes the reply only from the CA that it knows.",
        );
        let arguments = ["request", "--pkcs10", "--profile", "hq-vpn", "--renew"];
        let shown = self.show("alice", &self.alice, &arguments)?;
        let pem = shown.find("-----BEGIN").zip(shown.find("-----END CERTIFICATE REQUEST-----"));
        let (begin, end) = pem.context("a request in PEM")?;
        let request =
            self.scratch.put("renewal.pem", &format!("{}-----END CERTIFICATE REQUEST-----\n", &shown[begin..end]))?;
        let out = self.scratch.path("renewed.pem").display().to_string();
        let shown =
            self.show("admin", &self.admin, &["cert", "renew", "alice-laptop", "--request", &request, "--out", &out])?;
        self.show("alice", &self.alice, &["request", "--certificate", &out, "--profile", "hq-vpn", "--renew"])?;
        serial_in(&shown)
    }

    /// The old certificate is revoked; a list says so, and openssl heeds it.
    fn revoke(&self, old: &str, new: &str) -> Result<()> {
        act(
            "The old certificate is revoked and the list published: openssl refuses the old one and takes the new one.",
        );
        let export = |serial: &str, name: &str| -> Result<String> {
            let path = self.scratch.path(name).display().to_string();
            self.admin.good(&["cert", "export", serial, "--out", &path])?;
            Ok(path)
        };
        let (old_file, new_file) = (export(old, "old.pem")?, export(new, "new.pem")?);
        self.show("admin", &self.admin, &["cert", "revoke", old, "--cause", "superseded"])?;
        let list = self.scratch.path("list.pem").display().to_string();
        self.show("admin", &self.admin, &["cert", "crl", "--out", &list])?;
        let ca = self.scratch.path("ca.pem").display().to_string();
        verify(&["-CAfile", &ca, "-crl_check", "-CRLfile", &list, &new_file])?;
        let refused = verify(&["-CAfile", &ca, "-crl_check", "-CRLfile", &list, &old_file]);
        ensure!(
            refused.is_err_and(|error| format!("{error:#}").contains("revoked")),
            "the old certificate still counts"
        );
        println!("  openssl │ {old_file}: certificate revoked");
        Ok(())
    }

    /// What the administrator finds afterwards.
    fn look_back(&self) -> Result<()> {
        act("What is left: certificates, what ends when, and a journal whose chain holds.");
        self.show("admin", &self.admin, &["cert", "list"])?;
        self.show("admin", &self.admin, &["cert", "calendar"])?;
        let journal = self.show("admin", &self.admin, &["journal", "list"])?;
        ensure!(journal.contains("alarm"), "the second request raised no alarm");
        self.show("admin", &self.admin, &["journal", "verify"])?;
        Ok(())
    }

    /// Runs a command that must succeed and shows it as on its terminal.
    fn show(&self, who: &str, party: &Party, arguments: &[&str]) -> Result<String> {
        let said = self.run(who, party, arguments)?;
        ensure!(said.code == Some(0), "{arguments:?} ended with {:?}: {}", said.code, said.err);
        Ok(said.out)
    }

    fn run(&self, who: &str, party: &Party, arguments: &[&str]) -> Result<Said> {
        let program = if who == "admin" { "cryptocluster" } else { "ccvpn" };
        // The directories are the lab's; a person has the usual ones.
        let quoted = |word: &&str| if word.contains(' ') { format!("\"{word}\"") } else { (*word).to_owned() };
        let words: Vec<String> = arguments.iter().map(quoted).collect();
        let shown = words.join(" ").replace(&self.scratch.path("").display().to_string(), "");
        println!("{who:>9} │ $ {program} {shown}");
        let said = party.run(arguments, "")?;
        print_screen(who, &format!("{}{}", said.out, said.err));
        Ok(said)
    }
}

fn act(what: &str) {
    println!("\n== {what}\n");
}

fn print_screen(who: &str, screen: &str) {
    for line in screen.trim_end().lines() {
        println!("{who:>9} │ {line}");
    }
}

/// The numbered lines of a message on a screen.
fn lines_of(screen: &str) -> Vec<String> {
    let is_line = |line: &&str| {
        let groups: Vec<&str> = line.split(' ').collect();
        groups.len() == 7
            && groups[0].len() == 3
            && groups[0].ends_with(':')
            && groups[1..].iter().all(|g| g.len() == 5)
    };
    screen.lines().map(str::trim).filter(is_line).map(str::to_owned).collect()
}

/// The first serial on a screen: 16 hexadecimal digits.
fn serial_in(screen: &str) -> Result<String> {
    let words = screen.split(|c: char| !c.is_ascii_alphanumeric());
    let found = words.into_iter().find(|word| word.len() == 16 && word.chars().all(|c| c.is_ascii_hexdigit()));
    Ok(found.context("a serial on the screen")?.to_owned())
}

fn verify(arguments: &[&str]) -> Result<()> {
    let said = run::output(Command::new("openssl").arg("verify").args(arguments))?;
    println!("  openssl │ {}", said.trim());
    Ok(())
}

/// Characters of a client's code with its dashes.
const CODE_LEN: usize = 29;
