//! Tests of what a manager learns of raft, from changes of leadership that are played to it.

use skep_api::cluster::InitRequest;
use skep_core::Timestamp;
use skep_core::bootstrap::{self, Made};
use skep_core::object::{JoinTokens, ManagerMember, RootCa};
use skep_core::store::{Author, Change, Tx};

use super::*;
use crate::raft::{Member, MemberStatus};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three managers.
fn state() -> State {
    let made = Made {
        cluster: "swarm".into(),
        node: "a".into(),
        root_ca: RootCa::default(),
        join_tokens: JoinTokens {
            worker: "w".into(),
            manager: "m".into(),
        },
        member: ManagerMember {
            raft_id: 1,
            addr: String::new(),
        },
    };
    let (cluster, like) = bootstrap::objects(&InitRequest::default(), made);
    let row = |name: &&str| StoredNode {
        id: (*name).into(),
        ..like.clone()
    };
    let rows = NAMES.iter().map(|name| Change::Create(row(name).into()));
    let tx = Tx {
        author: Author::Control,
        at: Timestamp::from_nanos(0),
        changes: [Change::Create(cluster.into())]
            .into_iter()
            .chain(rows)
            .collect(),
    };
    let mut state = State::default();
    state.apply(&tx).unwrap();
    state
}

/// How one sees the three: `+` answers, `?` may still answer, `-` does not.
fn seen(leader: Option<&str>, i_lead: bool, members: &str) -> Leadership {
    let member = |name: &str| Member {
        raft_id: 0,
        node_id: name.into(),
        addr: String::new(),
    };
    let status = |(name, sign): (&&str, char)| MemberStatus {
        member: member(name),
        voter: true,
        reachable: i_lead.then_some(sign != '-'),
        heard: i_lead && sign == '+',
    };
    Leadership {
        leader: leader.map(member),
        term: 1,
        i_lead,
        members: NAMES.iter().zip(members.chars()).map(status).collect(),
    }
}

/// Played to a source, with what keeps its channels open.
struct Played {
    source: Source,
    leadership: watch::Sender<Leadership>,
    _steps: broadcast::Sender<AppliedRef>,
}

impl Played {
    fn new(first: Leadership) -> Self {
        let (sender, steps) = broadcast::channel(4);
        let leader = first.leader.clone().map(|leader| leader.node_id);
        let (leadership, follow) = watch::channel(first);
        let source = Source {
            steps,
            leadership: follow,
            from: 0,
            state: state(),
            leader,
            reach: BTreeMap::new(),
            ask: asking(),
        };
        Self {
            source,
            leadership,
            _steps: sender,
        }
    }

    async fn see(&mut self, next: Leadership) -> Vec<String> {
        self.leadership.send_replace(next);
        loop {
            match self.source.step().await {
                Some(Step::News(news)) => return worded(&news),
                Some(Step::Ask) => {}
                None => panic!("the source has ended"),
            }
        }
    }
}

fn worded(news: &[Happening]) -> Vec<String> {
    let word = |happening: &Happening| match happening {
        Happening::Written(_) => "written".to_owned(),
        Happening::Leadership { node, leads } => format!("{} leads {leads}", node.id),
        Happening::Reachability { node, reachable } => format!("{} reached {reachable}", node.id),
    };
    news.iter().map(word).collect()
}

#[tokio::test]
async fn a_leader_tells_whom_it_loses_and_finds_again() {
    let mut played = Played::new(seen(Some("a"), true, "+++"));
    let none: [&str; 0] = [];
    for (members, expected) in [
        // What was so before is no news.
        ("++-", vec![]),
        ("++-", vec![]),
        ("+++", vec!["c reached true"]),
        ("+--", vec!["b reached false", "c reached false"]),
        // No longer a member, and then a new one.
        ("+-", vec![]),
        ("+-+", vec![]),
        ("+--", vec!["c reached false"]),
    ] {
        let news = played.see(seen(Some("a"), true, members)).await;
        assert_eq!(news, expected, "{members}");
    }
    // Without a quorum it knows nothing of the others.
    assert_eq!(played.see(seen(None, false, "+++")).await, none);
}

#[tokio::test]
async fn a_new_leader_waits_for_an_answer_before_it_tells() {
    let mut played = Played::new(seen(Some("a"), false, "+++"));
    played
        .source
        .reached(&members_of(&seen(Some("a"), true, "++-")));
    let news = played.see(seen(Some("b"), true, "?+?")).await;
    assert_eq!(news, ["a leads false", "b leads true"]);
    let news = played.see(seen(Some("b"), true, "-++")).await;
    assert_eq!(news, ["a reached false", "c reached true"]);
}

#[tokio::test]
async fn only_who_does_not_lead_asks() {
    let mut played = Played::new(seen(Some("b"), false, "+++"));
    for _ in 0..2 {
        assert!(matches!(played.source.step().await, Some(Step::Ask)));
    }
    let answer = members_of(&seen(Some("b"), true, "+++"));
    assert!(played.source.reached(&answer).is_empty());
    let answer = members_of(&seen(Some("b"), true, "++-"));
    assert_eq!(worded(&played.source.reached(&answer)), ["c reached false"]);
    played.see(seen(Some("a"), true, "+++")).await;
    let waited = tokio::time::timeout(ASK * 2, played.source.step()).await;
    assert!(waited.is_err(), "a leader has nobody to ask");
}
