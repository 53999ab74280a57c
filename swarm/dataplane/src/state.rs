//! What the changes add up to, and what each of them touches. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Change, Container, Endpoint, Network, Service};

/// All that a host knows of its networks.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// By id.
    pub networks: BTreeMap<String, Known>,
    /// By id.
    pub containers: BTreeMap<String, Container>,
}

/// A network and who is on it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The network; `None` while only what is on it has been told.
    pub network: Option<Network>,
    /// By id.
    pub services: BTreeMap<String, Service>,
    /// By id.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Ids of a service's endpoints, by service.
    pub members: BTreeMap<String, BTreeSet<String>>,
}

/// What is no longer as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Everything may be: look at all of it.
    pub all: bool,
    /// Networks that came, went, or are another way themselves.
    pub networks: BTreeSet<String>,
    /// Services that came, went, or have other addresses, names, ports or endpoints: by network.
    pub services: BTreeSet<(String, String)>,
    /// Endpoints that came, went, or are another way: by network.
    pub endpoints: BTreeSet<(String, String)>,
    /// Containers that came, went, or run in another namespace.
    pub containers: BTreeSet<String>,
}

impl Touched {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Known {
    /// The endpoints of a service.
    pub fn endpoints_of(&self, service: &str) -> impl Iterator<Item = &Endpoint> {
        let ids = self.members.get(service).into_iter().flatten();
        ids.filter_map(|id| self.endpoints.get(id))
    }

    fn enter(&mut self, endpoint: Endpoint) {
        if let Some(service) = &endpoint.service {
            let members = self.members.entry(service.clone()).or_default();
            members.insert(endpoint.id.clone());
        }
        self.endpoints.insert(endpoint.id.clone(), endpoint);
    }

    fn leave(&mut self, id: &str) -> Option<Endpoint> {
        let gone = self.endpoints.remove(id)?;
        if let Some(service) = &gone.service
            && let Some(members) = self.members.get_mut(service)
        {
            members.remove(id);
            if members.is_empty() {
                self.members.remove(service);
            }
        }
        Some(gone)
    }
}

impl State {
    /// Takes a change in and notes what it touches. What is known already touches nothing.
    pub fn apply(&mut self, change: Change, touched: &mut Touched) {
        match change {
            Change::Network(network) => {
                let known = self.networks.entry(network.id.clone()).or_default();
                if known.network.as_ref() != Some(&network) {
                    touched.networks.insert(network.id.clone());
                    known.network = Some(network);
                }
            }
            Change::NetworkGone(id) => {
                if let Some(known) = self.networks.remove(&id) {
                    let services = known.services.into_keys();
                    touched.services.extend(services.map(|it| (id.clone(), it)));
                    let endpoints = known.endpoints.into_keys();
                    let endpoints = endpoints.map(|it| (id.clone(), it));
                    touched.endpoints.extend(endpoints);
                    touched.networks.insert(id);
                }
            }
            Change::Service(network, service) => {
                let known = self.networks.entry(network.clone()).or_default();
                if known.services.get(&service.id) != Some(&service) {
                    touched.services.insert((network, service.id.clone()));
                    known.services.insert(service.id.clone(), service);
                }
            }
            Change::ServiceGone(network, id) => {
                let known = self.networks.get_mut(&network);
                if known.is_some_and(|known| known.services.remove(&id).is_some()) {
                    touched.services.insert((network, id));
                }
            }
            Change::Endpoint(network, endpoint) => self.endpoint(network, endpoint, touched),
            Change::EndpointGone(network, id) => {
                let known = self.networks.get_mut(&network);
                if let Some(gone) = known.and_then(|known| known.leave(&id)) {
                    let service = gone.service.map(|it| (network.clone(), it));
                    touched.services.extend(service);
                    touched.endpoints.insert((network, id));
                }
            }
            Change::Container(container) => {
                if self.containers.get(&container.id) != Some(&container) {
                    touched.containers.insert(container.id.clone());
                    self.containers.insert(container.id.clone(), container);
                }
            }
            Change::ContainerGone(id) => {
                if self.containers.remove(&id).is_some() {
                    touched.containers.insert(id);
                }
            }
        }
    }

    fn endpoint(&mut self, network: String, endpoint: Endpoint, touched: &mut Touched) {
        let known = self.networks.entry(network.clone()).or_default();
        if known.endpoints.get(&endpoint.id) == Some(&endpoint) {
            return;
        }
        let before = known.leave(&endpoint.id).and_then(|it| it.service);
        for service in before.into_iter().chain(endpoint.service.clone()) {
            touched.services.insert((network.clone(), service));
        }
        touched.endpoints.insert((network, endpoint.id.clone()));
        known.enter(endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str, service: Option<&str>) -> Change {
        let endpoint = Endpoint {
            id: id.to_owned(),
            service: service.map(str::to_owned),
            ..Endpoint::default()
        };
        Change::Endpoint("n".to_owned(), endpoint)
    }

    fn apply(state: &mut State, change: Change) -> Touched {
        let mut touched = Touched::default();
        state.apply(change, &mut touched);
        touched
    }

    #[test]
    fn only_news_touch_something() {
        let mut state = State::default();
        let first = apply(&mut state, endpoint("a", Some("web")));
        assert!(first.services.contains(&("n".to_owned(), "web".to_owned())));
        assert!(apply(&mut state, endpoint("a", Some("web"))).is_empty());
        let gone = Change::EndpointGone("n".to_owned(), "a".to_owned());
        assert_eq!(apply(&mut state, gone.clone()), first);
        assert!(apply(&mut state, gone).is_empty());
        assert!(state.networks["n"].members.is_empty());
    }

    #[test]
    fn one_that_changes_its_service_touches_both() {
        let mut state = State::default();
        apply(&mut state, endpoint("a", Some("web")));
        let touched = apply(&mut state, endpoint("a", Some("db")));
        assert_eq!(touched.services.len(), 2);
        let known = &state.networks["n"];
        assert_eq!(known.endpoints_of("web").count(), 0);
        assert_eq!(known.endpoints_of("db").count(), 1);
    }

    #[test]
    fn a_network_takes_along_who_is_on_it() {
        let mut state = State::default();
        apply(&mut state, endpoint("a", Some("web")));
        apply(&mut state, endpoint("b", None));
        let touched = apply(&mut state, Change::NetworkGone("n".to_owned()));
        assert_eq!(touched.endpoints.len(), 2);
        assert!(state.networks.is_empty());
    }
}
