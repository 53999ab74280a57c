//! One namespace's table: brought to what it should be through a socket that stays open there, so
//! that nobody has to enter again. Knows what it has put there, and sees when that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tracing::debug;

use super::rules::{Chain, Key, Step, TABLE, Table, Target, Targets, Value};
use super::text::{self, chain_name, map_name};
use super::wire;
use crate::netlink::conntrack;
use crate::netlink::nftables::{GET_ELEMENT, Nftables, Refused};
use crate::netns::{self, Home, Place};

/// How often somebody else may be faster before we try later.
const TRIES: usize = 8;
/// So much of a transaction that was refused is worth logging.
const SHOWN: usize = 50;

/// What a namespace is to be.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Everything that is to be there.
    All(Targets),
    /// Only these are another way.
    Some(News),
}

/// Where addresses lead now; `None` if they are gone.
type News = BTreeMap<IpAddr, Option<Arc<Target>>>;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Space {
    place: Place,
    table: Table,
    kernel: Option<Kernel>,
    /// What is there; `None` if that is not known.
    installed: Option<Targets>,
    /// Addresses whose flows may still go to somebody who is gone.
    stale: BTreeSet<IpAddr>,
    /// There is nobody in it any more.
    gone: bool,
    /// What the kernel itself tells it from all others by, where it says so.
    cookie: Option<u64>,
}

#[derive(Debug)]
struct Kernel {
    nftables: Nftables,
    /// That of our last transaction, or of the last time that we looked.
    generation: u32,
    /// The namespace itself; another process may get the same number.
    identity: u64,
}

impl Space {
    pub(crate) fn new(place: Place, table: Table) -> Self {
        Self {
            place,
            table,
            kernel: None,
            installed: None,
            stale: BTreeSet::new(),
            gone: false,
            cookie: None,
        }
    }

    /// Whether it is to be told everything, because nobody knows what is there.
    pub(crate) fn wants_all(&self) -> bool {
        self.installed.is_none()
    }

    /// Brings it to what it should be: one transaction, then the flows that have to move on.
    pub(crate) fn follow(&mut self, work: &Work) -> Result<(), String> {
        if self.gone {
            return Ok(());
        }
        let result = self.open().and_then(|()| self.rules(work));
        let result = result.and_then(|()| self.flows());
        match result {
            Err(netns::Error::Gone) => {
                self.leave();
                Ok(())
            }
            Err(netns::Error::Failed(error)) => {
                // Whatever still waits in the socket answers another question.
                (self.kernel, self.installed) = (None, None);
                Err(format!("{:?}: {error}", self.place))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Whether everything is still there. One that nobody is in is not missed.
    pub(crate) fn intact(&mut self) -> bool {
        let Some(kernel) = &mut self.kernel else {
            return self.gone || self.installed.is_some();
        };
        if netns::identity(self.place).ok() != Some(kernel.identity) {
            self.leave();
            return true;
        }
        let now = kernel.nftables.generation();
        if now.as_ref().ok() == Some(&kernel.generation) {
            return true;
        }
        match now.and_then(|now| Ok((now, self.compare()?))) {
            Ok((now, true)) => {
                self.kernel.iter_mut().for_each(|it| it.generation = now);
                true
            }
            // Also when it cannot be told: it is made anew.
            _ => {
                (self.kernel, self.installed) = (None, None);
                false
            }
        }
    }

    /// What tells the namespace from all others, if somebody is in it.
    pub(crate) fn cookie(&self) -> Option<u64> {
        self.cookie
    }

    fn leave(&mut self) {
        self.gone = true;
        (self.kernel, self.installed, self.cookie) = (None, None, None);
    }

    fn open(&mut self) -> Result<(), netns::Error> {
        if self.kernel.is_some() {
            return Ok(());
        }
        if let Place::Of(pid) = self.place {
            // Never that of whoever gets the same number later.
            self.place = Place::Same(Home::of(pid)?);
        }
        let identity = netns::identity(self.place)?;
        let nftables = netns::inside(self.place, || {
            let mut nftables = Nftables::open()?;
            let generation = nftables.generation()?;
            Ok((nftables, generation))
        });
        let (mut nftables, generation) = nftables?;
        self.cookie = nftables.socket().namespace().ok();
        self.kernel = Some(Kernel {
            nftables,
            generation,
            identity,
        });
        Ok(())
    }

    fn rules(&mut self, work: &Work) -> Result<(), netns::Error> {
        for _ in 0..TRIES {
            let Some((steps, news)) = self.steps(work) else {
                break;
            };
            let Some(kernel) = self.kernel.as_mut().filter(|_| !steps.is_empty()) else {
                return Ok(());
            };
            let batch = wire::batch(self.table.family, kernel.generation, &steps);
            match kernel.nftables.commit(batch) {
                Ok(generation) => {
                    kernel.generation = generation;
                    self.remember(news);
                    return Ok(());
                }
                Err(Refused::Overtaken) => {
                    kernel.generation = kernel.nftables.generation()?;
                    if self.installed.is_some() && !self.compare()? {
                        self.installed = None;
                    }
                }
                Err(Refused::Error(error)) => {
                    let first = steps.get(..SHOWN).unwrap_or(&steps);
                    let first = text::script(self.table.family, first);
                    debug!(place = ?self.place, %error, "refused:\n{first}");
                    return Err(error.into());
                }
            }
        }
        Err(std::io::Error::other(Refused::Overtaken.to_string()).into())
    }

    /// The steps from what is there, and what is another way after them. `None` if nobody knows
    /// what is there, and what should be is not told either.
    fn steps(&self, work: &Work) -> Option<(Vec<Step>, News)> {
        let installed = self.installed.as_ref();
        let changes = match (work, installed) {
            (Work::Some(_), None) => return None,
            (Work::Some(some), Some(_)) => some.clone(),
            (Work::All(all), None) => {
                let news = all.iter().map(|(vip, it)| (*vip, Some(it.clone())));
                return Some((self.table.whole(all), news.collect()));
            }
            (Work::All(all), Some(installed)) => {
                let gone = installed.keys().map(|vip| (*vip, None));
                let here = all.iter().map(|(vip, it)| (*vip, Some(it.clone())));
                gone.chain(here).collect()
            }
        };
        let (mut steps, mut news) = (Vec::new(), News::new());
        for (vip, new) in changes {
            let old = installed.and_then(|it| it.get(&vip));
            if old != new.as_ref() {
                steps.extend(self.table.change(vip, old.map(|it| &**it), new.as_deref()));
                news.insert(vip, new);
            }
        }
        Some((steps, news))
    }

    /// Takes in what has happened.
    fn remember(&mut self, news: News) {
        let knew = self.installed.is_some();
        let installed = self.installed.get_or_insert_with(Targets::new);
        for (vip, new) in news {
            let serves = |it: &IpAddr| new.as_ref().is_some_and(|new| new.backends.contains(it));
            let old = installed.get(&vip);
            // Nobody knows who served at an address before we came.
            let someone_left = old.map_or(!knew, |old| !old.backends.iter().all(serves));
            if someone_left {
                self.stale.insert(vip);
            }
            match new {
                Some(new) => installed.insert(vip, new),
                None => installed.remove(&vip),
            };
        }
    }

    /// Lets flows move on whose backend does not serve any more. TCP has an end of its own.
    fn flows(&mut self) -> Result<(), netns::Error> {
        let (Some(kernel), Some(installed)) = (&mut self.kernel, &self.installed) else {
            return Ok(());
        };
        if self.stale.is_empty() {
            return Ok(());
        }
        let stale = &self.stale;
        let family = self.table.family;
        conntrack::forget(kernel.nftables.socket(), family, |flow| {
            let vip = flow.wanted.address;
            let target = installed.get(&vip);
            let serves = target.is_some_and(|it| it.backends.contains(&flow.answers.address));
            stale.contains(&vip) && !serves
        })?;
        self.stale.clear();
        Ok(())
    }

    /// Whether the kernel has what we have put there.
    fn compare(&mut self) -> std::io::Result<bool> {
        let (Some(kernel), Some(installed)) = (&mut self.kernel, &self.installed) else {
            return Ok(false);
        };
        let family = self.table.family;
        for map in self.table.maps() {
            let mut found = BTreeMap::new();
            let which = |it: &mut crate::netlink::Writer| {
                it.text(1, TABLE);
                it.text(2, map_name(*map));
            };
            let listed = kernel.nftables.list(family, GET_ELEMENT, which, |message| {
                found.extend(wire::listed(message).filter_map(|it| wire::read(family, *map, it)));
            });
            match listed {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => return Ok(false),
                listed => listed?,
            }
            let wanted = self.table.elements(installed);
            let wanted: BTreeMap<Key, Value> = wanted.filter(|it| it.0.map() == *map).collect();
            if found != wanted {
                return Ok(false);
            }
        }
        let found = kernel.nftables.chains(family, TABLE)?;
        Ok(found == uses(self.table, installed))
    }
}

/// How many rules each chain has, and how many elements lead to it.
fn uses(table: Table, installed: &Targets) -> BTreeMap<Vec<u8>, u32> {
    let nobody = u32::try_from(table.nobody().len()).unwrap_or(u32::MAX);
    let own = [(Chain::Nobody, nobody), (Chain::Spread, 3)];
    let mut uses = BTreeMap::from(own.map(|(it, uses)| (name(it), uses)));
    let hooks = table.hooks().iter().map(|(chain, _)| (name(*chain), 1));
    uses.extend(hooks);
    for (vip, target) in installed {
        if target.backends.is_empty() {
            uses.entry(name(Chain::Nobody)).and_modify(|it| *it += 1);
        } else {
            uses.insert(name(Chain::Vip(*vip)), 2);
            uses.entry(name(Chain::Spread)).and_modify(|it| *it += 1);
        }
    }
    uses
}

fn name(chain: Chain) -> Vec<u8> {
    chain_name(chain).into_bytes()
}

#[cfg(test)]
mod tests;
