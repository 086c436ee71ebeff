//! IKE_AUTH (RFC 7296 §1.2, §2.15), both roles: shared keys and signatures (RFC 7427).

mod initiator;
mod proof;
mod responder;

pub(crate) use initiator::{error_notify, on_answer, on_request_signature, send_request};
pub(crate) use responder::{Taken, arm, on_address, on_answer_signature, on_request};
