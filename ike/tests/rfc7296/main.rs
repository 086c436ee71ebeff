//! What RFC 7296 demands, through the public API, with two endpoints, a clock and a lossy network.

mod pair;
mod section_1_2;
