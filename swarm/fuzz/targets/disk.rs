//! What lies in the data directory, however it came to be damaged.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    skep_node::fuzzing::file(bytes);
});
