//! Messages of other nodes. A worker may send its leader anything: no message may make it panic or
//! write what the store refuses.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    skep_node::fuzzing::message(bytes);
});
