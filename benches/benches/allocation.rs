//! Allocation throughput.

fn main() {}
