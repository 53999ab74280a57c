//! Virtual addresses: connections to a service's address reach one of its tasks. Each container
//! has a table of its own for that, so that the task sees who its client is; the host has one for
//! itself, and for containers whose table is not there yet.

mod answers;
mod catalogue;
mod expression;
mod inner;
mod rules;
mod space;
mod text;
mod wire;

use inner::Inner;
use rules::Step;

use crate::netlink::Family;
use crate::netlink::nftables::{Nftables, Refused};
use crate::owner;
use crate::plane::Part;
use crate::sockets::Sockets;
use crate::state::{State, Touched};

/// How often somebody else may be faster than we clean up.
const TRIES: usize = 8;

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    /// Lent to the thread that speaks with the kernel.
    inner: Inner,
}

impl Balance {
    /// One that leaves everything to the rules for packets, if it is told so.
    pub(crate) fn new(by_packet: bool) -> Self {
        let sockets = match by_packet {
            true => Sockets::without(),
            false => Sockets::default(),
        };
        Self {
            inner: Inner::new(sockets),
        }
    }

    /// Speaks with the kernel on a thread that may wait.
    async fn lend<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Inner) -> T + Send + 'static,
    ) -> Result<T, String> {
        let mut inner = std::mem::take(&mut self.inner);
        let lent = tokio::task::spawn_blocking(move || {
            let result = work(&mut inner);
            (inner, result)
        });
        let (inner, result) = lent.await.map_err(|error| error.to_string())?;
        self.inner = inner;
        Ok(result)
    }
}

impl Part for Balance {
    const SEES_ENDPOINTS: bool = true;

    fn name(&self) -> &'static str {
        "balance"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        self.inner.prepare(state, touched);
        self.lend(Inner::work).await?
    }

    async fn intact(&mut self) -> bool {
        self.lend(Inner::intact).await.unwrap_or(false)
    }

    async fn clean() -> Result<(), String> {
        // What another daemon has stays.
        let owner = owner::after_the_end(inner::HOST).await;
        let owner = owner.map_err(|error| format!("virtual addresses: {error}"))?;
        let Some(_owner) = owner else { return Ok(()) };
        let cleaning = tokio::task::spawn_blocking(clean);
        cleaning.await.map_err(|error| error.to_string())?
    }
}

/// Takes everything of ours away from the host. Containers' tables go with them.
fn clean() -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| format!("virtual addresses: {error}");
    answers::clean().map_err(|error| said(&error))?;
    let mut kernel = Nftables::open().map_err(|error| said(&error))?;
    for family in Family::ALL {
        match remove_table(&mut kernel, family) {
            // A kernel without IPv6 has no such table either.
            Err(Refused::Error(error)) if knows_not(&error) && family == Family::Ipv6 => {}
            result => result.map_err(|error| said(&error))?,
        }
    }
    Ok(())
}

fn remove_table(kernel: &mut Nftables, family: Family) -> Result<(), Refused> {
    let mut result = Ok(());
    for _ in 0..TRIES {
        let generation = kernel.generation()?;
        let batch = wire::batch(family, generation, &[Step::Table, Step::NoTable]);
        result = kernel.commit(batch).map(drop);
        if !matches!(result, Err(Refused::Overtaken)) {
            break;
        }
    }
    result
}

/// Whether a kernel says that it does not know this kind of addresses.
fn knows_not(error: &std::io::Error) -> bool {
    let said = error.raw_os_error();
    matches!(
        said,
        Some(nix::libc::EOPNOTSUPP | nix::libc::EAFNOSUPPORT | nix::libc::ENOENT)
    )
}
