//! What nodes are told of networks: those that they have a part in, and where the addresses of
//! these are on other nodes. A change reaches every node that needs it, and no other, in one
//! message; only who is new to a network is told all of it. Never chooses an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::Session;
use super::directory::{Directories, Page};
use crate::assignment::{Assignments, Branch, Move, Overlay, OverlayKey};
use crate::bootstrap::DATA_PATH_PORT;
use crate::cidr::Cidr;
use crate::id::Id;
use crate::network::LocalDriver;
use crate::object::{NetworkObject, Node, Object, Place, Task};
use crate::store::{Event, State};
use crate::wire;

/// Addresses by network, with the node that each is on now.
pub(super) type Moved = BTreeMap<Id, BTreeMap<Ipv4Addr, Option<Id>>>;

/// What is to be told of networks after a commit.
pub(super) struct News {
    moved: Moved,
    /// Networks that are to be told anew.
    rekeyed: BTreeSet<Id>,
    /// What changed about who is on them.
    pages: BTreeMap<Id, Page>,
    /// All of it, for those who are new to a network.
    whole: BTreeMap<Id, Page>,
}

/// What moved since it was last told.
#[derive(Default)]
pub(super) struct Moves {
    moved: Moved,
    directories: Directories,
    /// Nodes that were told of a network. Some may have no session any more.
    listeners: BTreeMap<Id, BTreeSet<Id>>,
    /// Networks with other keys than their listeners were told of.
    rekeyed: BTreeSet<Id>,
}

impl Moves {
    /// The start of a leadership.
    pub(super) fn start(&mut self, view: &State) {
        self.directories.start(view);
    }

    /// Takes in what happened. Returns nodes whose own part in networks is another one now.
    pub(super) fn observe(&mut self, event: &Event, view: &State) -> BTreeSet<Id> {
        let mut touched = BTreeSet::new();
        let listeners = &self.listeners;
        let listens = |network: &Id| listeners.contains_key(network);
        self.directories.observe(event, view, listens);
        match (&event.before, &event.after) {
            (Some(Object::Task(before)), Some(Object::Task(after)))
                if places(before).eq(places(after)) => {}
            (Some(Object::Node(before)), Some(Object::Node(after)))
                if before.gateways == after.gateways
                    && before.data_address() == after.data_address() => {}
            (Some(Object::Network(before)), Some(Object::Network(after))) => {
                if before.keys != after.keys {
                    self.rekeyed.insert(after.id.clone());
                }
            }
            (before, after) => {
                self.went(before.as_ref(), &mut touched);
                self.came(after.as_ref(), view, &mut touched);
            }
        }
        touched
    }

    fn went(&mut self, before: Option<&Object>, touched: &mut BTreeSet<Id>) {
        match before {
            Some(Object::Task(task)) => {
                for (network, address, _) in places(task) {
                    self.note(network, address, None);
                }
            }
            Some(Object::Node(node)) => {
                touched.insert(node.id.clone());
                for (network, address) in &node.gateways {
                    self.note(network, *address, None);
                }
            }
            Some(Object::Network(network)) => drop(self.listeners.remove(&network.id)),
            _ => {}
        }
    }

    fn came(&mut self, after: Option<&Object>, view: &State, touched: &mut BTreeSet<Id>) {
        match after {
            Some(Object::Task(task)) => {
                for (network, address, node) in places(task) {
                    self.note(network, address, Some(node));
                }
            }
            Some(Object::Node(node)) => {
                touched.insert(node.id.clone());
                for (network, address) in &node.gateways {
                    self.note(network, *address, Some(&node.id));
                }
                // The node may be somewhere else now, and all that is on it.
                for task in view.tasks_of_node(&node.id) {
                    for (network, address, node) in places(task) {
                        self.note(network, address, Some(node));
                    }
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, network: &Id, address: Ipv4Addr, node: Option<&Id>) {
        // Nothing is anywhere on networks that engines give addresses on.
        if address.is_unspecified() {
            return;
        }
        // Whoever is told of it later is told all of it.
        if self.listeners.contains_key(network) {
            let moved = self.moved.entry(network.clone()).or_default();
            moved.insert(address, node.cloned());
        }
    }

    /// What moved and changed; it counts as told.
    pub(super) fn take(&mut self, state: &State) -> News {
        News {
            moved: std::mem::take(&mut self.moved),
            rekeyed: std::mem::take(&mut self.rekeyed),
            pages: self.directories.take(state),
            whole: BTreeMap::new(),
        }
    }

    /// Nodes that must be told.
    pub(super) fn listeners(&self, news: &News) -> BTreeSet<Id> {
        let networks = news.moved.keys().chain(&news.rekeyed);
        let networks = networks.chain(news.pages.keys());
        let of = networks.filter_map(|network| self.listeners.get(network));
        of.flatten().cloned().collect()
    }

    /// Adds to a message what its node has to know.
    pub(super) fn tell(
        &mut self,
        session: &mut Session,
        node: &Id,
        news: &mut News,
        state: &State,
        out: &mut Assignments,
    ) {
        let Some(node) = state.nodes().get(node) else {
            return;
        };
        let told = std::mem::take(&mut session.networks);
        let data_path = node.data_address();
        let moved = std::mem::replace(&mut session.data_path, data_path) != data_path;
        for (network, gateway) in &node.gateways {
            let same = told.get(network) == Some(gateway) && !moved;
            let known = same && !news.rekeyed.contains(network);
            if known {
                let moved = news.moved.get(network).into_iter().flatten();
                out.moves.extend(moved.map(|(address, to)| {
                    let whose = whose(state, to.as_ref(), network, *address);
                    Move {
                        network: network.clone(),
                        address: *address,
                        to: remote(state, to.as_ref(), node),
                        gateway: whose.is_some(),
                        peer: whose.map(wire::peer),
                    }
                }));
                let page = news.pages.get(network);
                let changed = page.map(|page| page.seen_from(&node.id, network, false));
                out.directories.extend(changed);
            } else if let Some(overlay) = overlay(state, node, network, *gateway) {
                out.networks.push(overlay);
                let page = news.whole.entry(network.clone());
                let page = page.or_insert_with(|| self.directories.whole(state, network));
                out.directories
                    .push(page.seen_from(&node.id, network, true));
                let listeners = self.listeners.entry(network.clone()).or_default();
                listeners.insert(node.id.clone());
            } else {
                continue;
            }
            session.networks.insert(network.clone(), *gateway);
        }
        for network in told.into_keys() {
            if session.networks.contains_key(&network) {
                continue;
            }
            if let Some(listeners) = self.listeners.get_mut(&network) {
                listeners.remove(&node.id);
                if listeners.is_empty() {
                    self.listeners.remove(&network);
                }
            }
            out.networks_removed.push(network);
        }
    }
}

/// The addresses of a task that is, or is about to be, somewhere.
fn places(task: &Task) -> impl Iterator<Item = (&Id, Ipv4Addr, &Id)> {
    let node = task.node_id.as_ref();
    let node = node.filter(|_| !task.status.state.is_terminal());
    let attachments = node.into_iter().flat_map(|node| {
        let all = task.attachments.iter();
        all.map(move |attachment| (attachment, node))
    });
    attachments.filter_map(|(attachment, node)| match &attachment.place {
        Place::Address(cidr) => Some((&attachment.network, cidr.address, node)),
        Place::Engine(_) => None,
    })
}

/// Where a node is, seen from another; `None` for itself, for those that share its network
/// namespace, and for one that nobody knows.
fn remote(state: &State, node: Option<&Id>, seen_from: &Node) -> Option<IpAddr> {
    let node = state.nodes().get(node?)?;
    let address = node.data_address();
    // With the address that others send to, they share everything that is reached there.
    address.filter(|_| node.id != seen_from.id && address != seen_from.data_address())
}

/// The node that an address on a network is on, if it is that node's own.
fn whose<'a>(
    state: &'a State,
    node: Option<&Id>,
    network: &Id,
    address: Ipv4Addr,
) -> Option<&'a Node> {
    let node = state.nodes().get(node?)?;
    (node.gateways.get(network) == Some(&address)).then_some(node)
}

/// All of a network, for a node that has a part in it.
fn overlay(state: &State, node: &Node, network: &Id, gateway: Ipv4Addr) -> Option<Overlay> {
    let of = state.networks().get(network)?;
    if let Some(driver) = of.local_driver() {
        return Some(local(of, driver));
    }
    let mut remotes = BTreeMap::new();
    let mut nodes = BTreeSet::from([&node.id]);
    let mut gateways = BTreeSet::new();
    let mut peers = BTreeMap::new();
    for task in state.tasks_of_network(network) {
        let here = places(task).filter(|(id, ..)| *id == network);
        for (_, address, on) in here {
            nodes.insert(on);
            remotes.extend(remote(state, Some(on), node).map(|at| (address, at)));
        }
    }
    // Where ports are published every node has a part, with tasks or without.
    let everywhere = state.nodes().iter().filter(|_| of.spec.ingress);
    nodes.extend(everywhere.map(|other| &other.id));
    for other in nodes {
        let known = state.nodes().get(other);
        let theirs = known.and_then(|it| it.gateways.get(network)).copied();
        peers.extend(theirs.zip(known.map(|it| wire::peer(it))));
        let at = remote(state, Some(other), node);
        let theirs = theirs.zip(at);
        gateways.extend(theirs.map(|(address, _)| address));
        remotes.extend(theirs);
    }
    let port = state
        .cluster()
        .map_or(DATA_PATH_PORT, |it| it.data_path_port);
    let keys = of.keys.iter().map(|key| OverlayKey {
        number: key.number,
        secret: key.secret.clone(),
    });
    let keys: Vec<OverlayKey> = keys.collect();
    if of.is_encrypted() && keys.is_empty() {
        return None;
    }
    let (own, branches): (Vec<Branch>, Vec<Branch>) =
        subnets(of).partition(|it| it.subnet.contains(gateway));
    let own = own.first()?;
    Some(Overlay {
        id: network.clone(),
        name: of.spec.name.clone(),
        vni: of.vni()?,
        port: u16::try_from(port).ok()?,
        mtu: of.mtu().unwrap_or_else(|| of.usual_mtu()),
        mtu_follows: of.mtu().is_none(),
        subnet: own.subnet,
        gateway,
        ipv6: own.ipv6,
        internal: of.spec.internal,
        ingress: of.spec.ingress,
        local: node.data_address()?,
        remotes,
        keys,
        // An object with string keys only can always be encoded.
        shown: serde_json::to_string(&wire::network(of)).unwrap_or_default(),
        gateways,
        peers,
        driver: None,
        number: own.number,
        branches,
    })
}

/// A network's IPv4 subnets, as nodes have them in which they have no address.
fn subnets(of: &NetworkObject) -> impl Iterator<Item = Branch> {
    let sides = of.sides();
    of.pools().enumerate().map(move |(number, pool)| Branch {
        number,
        subnet: pool.subnet,
        gateway: pool.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED),
        ipv6: sides.get(number).copied(),
    })
}

/// All of a network that the node's engine makes for itself.
fn local(of: &NetworkObject, driver: LocalDriver) -> Overlay {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    Overlay {
        id: of.id.clone(),
        name: of.spec.name.clone(),
        ipv6: None,
        vni: 0,
        port: 0,
        mtu: 0,
        mtu_follows: false,
        subnet: Cidr::NONE,
        gateway: nowhere,
        internal: of.spec.internal,
        ingress: false,
        local: nowhere.into(),
        remotes: BTreeMap::new(),
        gateways: BTreeSet::new(),
        peers: BTreeMap::new(),
        keys: Vec::new(),
        shown: serde_json::to_string(&wire::network(of)).unwrap_or_default(),
        driver: Some(driver),
        number: 0,
        branches: Vec::new(),
    }
}

#[cfg(test)]
pub(super) mod tests;
