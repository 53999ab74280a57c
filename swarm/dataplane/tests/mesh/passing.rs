//! What a task's host knows of clients that came to another host.

use super::*;

#[test]
fn a_task_s_host_knows_no_connection_of_another_host_s_client() {
    let Some(lab) = lab(2, &[(1, 11), (2, 12)], &service(&PORTS)) else {
        return;
    };
    let known = |whose: &str| {
        [0, 1].map(|host: usize| {
            let all = lab.hosts[host].net.sh("cat /proc/net/nf_conntrack");
            all.lines().any(|it| it.contains(whose))
        })
    };
    lab.tell(|_| vec![gone(WEB, (1, 11))]);
    until("it is the other one's", || {
        answers(tcp, &lab.client, "192.0.2.1:8080");
        let mut talk = Talk::begin(&lab.client, "192.0.2.1:8080").map_err(|it| it.to_string())?;
        talk.say("here").map_err(|it| it.to_string())?;
        let [first, second] = known(&format!("src={CLIENT} dst=192.0.2.1 "));
        (first && !second)
            .then_some(())
            .ok_or("it is known".to_owned())
    });
    assert_eq!(
        known(&format!("src={CLIENT} dst=10.0.0.12 ")),
        [false, false]
    );
    // What goes from container to container is known as ever.
    tcp(&lab.hosts[0].containers[0], "10.0.0.12:80").unwrap();
    assert_eq!(known("src=10.0.0.11 dst=10.0.0.12 "), [true, true]);
}
