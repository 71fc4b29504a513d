//! What a layer that works for itself as well as for its user asks its context: whose bytes may move now, and what is
//! still to come from below.

use super::BelowEnd;
use super::Context;
use crate::direction::Directions;
use crate::node::{End, NONE};

impl Context<'_> {
    /// Whether the user's bytes may go up: reading is enabled and not held up. A layer that is asked to pull though they may not
    /// reads for itself.
    #[must_use]
    pub fn reading(&self) -> bool {
        self.read(|node| node.enabled.contains(Directions::READ) && node.held_read.is_empty())
            .unwrap_or(false)
    }

    /// Whether the user's bytes may go down: writing is enabled and not held up. A layer that is asked to push though they
    /// may not writes for itself.
    #[must_use]
    pub fn writing(&self) -> bool {
        self.read(crate::node::Node::gives).unwrap_or(false)
    }

    /// How what is below has ended, if it has, though bytes of it may be left to take.
    #[must_use]
    pub fn below_ended(&self) -> Option<BelowEnd> {
        if self.is_lent() {
            return None;
        }
        let core = self.cell.borrow();
        let node = core.find(self.index, self.generation)?;
        if node.below == NONE {
            return None;
        }
        let below = core.get(node.below)?;
        match below.read_end {
            End::Open | End::Wanted => None,
            End::Done => Some(BelowEnd::Eof),
            End::Failed => below
                .extras
                .as_ref()?
                .read_error
                .clone()
                .map(BelowEnd::Failed),
        }
    }
}
