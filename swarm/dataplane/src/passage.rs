//! Lets networks pass the host's firewall for as long as there are any, and the mesh's connections
//! for as long as ports are published: sees when somebody has loaded a firewall without the rules
//! for that, and puts them back. What the rules are is `accept`'s.

use std::time::{Duration, Instant};

use crate::accept::{self, Wanted};
use crate::mesh;
use crate::netlink::nftables::Nftables;
use crate::netns;
use crate::owner::{self, Owner};
use crate::plane::Part;
use crate::state::{State, Touched};

/// What there can be only one of in a namespace.
const PASSAGE: &str = "passage";
/// After a start, before what an earlier daemon left is taken away because there is no network:
/// until then somebody may still tell of one.
const GRACE: Duration = Duration::from_secs(30);

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Passage {
    owner: Option<Owner>,
    begun: Instant,
    wanted: Wanted,
    /// What the firewalls were left with, and the number of the last change to any rules by then,
    /// once somebody has looked.
    done: Option<(Wanted, Option<u32>)>,
    looks: usize,
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
            && match self.done {
                Some((left, _)) => left == Wanted::default(),
                None => self.begun.elapsed() < GRACE,
            }
    }

    async fn bring(&mut self) -> Result<(), String> {
        if self.rests() || !self.owns()? {
            return Ok(());
        }
        let wanted = self.wanted;
        netns::on_host(move || accept::set(wanted)).await?;
        self.done = Some((wanted, None));
        if wanted == Wanted::default() {
            self.owner = None;
        }
        Ok(())
    }

    /// Whether the rules are still there. Of older rules nobody numbers the changes.
    async fn is_as_left(&mut self, wanted: Wanted, at: Option<u32>) -> Result<bool, String> {
        let looks = self.looks;
        let look = netns::on_host(move || {
            let now = Nftables::open()?.generation()?;
            let is_due = at != Some(now) || looks.is_multiple_of(2) && accept::is_legacy();
            Ok((now, !is_due || accept::is_set(wanted)))
        });
        let (now, is_set) = look.await?;
        self.done = Some((wanted, Some(now)));
        Ok(is_set)
    }
}

impl Part for Passage {
    fn name(&self) -> &'static str {
        "passage"
    }

    async fn converge(&mut self, state: &State, _: &Touched) -> Result<(), String> {
        let mut networks = state.networks.values();
        self.wanted = Wanted {
            mesh: mesh::publishes(state),
            networks: networks.any(|known| known.network.is_some()),
        };
        self.bring().await
    }

    async fn intact(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.rests() {
            return true;
        }
        match self.done.filter(|_| self.owner.is_some()) {
            Some((left, at)) if left == self.wanted => {
                self.is_as_left(left, at).await.unwrap_or(false)
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
