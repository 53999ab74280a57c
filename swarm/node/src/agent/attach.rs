//! Containers that are no task's on networks of the swarm: whoever starts or connects one gets its
//! place there from the leader, over the agent's session, and hears when the network is here. Never
//! touches a container.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_api::Error;
use skep_core::Id;
use skep_core::assignment::ToDispatcher;
use skep_core::attachment::Wish;
use skep_core::wire::{PeerInfo, ServiceInfo};
use skep_core::worker::{Input, Standing};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// How long a container may wait for its place, as in the original.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How long a place may take to be given back before nobody waits for that any more.
const SETTLING: Duration = Duration::from_secs(5);

/// The original's words after the deadline.
const LATE: &str = "attaching to network failed, make sure your network options are correct and \
                    check manager logs: context deadline exceeded";

/// What is asked of the agent's loop.
pub(super) enum Request {
    /// A worker's input: somebody works on a container, or does no more.
    Input(Input),
    /// A container is to be on a network.
    Attach {
        wish: Box<Wish>,
        answer: oneshot::Sender<Result<Id, Error>>,
    },
    /// Nobody waits for that any more.
    Detach { container: String, network: String },
    /// Who has a part in a network?
    Peers {
        network: Id,
        answer: oneshot::Sender<Vec<PeerInfo>>,
    },
    /// Which services are on it?
    Services {
        network: Id,
        answer: oneshot::Sender<BTreeMap<String, ServiceInfo>>,
    },
}

/// The places of this node's containers. Clones share them.
#[derive(Clone, Debug)]
pub struct Attachments {
    /// Filled by the clients' connections, of which there are only so many.
    requests: mpsc::UnboundedSender<Request>,
    standings: watch::Receiver<Vec<Standing>>,
}

/// While this lives, places of a container stay although it does not run.
#[derive(Debug)]
pub struct Hold {
    requests: mpsc::UnboundedSender<Request>,
    container: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let container = std::mem::take(&mut self.container);
        // An agent that is gone holds nothing.
        let _ = self
            .requests
            .send(Request::Input(Input::LetGo { container }));
    }
}

impl Attachments {
    pub(super) fn new(
        standings: watch::Receiver<Vec<Standing>>,
    ) -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (requests, asked) = mpsc::unbounded_channel();
        let attachments = Self {
            requests,
            standings,
        };
        (attachments, asked)
    }

    /// Whether any container of this node has a place.
    pub fn is_empty(&self) -> bool {
        self.standings.borrow().is_empty()
    }

    /// Whether a container has a place on a network.
    pub fn has(&self, container: &str, network: &str) -> bool {
        let all = self.standings.borrow();
        let it = |it: &Standing| it.container == container && *it.network == *network;
        all.iter().any(it)
    }

    /// Nodes that have a part in a network, as far as this one knows: if it has one itself.
    pub async fn peers(&self, network: &str) -> Vec<PeerInfo> {
        let (answer, peers) = oneshot::channel();
        let network = network.into();
        let _ = self.requests.send(Request::Peers { network, answer });
        // An agent that is gone knows nobody.
        peers.await.unwrap_or_default()
    }

    /// Services on a network by their names, as far as this node knows: if it has a part in it.
    pub async fn services(&self, network: &str) -> BTreeMap<String, ServiceInfo> {
        let (answer, services) = oneshot::channel();
        let network = network.into();
        let _ = self.requests.send(Request::Services { network, answer });
        services.await.unwrap_or_default()
    }

    /// Begins work on a container: what becomes of it meanwhile does not cost it its places.
    pub fn hold(&self, container: &str) -> Hold {
        let input = Input::Hold {
            container: container.to_owned(),
        };
        let _ = self.requests.send(Request::Input(input));
        Hold {
            requests: self.requests.clone(),
            container: container.to_owned(),
        }
    }

    /// A place on a network, once the container can be connected. Hold it meanwhile. A place that
    /// it has already is given again.
    ///
    /// # Errors
    /// The original's refusals; its words when there is none in time.
    pub async fn attach(&self, wish: Wish) -> Result<Standing, Error> {
        self.attach_within(DEADLINE, wish).await
    }

    async fn attach_within(&self, deadline: Duration, wish: Wish) -> Result<Standing, Error> {
        if let Ok(outcome) = timeout(deadline, self.attached(&wish)).await {
            return outcome;
        }
        let _ = self.requests.send(Request::Detach {
            container: wish.container.id,
            network: wish.network,
        });
        Err(Error::system(LATE))
    }

    async fn attached(&self, wish: &Wish) -> Result<Standing, Error> {
        let refused = |why: &str| {
            let network = &wish.network;
            Error::system(format!("Could not attach to network {network}: {why}"))
        };
        let (answer, outcome) = oneshot::channel();
        let request = Request::Attach {
            wish: Box::new(wish.clone()),
            answer,
        };
        self.requests.send(request).map_err(|_| ended())?;
        let outcome = outcome.await.map_err(|_| ended())?;
        let task = outcome.map_err(|error| refused(&error.message))?;
        let mut standings = self.standings.clone();
        let mut was_there = false;
        loop {
            let found = {
                let all = standings.borrow_and_update();
                all.iter().find(|it| it.task == task).cloned()
            };
            match found {
                Some(standing) if standing.ready => return Ok(standing),
                Some(standing) => {
                    was_there = true;
                    if let Some(error) = standing.error {
                        return Err(refused(&error));
                    }
                }
                None if was_there => return Err(refused("the container has lost its place")),
                None => {}
            }
            standings.changed().await.map_err(|_| ended())?;
        }
    }

    /// Gives a container's place on a network back, and has it taken off the network.
    ///
    /// # Errors
    /// When that has not happened in time.
    pub async fn detach(&self, container: &str, network: &str) -> Result<(), Error> {
        let _ = self.requests.send(Request::Detach {
            container: container.to_owned(),
            network: network.to_owned(),
        });
        let mut standings = self.standings.clone();
        let left = |it: &Standing| it.container == container && *it.network == *network;
        let none_left = standings.wait_for(|all| !all.iter().any(left));
        match timeout(DEADLINE, none_left).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(Error::unavailable(
                "no manager has taken the container's place on the network back in time",
            )),
        }
    }

    /// Waits until a container that does not run, or is not on this network any more, has given its
    /// places back; not for ever.
    pub async fn settled(&self, container: &str, network: Option<&str>) {
        let input = Input::Happened {
            container: container.to_owned(),
        };
        let _ = self.requests.send(Request::Input(input));
        let mut standings = self.standings.clone();
        let left = |it: &Standing| {
            it.container == container && network.is_none_or(|network| *it.network == *network)
        };
        let none_left = standings.wait_for(|all| !all.iter().any(left));
        // The worker goes on with it by itself.
        let _ = timeout(SETTLING, none_left).await;
    }

    /// Gives back every place, as the node leaves its swarm: the containers go on without them. Not
    /// for ever.
    pub async fn give_back(&self) {
        let mut standings = self.standings.clone();
        for standing in standings.borrow_and_update().iter() {
            let _ = self.requests.send(Request::Detach {
                container: standing.container.clone(),
                network: standing.network.to_string(),
            });
        }
        let none_left = standings.wait_for(Vec::is_empty);
        // Nobody may be there to take them; they go with the node then.
        let _ = timeout(SETTLING, none_left).await;
    }
}

fn ended() -> Error {
    Error::unavailable("this node's part in the swarm has just ended or changed; try again")
}

/// What the loop knows of requests that are under way.
#[derive(Default)]
pub(super) struct Asked {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    wish: Box<Wish>,
    answer: oneshot::Sender<Result<Id, Error>>,
}

impl Asked {
    /// A new request, and what the leader is to be told.
    pub(super) fn ask(
        &mut self,
        wish: Box<Wish>,
        answer: oneshot::Sender<Result<Id, Error>>,
    ) -> ToDispatcher {
        self.waiting.retain(|_, it| !it.answer.is_closed());
        self.last += 1;
        let number = self.last;
        let message = ToDispatcher::Attach {
            number,
            wish: wish.clone(),
        };
        self.waiting.insert(number, Waiting { wish, answer });
        message
    }

    /// The leader has answered.
    pub(super) fn answered(&mut self, number: u64, outcome: Result<Id, Error>) {
        if let Some(waiting) = self.waiting.remove(&number) {
            // Whoever asked may not wait any more.
            let _ = waiting.answer.send(outcome);
        }
    }

    /// What a new session is to be told: nobody knows what became of it in the one before, and
    /// asked again for a place that it has, the leader gives the same one.
    pub(super) fn again(&mut self) -> Vec<ToDispatcher> {
        self.waiting.retain(|_, it| !it.answer.is_closed());
        let all = self.waiting.iter();
        all.map(|(number, waiting)| ToDispatcher::Attach {
            number: *number,
            wish: waiting.wish.clone(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_core::attachment::Attached;

    fn wish() -> Wish {
        Wish {
            network: "front".into(),
            container: Attached {
                id: "c".into(),
                names: Vec::new(),
                ipv6: None,
                address: None,
                last: None,
            },
        }
    }

    fn standing(ready: bool, error: Option<&str>) -> Standing {
        Standing {
            ipv6: None,
            task: "t".into(),
            container: "c".into(),
            network: "net".into(),
            engines: "skep-net".into(),
            name: "front".into(),
            address: "10.0.1.5/24".parse().unwrap(),
            ready,
            error: error.map(str::to_owned),
        }
    }

    /// Answers the first request for a place, and then shows these places.
    async fn attach(
        answer: Result<Id, Error>,
        shown: Vec<Vec<Standing>>,
    ) -> Result<Standing, String> {
        let deadline = match answer.is_ok() && shown.is_empty() {
            true => Duration::from_millis(20),
            false => DEADLINE,
        };
        let (show, standings) = watch::channel(Vec::new());
        let (attachments, mut asked) = Attachments::new(standings);
        let serve = async {
            let Some(Request::Attach { answer: to, .. }) = asked.recv().await else {
                panic!("no request")
            };
            to.send(answer).unwrap();
            for all in shown {
                show.send_replace(all);
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = attachments.attach_within(deadline, wish()) => outcome.map_err(|error| error.message),
            () = serve => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_place_is_had_once_the_network_is_here() {
        let shown = vec![vec![standing(false, None)], vec![standing(true, None)]];
        assert_eq!(
            attach(Ok("t".into()), shown).await,
            Ok(standing(true, None))
        );
        let shown = vec![vec![standing(false, Some("no device"))]];
        let text = "Could not attach to network front: no device";
        assert_eq!(attach(Ok("t".into()), shown).await, Err(text.to_owned()));
    }

    #[tokio::test]
    async fn a_refusal_and_a_silence_are_worded_as_the_originals() {
        let refusal = Error::rpc(skep_api::Code::NotFound, "network front not found");
        let text = "Could not attach to network front: rpc error: code = NotFound desc = network \
                    front not found";
        assert_eq!(attach(Err(refusal), Vec::new()).await, Err(text.to_owned()));
        let late = attach(Ok("t".into()), Vec::new()).await;
        assert_eq!(late, Err(LATE.to_owned()));
    }

    #[test]
    fn what_has_no_answer_is_asked_again_while_somebody_waits() {
        let mut asked = Asked::default();
        let (first, waits) = oneshot::channel();
        let (second, gone) = oneshot::channel();
        asked.ask(Box::new(wish()), first);
        asked.ask(Box::new(wish()), second);
        drop(gone);
        let again = asked.again();
        assert!(matches!(
            again.as_slice(),
            [ToDispatcher::Attach { number: 1, .. }]
        ));
        asked.answered(1, Ok("t".into()));
        assert_eq!(waits.blocking_recv().unwrap(), Ok("t".into()));
        assert!(asked.again().is_empty());
    }
}
