//! An echo server in async/await: a task for each connection, on one loop, without a runtime.
//!
//! ```text
//! cargo run -p bufferevent --features async --example async_echo -- 127.0.0.1:7000
//! ```

use std::io;
use std::time::Duration;

use bufferevent::{AsyncBev, Error, EventLoop, Listener, LoopHandle, task};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};

/// A connection on which nothing moves for so long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// Sends back what comes, until the peer has ended.
async fn echo(mut bev: AsyncBev) -> io::Result<u64> {
    let mut piece = [0; 16 * 1024];
    let mut echoed = 0;
    loop {
        let count = bev.read(&mut piece).await?;
        if count == 0 {
            break;
        }
        bev.write_all(&piece[..count]).await?; // Waits while the peer does not read.
        echoed += count as u64;
    }
    bev.close().await?;
    Ok(echoed)
}

/// Listens at `address`.
pub(crate) fn listen(events: &LoopHandle, address: &str) -> Result<Listener, Error> {
    let on = events.clone();
    Listener::bind(events, address, move |bev, _peer| {
        bev.set_idle_timeout(Some(IDLE))?;
        let bev = AsyncBev::new(bev)?;
        task::spawn(&on, async move {
            match echo(bev).await {
                Ok(count) => println!("{count} bytes"),
                Err(error) => println!("{error}"),
            }
        })?;
        Ok(())
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let events = EventLoop::new()?;
    let listener = listen(&events, &address)?;
    println!("listening on {}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
