//! Putting a filter on a bufferevent, and finding it again by its type.

use std::fmt;

use bufferevent_core::{Bev, Error, LayerRef, Options};

use crate::filter::Filter;
use crate::filtering::Filtering;

/// What every bufferevent can do with filters.
pub trait FilterExt {
    /// Puts `filter` on top of this bufferevent: what the new one reads has passed its input side, what is written to the new one
    /// passes its output side. Unread bytes of this one are the filter's first.
    ///
    /// The new one has writing enabled and reading disabled. With [`Options::CLOSE_ON_FREE`], freeing it frees this one too;
    /// without, this one is then usable again.
    ///
    /// ```
    /// use bufferevent_core::{Options, READ};
    /// use bufferevent_filter::{FilterExt, Identity};
    /// # use bufferevent_pair::pair;
    /// # let events = bufferevent_testkit::Loop::new();
    /// let (near, far) = pair(&events)?;
    /// let near = near.filter(Options::CLOSE_ON_FREE, Identity)?;
    /// far.enable(READ)?;
    /// near.write(b"through the filter")?;
    /// # events.run();
    /// assert_eq!(far.input().len(), 18);
    /// # Ok::<(), bufferevent_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Bev::over`].
    ///
    /// Source: libevent `bufferevent_filter_new`.
    #[doc(alias = "bufferevent_filter_new")]
    fn filter(&self, options: Options, filter: impl Filter) -> Result<Bev, Error>;

    /// The first filter of type `F`, from this bufferevent downwards; `None` if there is none.
    fn filter_of<F: Filter>(&self) -> Option<FilterRef<F>>;
}

impl FilterExt for Bev {
    fn filter(&self, options: Options, filter: impl Filter) -> Result<Bev, Error> {
        self.over(options, Filtering::new(filter))
    }

    fn filter_of<F: Filter>(&self) -> Option<FilterRef<F>> {
        self.layer::<Filtering<F>>().map(FilterRef)
    }
}

/// A filter of a stack, found by its type.
pub struct FilterRef<F>(LayerRef<Filtering<F>>);

impl<F: Filter> FilterRef<F> {
    /// The bufferevent that the filter makes up, or `None` if it was freed.
    #[must_use]
    pub fn bev(&self) -> Option<Bev> {
        self.0.bev()
    }

    /// Runs `call` on the filter, with nothing borrowed. What it wants afterwards is heard.
    ///
    /// # Errors
    /// As [`LayerRef::with`]: [`Kind::Busy`](bufferevent_core::Kind::Busy) if the filter is at work further up the call stack.
    pub fn with<R>(&self, call: impl FnOnce(&mut F) -> R) -> Result<R, Error> {
        self.0.with(|layer, cx| {
            let result = call(layer.get_mut());
            layer.changed(cx);
            result
        })
    }
}

impl<F: Filter> fmt::Debug for FilterRef<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FilterRef").field(&self.bev()).finish()
    }
}
