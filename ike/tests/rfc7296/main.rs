//! What RFC 7296 demands, through the public API, with two endpoints, a clock and a lossy network.

mod certificates;
mod hostile;
mod measure;
mod mutation;
mod pair;
mod section_1_2;
mod section_1_4;
mod section_2_1;
mod section_2_15;
mod section_2_19;
mod section_2_23;
mod section_2_4;
mod section_2_6;
mod section_2_8;
mod takeover;
