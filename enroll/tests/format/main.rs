//! The enrollment format from outside: the worked example, the independent model, damage, mails, threats, fuzz.

mod authority;
mod damage;
mod fuzz;
mod mails;
mod model;
mod oracle;
mod plain;
mod repairs;
mod scene;
mod speed;
mod threats;
mod worked_example;
