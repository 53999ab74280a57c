//! Requests about networks, by method and path. No sockets.

use super::*;

#[test]
fn requests_about_networks_are_told_apart() {
    let of = |method: &str, path: &str| {
        let path: Vec<&str> = path.split('/').collect();
        Call::of(&method.parse().unwrap(), &path)
    };
    assert_eq!(of("GET", "networks"), Some(Call::List));
    assert_eq!(of("POST", "networks/create"), Some(Call::Create));
    assert_eq!(of("POST", "networks/prune"), Some(Call::Prune));
    assert_eq!(of("GET", "networks/x"), Some(Call::Inspect("x".into())));
    assert_eq!(of("DELETE", "networks/x"), Some(Call::Remove("x".into())));
    assert_eq!(
        of("POST", "networks/x/connect"),
        Some(Call::Connect("x".into()))
    );
    assert_eq!(of("POST", "networks/x"), None);
    assert_eq!(of("GET", "volumes"), None);
}
