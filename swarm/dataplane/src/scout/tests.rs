//! Who is found among processes, in a directory that stands for `/proc`.

use super::*;

const ID: &str = "0c5b";

struct Processes(tempfile::TempDir);

impl Processes {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let all = Self(dir);
        all.set("thread-self", "0::/\n", "NSpid:\t1\n", "host");
        all
    }

    fn eye(&self) -> Eye {
        Eye::new(self.0.path())
    }

    /// A process, in its control group and in the namespace of this name.
    fn set(&self, pid: &str, groups: &str, status: &str, namespace: &str) {
        let dir = self.0.path().join(pid);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("ns")).unwrap();
        std::fs::write(dir.join("cgroup"), groups).unwrap();
        std::fs::write(dir.join("status"), format!("Name:\tx\n{status}")).unwrap();
        let home = self.0.path().join(format!("namespace-{namespace}"));
        std::fs::write(&home, "").unwrap();
        std::fs::hard_link(home, dir.join("ns/net")).unwrap();
    }
}

fn wanted() -> Wanted {
    Wanted::from([("task".to_owned(), ID.to_owned())])
}

/// How engines name a container's control group.
fn groups() -> [String; 4] {
    [
        format!("12:pids:/docker/{ID}\n0::/\n"),
        format!("0::/system.slice/docker-{ID}.scope\n"),
        format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
        format!("0::/../../docker/{ID}\n"),
    ]
}

const FIRST: &str = "NSpid:\t40\t1\n";

#[test]
fn the_first_process_of_a_container_is_found() {
    for groups in groups() {
        let all = Processes::new();
        let mut eye = all.eye();
        assert_eq!(eye.look(&wanted()), []);
        all.set("40", &groups, FIRST, "its");
        assert_eq!(eye.look(&wanted()), [("task".to_owned(), 40)], "{groups}");
        assert_eq!(eye.look(&Wanted::new()), []);
    }
}

#[test]
fn one_that_is_on_its_way_is_waited_for() {
    let all = Processes::new();
    let mut eye = all.eye();
    assert_eq!(eye.look(&wanted()), []);
    let [groups, ..] = groups();
    for (groups, status, namespace) in [
        // Born by the engine's runtime, moved, and then alone.
        ("0::/system.slice/docker.service\n", "NSpid:\t40\n", "host"),
        (&groups, "NSpid:\t40\n", "host"),
        (&groups, "NSpid:\t40\n", "its"),
        (&groups, FIRST, "host"),
        (&groups, "NSpid:\t40\t7\n", "its"),
        (&groups, "", "its"),
    ] {
        all.set("40", groups, status, namespace);
        assert_eq!(eye.look(&wanted()), [], "{groups} {status} {namespace}");
    }
    all.set("40", &groups, FIRST, "its");
    assert_eq!(eye.look(&wanted()).len(), 1);
}

#[test]
fn those_that_were_there_before_are_not_looked_at_for_ever() {
    let all = Processes::new();
    let mut eye = all.eye();
    all.set("40", "0::/\n", FIRST, "its");
    for _ in 0..LOOKS.0 {
        assert_eq!(eye.look(&wanted()), []);
    }
    let [groups, ..] = groups();
    all.set("40", &groups, FIRST, "its");
    assert_eq!(eye.look(&wanted()), [], "it was another's all the time");
    // Somebody else with the same number.
    std::fs::remove_dir_all(all.0.path().join("40")).unwrap();
    assert_eq!(eye.look(&wanted()), []);
    all.set("40", &groups, FIRST, "its");
    assert_eq!(eye.look(&wanted()).len(), 1);
}

#[tokio::test]
async fn who_is_found_otherwise_is_not_told_of() {
    let mut scout = Scout::start();
    let container = |id: &str, pid, starting| {
        Change::Container(Container {
            id: id.to_owned(),
            container: format!("nobody-is-called-{id}"),
            pid,
            starting,
            ..Container::default()
        })
    };
    scout.follow(&[container("a", 0, true), container("b", 0, true)]);
    assert_eq!(scout.awaited.len(), 2);
    scout.follow(&[
        container("a", 7, false),
        Change::ContainerGone("b".to_owned()),
    ]);
    assert!(scout.awaited.is_empty());
    let found = tokio::time::timeout(Duration::from_millis(50), scout.next()).await;
    assert!(found.is_err(), "{found:?}");
}
