//! Backends: chosen by name and by the environment, joined by others' through the public trait.

mod common;

use std::any::Any;
use std::io;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_testkit::spec;
use common::{Entry, Log, each_backend};
use evreactor::{
    BACKEND_VARIABLE, Backend, BuildError, DEFAULT_BACKEND, EventLoop, Events, Features, Interest,
    Outcome, Priority, RawSource, Ready, Registrar, Token,
};

#[test]
fn a_backend_is_chosen_by_name() {
    each_backend(|builder| {
        spec!(L1);
        let asked = format!("{builder:?}");
        let events = builder.build().expect("the backend is there");
        assert!(asked.contains(events.backend()));
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
    });
}

#[test]
fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
    let error = EventLoop::builder()
        .backend("kpoll")
        .build()
        .expect_err("there is none");
    let text = error.to_string();
    for name in evreactor::backend_names() {
        assert!(text.contains(name), "{text:?} lacks {name}");
    }
    assert!(matches!(error, BuildError::UnknownBackend { name, .. } if name == "kpoll"));
    assert_eq!(
        io::Error::from(
            EventLoop::builder()
                .priorities(0)
                .build()
                .expect_err("none")
        )
        .kind(),
        io::ErrorKind::InvalidInput
    );
}

/// Run by itself, and by the test below in processes with the variable set.
#[test]
fn a_loop_takes_the_backend_of_the_environment() {
    match std::env::var(BACKEND_VARIABLE) {
        Ok(name) if evreactor::backend_names().contains(&name.as_str()) => {
            assert_eq!(EventLoop::new().expect("a known name").backend(), name);
            let other = EventLoop::builder()
                .backend("polling")
                .build()
                .expect("a known name");
            assert_eq!(other.backend(), "polling", "who chooses is not overruled");
        }
        Ok(_) => assert!(matches!(
            EventLoop::new(),
            Err(BuildError::UnknownBackend { .. })
        )),
        Err(_) => assert_eq!(
            EventLoop::new().expect("the default").backend(),
            DEFAULT_BACKEND
        ),
    }
}

#[test]
fn the_environment_variable_chooses() {
    spec!(L1);
    let program = std::env::current_exe().expect("a test has a program");
    for value in [
        Some("polling"),
        Some(DEFAULT_BACKEND),
        Some("no such backend"),
        None,
    ] {
        let mut child = Command::new(&program);
        child.args(["--exact", "a_loop_takes_the_backend_of_the_environment"]);
        match value {
            Some(value) => child.env(BACKEND_VARIABLE, value),
            None => child.env_remove(BACKEND_VARIABLE),
        };
        let output = child.output().expect("the program starts");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && report.contains("1 passed"),
            "{value:?}: {report}"
        );
    }
}

/// A completion backend without a system below: jobs are submitted to it, and "completed" in its wait.
struct Completions {
    shared: Arc<Submissions>,
    jobs: Receiver<Option<(Token, u64)>>,
}

struct Submissions {
    jobs: Sender<Option<(Token, u64)>>,
    results: Mutex<Vec<u64>>,
}

impl Completions {
    fn new() -> Self {
        let (sender, jobs) = channel();
        Self {
            shared: Arc::new(Submissions {
                jobs: sender,
                results: Mutex::default(),
            }),
            jobs,
        }
    }
}

impl Backend for Completions {
    fn registrar(&self) -> Arc<dyn Registrar> {
        self.shared.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        let first = self
            .jobs
            .recv_timeout(timeout.unwrap_or(common::PATIENCE))
            .ok();
        for (token, number) in first.into_iter().chain(self.jobs.try_iter()).flatten() {
            self.shared
                .results
                .lock()
                .expect("not poisoned")
                .push(number * number);
            events.push(token, Ready::READABLE);
        }
        Ok(())
    }
}

impl Registrar for Submissions {
    fn features(&self) -> Features {
        Features::NONE.with_edges()
    }

    fn register(&self, _: RawSource, _: Token, _: Interest) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn modify(&self, _: RawSource, _: Token, _: Interest) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn deregister(&self, _: RawSource, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn wake(&self) -> io::Result<()> {
        self.jobs.send(None).map_err(io::Error::other)
    }
}

#[test]
fn a_completion_backend_of_another_crate_plugs_in() {
    spec!(L1);
    evreactor::register_backend("squares", || Ok(Box::new(Completions::new())))
        .expect("the name is free");
    let taken = evreactor::register_backend("squares", || Ok(Box::new(Completions::new())));
    assert!(
        taken
            .expect_err("the name has an owner")
            .to_string()
            .contains("squares")
    );

    let events = EventLoop::builder()
        .backend("squares")
        .build()
        .expect("it was registered");
    let handle = events.clone();
    let log = Log::acting(move |_| handle.exit());
    let registration = events
        .attach(Priority(0), log.clone(), 5)
        .expect("the loop is there");

    // From another thread, through the backend's own type.
    let (handle, token) = (events.clone(), registration.token());
    let submitter = std::thread::spawn(move || {
        let backend: &dyn Any = handle.registrar();
        let backend = backend
            .downcast_ref::<Submissions>()
            .expect("it is this test's");
        backend
            .jobs
            .send(Some((token, 12)))
            .expect("the loop is there");
    });
    assert_eq!(events.run().expect("the loop runs"), Outcome::Exit);
    submitter.join().expect("the submitter ends");
    assert_eq!(log.take(), [Entry::Ready(5, Ready::READABLE)]);
    let backend: &dyn Any = events.registrar();
    let backend = backend
        .downcast_ref::<Submissions>()
        .expect("it is this test's");
    assert_eq!(*backend.results.lock().expect("not poisoned"), [144]);
    assert!(
        registration.set_interest(Interest::READ).is_err(),
        "it has no descriptor"
    );

    // The rest of the loop works on it too.
    let handle = events.clone();
    let poster = std::thread::spawn(move || handle.post(|| ()).expect("the loop is there"));
    assert_eq!(events.run_once().expect("the loop runs"), Outcome::Done);
    poster.join().expect("the poster ends");
    assert_eq!(events.stats().tasks, 1);
}
