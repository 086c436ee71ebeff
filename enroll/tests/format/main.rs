//! The enrollment format from outside: the worked example, the independent model, damage, mails, threats, fuzz.

mod damage;
mod mails;
mod model;
mod oracle;
mod repairs;
mod scene;
mod worked_example;
