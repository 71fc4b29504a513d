//! A filter in twenty lines: every byte is XORed with a key, on its way out and on its way in. Not a cipher.
//!
//! ```text
//! cargo run -p bufferevent-filter --example xor
//! ```

use bufferevent_core::{Error, Mode, Options, READ};
use bufferevent_filter::{Filter, FilterExt, Sink, Verdict};
use bufferevent_pair::pair;
use evbuffer::EvBuffer;
use evreactor::EventLoop;

/// The filter. Both sides do the same, and nothing is held back.
struct Xor(u8);

impl Xor {
    fn turn(&self, source: &mut EvBuffer, sink: &mut Sink<'_>) -> Verdict {
        while !source.is_empty() {
            // As much as is in one piece, and fits.
            let Some(count) = sink.fill(source.chunk().len(), |room| {
                let count = room.len();
                room.copy_from_slice(&source.chunk()[..count]);
                room.iter_mut().for_each(|byte| *byte ^= self.0);
                (count, count)
            }) else {
                return Verdict::Full;
            };
            source.drain(count);
        }
        Verdict::NeedInput
    }
}

impl Filter for Xor {
    fn name(&self) -> &'static str {
        "xor"
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        Ok(self.turn(source, sink))
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        Ok(self.turn(source, sink))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let events = EventLoop::new()?;
    let (near, far) = pair(&events)?;
    let near = near.filter(Options::CLOSE_ON_FREE, Xor(0x5a))?;
    far.enable(READ)?;
    near.write(b"plain")?;
    events.poll()?;
    let mut seen = [0; 5];
    far.read(&mut seen)?;
    println!("below the filter: {seen:02x?}");
    assert_ne!(&seen, b"plain");
    // The other end, too, now.
    let far = far.filter(Options::CLOSE_ON_FREE, Xor(0x5a))?;
    far.enable(READ)?;
    near.write(b"plain")?;
    events.poll()?;
    far.read(&mut seen)?;
    println!("above both: {}", String::from_utf8_lossy(&seen));
    assert_eq!(&seen, b"plain");
    Ok(())
}
