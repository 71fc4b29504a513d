//! Asking name servers: hickory's resolver, on our loop.
//!
//! # Invariants
//! - IPv6 and IPv4 are asked for side by side, and each is answered as it comes.
//! - Every question ends: by an answer, or after `attempts + 1` times `timeout` for each name that is tried.
//! - At most so many questions are under way; the next one is answered [`ResolveFailure::Busy`].
//! - What is set anew by [`Dns::reload`] holds for questions that come after it.
//!
//! Source: libevent `evdns.c`.

mod checked;
mod failure;
mod files;
mod net;
mod runtime;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bufferevent_core::resolve::{
    Family, Found, Lookup, Question, Reply, Resolve, ResolveError, ResolveFailure,
};
use evreactor::LoopHandle;
use evreactor_core::sync::{Arc, Mutex};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, Resolver};

use crate::name;
use checked::Connections;
use files::{MAX_SEARCH, MAX_SERVERS, ResolvConf};
use runtime::{Runtime, Tasks};

/// Questions under way at once, unless told otherwise: each has one or two sockets.
const QUESTIONS: usize = 256;

/// Answers that are kept, unless told otherwise.
const CACHE: u64 = 8192;

/// How long an answer is kept, unless told otherwise: as long as it says, and no longer than this.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long it is kept that there is none, unless told otherwise.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(300);

/// A resolver that asks name servers, by UDP, and by TCP where an answer does not fit.
///
/// It lives on one loop, and answers questions of any. It sends from random ports under random identifiers, and believes only what comes from the server
/// that was asked, with the identifier and the question that it was asked. Answers are kept as long as they say, within bounds.
///
/// ```
/// use bufferevent_dns::Dns;
/// let events = evreactor::EventLoop::new()?;
/// let resolver = Dns::builder(&events)
///     .name_server(([127, 0, 0, 1], 53))
///     .search("example.org")
///     .timeout(std::time::Duration::from_secs(2))
///     .build()?;
/// # drop(resolver);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "evdns_base")]
#[doc(alias = "evdns_base_new")]
pub struct Dns {
    setup: Setup,
    runtime: Runtime,
    tasks: Arc<Tasks>,
    servers: Mutex<Arc<Servers>>,
    asked: Arc<AtomicUsize>,
}

/// Whom to ask, and by which rules.
struct Servers {
    resolver: Resolver<Connections>,
    hosts: Hosts,
    search: Vec<Name>,
    ndots: usize,
}

impl Servers {
    /// The forms of a name, in the order in which they are tried: as resolv.conf(5) has it.
    fn forms(&self, mut name: Name) -> Vec<Name> {
        if name.is_fqdn() {
            return vec![name];
        }
        let behind = |domain: &Name| {
            let mut form = name.clone().append_domain(domain).ok()?;
            form.set_fqdn(true);
            Some(form)
        };
        let mut forms: Vec<Name> = self.search.iter().filter_map(behind).collect();
        // A name has one dot less than it has labels.
        let is_long = usize::from(name.num_labels()) > self.ndots;
        name.set_fqdn(true);
        if is_long {
            forms.insert(0, name);
        } else {
            forms.push(name);
        }
        forms
    }
}

/// How a [`Dns`] is to be.
#[derive(Clone, Debug)]
struct Setup {
    resolv_conf: Option<PathBuf>,
    hosts: Option<PathBuf>,
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: Option<usize>,
    timeout: Option<Duration>,
    attempts: Option<usize>,
    cache: u64,
    ttl: RangeInclusive<Duration>,
    negative_ttl: RangeInclusive<Duration>,
    questions: usize,
    random_case: bool,
}

/// Makes a [`Dns`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until it is told to"]
pub struct DnsBuilder {
    events: LoopHandle,
    setup: Setup,
}

impl Dns {
    /// Asks the servers of `/etc/resolv.conf`, by its rules, and looks into `/etc/hosts` before. Without the file, or without servers in it, this
    /// machine is asked.
    ///
    /// # Errors
    /// [`BadSetup`]: a file that is there and cannot be read. On systems without these files, name the servers by
    /// [`builder`](Self::builder), or use [`System`](crate::System).
    #[doc(alias = "evdns_base_resolv_conf_parse")]
    #[doc(alias = "evdns_base_load_hosts")]
    pub fn of_system(events: &LoopHandle) -> Result<Self, BadSetup> {
        Self::builder(events)
            .resolv_conf("/etc/resolv.conf")
            .hosts_file("/etc/hosts")
            .build()
    }

    /// Begins with neither servers nor files.
    pub fn builder(events: &LoopHandle) -> DnsBuilder {
        DnsBuilder {
            events: events.clone(),
            setup: Setup {
                resolv_conf: None,
                hosts: None,
                servers: Vec::new(),
                search: Vec::new(),
                ndots: None,
                timeout: None,
                attempts: None,
                cache: CACHE,
                ttl: Duration::ZERO..=LONGEST,
                negative_ttl: Duration::ZERO..=LONGEST_NEGATIVE,
                questions: QUESTIONS,
                random_case: false,
            },
        }
    }

    /// Reads the files again and forgets what was kept. Questions that are under way go on as they were asked.
    ///
    /// # Errors
    /// As [`of_system`](Self::of_system); what was set before stays then.
    pub fn reload(&self) -> Result<(), BadSetup> {
        let servers = self.setup.servers(self.runtime.clone())?;
        let old = std::mem::replace(&mut *self.servers.lock(), Arc::new(servers));
        drop(old);
        Ok(())
    }

    /// Forgets all answers.
    pub fn forget(&self) {
        self.servers.lock().resolver.clear_cache();
    }

    /// How many questions are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl DnsBuilder {
    /// Asks this server too. With servers of its own it does not ask those of a file.
    #[doc(alias = "evdns_base_nameserver_add")]
    #[doc(alias = "evdns_base_nameserver_ip_add")]
    pub fn name_server(mut self, address: impl Into<SocketAddr>) -> Self {
        self.setup.servers.push(address.into());
        self
    }

    /// Tries names that are short behind this domain too.
    #[doc(alias = "evdns_base_search_add")]
    pub fn search(mut self, domain: impl Into<String>) -> Self {
        self.setup.search.push(domain.into());
        self
    }

    /// Takes a name with more dots than this as it is before it tries domains behind it.
    #[doc(alias = "evdns_base_search_ndots_set")]
    pub fn ndots(mut self, ndots: usize) -> Self {
        self.setup.ndots = Some(ndots);
        self
    }

    /// Reads servers, domains and times from a file like `/etc/resolv.conf`, as far as they are not set here.
    pub fn resolv_conf(mut self, path: impl Into<PathBuf>) -> Self {
        self.setup.resolv_conf = Some(path.into());
        self
    }

    /// Looks into a file like `/etc/hosts` before it asks.
    pub fn hosts_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.setup.hosts = Some(path.into());
        self
    }

    /// How long a server may take to answer. 5 s unless told otherwise.
    #[doc(alias = "evdns_base_set_option")]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.setup.timeout = Some(timeout);
        self
    }

    /// How many times it asks again when there was no answer. Twice unless told otherwise.
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.setup.attempts = Some(attempts);
        self
    }

    /// Keeps so many answers; none with 0. 8192 unless told otherwise.
    pub fn cache(mut self, answers: u64) -> Self {
        self.setup.cache = answers;
        self
    }

    /// Keeps answers as long as they say, within these bounds: up to a day, unless told otherwise.
    pub fn ttl(mut self, bounds: RangeInclusive<Duration>) -> Self {
        self.setup.ttl = bounds;
        self
    }

    /// Keeps that there is no answer as long as the server says, within these bounds: up to 5 minutes, unless told otherwise.
    pub fn negative_ttl(mut self, bounds: RangeInclusive<Duration>) -> Self {
        self.setup.negative_ttl = bounds;
        self
    }

    /// Has at most so many questions under way. 256 unless told otherwise.
    #[doc(alias = "evdns_base_set_max_requests_inflight")]
    pub fn questions(mut self, questions: usize) -> Self {
        self.setup.questions = questions;
        self
    }

    /// Writes names in random case, and believes only answers that have it too ("0x20"): harder to forge. A server that does not keep
    /// the case is asked by TCP.
    pub fn random_case(mut self, random: bool) -> Self {
        self.setup.random_case = random;
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`BadSetup`]: a file that is there and cannot be read, no servers, or a domain that is no name.
    pub fn build(self) -> Result<Dns, BadSetup> {
        let tasks = Arc::new(Tasks::default());
        let runtime = Runtime::new(self.events, &tasks);
        let servers = self.setup.servers(runtime.clone())?;
        Ok(Dns {
            setup: self.setup,
            runtime,
            tasks,
            servers: Mutex::new(Arc::new(servers)),
            asked: Arc::default(),
        })
    }
}

impl Setup {
    fn servers(&self, runtime: Runtime) -> Result<Servers, BadSetup> {
        let file = self.resolv_conf.as_deref().map(read).transpose()?;
        let conf = file.map(|bytes| files::parse_resolv_conf(&bytes));
        let mut hosts = Hosts::default();
        if let Some(path) = &self.hosts {
            hosts = files::parse_hosts(&read(path)?);
        }
        let config = ResolverConfig::from_name_servers(self.addresses(conf.as_ref())?);
        let options = self.options(conf.as_ref());
        let ndots = options.ndots;
        let resolver = Resolver::builder_with_config(config, Connections(runtime))
            .with_options(options)
            .build()
            .map_err(|error| BadSetup::new("the resolver").with_source(error))?;
        Ok(Servers {
            resolver,
            hosts,
            search: self.domains(conf.as_ref())?,
            ndots,
        })
    }

    fn addresses(&self, conf: Option<&ResolvConf>) -> Result<Vec<NameServerConfig>, BadSetup> {
        let servers = match conf {
            Some(conf) if self.servers.is_empty() => &conf.servers,
            _ => &self.servers,
        };
        if servers.is_empty() || servers.len() > MAX_SERVERS {
            let count = servers.len();
            return Err(BadSetup::new(format!(
                "{count} name servers where there must be 1 to {MAX_SERVERS}"
            )));
        }
        Ok(servers.iter().copied().map(name_server).collect())
    }

    fn domains(&self, conf: Option<&ResolvConf>) -> Result<Vec<Name>, BadSetup> {
        if self.search.is_empty() {
            return Ok(conf.map(|conf| conf.search.clone()).unwrap_or_default());
        }
        if self.search.len() > MAX_SEARCH {
            let count = self.search.len();
            return Err(BadSetup::new(format!(
                "{count} search domains where there may be {MAX_SEARCH}"
            )));
        }
        let domain = |text: &String| {
            let name = name::to_ascii(text).and_then(|name| Name::from_ascii(name).ok());
            name.ok_or_else(|| BadSetup::new(format!("`{}` is no domain", text.escape_debug())))
        };
        self.search.iter().map(domain).collect()
    }

    fn options(&self, conf: Option<&ResolvConf>) -> ResolverOpts {
        let mut options = ResolverOpts::default();
        if let Some(conf) = conf {
            options.ndots = conf.ndots;
            options.timeout = conf.timeout;
            options.attempts = conf.attempts;
        }
        options.ndots = self.ndots.unwrap_or(options.ndots);
        options.timeout = self.timeout.unwrap_or(options.timeout);
        options.attempts = self.attempts.unwrap_or(options.attempts);
        options.cache_size = self.cache;
        options.positive_min_ttl = Some(*self.ttl.start());
        options.positive_max_ttl = Some(*self.ttl.end());
        options.negative_min_ttl = Some(*self.negative_ttl.start());
        options.negative_max_ttl = Some(*self.negative_ttl.end());
        options.max_active_requests = self.questions.saturating_mul(2).max(1);
        options.case_randomization = self.random_case;
        // The files are read here, where they are looked at first.
        options.use_hosts_file = ResolveHosts::Never;
        options.server_ordering_strategy = ServerOrderingStrategy::QueryStatistics;
        options
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

/// The contents of a file; nothing, if there is none.
fn read(path: &Path) -> Result<Vec<u8>, BadSetup> {
    let bytes = files::read(path).map_err(|error| {
        BadSetup::new(format!("{} cannot be read", path.display())).with_source(error)
    })?;
    Ok(bytes.unwrap_or_default())
}

impl Resolve for Dns {
    fn resolve(&self, question: &Question, reply: Reply) -> Lookup {
        let name = name::ascii(question).and_then(|name| {
            Name::from_ascii(name).map_err(|_| question.failed(ResolveFailure::BadName))
        });
        let name = match name {
            Ok(name) => name,
            Err(error) => {
                reply.answer(Family::Any, Err(error));
                return Lookup::done();
            }
        };
        let Some(place) = Place::take(&self.asked, self.setup.questions) else {
            let busy = question.failed(ResolveFailure::Busy);
            reply.answer(Family::Any, Err(busy));
            return Lookup::done();
        };
        let servers = self.servers.lock().clone();
        let names = servers.forms(name);
        let shared = Arc::new((reply, place));
        let mut running = Vec::with_capacity(2);
        // RFC 8305: the question for IPv6 goes out first.
        for (family, kind) in [(Family::V6, RecordType::AAAA), (Family::V4, RecordType::A)] {
            if question.family().wants(family) {
                let search = Search {
                    servers: servers.clone(),
                    names: names.clone(),
                    kind,
                };
                let shared = shared.clone();
                running.push(self.runtime.run(async move {
                    let found = search.run(shared.0.question()).await;
                    shared.0.answer(family, found);
                }));
            }
        }
        Lookup::until_dropped(running)
    }
}

/// One question's search: the file of hosts, then the name servers, for each form of the name in turn.
struct Search {
    servers: Arc<Servers>,
    names: Vec<Name>,
    kind: RecordType,
}

impl Search {
    async fn run(&self, question: &Question) -> Found {
        let Servers {
            resolver, hosts, ..
        } = &*self.servers;
        for name in &self.names {
            let query = Query::query(name.clone(), self.kind);
            if let Some(known) = hosts.lookup_static_host(&query) {
                return addresses(&known, self.kind, question);
            }
        }
        let mut told = None;
        for name in &self.names {
            let looked_up = resolver.lookup(name.clone(), self.kind).await;
            let failed = match looked_up.map_err(|error| explain(question, error)) {
                Ok(lookup) => match addresses(&lookup, self.kind, question) {
                    Ok(found) => return Ok(found),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            match (failed.failure(), &told) {
                // That the name exists says more than that others do not.
                (ResolveFailure::NotFound, Some(_)) => {}
                (ResolveFailure::NotFound | ResolveFailure::NoAddress, _) => told = Some(failed),
                // Whoever has trouble with one has it with all, and each would take as long.
                _ => return Err(failed),
            }
        }
        Err(told.unwrap_or_else(|| question.failed(ResolveFailure::NotFound)))
    }
}

fn explain(question: &Question, error: NetError) -> ResolveError {
    // That there is nobody left to ask says less than what the last one answered.
    let error = match (error, runtime::noted()) {
        (NetError::NoConnections, Some(noted)) => noted,
        (error, _) => error,
    };
    let failure = failure::failure(&error);
    question.failed(failure).with_source(error)
}

fn addresses(
    lookup: &hickory_resolver::lookup::Lookup,
    kind: RecordType,
    question: &Question,
) -> Found {
    let addresses = lookup
        .answers()
        .iter()
        .filter(|record| record.record_type() == kind)
        .filter_map(|record| record.data.ip_addr())
        .map(|ip: IpAddr| SocketAddr::new(ip, 0));
    let addresses: Vec<_> = addresses.collect();
    if addresses.is_empty() {
        return Err(question.failed(ResolveFailure::NoAddress));
    }
    Ok(addresses)
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.close();
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("setup", &self.setup)
            .field("under_way", &self.under_way())
            .finish_non_exhaustive()
    }
}

/// One of the questions that may be under way.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(asked: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let more = |count: usize| (count < limit).then_some(count + 1);
        asked
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self(asked.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a [`Dns`] cannot be made.
#[derive(Debug)]
pub struct BadSetup {
    why: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BadSetup {
    fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            source: None,
        }
    }

    fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The system's error, where a file could not be read.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        self.source.as_deref()?.downcast_ref()
    }
}

impl fmt::Display for BadSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for BadSetup {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}
