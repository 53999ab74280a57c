//! How much this process has worked, whatever else the machine did meanwhile. Measures no time.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// All of its threads, since it began, in their own code and in the kernel.
pub fn worked() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let parts = [usage.user_time(), usage.system_time()];
    let micros: i64 = parts.iter().map(|it| it.num_microseconds()).sum();
    Duration::from_micros(micros.try_into().unwrap())
}
