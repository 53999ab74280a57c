//! A leader's loop, as `skep-node`'s: gathers inputs, lets the pure leader plan, proposes one batch
//! at a time, then answers and tells the agents. Never proposes before the last batch has landed.

use skep_core::assignment::ToAgent;
use skep_core::dispatcher::Outgoing;
use skep_core::leader::{Answer, Input, Leader};
use skep_core::{Event as Change, MILLISECOND, Reject, Timestamp};

use crate::event::Event;
use crate::invariants::{files, named, planners};
use crate::mutation;
use crate::settings::Mutation;
use crate::world::World;

/// Inputs that one step takes at most.
const INPUTS: usize = 256;

/// What a leading manager's loop holds.
pub struct Office {
    leader: Leader,
    inbox: Vec<Input>,
    flight: Option<Flight>,
    planned: Option<Timestamp>,
    /// It began before its state was known to be current; it says nothing until a batch landed.
    pub unproven: bool,
}

/// A batch that is proposed.
struct Flight {
    place: usize,
    answers: Vec<Answer>,
    wake_at: Option<Timestamp>,
}

impl World {
    /// The leader's loop begins on the state as it is.
    pub fn open_office(&mut self, manager: usize, unproven: bool) {
        let leader = Leader::new(&self.managers[manager].replica.state);
        let office = Office {
            leader,
            inbox: Vec::new(),
            flight: None,
            planned: None,
            unproven,
        };
        if let Some(reign) = &mut self.managers[manager].reign {
            reign.office = Some(office);
        }
        self.plan(manager, self.clock.now());
    }

    /// The loop of a manager that leads and knows it.
    pub fn office(&mut self, manager: usize) -> Option<&mut Office> {
        self.managers[manager].reign.as_mut()?.office.as_mut()
    }

    /// Something for the leader; lost if the manager does not lead.
    pub fn input(&mut self, manager: usize, input: Input) {
        let Some(office) = self.office(manager) else {
            return;
        };
        office.inbox.push(input);
        // Whatever comes in the same moment goes into the same step.
        self.plan(manager, self.clock.now().plus(MILLISECOND));
    }

    /// Whether a manager believes that it leads, and its loop runs.
    pub fn office_open(&self, manager: usize) -> bool {
        let reign = self.managers[manager].reign.as_ref();
        reign.is_some_and(|reign| reign.office.is_some())
    }

    /// Lets the loop run at a moment, unless it does so earlier anyway.
    fn plan(&mut self, manager: usize, at: Timestamp) {
        let term = self.managers[manager].replica.term;
        let at = at.max(self.clock.now());
        let Some(office) = self.office(manager) else {
            return;
        };
        if office.planned.is_some_and(|planned| planned <= at) {
            return;
        }
        office.planned = Some(at);
        self.clock.at(at, Event::Step { manager, term, at });
    }

    /// The loop runs.
    pub fn step(&mut self, manager: usize, term: u64, at: Timestamp) {
        let now = self.clock.now();
        let replica = &self.managers[manager].replica;
        if replica.term != term {
            return;
        }
        let (state, place) = (replica.state.clone(), replica.log.len());
        let often = if self.settings.mutation == Some(Mutation::IgnoreBase) {
            50
        } else {
            2
        };
        let hasty = !self.calm && self.dice.chance(often);
        let unconfirmed = self.settings.mutation == Some(Mutation::RefuseUnconfirmed);
        let dice = &mut self.dice;
        let reign = self.managers[manager].reign.as_mut();
        let Some(office) = reign.and_then(|reign| reign.office.as_mut()) else {
            return;
        };
        if office.planned != Some(at) {
            return;
        }
        office.planned = None;
        // What waits is looked at when the batch has landed. One that does not wait plans on a
        // state that it is about to change: the store must refuse what comes of it.
        if office.flight.is_some() && !hasty {
            return;
        }
        let overtaken = office.flight.take().is_some();
        let rest = office.inbox.split_off(office.inbox.len().min(INPUTS));
        let inputs = std::mem::replace(&mut office.inbox, rest);
        let count = inputs.len();
        let step = office.leader.step(&state, inputs, now, dice);
        // What one plans that did not wait rests on a batch that the state does not have.
        let verdict = match overtaken {
            true => Ok(()),
            false => planners::accepted(&step).map_err(named("planners")),
        };
        let (mut batch, wake_at) = (step.batch, step.wake_at);
        if let Some(batch) = &mut batch {
            mutation::bend(self.settings.mutation, batch, &state, dice);
            office.flight = Some(Flight {
                place,
                answers: step.answers,
                wake_at,
            });
        } else if overtaken {
            // What it knows runs ahead of a store that it did not wait for.
            return self.depose(manager, "it did not wait");
        } else if !office.unproven && (step.answers.is_empty() || unconfirmed) {
            self.nothing_written(manager, step.answers, wake_at);
        } else if !office.unproven {
            // A refusal rests on the state: an entry that says nothing tells whether it is current.
            office.flight = Some(Flight {
                place,
                answers: step.answers,
                wake_at,
            });
            self.propose(manager, None);
        }
        self.hold(verdict);
        if let Some(batch) = batch {
            let (txs, base) = (batch.txs.len(), batch.base);
            let brief = format_args!("manager {manager} plans {txs} of {count} on {base}");
            self.trace.full(self.clock.elapsed(), brief, &batch);
            self.propose(manager, Some(batch));
        }
    }

    /// A step that wrote nothing is over at once.
    fn nothing_written(
        &mut self,
        manager: usize,
        answers: Vec<Answer>,
        wake_at: Option<Timestamp>,
    ) {
        let now = self.clock.now();
        if wake_at.is_none_or(|at| at > now) && self.dice.chance(20) {
            let state = &self.managers[manager].replica.state;
            let verdict = planners::quiescent(state, now);
            self.hold(verdict.map_err(named("planners")));
        }
        self.conclude(manager, None, answers, wake_at);
    }

    /// A batch of this leadership is applied here, or was refused.
    pub fn landed(&mut self, manager: usize, place: usize, result: Result<Vec<Change>, Reject>) {
        // Also one that the loop did not wait for: what it knows has run ahead of the store.
        if let Err(reject) = result {
            self.refusals += 1;
            self.note(format_args!("entry {place} was refused: {reject}"));
            return self.depose(manager, "its batch was refused");
        }
        let Some(office) = self.office(manager) else {
            return;
        };
        let flight = office.flight.take_if(|flight| flight.place == place);
        if let Some(flight) = flight {
            office.unproven = false;
            self.conclude(manager, Some(place), flight.answers, flight.wake_at);
        }
    }

    /// Answers and messages go out, and the next step is planned.
    fn conclude(
        &mut self,
        manager: usize,
        place: Option<usize>,
        answers: Vec<Answer>,
        wake_at: Option<Timestamp>,
    ) {
        let written = place.and_then(|place| self.checks.log.state_after(place + 1));
        let revision = match written {
            Some(state) => state.revision(),
            None => self.managers[manager].replica.state.revision(),
        };
        for (ticket, answer) in answers {
            self.answered(ticket, answer, place, revision);
        }
        let state = self.managers[manager].replica.state.clone();
        let Some(office) = self.office(manager) else {
            return;
        };
        let messages = office.leader.messages(&state);
        let told = |(node, _, message): &Outgoing| match message {
            ToAgent::Assignments(told) => files::told(&state, node, told),
            _ => Ok(()),
        };
        let verdict = messages.iter().try_for_each(told);
        let more = !office.inbox.is_empty();
        self.hold(verdict.map_err(named("files")));
        for (_, session, message) in messages {
            self.tell(manager, session, message);
        }
        let next = if more {
            Some(self.clock.now())
        } else {
            wake_at
        };
        if let Some(at) = next {
            self.plan(manager, at);
        }
    }

    /// The first entry of the term is applied: from now on the state is current.
    pub fn opened(&mut self, manager: usize) {
        let fresh = match self.office(manager) {
            None => true,
            // Whatever it knows is older than the state.
            Some(office) => office.unproven && office.flight.is_none(),
        };
        if fresh {
            self.open_office(manager, false);
        }
    }
}
