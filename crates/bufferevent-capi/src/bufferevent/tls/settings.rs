//! What connections are made of: `struct bufferevent_tls`, a client's or a server's, and the constructors of bufferevents.
//!
//! # Invariants
//! - A setting is taken as a whole or not at all; what was wrong with it stays readable until the next one.
//! - Certificates and keys are read once, when the first connection is made or the settings are checked, and again after a change.
//! - A connection keeps what it needs: settings may be freed before it.

use std::error::Error as StdError;
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bufferevent_tls::{
    ClientBuilder, ServerBuilder, SetupError, Tls, TlsClient, TlsServer, Versions,
};

use crate::bufferevent::socket::bufferevent_socket_new;
use crate::bufferevent::tls::put_on;
use crate::bufferevent::{Bev, CLOSE_ON_FREE, THREADSAFE};
use crate::event::base::Base;
use crate::ffi::{In, Ref, Text, Value, code};

/// `enum bufferevent_tls_verify`.
const VERIFY_NONE: c_int = 0;
const VERIFY_IF_GIVEN: c_int = 1;
const VERIFY_REQUIRED: c_int = 2;

/// `enum bufferevent_tls_flags`.
const DIRTY_SHUTDOWN: c_int = 1;
const NO_SERVER_NAME: c_int = 2;
const NO_RESUMPTION: c_int = 4;

/// `struct bufferevent_tls`.
pub(crate) struct Settings {
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Client,
    Server,
}

/// A certificate with its key, as PEM; a server's may be for one name.
struct Identity {
    name: Option<String>,
    chain: Vec<u8>,
    key: Vec<u8>,
}

/// As it was made, so that its sessions can be resumed.
enum Made {
    Client(TlsClient),
    Server(TlsServer),
}

struct State {
    role: Role,
    identities: Vec<Identity>,
    roots: Vec<u8>,
    revoked: Vec<Vec<u8>>,
    verify: c_int,
    flags: c_int,
    versions: Versions,
    protocols: Vec<Vec<u8>>,
    made: Option<Made>,
    /// What was wrong with the last call.
    problem: CString,
}

/// Why a setting was not taken.
type Problem = String;

/// An error with what is behind it.
fn told(error: &SetupError) -> Problem {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // A string takes whatever is written.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

fn read_file(path: Text<'_>) -> Result<Vec<u8>, Problem> {
    let path = path.get().ok_or("no path was given")?;
    let path = OsStr::from_bytes(path.to_bytes());
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn text(name: Text<'_>) -> Result<&str, Problem> {
    let name = name.get().ok_or("no name was given")?;
    name.to_str()
        .map_err(|_| format!("the name {name:?} is not UTF-8"))
}

fn bytes(data: &In<'_>, len: usize) -> Result<Vec<u8>, Problem> {
    let bytes = data.bytes(len).ok_or("no bytes were given")?;
    Ok(bytes.to_vec())
}

impl State {
    fn new(role: Role) -> Self {
        Self {
            role,
            identities: Vec::new(),
            roots: Vec::new(),
            revoked: Vec::new(),
            verify: match role {
                Role::Client => VERIFY_REQUIRED,
                Role::Server => VERIFY_NONE,
            },
            flags: 0,
            versions: Versions::default(),
            protocols: Vec::new(),
            made: None,
            problem: CString::default(),
        }
    }

    fn has(&self, flag: c_int) -> bool {
        self.flags & flag != 0
    }

    fn make(&mut self) -> Result<&Made, Problem> {
        let made = match self.made.take() {
            Some(made) => made,
            None => match self.role {
                Role::Client => Made::Client(self.client().build().map_err(|error| told(&error))?),
                Role::Server => {
                    let builder = self.server()?;
                    Made::Server(builder.build().map_err(|error| told(&error))?)
                }
            },
        };
        Ok(self.made.insert(made))
    }

    fn client(&self) -> ClientBuilder {
        // Each connection says its own name.
        let mut builder = TlsClient::builder("localhost")
            .versions(self.versions)
            .alpn(&self.protocols);
        for identity in &self.identities {
            builder = builder.certificate(&identity.chain, &identity.key);
        }
        for list in &self.revoked {
            builder = builder.revocation_lists_pem(list);
        }
        if !self.roots.is_empty() {
            builder = builder.roots_pem(&self.roots);
        }
        if self.verify == VERIFY_NONE {
            builder = builder.dangerous_accept_any_certificate();
        }
        if self.has(DIRTY_SHUTDOWN) {
            builder = builder.allow_dirty_shutdown();
        }
        if self.has(NO_SERVER_NAME) {
            builder = builder.without_sni();
        }
        if self.has(NO_RESUMPTION) {
            builder = builder.without_resumption();
        }
        builder
    }

    fn server(&self) -> Result<ServerBuilder, Problem> {
        let mut builder = TlsServer::builder()
            .versions(self.versions)
            .alpn(&self.protocols);
        for identity in &self.identities {
            builder = match &identity.name {
                Some(name) => builder.certificate_for(name, &identity.chain, &identity.key),
                None => builder.certificate(&identity.chain, &identity.key),
            };
        }
        for list in &self.revoked {
            builder = builder.revocation_lists_pem(list);
        }
        if self.verify != VERIFY_NONE && self.roots.is_empty() {
            return Err("clients are to be verified, and nobody is trusted".into());
        }
        builder = match self.verify {
            VERIFY_REQUIRED => builder.require_client_certificate(&self.roots),
            VERIFY_IF_GIVEN => builder.ask_for_client_certificate(&self.roots),
            _ => builder,
        };
        if self.has(DIRTY_SHUTDOWN) {
            builder = builder.allow_dirty_shutdown();
        }
        if self.has(NO_RESUMPTION) {
            builder = builder.without_resumption();
        }
        Ok(builder)
    }

    fn session(&mut self, name: Text<'_>) -> Result<Tls, Problem> {
        let session = match self.make()? {
            Made::Client(client) => {
                let client = client.for_name(text(name)?);
                client.and_then(|client| client.filter())
            }
            Made::Server(server) => server.filter(),
        };
        session.map_err(|error| told(&error))
    }
}

impl Settings {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that may go wrong, and keeps what did.
    fn attempt<T>(&self, body: impl FnOnce(&mut State) -> Result<T, Problem>) -> Option<T> {
        let mut state = self.state();
        match body(&mut state) {
            Ok(value) => {
                state.problem = CString::default();
                Some(value)
            }
            Err(problem) => {
                state.problem = CString::new(problem).unwrap_or_default();
                None
            }
        }
    }
}

/// Changes settings: what was made of the old ones is not used any more.
fn change(
    settings: Option<Ref<Settings>>,
    body: impl FnOnce(&mut State) -> Result<(), Problem>,
) -> c_int {
    let Some(settings) = settings else { return -1 };
    let changed = settings.attempt(|state| {
        body(state)?;
        state.made = None;
        Ok(())
    });
    code(changed.is_some())
}

fn create(role: Role) -> Option<Ref<Settings>> {
    Ref::make(Settings {
        state: Mutex::new(State::new(role)),
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_client_new() -> Option<Ref<Settings>> {
    create(Role::Client)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_server_new() -> Option<Ref<Settings>> {
    create(Role::Server)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_free(settings: Option<Ref<Settings>>) {
    if let Some(settings) = settings {
        // SAFETY: it came from `create`, C gives it up, and connections keep nothing of it.
        unsafe { settings.free() };
    }
}

fn identify(state: &mut State, identity: Identity) -> Result<(), Problem> {
    if state.role == Role::Client && identity.name.is_some() {
        return Err("a client has one certificate, for no name".into());
    }
    state.identities.retain(|own| own.name != identity.name);
    state.identities.push(identity);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_use_certificate(
    settings: Option<Ref<Settings>>,
    chain_file: Text<'_>,
    key_file: Text<'_>,
) -> c_int {
    change(settings, |state| {
        let (chain, key) = (read_file(chain_file)?, read_file(key_file)?);
        let name = None;
        identify(state, Identity { name, chain, key })
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_use_certificate_pem(
    settings: Option<Ref<Settings>>,
    chain: In<'_>,
    chain_len: usize,
    key: In<'_>,
    key_len: usize,
) -> c_int {
    change(settings, |state| {
        let (chain, key) = (bytes(&chain, chain_len)?, bytes(&key, key_len)?);
        let name = None;
        identify(state, Identity { name, chain, key })
    })
}

/// What a server shows to who asks for this name.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_use_certificate_for(
    settings: Option<Ref<Settings>>,
    name: Text<'_>,
    chain_file: Text<'_>,
    key_file: Text<'_>,
) -> c_int {
    change(settings, |state| {
        let name = Some(text(name)?.to_ascii_lowercase());
        let (chain, key) = (read_file(chain_file)?, read_file(key_file)?);
        identify(state, Identity { name, chain, key })
    })
}

fn trust(state: &mut State, pem: &[u8]) {
    state.roots.extend_from_slice(pem);
    state.roots.push(b'\n');
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_trust(settings: Option<Ref<Settings>>, file: Text<'_>) -> c_int {
    change(settings, |state| {
        trust(state, &read_file(file)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_trust_pem(
    settings: Option<Ref<Settings>>,
    pem: In<'_>,
    len: usize,
) -> c_int {
    change(settings, |state| {
        trust(state, &bytes(&pem, len)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_refuse_revoked(
    settings: Option<Ref<Settings>>,
    file: Text<'_>,
) -> c_int {
    change(settings, |state| {
        state.revoked.push(read_file(file)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_set_verify(settings: Option<Ref<Settings>>, mode: c_int) -> c_int {
    change(settings, |state| match (state.role, mode) {
        (Role::Client, VERIFY_IF_GIVEN) => Err("servers always show a certificate".into()),
        (_, VERIFY_NONE | VERIFY_IF_GIVEN | VERIFY_REQUIRED) => {
            state.verify = mode;
            Ok(())
        }
        _ => Err(format!("{mode} is no way to verify")),
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_set_versions(
    settings: Option<Ref<Settings>>,
    versions: c_int,
) -> c_int {
    change(settings, |state| {
        state.versions = match versions {
            0 => Versions::Tls12AndTls13,
            0x0303 => Versions::Tls12,
            0x0304 => Versions::Tls13,
            _ => return Err(format!("{versions:#x} is no version of TLS that is spoken")),
        };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_set_flags(settings: Option<Ref<Settings>>, flags: c_int) -> c_int {
    change(settings, |state| {
        if flags & !(DIRTY_SHUTDOWN | NO_SERVER_NAME | NO_RESUMPTION) != 0 {
            return Err(format!("{flags:#x} has flags that are none"));
        }
        state.flags = flags;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_set_alpn(
    settings: Option<Ref<Settings>>,
    protocols: Value<Text<'static>>,
    count: usize,
) -> c_int {
    change(settings, |state| {
        let names = protocols.slice(count).iter();
        let names: Option<Vec<_>> = names
            .map(|name| name.get().map(|name| name.to_bytes().to_vec()))
            .collect();
        state.protocols = names.ok_or("one of the protocols has no name")?;
        Ok(())
    })
}

/// Reads all that was given, as the first connection would.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_check(settings: Option<Ref<Settings>>) -> c_int {
    let checked = settings.and_then(|settings| settings.attempt(|state| state.make().map(drop)));
    code(checked.is_some())
}

/// What was wrong with the last call; an empty text if nothing was.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_setup_error(settings: Option<Ref<Settings>>) -> *const c_char {
    const NONE: &CStr = c"there are no settings";
    settings.map_or(NONE.as_ptr(), |settings| settings.state().problem.as_ptr())
}

fn session(settings: Option<Ref<Settings>>, name: Text<'_>) -> Option<Tls> {
    settings?.attempt(|state| state.session(name))
}

/// On a descriptor, or on none yet: it is connected, and then the handshake begins.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_socket_new(
    base: Option<Ref<Base>>,
    fd: c_int,
    settings: Option<Ref<Settings>>,
    name: Text<'_>,
    options: c_int,
) -> Option<Ref<Bev>> {
    let base = base?;
    let session = session(settings, name)?;
    let below = bufferevent_socket_new(Some(base), fd, options & (CLOSE_ON_FREE | THREADSAFE))?;
    let bev = put_on(below, session, options, true);
    if bev.is_none() {
        // The descriptor is still the program's.
        below.options.set(below.options.get() & !CLOSE_ON_FREE);
        below.release();
    }
    bev
}

/// On any bufferevent, also one that is talking already.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_filter_new(
    below: Option<Ref<Bev>>,
    settings: Option<Ref<Settings>>,
    name: Text<'_>,
    options: c_int,
) -> Option<Ref<Bev>> {
    let below = below?;
    put_on(below, session(settings, name)?, options, false)
}
