//! Work inside containers: what each of them is to have is made as soon as its devices are there, one
//! container apart from all others, and made sure of now and then. An engine's devices come some time
//! after a container's first process, which waits for neither. Knows nothing of what is made.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::AddressAttribute;
use tokio::task::JoinSet;
use tracing::warn;

use crate::netns::Home;
use crate::plane::Part;
use crate::state::{State, Touched};
use crate::{Error, Kernel, refused};

/// How long a container's device may take to come; then it is begun anew.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two looks for it: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Of so many looks at whether all is well, one makes sure of everything.
const SURE: usize = 20;

/// The devices of a namespace, by their addresses.
pub(crate) type Devices = BTreeMap<Ipv4Addr, u32>;

/// What one container is to have.
pub(crate) trait Errand: Clone + PartialEq + Send + Sync + 'static {
    /// What it is, for the log.
    const NAME: &'static str;
    /// What a container has to do without, for the log.
    const UNDONE: &'static str;

    /// What shows whether it is still as it was made, as cheaply as every look may be.
    type Watch: Send + 'static;

    /// What there is to be, by container.
    fn wanted(state: &State) -> BTreeMap<String, Self>;

    /// The container's process.
    fn pid(&self) -> i32;

    /// Makes it, as far as there are devices.
    fn make(
        &self,
        kernel: &Kernel,
        home: Home,
        devices: &Devices,
    ) -> impl Future<Output = Result<Made<Self::Watch>, Error>> + Send;

    /// Whether it is as it was made, for all that the watch shows.
    fn is_well(&self, watch: &mut Self::Watch) -> bool;
}

/// What came of it.
pub(crate) enum Made<W> {
    /// All of it is there.
    All(W),
    /// The device with this address has still to come.
    Lacks(Ipv4Addr),
}

/// See the head of the file.
pub(crate) struct Errands<E: Errand> {
    /// By container.
    wanted: BTreeMap<String, E>,
    begun: BTreeMap<String, E>,
    /// With what shows whether it is well; nothing, if nobody is there who would miss it.
    made: BTreeMap<String, (E, Option<E::Watch>)>,
    /// Those that are begun: each ends in time.
    under_way: JoinSet<(String, E, Result<E::Watch, Error>)>,
    looks: usize,
}

impl<E: Errand> Default for Errands<E> {
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            begun: BTreeMap::new(),
            made: BTreeMap::new(),
            under_way: JoinSet::new(),
            looks: 0,
        }
    }
}

impl<E: Errand> Part for Errands<E> {
    const SEES_ENDPOINTS: bool = false;

    fn name(&self) -> &'static str {
        E::NAME
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        if touched.all || !touched.networks.is_empty() || !touched.containers.is_empty() {
            self.wanted = E::wanted(state);
            self.gather();
            self.begin();
        }
        Ok(())
    }

    async fn intact(&mut self) -> bool {
        self.gather();
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(SURE) {
            self.made.clear();
        }
        self.made.retain(|_, (errand, watch)| {
            let mut watch = watch.iter_mut();
            watch.all(|watch| errand.is_well(watch))
        });
        self.wanted.iter().all(|(id, it)| self.is_seen_to(id, it))
    }
}

impl<E: Errand> Errands<E> {
    /// Whether it is made or begun.
    fn is_seen_to(&self, id: &str, errand: &E) -> bool {
        let made = self.made.get(id).map(|(made, _)| made);
        made == Some(errand) || self.begun.get(id) == Some(errand)
    }

    /// Begins what is neither made nor begun.
    fn begin(&mut self) {
        let wanted = &self.wanted;
        self.made.retain(|id, (it, _)| wanted.get(id) == Some(it));
        let due = wanted.iter().filter(|(id, it)| !self.is_seen_to(id, it));
        let due: Vec<_> = due.map(|(id, it)| (id.clone(), it.clone())).collect();
        for (id, errand) in due {
            self.begun.insert(id.clone(), errand.clone());
            self.under_way.spawn(async move {
                let made = run(&errand).await;
                (id, errand, made)
            });
        }
    }

    /// Takes in what has ended.
    fn gather(&mut self) {
        while let Some(ended) = self.under_way.try_join_next() {
            let Ok((id, errand, made)) = ended else {
                // Nobody knows which; all that is not made is begun again.
                self.begun.clear();
                continue;
            };
            if self.begun.get(&id) == Some(&errand) {
                self.begun.remove(&id);
            }
            let watch = match made {
                Ok(watch) => Some(watch),
                Err(Error::NoProcess) => None,
                Err(error) => {
                    warn!(%error, task = id, "{}", E::UNDONE);
                    continue;
                }
            };
            self.made.insert(id, (errand, watch));
        }
    }
}

/// Makes it, once the container has its devices.
async fn run<E: Errand>(errand: &E) -> Result<E::Watch, Error> {
    let home = Home::of(errand.pid()).map_err(Error::from)?;
    if home.is_host().map_err(Error::from)? {
        return Err(Error::NoProcess);
    }
    let kernel = Kernel::open_in(errand.pid()).await?;
    let (until, mut pause) = (Instant::now() + PATIENCE, PAUSES.0);
    loop {
        let devices = devices(&kernel.handle).await?;
        let missing = match errand.make(&kernel, home, &devices).await? {
            Made::All(watch) => return Ok(watch),
            Made::Lacks(missing) => missing,
        };
        if !home.is_there() {
            return Err(Error::NoProcess);
        }
        if Instant::now() > until {
            return Err(Error::NoDevice(format!("with {missing}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn devices(handle: &Handle) -> Result<Devices, Error> {
    let mut all = handle.address().get().execute();
    let mut found = Devices::new();
    let what = "list the addresses of a container";
    while let Some(message) = all.try_next().await.map_err(refused(what))? {
        let own = message.attributes.iter().find_map(|it| match it {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        found.extend(own.map(|address| (address, message.header.index)));
    }
    Ok(found)
}
