//! Lets networks pass the host's firewall for as long as there are any, and the mesh's connections
//! for as long as ports are published: sees when somebody has loaded a firewall without the rules
//! for that, and puts them back. What the rules are is `accept`'s.

use std::io;
use std::time::Instant;

use crate::accept::{self, Marks, Plan, Wanted};
use crate::mesh;
use crate::netlink::nftables::Nftables;
use crate::netns;
use crate::owner::{self, Owner};
use crate::plane::{GRACE, Part};
use crate::state::{State, Touched};

/// What there can be only one of in a namespace.
const PASSAGE: &str = "passage";

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Passage {
    owner: Option<Owner>,
    begun: Instant,
    wanted: Wanted,
    done: Option<Done>,
    looks: usize,
}

/// What the firewalls were left with.
#[derive(Clone, Debug)]
struct Done {
    wanted: Wanted,
    plan: Plan,
    /// What they were like, once somebody has looked.
    seen: Option<Seen>,
}

/// What the firewalls were like, and the number of the last change to any rules by then.
#[derive(Clone, Debug)]
struct Seen {
    generation: u32,
    marks: Marks,
}

impl Passage {
    pub(crate) fn new() -> Self {
        Self {
            owner: None,
            begun: Instant::now(),
            wanted: Wanted::default(),
            done: None,
            looks: 0,
        }
    }

    /// Whether the rules of this namespace are ours, or can be.
    fn owns(&mut self) -> Result<bool, String> {
        owner::holds(&mut self.owner, PASSAGE).map_err(|error| error.to_string())
    }

    /// Whether there is nothing to do, and never was.
    fn rests(&self) -> bool {
        self.wanted == Wanted::default()
            && match &self.done {
                Some(left) => left.wanted == Wanted::default(),
                None => self.begun.elapsed() < GRACE,
            }
    }

    async fn bring(&mut self) -> Result<(), String> {
        if self.rests() || !self.owns()? {
            return Ok(());
        }
        let (wanted, before) = (self.wanted, self.done.take().map(|it| it.plan));
        let set = move || {
            let plan = accept::plan(wanted)?;
            accept::set(&plan, before.as_ref())?;
            Ok(plan)
        };
        let plan = netns::on_host(set).await?;
        self.done = Some(Done {
            wanted,
            plan,
            seen: None,
        });
        if wanted == Wanted::default() {
            self.owner = None;
        }
        Ok(())
    }

    /// Whether the rules are still there.
    async fn is_as_left(&mut self, done: Done) -> Result<bool, String> {
        let looks_at_older = self.looks.is_multiple_of(2);
        let look = netns::on_host(move || look(&done, looks_at_older));
        let seen = look.await?;
        let is_set = seen.is_some();
        if let Some(done) = self.done.as_mut().filter(|_| is_set) {
            done.seen = seen;
        }
        Ok(is_set)
    }
}

/// What the firewalls are like, if that is what they were left with. Programs are asked only if
/// somebody was at them: most changes to rules are to others.
fn look(done: &Done, looks_at_older: bool) -> io::Result<Option<Seen>> {
    if accept::plan(done.wanted)? != done.plan {
        return Ok(None);
    }
    let mut nftables = Nftables::open()?;
    let generation = nftables.generation()?;
    let before = done.seen.as_ref();
    // Of older rules nobody numbers the changes.
    let is_older = looks_at_older && accept::is_legacy();
    let seen = match before.filter(|it| it.generation == generation) {
        Some(seen) => seen.clone(),
        None => Seen {
            generation,
            marks: accept::marks(&mut nftables)?,
        },
    };
    let is_same = !is_older && before.is_some_and(|it| it.marks == seen.marks);
    Ok((is_same || accept::is_set(&done.plan)).then_some(seen))
}

impl Part for Passage {
    const SEES_ENDPOINTS: bool = false;

    fn name(&self) -> &'static str {
        "passage"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        let mut networks = state.networks.values();
        self.wanted = Wanted {
            mesh: mesh::publishes(state),
            networks: networks.any(|known| known.network.is_some()),
        };
        let is_done = self
            .done
            .as_ref()
            .is_some_and(|it| it.wanted == self.wanted);
        match is_done && self.owner.is_some() && !touched.all {
            true => Ok(()),
            false => self.bring().await,
        }
    }

    async fn intact(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.rests() {
            return true;
        }
        match self.done.clone().filter(|_| self.owner.is_some()) {
            Some(done) if done.wanted == self.wanted => {
                self.is_as_left(done).await.unwrap_or(false)
            }
            // Another daemon may have gone that had it.
            _ => !self.owns().unwrap_or(false),
        }
    }

    async fn clean() -> Result<(), String> {
        match owner::after_the_end(PASSAGE)
            .await
            .map_err(|error| error.to_string())?
        {
            Some(_owner) => netns::on_host(accept::clear).await,
            None => Ok(()),
        }
    }
}
