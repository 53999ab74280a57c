//! Bodies and filters of Docker's API: decoded by Go's rules, checked by all layers, written and
//! read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skep_api::cluster::{InitRequest, JoinRequest, Spec};
use skep_api::decode;
use skep_api::filters::Filters;
use skep_api::node::NodeSpec;
use skep_api::service::ServiceSpec;
use skep_core::{bootstrap, validate};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(spec) = decode::<ServiceSpec>(bytes)
        && let Ok(spec) = validate::service_spec(spec)
        && validate::check_service(&spec).is_ok()
    {
        let _ = validate::unsupported(&spec);
        let packed = rmp_serde::to_vec_named(&spec).unwrap();
        assert!(rmp_serde::from_slice::<ServiceSpec>(&packed).unwrap() == spec);
    }
    if let Ok(spec) = decode::<Spec>(bytes)
        && let Ok(spec) = validate::cluster_update(spec)
    {
        let _ = validate::check_cluster(&spec);
    }
    if let Ok(spec) = decode::<NodeSpec>(bytes) {
        let _ = validate::node_spec(spec);
    }
    if let Ok(request) = decode::<InitRequest>(bytes) {
        let _ = bootstrap::check(&request);
    }
    let _ = decode::<JoinRequest>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Filters::parse(text);
        let _ = validate::is_reference(text);
        let _ = skep_api::go::Timestamp::parse(text);
    }
});
