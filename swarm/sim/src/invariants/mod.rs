//! What must be true of a cluster, one property a file. Only looks: nothing here changes a cluster.
//!
//! Most properties are held against the committed log, transaction by transaction, in the order in
//! which it was written; some against what the engines do, some against a cluster that is at rest.

pub mod acknowledged;
pub mod addresses;
pub mod bases;
pub mod directories;
pub mod files;
pub mod history;
pub mod leaders;
pub mod leaving;
pub mod linearizable;
pub mod membership;
pub mod modes;
pub mod once;
pub mod placement;
pub mod planners;
pub mod ports;
pub mod same_state;
pub mod settled;
pub mod slots;
pub mod transitions;
pub mod truth;

use std::sync::Arc;

use skep_core::{Event, State, Timestamp, Tx};

use crate::log::{Entry, apply};
use crate::members::Members;
use crate::settings::Mutation;

/// What a check says: fine, or what is wrong.
pub type Verdict = Result<(), String>;

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name of the property's file.
    pub invariant: &'static str,
    /// What is wrong.
    pub what: String,
}

/// One committed transaction.
pub struct Write<'a> {
    /// The transaction.
    pub tx: &'a Tx,
    /// What it changed.
    pub events: &'a [Event],
    /// The state before it.
    pub before: &'a State,
    /// The state after it.
    pub after: &'a State,
    /// When it was committed.
    pub now: Timestamp,
}

/// The checks that remember something.
pub struct Checks {
    /// The committed log.
    pub log: acknowledged::Committed,
    /// Who led when.
    pub leaders: leaders::Leaders,
    /// What clients were shown.
    pub register: linearizable::Register,
    /// What was seen of each task.
    pub transitions: transitions::Transitions,
    /// Who holds which slot.
    pub slots: slots::Slots,
    /// Which containers ran.
    pub once: once::Once,
    /// What tasks are to find in their secrets and configs.
    pub files: files::Files,
}

impl Checks {
    /// Checks of a log that begins with this state.
    pub fn new(state: State, first: Arc<Members>) -> Self {
        Self {
            log: acknowledged::Committed::new(state, first),
            leaders: leaders::Leaders::default(),
            register: linearizable::Register::default(),
            transitions: transitions::Transitions::default(),
            slots: slots::Slots::default(),
            once: once::Once::default(),
            files: files::Files::default(),
        }
    }

    /// A manager takes this entry for committed at this place of the log.
    pub fn committed(
        &mut self,
        place: usize,
        entry: &Arc<Entry>,
        mutation: Option<Mutation>,
        now: Timestamp,
    ) -> Result<(), Violation> {
        let news = self
            .log
            .committed(place, entry)
            .map_err(named("acknowledged"))?;
        let Some(batch) = entry.batch.as_ref().filter(|_| news) else {
            if news {
                self.log.push_state(None);
            }
            return Ok(());
        };
        let mut after = self.log.newest().clone();
        if apply(&mut after, batch, mutation).is_err() {
            self.log.push_state(None);
            return Ok(());
        }
        bases::check(self.log.newest(), batch).map_err(named("bases"))?;
        let mut before = self.log.newest().clone();
        for tx in &batch.txs {
            let mut next = before.clone();
            let Ok(events) = next.apply(tx) else { continue };
            let write = Write {
                tx,
                events: &events,
                before: &before,
                after: &next,
                now,
            };
            self.transitions
                .check(&write)
                .map_err(named("transitions"))?;
            placement::check(&write).map_err(named("placement"))?;
            modes::check(&write).map_err(named("modes"))?;
            self.files.check(&write).map_err(named("files"))?;
            addresses::check(&write).map_err(named("addresses"))?;
            ports::check(&write).map_err(named("ports"))?;
            self.slots.note(&write);
            before = next;
        }
        self.slots.check(&after).map_err(named("slots"))?;
        self.log.push_state(Some(after));
        Ok(())
    }
}

/// Puts the property's name to a verdict.
pub fn named(invariant: &'static str) -> impl Fn(String) -> Violation {
    move |what| Violation { invariant, what }
}
