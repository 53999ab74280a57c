//! The programs in the kernel, and their maps. Both are gone with the last who holds them, and so with
//! the daemon, however it ends: what they led is led by the rules for packets then.

use std::fs::File;
use std::io;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use aya::programs::{CgroupAttachMode, CgroupSockAddr};

use super::object;
use super::program;
use super::tables::{
    Address, ENDPOINTS, Endpoint, Entry, MEMBERS, Member, Nothing, SERVICES, Service,
};

/// Where it says what is mounted.
const MOUNTS: &str = "/proc/self/mounts";
/// What kind of groups of processes programs belong to.
const GROUPS: &str = "cgroup2";

/// See the head of the file.
pub(super) struct Kernel {
    services: HashMap<MapData, Address, Service>,
    members: HashMap<MapData, Member, Nothing>,
    endpoints: HashMap<MapData, Endpoint, Address>,
    _programs: Ebpf,
}

impl Kernel {
    /// Loads everything: the programs are run for all processes there are, and leave alone whoever is
    /// not in the maps. Takes its time.
    pub(super) fn load() -> Result<Self, String> {
        let groups = groups().map_err(|error| format!("{GROUPS}: {error}"))?;
        let file = object::file().map_err(said)?;
        let mut programs = Ebpf::load(&file).map_err(said)?;
        let mut map = |name: &str| {
            let map = programs.take_map(name);
            map.ok_or_else(|| format!("there is no map {name}"))
        };
        let services = map(SERVICES)?.try_into().map_err(said)?;
        let members = map(MEMBERS)?.try_into().map_err(said)?;
        let endpoints = map(ENDPOINTS)?.try_into().map_err(said)?;
        for (hook, _) in program::all() {
            let program = programs.program_mut(hook);
            let program = program.ok_or_else(|| format!("there is no program {hook}"))?;
            let program: &mut CgroupSockAddr = program.try_into().map_err(said)?;
            program.load().map_err(said)?;
            // A link leaves room for others' programs, whatever the mode is called.
            let link = program.attach(&groups, CgroupAttachMode::Single);
            link.map_err(said)?;
        }
        Ok(Self {
            services,
            members,
            endpoints,
            _programs: programs,
        })
    }

    /// Puts something into a map, or takes it away.
    pub(super) fn take(&mut self, entry: Entry) -> Result<(), String> {
        let done = match entry {
            Entry::Service(key, value) => put(&mut self.services, key, value),
            Entry::Member(key, is_there) => put(
                &mut self.members,
                key,
                is_there.then_some(Nothing::default()),
            ),
            Entry::Endpoint(key, value) => put(&mut self.endpoints, key, value),
        };
        done.map_err(said)
    }
}

fn put<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    key: K,
    value: Option<V>,
) -> Result<(), MapError> {
    match value {
        Some(value) => map.insert(key, value, 0),
        None => match map.remove(&key) {
            Err(MapError::KeyNotFound) => Ok(()),
            done => done,
        },
    }
}

/// What was said, and why.
fn said(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(why) = cause {
        text = format!("{text}: {why}");
        cause = why.source();
    }
    text
}

/// The group that all processes are in.
fn groups() -> io::Result<File> {
    let mounts = std::fs::read_to_string(MOUNTS)?;
    let kinds = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let mut places = kinds.filter(|(_, kind)| *kind == GROUPS);
    match places.next() {
        Some((place, _)) => File::open(place),
        None => Err(io::Error::other("not mounted")),
    }
}
