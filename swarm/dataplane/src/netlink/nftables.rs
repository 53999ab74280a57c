//! The kernel's side of nftables: transactions, their generation, and lists of what there is. What
//! is written into a transaction is somebody else's business.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use nix::sys::socket::SockProtocol;

use super::socket::{Socket, outcome};
use super::{Family, Writer, attribute, flags, head};

/// Kinds of messages.
pub(crate) const NEW_TABLE: u16 = 0;
pub(crate) const GET_TABLE: u16 = 1;
pub(crate) const DEL_TABLE: u16 = 2;
pub(crate) const NEW_CHAIN: u16 = 3;
pub(crate) const GET_CHAIN: u16 = 4;
pub(crate) const DEL_CHAIN: u16 = 5;
pub(crate) const NEW_RULE: u16 = 6;
pub(crate) const GET_RULE: u16 = 7;
pub(crate) const DEL_RULE: u16 = 8;
pub(crate) const NEW_SET: u16 = 9;
pub(crate) const NEW_ELEMENT: u16 = 12;
pub(crate) const GET_ELEMENT: u16 = 13;
pub(crate) const DEL_ELEMENT: u16 = 14;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;

/// The header of every message here: family, version, and a number of the family's own.
pub(crate) const HEADER: usize = 4;
const SUBSYSTEM: u16 = 10;
const BEGIN: u16 = 16;
const END: u16 = 17;

/// Tables of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tables {
    /// About packets of one family.
    Of(Family),
    /// About everything that goes through a device.
    Devices,
}

impl Tables {
    fn number(self) -> u8 {
        match self {
            Self::Of(family) => family.number(),
            Self::Devices => 5,
        }
    }
}

impl From<Family> for Tables {
    fn from(family: Family) -> Self {
        Self::Of(family)
    }
}

fn header(family: u8) -> [u8; HEADER] {
    [family, 0, 0, 0]
}

const fn kind(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

/// A transaction that is being written: all of it happens, or nothing.
#[derive(Debug)]
pub(crate) struct Batch {
    writer: Writer,
    generation: u32,
    tables: Tables,
}

impl Batch {
    /// On tables of one kind, for a kernel in this generation; if somebody else was faster, it is
    /// refused.
    pub(crate) fn new(tables: impl Into<Tables>, generation: u32) -> Self {
        let mut writer = Writer::default();
        writer.message(BEGIN, 0, &Self::edge(), |it| it.number(1, generation));
        Self {
            writer,
            generation,
            tables: tables.into(),
        }
    }

    /// What follows is on tables of another kind.
    pub(crate) fn turn(&mut self, tables: Tables) {
        self.tables = tables;
    }

    fn edge() -> [u8; HEADER] {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        [0, 0, high, low]
    }

    /// One more step.
    pub(crate) fn step(&mut self, of: u16, flags: u16, fill: impl FnOnce(&mut Writer)) {
        let header = header(self.tables.number());
        self.writer.message(kind(of), flags, &header, fill);
    }
}

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Somebody else's came first: what it was made for may not be there any more.
    #[error("somebody else was faster")]
    Overtaken,
    /// The kernel does not want it.
    #[error("the kernel refuses a rule set: {0}")]
    Error(#[from] io::Error),
}

/// nftables in one namespace.
#[derive(Debug)]
pub(crate) struct Nftables {
    socket: Socket,
}

impl Nftables {
    /// In this thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        Ok(Self { socket })
    }

    /// The number that every transaction raises by one, whoever makes it.
    pub(crate) fn generation(&mut self) -> io::Result<u32> {
        self.ask_generation()?;
        match self.until_generation()? {
            (_, Some(error)) => Err(error),
            (generation, None) => Ok(generation),
        }
    }

    /// Makes it happen; returns the generation that it made.
    pub(crate) fn commit(&mut self, mut batch: Batch) -> Result<u32, Refused> {
        batch.writer.message(END, 0, &Batch::edge(), |_| {});
        self.socket.send(&batch.writer)?;
        // Only what is wrong is answered: the answer to this question comes after it.
        self.ask_generation()?;
        match self.until_generation()? {
            // What the kernel says now may be somebody else's that came after ours.
            (_, None) => Ok(batch.generation.checked_add(1).unwrap_or(1)),
            (_, Some(error)) if error.raw_os_error() == Some(nix::libc::ERESTART) => {
                Err(Refused::Overtaken)
            }
            (_, Some(error)) => Err(error.into()),
        }
    }

    /// The socket, for what else netfilter knows there.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Lists things of one kind in tables of one kind.
    pub(crate) fn list(
        &mut self,
        tables: impl Into<Tables>,
        of: u16,
        fill: impl FnOnce(&mut Writer),
        take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.socket
            .dump(kind(of), &header(tables.into().number()), fill, take)
    }

    /// Looks at the one thing of a kind that is named. `false` if there is none.
    pub(crate) fn get(
        &mut self,
        family: Family,
        of: u16,
        fill: impl FnOnce(&mut Writer),
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        let mut question = Writer::default();
        question.message(kind(of), 0, &header(family.number()), fill);
        self.socket.send(&question)?;
        let mut refused = None;
        self.socket.receive(|message| {
            match outcome(message) {
                Some(answer) => refused = answer.err(),
                None => take(message.payload),
            }
            ControlFlow::Break(())
        })?;
        match refused {
            Some(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Some(error) => Err(error),
            None => Ok(true),
        }
    }

    /// The chains of a table: how many rules each has, and how many elements lead to it.
    pub(crate) fn chains(
        &mut self,
        tables: impl Into<Tables>,
        table: &str,
    ) -> io::Result<BTreeMap<Vec<u8>, u32>> {
        let mut found = BTreeMap::new();
        self.list(
            tables,
            GET_CHAIN,
            |_| {},
            |chain| {
                let text = |kind| attribute(chain, HEADER, kind)?.strip_suffix(b"\0");
                if text(1) == Some(table.as_bytes()) {
                    let uses = attribute(chain, HEADER, 6).and_then(head);
                    let name = text(3).unwrap_or_default().to_vec();
                    found.insert(name, uses.map_or(0, u32::from_be_bytes));
                }
            },
        )?;
        Ok(found)
    }

    fn ask_generation(&self) -> io::Result<()> {
        let mut question = Writer::default();
        question.message(kind(GET_GENERATION), 0, &header(0), |_| {});
        self.socket.send(&question)
    }

    /// Reads up to the generation; the first error on the way comes along.
    fn until_generation(&mut self) -> io::Result<(u32, Option<io::Error>)> {
        let mut first = None;
        let mut generation = 0;
        self.socket.receive(|message| {
            if let Some(Err(error)) = outcome(message) {
                first.get_or_insert(error);
            }
            if message.kind != kind(NEW_GENERATION) {
                return ControlFlow::Continue(());
            }
            let number = attribute(message.payload, HEADER, 1).and_then(head);
            generation = number.map_or(0, u32::from_be_bytes);
            ControlFlow::Break(())
        })?;
        Ok((generation, first))
    }
}

/// Flags of steps that make something, and of those that make it behind all others.
pub(crate) const CREATE: u16 = flags::CREATE;
pub(crate) const APPEND: u16 = flags::CREATE | flags::APPEND;
