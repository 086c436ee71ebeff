//! What the operations promise, from outside.

mod certificates;
mod desk;
mod requests;
mod safekeeping;
