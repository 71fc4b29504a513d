//! Making bufferevents, alone, beside and on top of each other, and finding a layer in a stack by its type.
//!
//! # Invariants
//! - A stack and a pair are one domain. A layer joins the domain of what it is put on, with its lock policy and its loop.
//! - What is below a layer belongs to it: its data and handler are out of reach until it is uncovered.

use std::any::{Any, TypeId};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use evbuffer::EvBuffer;
use evreactor_core::sync::Arc;
use evreactor_core::{Host, Target};

use crate::bev::Bev;
use crate::context::{Context, NodeKey};
use crate::core::Facts;
use crate::direction::Directions;
use crate::domain::{Call, Domain};
use crate::error::{Error, Kind};
use crate::layer::Bufferevent;
use crate::node::{End, Flags, Index, Link, NONE, Steps};
use crate::options::{Mode, Options};
use crate::published::Is;
use crate::pump::{self, Active};

impl Bev {
    /// Makes a bufferevent of a type that stands on nothing else: a transport.
    ///
    /// # Errors
    /// [`Kind::Misuse`] for options that contradict each other. What the type's [`attached`](Bufferevent::attached) reports by failing
    /// the bufferevent comes as an event, not here.
    pub fn transport(
        host: Arc<dyn Host>,
        options: Options,
        layer: impl Bufferevent,
    ) -> Result<Self, Error> {
        options.check(layer.name(), "new")?;
        let domain = Domain::new(host, options.contains(Options::THREADSAFE));
        Self::place(domain, options, Box::new(layer), "new", NONE)
    }

    /// Makes a bufferevent in the same domain, joined to this one only by what their types agree on: the other end of
    /// a pair.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn beside(&self, layer: impl Bufferevent) -> Result<Self, Error> {
        let options = self.on("beside", |core, index| Ok(core.node(index).options))?;
        Self::place(
            self.0.domain().clone(),
            options,
            Box::new(layer),
            "beside",
            NONE,
        )
    }

    /// Puts a layer on top of this bufferevent, in its domain. The new one starts with writing enabled and reading
    /// disabled; unread bytes of this one are the layer's first.
    ///
    /// # Errors
    /// [`Kind::Misuse`] for a THREADSAFE layer over a confined bufferevent, and for options that contradict each other; [`Kind::Covered`] if there is a layer on it;
    /// [`Kind::Ended`] if nothing can be written to it any more; [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_filter_new")]
    pub fn over(&self, options: Options, layer: impl Bufferevent) -> Result<Self, Error> {
        options.check(layer.name(), "over")?;
        if options.contains(Options::THREADSAFE) && !self.0.domain().threadsafe() {
            return Err(Error::new(Kind::Misuse, layer.name(), "over"));
        }
        let name = layer.name();
        let _hold = self.0.domain().hold("over")?;
        self.own("over", |core, index| match core.node(index).write_end {
            End::Open => Ok(()),
            End::Wanted | End::Done | End::Failed => Err(Error::new(Kind::Ended, name, "over")),
        })?;
        Self::place(
            self.0.domain().clone(),
            options,
            Box::new(layer),
            "over",
            self.0.index(),
        )
    }

    fn place(
        domain: Arc<Domain>,
        options: Options,
        layer: Box<dyn Bufferevent>,
        operation: &'static str,
        below: Index,
    ) -> Result<Self, Error> {
        // Until the layer is in its place nobody runs it.
        let cell = domain.hold(operation)?;
        let bev = domain.operate(operation, |core| {
            let index = core.add(options, layer);
            if below == NONE && !core.nodes.is_lone() {
                core.facts.insert(Facts::PAIRED);
            }
            if let Some(under) = core.get_mut(below) {
                under.above = index;
                under.enabled_before = under.enabled;
                under.enabled = Directions::BOTH;
                let link = under.link;
                let node = core.node(index);
                node.below = below;
                // A layer over what is not connected yet hears of it when it is.
                node.link = if link == Link::Open {
                    Link::Open
                } else {
                    Link::Idle
                };
                // What waited there because a direction was disabled goes on.
                core.opened(below, Directions::BOTH);
            }
            Self::first(domain.clone(), core, index)
        })?;
        let (index, generation) = bev.0.place();
        if let Some(mut layer) = pump::take_layer(&cell, index, generation) {
            let mut cx = Context::new(&cell, index, generation, Mode::Normal);
            pump::guarded(&cell, index, generation, "attached", || {
                layer.attached(&mut cx)
            });
            pump::put_back(&cell, index, generation, layer);
        }
        let tells = domain.operate(operation, |core| {
            core.hand_up_connected(index, generation);
            below != NONE || core.facts.intersects(Facts::SOURCED.union(Facts::PAIRED))
        })?;
        if !tells {
            let target: Arc<dyn Target> = domain.clone();
            // A loop that is closed already has nothing to tell.
            let _ = domain.host().tell_closed(Arc::downgrade(&target));
        }
        Ok(bev)
    }

    /// The bufferevent below this one, or `None` for a transport.
    #[doc(alias = "bufferevent_get_underlying")]
    #[must_use]
    pub fn underlying(&self) -> Option<Self> {
        self.assert_thread();
        if let Some(published) = self.published() {
            let below = published.below.upgrade()?;
            let there = below.published().is_some_and(|below| !below.is(Is::FREED));
            return (there && !published.is(Is::FREED)).then(|| Self::user_of(below));
        }
        let cell = self.glance()?;
        let core = cell.borrow();
        let below = core.find(self.0.index(), self.0.generation())?.below;
        Self::of(core.get(below)?)
    }

    /// The key under which a type of the same domain may keep this bufferevent.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn key(&self) -> Result<NodeKey, Error> {
        self.on("key", |core, index| {
            Ok(NodeKey {
                index,
                generation: core.node(index).generation,
            })
        })
    }

    /// The partner or other node of this domain that `key` names; `None` also while another thread is in the domain and this one holds
    /// the lock of another, and cannot wait.
    #[must_use]
    pub fn neighbour(&self, key: NodeKey) -> Option<Self> {
        self.assert_thread();
        let cell = self.0.domain().enter("neighbour").ok()?;
        let core = cell.borrow();
        Self::of(core.find(key.index, key.generation)?)
    }

    /// What a source is registered with the loop under, so that its readiness comes to this bufferevent.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn target(&self) -> Result<(Arc<dyn Target>, u64), Error> {
        self.on("target", |core, index| {
            core.facts.insert(Facts::SOURCED);
            core.target(index, Call::Ready)
                .ok_or_else(|| Error::new(Kind::Freed, "bufferevent", "target"))
        })
    }

    /// The first layer of type `T`, from this bufferevent downwards.
    #[must_use]
    pub fn layer<T: Bufferevent>(&self) -> Option<LayerRef<T>> {
        self.assert_thread();
        if self.published().is_some() {
            return self.published_layer(TypeId::of::<T>()).map(|key| LayerRef {
                bev: self.clone(),
                key,
                of: PhantomData,
            });
        }
        let cell = self.glance()?;
        let core = cell.borrow();
        core.find(self.0.index(), self.0.generation())?;
        let mut index = self.0.index();
        while let Some(node) = core.get(index) {
            let any: Option<&dyn Any> = node.layer.as_deref().map(|layer| layer as &dyn Any);
            if any.is_some_and(<dyn Any>::is::<T>) {
                let key = NodeKey {
                    index,
                    generation: node.generation,
                };
                return Some(LayerRef {
                    bev: self.clone(),
                    key,
                    of: PhantomData,
                });
            }
            index = node.below;
        }
        None
    }

    /// The first layer of this type from here downwards, found without the lock.
    fn published_layer(&self, kind: TypeId) -> Option<NodeKey> {
        let mut next = Some(self.0.clone());
        while let Some(handle) = next {
            let published = handle.published().filter(|here| !here.is(Is::FREED))?;
            if published.kind == kind {
                return Some(NodeKey {
                    index: handle.index(),
                    generation: handle.generation(),
                });
            }
            next = published.below.upgrade();
        }
        None
    }

    /// Takes the input out for user code to look at, and puts it back.
    pub(crate) fn lend_input<R>(
        &self,
        operation: &'static str,
        look: impl FnOnce(&mut EvBuffer) -> R,
    ) -> Result<R, Error> {
        let mut input = self.own(operation, |core, index| {
            let node = core.node(index);
            if node.flags.contains(Flags::INPUT_LENT) {
                return Err(Error::new(Kind::Busy, node.name(), operation));
            }
            node.flags.insert(Flags::INPUT_LENT);
            Ok(std::mem::take(&mut node.input))
        })?;
        let result = catch_unwind(AssertUnwindSafe(|| look(&mut input)));
        // Freed meanwhile: the bytes go with this call.
        let _ = self.on(operation, |core, index| {
            let node = core.node(index);
            node.flags.remove(Flags::INPUT_LENT);
            // Sums of lengths that fitted before fit again.
            let _ = input.append(&mut node.input);
            node.input = std::mem::take(&mut input);
            core.opened(index, Directions::READ);
            Ok(())
        });
        result.map_err(|payload| resume_unwind(payload))
    }
}

/// A layer of a stack, by its type.
#[derive(Debug)]
pub struct LayerRef<T> {
    bev: Bev,
    key: NodeKey,
    of: PhantomData<fn(T)>,
}

impl<T: Bufferevent> LayerRef<T> {
    /// The bufferevent that the layer makes up, or `None` if it was freed.
    #[must_use]
    pub fn bev(&self) -> Option<Bev> {
        self.bev.neighbour(self.key)
    }

    /// Runs `call` on the layer and its context, with nothing borrowed.
    ///
    /// # Errors
    /// [`Kind::Busy`] if the layer is at work further up the call stack, or another thread is in the stack while this one holds another's
    /// lock; [`Kind::Freed`]; [`Kind::WrongThread`]. With THREADSAFE it runs on whatever thread calls, under the lock.
    pub fn with<R>(&self, call: impl FnOnce(&mut T, &mut Context<'_>) -> R) -> Result<R, Error> {
        const OPERATION: &str = "layer";
        let domain = self.bev.0.domain();
        let NodeKey { index, generation } = self.key;
        let result = {
            let cell = domain.hold(OPERATION)?;
            if cell.borrow().find(index, generation).is_none() {
                return Err(Error::new(Kind::Freed, "bufferevent", OPERATION));
            }
            // What the call wakes runs after it, so no step finds the layer missing.
            let active = Active::begin();
            let Some(mut layer) = pump::take_layer(&cell, index, generation) else {
                return Err(Error::new(Kind::Busy, "bufferevent", OPERATION));
            };
            let mut cx = Context::new(&cell, index, generation, Mode::Normal);
            let result = catch_unwind(AssertUnwindSafe(|| {
                let any: &mut dyn Any = &mut *layer;
                any.downcast_mut::<T>().map(|layer| call(layer, &mut cx))
            }));
            pump::put_back(&cell, index, generation, layer);
            drop(active);
            result
        };
        pump::run_listed();
        domain.operate(OPERATION, |core| {
            // Steps that found the layer out asked for it in vain.
            core.ask_again(index, generation);
        })?;
        match result {
            Ok(Some(result)) => Ok(result),
            Ok(None) => Err(Error::new(Kind::Freed, "bufferevent", OPERATION)),
            Err(payload) => resume_unwind(payload),
        }
    }
}

impl crate::core::Core {
    /// Queues what this node may do now.
    fn ask_again(&mut self, index: Index, generation: u32) {
        if self.find(index, generation).is_none() {
            return;
        }
        let node = self.node(index);
        if node.read_end == End::Open && node.link != Link::Connecting {
            self.queue_pull(index);
        }
        if self.wants_push(index) {
            self.queue(index, Steps::PUSH);
        }
    }
}
