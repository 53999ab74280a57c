//! Virtual addresses, where the kernel can run programs when a socket is connected: a TCP connection
//! begins with one of the service's tasks itself, and no packet has to be translated. All that is not
//! led here, be it UDP, a kernel that cannot do so, or a daemon that is just being restarted, is led
//! by the rules for packets (see `balance.rs`), which are there in any case.

mod book;
mod code;
mod kernel;
mod object;
mod program;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread::JoinHandle;

use self::book::{Book, Step};
use self::kernel::Kernel;

pub(crate) use self::book::Member;

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Sockets {
    book: Book,
    numbers: BTreeMap<String, u32>,
    /// The last number that a network was given. None is given twice.
    last: u32,
    programs: Programs,
}

/// How far the kernel has got.
#[derive(Default)]
enum Programs {
    /// Nobody has a use for them yet.
    #[default]
    Unused,
    Loading(JoinHandle<Result<Kernel, String>>),
    Here(Box<Kernel>),
    /// They are not to be had.
    Absent,
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sockets").finish_non_exhaustive()
    }
}

impl Sockets {
    /// Without programs, as where the kernel has none.
    pub(crate) fn without() -> Self {
        Self {
            programs: Programs::Absent,
            ..Self::default()
        }
    }

    /// With nothing, after an end: without programs if that is how it was.
    pub(crate) fn anew(&self) -> Self {
        match self.is_without() {
            true => Self::without(),
            false => Self::default(),
        }
    }

    /// Whether there will never be any.
    pub(crate) fn is_without(&self) -> bool {
        matches!(self.programs, Programs::Absent)
    }

    /// The number of a network.
    pub(crate) fn number(&mut self, network: &str) -> u32 {
        if let Some(number) = self.numbers.get(network) {
            return *number;
        }
        self.last += 1;
        self.numbers.insert(network.to_owned(), self.last);
        self.last
    }

    /// Networks that are not any more are forgotten.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&String) -> bool) {
        self.numbers.retain(|network, _| is_there(network));
    }

    /// An address of a network leads to these, or is not any more.
    pub(crate) fn serve(&mut self, vip: IpAddr, network: u32, endpoints: Option<&[IpAddr]>) {
        let steps = match endpoints {
            Some(endpoints) => self.book.serve(vip, network, endpoints),
            None => self.book.forget(vip, network),
        };
        self.tell(steps);
    }

    /// Who is on which networks.
    pub(crate) fn join(&mut self, members: BTreeSet<Member>) {
        let steps = self.book.join(members);
        if !steps.is_empty() && matches!(self.programs, Programs::Unused) {
            self.load();
        }
        self.tell(steps);
    }

    /// Takes in programs that have been loaded meanwhile.
    pub(crate) fn look(&mut self) {
        let programs = std::mem::take(&mut self.programs);
        let Programs::Loading(loading) = programs else {
            self.programs = programs;
            return;
        };
        if !loading.is_finished() {
            self.programs = Programs::Loading(loading);
            return;
        }
        let lost = |_| Err("a thread of the data plane failed".to_owned());
        match loading.join().unwrap_or_else(lost) {
            Ok(kernel) => {
                self.programs = Programs::Here(Box::new(kernel));
                self.tell(self.book.all());
            }
            Err(error) => {
                tracing::info!(error, "connections to services are led packet by packet");
                self.programs = Programs::Absent;
            }
        }
    }

    /// While that takes its time, nobody has to wait for it.
    fn load(&mut self) {
        let thread = std::thread::Builder::new().name("skep-sockets".to_owned());
        self.programs = match thread.spawn(Kernel::load) {
            Ok(loading) => Programs::Loading(loading),
            // Another time.
            Err(_) => Programs::Unused,
        };
    }

    /// Kernels that refuse one step are asked for no other: what they would lead then is not known.
    fn tell(&mut self, steps: Vec<Step>) {
        let Programs::Here(kernel) = &mut self.programs else {
            return;
        };
        for step in steps {
            if let Err(error) = kernel.take(tables::entry(step, rand::random())) {
                tracing::warn!(error, "connections to services are led packet by packet");
                self.programs = Programs::Absent;
                return;
            }
        }
    }
}
