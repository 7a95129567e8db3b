//! What can be wrong with a server.

use std::time::Duration;

/// What happens to a request instead of an answer, or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered, but late.
    Delay(Duration),
    /// It is refused with this HTTP status, and maybe `Retry-After` in seconds.
    Status(u16, Option<u32>),
    /// The connection ends without an answer.
    Disconnect,
    /// The answer is a success with a body that is not JSON.
    Garbage,
    /// The answer is a success with a body of so many bytes: an object without content, and blanks.
    Size(usize),
    /// The answer is not HTTP.
    NotHttp,
    /// Nothing comes at all. A watch seems to begin, and nothing comes then.
    Silence,
}

/// For which requests.
#[derive(Debug)]
pub(crate) struct FaultRule {
    pub(crate) verb: String,
    pub(crate) resource: String,
    pub(crate) fault: Fault,
    /// How often still; `None` is for ever.
    pub(crate) times: Option<usize>,
}
