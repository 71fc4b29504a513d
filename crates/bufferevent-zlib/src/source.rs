//! Taking from a source: its first bytes in memory, whatever they come from.

use bufferevent_core::{Error, Kind};
use evbuffer::{ErrorKind, EvBuffer};

use crate::settings::Format;

/// Bytes of a file region that are read at a time.
const LOAD: usize = 64 * 1024;

/// Makes [`EvBuffer::chunk`] show bytes if there are any: the front of a file region is read.
pub(crate) fn load(
    source: &mut EvBuffer,
    format: Format,
    operation: &'static str,
) -> Result<(), Error> {
    let Some(length) = source.front_file().map(|region| region.len().min(LOAD)) else {
        return Ok(());
    };
    match source.pull_up(length) {
        Ok(_) => Ok(()),
        Err(error) => {
            let kind = match error.kind() {
                ErrorKind::OutOfMemory => Kind::OutOfMemory,
                _ => Kind::System,
            };
            Err(Error::new(kind, format.name(), operation).with_source(error))
        }
    }
}
