//! The example on loopback sockets: its own file, included as a module.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use bufferevent_filter::FilterExt as _;
use bufferevent_zlib::Zlib;
use evreactor::EventLoop;

#[expect(dead_code, reason = "main is the program's alone")]
#[path = "../examples/chat.rs"]
mod chat;

/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_one_says_all_others_read_at_once() {
    let events = EventLoop::new().unwrap();
    let listener = chat::serve(&events, "127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, heard) = mpsc::channel();
    let members: Vec<_> = ["ann", "bob", "cem"]
        .into_iter()
        .map(|name| {
            let tell = tell.clone();
            chat::join(&events, &address, move |line| {
                tell.send((name, line.to_owned())).unwrap();
            })
            .unwrap()
        })
        .collect();
    let next = || {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "nobody says anything");
            events.poll().unwrap();
            match heard.try_recv() {
                Ok(said) => return said,
                Err(_) => std::thread::yield_now(),
            }
        }
    };
    // Who was not seated yet when a line was said is not told it: everybody says it again until all have heard all.
    let names = ["ann", "bob", "cem"];
    let mut missing: Vec<(&str, &str)> = names
        .into_iter()
        .flat_map(|to| {
            names
                .into_iter()
                .filter(move |name| *name != to)
                .map(move |name| (to, name))
        })
        .collect();
    let start = Instant::now();
    let mut said = None::<Instant>;
    while !missing.is_empty() {
        assert!(start.elapsed() < PATIENCE, "{missing:?}");
        if said.is_none_or(|said| said.elapsed() > Duration::from_millis(100)) {
            for (speaker, name) in members.iter().zip(names) {
                speaker
                    .write(format!("{name} is here\n").as_bytes())
                    .unwrap();
            }
            said = Some(Instant::now());
        }
        events.poll().unwrap();
        while let Ok((to, line)) = heard.try_recv() {
            missing.retain(|(whom, name)| *whom != to || line != format!("{name} is here"));
        }
        std::thread::yield_now();
    }
    members[0].write("grüße\n".as_bytes()).unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        let (to, line) = next();
        if line == "grüße" {
            told.push(to);
        }
    }
    told.sort_unstable();
    assert_eq!(told, ["bob", "cem"]);
    let stats = members[0]
        .filter_of::<Zlib>()
        .unwrap()
        .with(|filter| filter.stats());
    assert!(
        stats.unwrap().output.compressed > 0,
        "it went through the filter"
    );
}
