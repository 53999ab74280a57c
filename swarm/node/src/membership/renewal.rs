//! Keeps the node's certificate fresh: renews it in time, and at once when the leader says that the
//! node has another role, that others are to be trusted, or that another root issues. Never gives
//! up, and never lets go of a certificate before the next one has proven good.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use skep_api::Error;
use skep_core::assignment::Trust;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::Membership;
use crate::agent;
use crate::ca::{self, CaResponse};
use crate::disk::DataDir;
use crate::pki::{Identity, KeyRequest, Role, verify};
use crate::{system, texts};

/// Pauses between attempts: the first and the longest, each halved or not by the dice.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After a renewal that was due by time, the next one is this far away at least: a clock that is
/// far off, or a certificate that is old when it comes, must not keep the managers busy.
const LEAST: Duration = Duration::from_secs(60);
/// The clock may be set at any time, so nobody sleeps longer than this without a look at it.
const LOOK: Duration = Duration::from_secs(600);

/// The part of a certificate's life after which it is renewed: somewhere in between.
const PART: std::ops::Range<f64> = 0.5..0.8;

/// What is to be done about a certificate.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Only to trust these roots.
    Roots(String),
    Certificate,
}

/// What the leader wants a node's certificate to be like, as far as it has said.
#[derive(Default)]
struct Wish {
    role: Option<Role>,
    trust: Option<Arc<Trust>>,
}

impl Wish {
    fn of(view: &agent::View) -> Self {
        Self {
            role: view.node.as_ref().map(|node| node.role),
            trust: view.trust.clone(),
        }
    }
}

fn need(identity: &Identity, wish: &Wish, due: bool) -> Need {
    if due || wish.role.is_some_and(|role| role != identity.role) {
        return Need::Certificate;
    }
    let Some(trust) = &wish.trust else {
        return Need::Nothing;
    };
    if !trust.issuer_pem.is_empty() && !identity.issued_by(&trust.issuer_pem) {
        return Need::Certificate;
    }
    if !trust.roots_pem.is_empty() && trust.roots_pem.trim() != identity.root_pem.trim() {
        return Need::Roots(trust.roots_pem.clone());
    }
    Need::Nothing
}

/// When a certificate is to be renewed; `part` of its life is over then.
fn moment(not_before: SystemTime, not_after: SystemTime, part: f64) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    not_before + life.mul_f64(part)
}

/// How long to wait from now on for `due`.
fn wait(due: SystemTime, now: SystemTime) -> Duration {
    due.duration_since(now).unwrap_or_default().min(LOOK)
}

fn due_of(identity: &Identity) -> SystemTime {
    let part = rand::rng().random_range(PART);
    moment(identity.not_before, identity.not_after, part)
}

impl Membership {
    /// Runs until the membership ends.
    pub(super) async fn keep_certificate(&self, disk: DataDir) {
        let mut view = self.agent_view.clone();
        let Some(mut identity) = self.endpoint.identity() else {
            return;
        };
        let mut due = due_of(&identity);
        let mut pause = FIRST_PAUSE;
        // No renewal by time before then.
        let mut quiet_until = Instant::now();
        loop {
            let wish = Wish::of(&view.borrow_and_update());
            let is_due = SystemTime::now() >= due && Instant::now() >= quiet_until;
            let outcome = match need(&identity, &wish, is_due) {
                Need::Nothing => {
                    pause = FIRST_PAUSE;
                    rest(&mut view, due, quiet_until).await;
                    continue;
                }
                Need::Roots(roots) => identity
                    .with_roots(&roots)
                    .map_err(|error| texts::system(&error)),
                Need::Certificate => self.next_certificate(&identity, &wish).await,
            };
            let adopted = outcome.and_then(|next| {
                let next = Arc::new(next);
                self.adopt(next.clone(), &disk).map(|()| next)
            });
            self.tell_of_identity().await;
            match adopted {
                Ok(next) => {
                    if is_due {
                        quiet_until = Instant::now() + LEAST;
                    }
                    // Trusting other roots is no reason to throw the dice again.
                    if next.not_after != identity.not_after {
                        due = due_of(&next);
                    }
                    identity = next;
                    if need(&identity, &wish, false) == Need::Nothing {
                        continue;
                    }
                    warn!("the new certificate is not what the leader asks for yet");
                }
                Err(error) => warn!(%error, "could not renew the certificate; trying again"),
            }
            // Also after news, which may come as fast as they like.
            tokio::time::sleep(system::jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks for the next certificate and checks it as others will.
    async fn next_certificate(&self, old: &Identity, wish: &Wish) -> Result<Identity, Error> {
        let KeyRequest { key_pem, csr_pem } =
            KeyRequest::fresh().map_err(|error| texts::system(&error))?;
        let CaResponse::Issued {
            cert_pem,
            roots_pem,
        } = self.ask_for_certificate(&csr_pem, wish).await?
        else {
            return Err(Error::system("no certificate came"));
        };
        let roots = match roots_pem.as_str() {
            "" => &old.root_pem,
            roots => roots,
        };
        let next =
            Identity::new(roots, &cert_pem, key_pem).map_err(|error| texts::system(&error))?;
        if (&next.node_id, &next.cluster_id) != (&old.node_id, &old.cluster_id) {
            return Err(Error::system("the certificate that came is another node's"));
        }
        verify::check_own(&next, SystemTime::now()).map_err(|error| texts::system(&error))?;
        Ok(next)
    }

    async fn ask_for_certificate(&self, csr_pem: &str, wish: &Wish) -> Result<CaResponse, Error> {
        let mut last = Error::unavailable("no manager is known that could renew the certificate");
        if let Some(manager) = self
            .manager
            .as_ref()
            .filter(|_| wish.role != Some(Role::Worker))
        {
            // A manager is its own authority, if it is up to date.
            match ca::renewed(manager, &self.node_id, csr_pem).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        for addr in self.addresses_to_ask() {
            match ca::renew(&self.endpoint, &addr, csr_pem).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Becomes who the certificate says. One for another role is left to whoever can start the node
    /// anew: saved now, it would be a manager's without raft after a crash, or the reverse.
    fn adopt(&self, next: Arc<Identity>, disk: &DataDir) -> Result<(), Error> {
        let running = match &self.manager {
            Some(_) => Role::Manager,
            None => Role::Worker,
        };
        if next.role != running {
            info!(role = ?next.role, "the node has a certificate for another role");
            self.turn.send_replace(Some(next));
            return Ok(());
        }
        next.save(disk).map_err(|error| texts::system(&error))?;
        self.turn.send_replace(None);
        let set = self.endpoint.set_identity(next.clone());
        set.map_err(|error| texts::system(&error))?;
        info!(until = ?next.not_after, "the node has a new certificate");
        Ok(())
    }
}

impl Membership {
    /// The leader shows every node's issuer to clients, and waits for it in a rotation.
    async fn tell_of_identity(&self) {
        if let Some(agent) = self.agent.lock().await.as_ref() {
            agent.identity_changed();
        }
    }
}

/// Waits for news of the leader, or for the time of the renewal.
async fn rest(view: &mut watch::Receiver<agent::View>, due: SystemTime, quiet_until: Instant) {
    let quiet = quiet_until.saturating_duration_since(Instant::now());
    let at_most = wait(due, SystemTime::now()).max(quiet);
    if let Ok(Err(_)) = timeout(at_most, view.changed()).await {
        // The agent has ended, and so does the membership.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Leaf, RootCa};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_is_renewed_in_the_third_quarter_of_its_life() {
        for (from, until, part, expected) in [
            (1000, 2000, PART.start, 1500),
            (1000, 2000, PART.end, 1800),
            (0, 90 * 24 * 3600, 0.5, 45 * 24 * 3600),
            // One that ends before it begins is due at once.
            (2000, 1000, 0.6, 2000),
        ] {
            assert_eq!(
                moment(at(from), at(until), part),
                at(expected),
                "{from} {until}"
            );
        }
    }

    #[test]
    fn nobody_sleeps_through_a_change_of_the_clock() {
        assert_eq!(wait(at(100), at(40)), Duration::from_secs(60));
        assert_eq!(wait(at(100), at(100)), Duration::ZERO);
        assert_eq!(wait(at(100), at(4000)), Duration::ZERO);
        assert_eq!(wait(at(1_000_000), at(0)), LOOK);
    }

    #[test]
    fn only_what_differs_is_renewed() {
        let now = SystemTime::now();
        let (old, new) = (RootCa::create(now).unwrap(), RootCa::create(now).unwrap());
        let request = KeyRequest::fresh().unwrap();
        let leaf = Leaf {
            node_id: "node",
            role: Role::Worker,
            cluster_id: "cluster",
        };
        let hour = Duration::from_secs(3600);
        let cert = old.sign(&request.csr_pem, &leaf, hour, now).unwrap();
        let identity = Identity::new(&old.cert_pem, &cert, request.key_pem).unwrap();
        let both = format!("{}{}", old.cert_pem, new.cert_pem);
        let trust = |roots: &str, issuer: &RootCa| {
            Some(Arc::new(Trust {
                roots_pem: roots.to_owned(),
                issuer_pem: issuer.cert_pem.clone(),
            }))
        };
        let (worker, manager) = (Some(Role::Worker), Some(Role::Manager));
        for (role, trust, due, expected) in [
            (None, None, false, Need::Nothing),
            (None, None, true, Need::Certificate),
            (worker, trust(&old.cert_pem, &old), false, Need::Nothing),
            (
                manager,
                trust(&old.cert_pem, &old),
                false,
                Need::Certificate,
            ),
            (worker, trust(&both, &old), false, Need::Roots(both.clone())),
            (worker, trust(&both, &new), false, Need::Certificate),
            // A leader of an older skep says nothing.
            (worker, Some(Arc::default()), false, Need::Nothing),
        ] {
            let wish = Wish { role, trust };
            assert_eq!(need(&identity, &wish, due), expected);
        }
    }
}
