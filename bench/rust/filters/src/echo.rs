//! Our echo server, with and without a filter that changes nothing on each socket. It is started like every other server of the
//! benchmarks: `bench/c/peer.h` says how.

use bufferevent::filter::Identity;
use bufferevent::{Bev, EventLoop, FilterExt as _, Listener, Options, READ, on_read};

use crate::Outcome;

pub(crate) fn serve(filter: &str) -> Outcome<()> {
    let put_on = match filter {
        "plain" => |bev: Bev| Ok(bev),
        "identity" => |bev: Bev| bev.filter(Options::CLOSE_ON_FREE, Identity),
        _ => return Err("echo: plain or identity?".into()),
    };
    let events = EventLoop::new()?;
    let listener = Listener::builder(&events)
        .nodelay(true)
        .backlog(4096)
        .bind("127.0.0.1:0", move |bev, _peer| {
            let bev = put_on(bev)?;
            bev.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
            bev.enable(READ)
        })?;
    println!("{}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
