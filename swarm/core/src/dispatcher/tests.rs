//! Sessions, health and assignments, against a store that commits at once.

use skep_api::node::NodeState;
use skep_api::task::TaskState;

use super::*;
use crate::assignment::Assignments;
use crate::id::CountingIds;
use crate::reconcile::Reconciler;
use crate::store::Tx;
use crate::testing;

/// A leader that does nothing but dispatch.
pub(super) struct Bench {
    pub state: State,
    pub dispatcher: Dispatcher,
    pub now: Timestamp,
    wake_at: Option<Timestamp>,
}

impl Bench {
    pub fn new(nodes: &[&str]) -> Self {
        let mut bench = Self {
            state: State::default(),
            dispatcher: Dispatcher::default(),
            now: Timestamp::from_nanos(0),
            wake_at: None,
        };
        for node in nodes {
            let node = Object::from(testing::node(node));
            bench.write(Author::Ca, vec![Change::Create(node)]);
        }
        bench
    }

    pub fn write(&mut self, author: Author, changes: Vec<Change>) {
        let tx = Tx {
            author,
            at: self.now,
            changes,
        };
        for event in self.state.apply(&tx).unwrap() {
            self.dispatcher.observe(&event, &self.state);
        }
    }

    pub fn say(&mut self, node: &str, session: u64, message: ToDispatcher) {
        let peer = Peer {
            node: node.into(),
            session,
            addr: "10.0.0.1".into(),
        };
        if let Some((author, changes)) =
            self.dispatcher
                .receive(&self.state, &peer, message, self.now)
        {
            self.write(author, changes);
        }
    }

    pub fn register(&mut self, node: &str, session: u64) {
        let description = testing::node(node).description.unwrap();
        self.say(
            node,
            session,
            ToDispatcher::Register {
                description: Box::new(description),
                subnets: Vec::new(),
                subnets6: Vec::new(),
                data_path: None,
            },
        );
    }

    pub fn report(&mut self, node: &str, sequence: u64, task: &str, state: TaskState) {
        let status = TaskStatus {
            state,
            ..TaskStatus::default()
        };
        let statuses = vec![(task.into(), status)];
        self.say(node, 1, ToDispatcher::Statuses { sequence, statuses });
    }

    pub fn closed(&mut self, node: &str, session: u64) {
        self.dispatcher.closed(&node.into(), session, self.now);
    }

    /// Lets time pass in the dispatcher's own steps.
    pub fn pass(&mut self, span: Nanos) {
        let end = self.now.plus(span);
        loop {
            self.plan();
            match self.wake_at.filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => break,
            }
        }
        self.now = end;
        self.plan();
    }

    pub fn plan(&mut self) {
        loop {
            let plan = self
                .dispatcher
                .plan(&self.state, self.now, &mut CountingIds::default());
            self.wake_at = plan.wake_at;
            if plan.changes.is_empty() {
                return;
            }
            self.write(Author::Dispatcher, plan.changes);
        }
    }

    pub fn assign(&mut self, id: &str, node: &str) {
        let mut task = testing::task(id, "web", 1);
        task.node_id = Some(node.into());
        self.write(
            Author::Orchestrator,
            vec![Change::Create(Object::from(task))],
        );
    }

    pub fn desire(&mut self, id: &str, state: TaskState) {
        let mut task = Task::clone(self.state.tasks().get(id).unwrap());
        task.desired_state = state;
        self.write(
            Author::Orchestrator,
            vec![Change::Update(Object::from(task))],
        );
    }

    /// What is sent, one line a message.
    pub fn sent(&mut self) -> Vec<String> {
        let messages = self.dispatcher.messages(&self.state);
        messages
            .iter()
            .map(|(node, session, message)| format!("{node}/{session} {}", show(message)))
            .collect()
    }

    pub fn health(&self, node: &str) -> (NodeState, &str) {
        let status = &self.state.nodes().get(node).unwrap().status;
        (status.state.clone(), &status.message)
    }

    pub fn task(&self, id: &str) -> TaskState {
        self.state.tasks().get(id).unwrap().status.state
    }
}

fn show(message: &ToAgent) -> String {
    match message {
        ToAgent::Session { managers, .. } => format!("session {}", managers.len()),
        ToAgent::Assignments(Assignments {
            complete,
            tasks,
            removed,
            ..
        }) => {
            let tasks: Vec<String> = tasks
                .iter()
                .map(|task| format!("{}:{}", task.id, task.desired_state))
                .collect();
            let how = if *complete { "all" } else { "some" };
            format!("{how} +[{}] -[{}]", tasks.join(" "), removed.join(" "))
        }
        ToAgent::Ack(sequence) => format!("ack {sequence}"),
        ToAgent::NotLeader(_) => "not leader".to_owned(),
        ToAgent::Expired => "expired".to_owned(),
        ToAgent::Refused(why) => why.clone(),
        ToAgent::Answer { number, .. } => format!("answer {number}"),
        ToAgent::Followed(revision) => format!("followed {revision}"),
    }
}

#[test]
fn a_node_registers_and_hears_everything_then_changes() {
    let mut bench = Bench::new(&["n1", "n2"]);
    bench.assign("t1", "n1");
    bench.assign("t2", "n2");
    bench.register("n1", 1);
    assert_eq!(bench.health("n1"), (NodeState::Ready, ""));
    assert_eq!(
        bench.state.nodes().get("n1").unwrap().status.addr,
        "10.0.0.1"
    );
    assert_eq!(
        bench.sent(),
        ["n1/1 session 0", "n1/1 all +[t1:running] -[]"]
    );
    assert!(bench.sent().is_empty());

    bench.assign("t3", "n1");
    bench.desire("t1", TaskState::Shutdown);
    assert_eq!(bench.sent(), ["n1/1 some +[t1:shutdown t3:running] -[]"]);
    // Its own reports are no news to a node.
    bench.report("n1", 1, "t3", TaskState::Running);
    assert_eq!(bench.sent(), ["n1/1 ack 1"]);
    let version = bench.state.tasks().meta("t1").unwrap().version;
    bench.write(
        Author::Reaper,
        vec![Change::Remove(
            crate::object::Kind::Task,
            "t1".into(),
            version,
        )],
    );
    assert_eq!(bench.sent(), ["n1/1 some +[] -[t1]"]);
}

#[test]
fn what_is_not_a_nodes_business_is_ignored_but_acknowledged() {
    let mut bench = Bench::new(&["n1", "n2"]);
    bench.assign("t1", "n1");
    bench.register("n1", 1);
    bench.register("n2", 1);
    bench.sent();
    bench.report("n1", 5, "t1", TaskState::Running);
    for (sequence, task, state) in [
        (6, "t1", TaskState::Starting),
        (7, "unknown", TaskState::Failed),
        (8, "t1", TaskState::Orphaned),
    ] {
        bench.report("n1", sequence, task, state);
        assert_eq!(bench.task("t1"), TaskState::Running);
    }
    bench.report("n2", 1, "t1", TaskState::Failed);
    assert_eq!(bench.task("t1"), TaskState::Running);
    assert_eq!(bench.sent(), ["n1/1 ack 8", "n2/1 ack 1"]);
    // A report of a session that is over changes nothing and is not acknowledged.
    bench.register("n1", 2);
    bench.sent();
    bench.report("n1", 9, "t1", TaskState::Failed);
    assert_eq!(bench.task("t1"), TaskState::Running);
    assert_eq!(bench.sent(), ["n1/1 expired"]);
}

#[test]
fn a_deleted_node_leaves_orphans_and_no_session() {
    let mut bench = Bench::new(&["n1"]);
    bench.assign("t1", "n1");
    bench.register("n1", 1);
    bench.sent();
    let version = bench.state.nodes().meta("n1").unwrap().version;
    bench.write(
        Author::Control,
        vec![Change::Remove(
            crate::object::Kind::Node,
            "n1".into(),
            version,
        )],
    );
    bench.plan();
    assert_eq!(bench.task("t1"), TaskState::Orphaned);
    let message = &bench.state.tasks().get("t1").unwrap().status.message;
    assert_eq!(message, "Task belonged to a node that has been deleted");
    assert_eq!(bench.sent(), ["n1/1 expired"]);
    bench.register("n1", 2);
    assert_eq!(bench.sent(), ["n1/2 expired"]);
}

#[test]
fn every_node_hears_of_new_managers() {
    let mut bench = Bench::new(&["n1", "n2"]);
    bench.register("n1", 1);
    bench.register("n2", 1);
    bench.sent();
    let member = crate::object::ManagerMember {
        raft_id: 7,
        addr: "10.0.0.2:2377".into(),
    };
    let node = bench.state.nodes().get("n2").unwrap().clone();
    bench.write(
        Author::Ca,
        vec![update_node(&node, |node| node.manager = Some(member))],
    );
    assert_eq!(bench.sent(), ["n1/1 session 1", "n2/1 session 1"]);
}

#[test]
fn a_report_is_cut_to_a_bearable_length() {
    let mut bench = Bench::new(&["n1"]);
    bench.assign("t1", "n1");
    bench.register("n1", 1);
    let err = "ä".repeat(MAX_TEXT);
    let status = TaskStatus {
        state: TaskState::Failed,
        err,
        ..TaskStatus::default()
    };
    let statuses = vec![("t1".into(), status)];
    bench.say(
        "n1",
        1,
        ToDispatcher::Statuses {
            sequence: 1,
            statuses,
        },
    );
    assert_eq!(
        bench.state.tasks().get("t1").unwrap().status.err.len(),
        MAX_TEXT
    );
}
