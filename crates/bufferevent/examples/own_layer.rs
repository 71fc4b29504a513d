//! A type of bufferevent of one's own: a layer that turns letters by thirteen places, and counts them, over any other
//! bufferevent. The echo behind it knows nothing of it.
//!
//! ```text
//! cargo run --example own_layer -- 127.0.0.1:7000
//! ```

use bufferevent::evbuffer::EvBuffer;
use bufferevent::{
    Bev, Bufferevent, Context, Error, EventLoop, Listener, LoopHandle, Options, READ, Step, on_read,
};

/// Bytes turned at a time.
const PIECE: usize = 4096;

/// The layer.
#[derive(Debug, Default)]
struct Rot13 {
    /// Letters turned so far, in both directions.
    letters: u64,
}

impl Rot13 {
    /// Takes at most `room` bytes from `source`, and adds them to `sink` turned. Returns how many.
    fn turn(&mut self, source: &mut EvBuffer, sink: &mut EvBuffer, room: usize) -> usize {
        let mut piece = [0; PIECE];
        let mut moved = 0;
        while moved < room {
            let count = source.copy_out(&mut piece[..PIECE.min(room - moved)]);
            let piece = &mut piece[..count];
            for byte in piece.iter_mut().filter(|byte| byte.is_ascii_alphabetic()) {
                let base = if byte.is_ascii_lowercase() {
                    b'a'
                } else {
                    b'A'
                };
                *byte = base + (*byte - base + 13) % 26;
                self.letters += 1;
            }
            // No memory: the bytes stay where they are, and are asked for again.
            if count == 0 || sink.append_slice(piece).is_err() {
                break;
            }
            moved += source.drain(count);
        }
        moved
    }
}

impl Bufferevent for Rot13 {
    fn name(&self) -> &'static str {
        "rot13"
    }

    /// Bytes up. When what is below has ended and nothing of it is left, this has ended too.
    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        let moved = cx.lift(|below, own, room| self.turn(below, own, room));
        if moved == 0 {
            cx.inherit_end();
        }
        Step::Done
    }

    /// Bytes down. Nothing is held back here, so the end mark follows the last byte.
    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        let moved = cx.lower(|own, below, room| self.turn(own, below, room));
        if moved == 0 && cx.finishing() {
            cx.end_output();
        }
        Step::Done
    }
}

/// How many letters the layer in a stack has turned, found from the top by its type.
pub(crate) fn letters(top: &Bev) -> Option<u64> {
    top.layer::<Rot13>()?.with(|layer, _| layer.letters).ok()
}

/// An echo on top of the layer, on top of `socket`.
pub(crate) fn stack(socket: &Bev) -> Result<Bev, Error> {
    let top = socket.over(Options::CLOSE_ON_FREE, Rot13::default())?;
    top.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
    top.enable(READ)?;
    Ok(top)
}

/// Listens at `address`.
fn listen(events: &LoopHandle, address: &str) -> Result<Listener, Error> {
    Listener::bind(events, address, |socket, _peer| stack(&socket).map(drop))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let events = EventLoop::new()?;
    let listener = listen(&events, &address)?;
    println!("listening on {}", listener.local_addr()?);

    // The same layer over a pair: no socket needed.
    let (near, far) = bufferevent::pair(&events)?;
    let top = near.over(Options::CLOSE_ON_FREE, Rot13::default())?;
    top.write(b"Hello, world")?;
    far.enable(READ)?;
    let mut seen = [0; 12];
    far.read(&mut seen)?;
    println!(
        "{} ({:?} letters)",
        String::from_utf8_lossy(&seen),
        letters(&top)
    );
    drop((top, far));

    events.run()?;
    Ok(())
}
