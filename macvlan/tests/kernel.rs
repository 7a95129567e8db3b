//! Attachments against the real kernel.

fn main() {}
