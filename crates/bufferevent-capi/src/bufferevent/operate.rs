//! The functions of `bufferevent.h` that are the same for every type, and of `bufferevent_compat.h`.

use std::ffi::{c_int, c_short};
use std::mem::offset_of;

use crate::buffer::Buffer;
use crate::bufferevent::callbacks::IGNORE_MARKS;
use crate::bufferevent::{Bev, DEFER_CALLBACKS, DataFunction, EventsFunction, HELD_BY_MARK, Kind};
use crate::event::base::Base;
use crate::event::layout::{EV_READ, EV_WRITE, KNOWN, NO_TIME};
use crate::ffi::{In, Opaque, Out, Ref, Room, Value, code};
use crate::util::socket::evutil_closesocket;
use crate::util::time::TimeVal;

impl Ref<Bev> {
    pub(crate) fn flush(self, directions: c_short, mode: c_int) -> c_int {
        match &self.kind {
            Kind::Socket => 0,
            Kind::Pair(_) => self.flush_pair(directions, mode),
            Kind::Filter(_) => self.flush_filter(directions, mode),
            Kind::Tls(layer) => layer.flush(self, directions, mode),
        }
    }

    /// The descriptor at the bottom, or -1.
    fn descriptor(self) -> c_int {
        match &self.kind {
            Kind::Socket => self.socket_descriptor(),
            Kind::Pair(_) => -1,
            Kind::Filter(_) | Kind::Tls(_) => self.below().map_or(-1, Self::descriptor),
        }
    }

    fn set_descriptor(self, fd: c_int) -> bool {
        match &self.kind {
            Kind::Socket => {
                self.set_socket_descriptor(fd);
                true
            }
            Kind::Pair(_) => false,
            Kind::Filter(_) | Kind::Tls(_) => {
                self.below().is_some_and(|below| below.set_descriptor(fd))
            }
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_free(bev: Option<Ref<Bev>>) {
    let Some(bev) = bev else { return };
    // Its memory may be gone, so only the address is looked at.
    let own_event = bev.address() as usize + offset_of!(Bev, ev_read);
    if !crate::event::debug::may_be_there(own_event) {
        crate::log::warn("bufferevent_free: there is no bufferevent; it was freed before");
        return;
    }
    bev.release();
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_incref(bev: Option<Ref<Bev>>) {
    if let Some(bev) = bev {
        let _guard = bev.guard();
        bev.retain();
    }
}

/// Answers whether that was the last.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_decref(bev: Option<Ref<Bev>>) -> c_int {
    bev.map_or(0, |bev| {
        let _guard = bev.guard();
        c_int::from(bev.let_go())
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_lock(bev: Option<Ref<Bev>>) {
    if let Some(lock) = bev.as_ref().and_then(|bev| bev.the_lock()) {
        lock.lock();
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_unlock(bev: Option<Ref<Bev>>) {
    if let Some(lock) = bev.as_ref().and_then(|bev| bev.the_lock()) {
        lock.unlock();
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_setcb(
    bev: Option<Ref<Bev>>,
    on_read: Option<DataFunction>,
    on_write: Option<DataFunction>,
    on_event: Option<EventsFunction>,
    argument: Opaque,
) {
    if let Some(bev) = bev {
        let _guard = bev.guard();
        bev.set_callbacks(on_read, on_write, on_event, argument);
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_getcb(
    bev: Option<Ref<Bev>>,
    on_read: Out<Option<DataFunction>>,
    on_write: Out<Option<DataFunction>>,
    on_event: Out<Option<EventsFunction>>,
    argument: Out<Opaque>,
) {
    if let Some(bev) = bev {
        let _guard = bev.guard();
        on_read.set(bev.on_read.get());
        on_write.set(bev.on_write.get());
        on_event.set(bev.on_event.get());
        argument.set(bev.argument.get());
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_input(bev: Option<Ref<Bev>>) -> Option<Ref<Buffer>> {
    bev.map(|bev| bev.input)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_output(bev: Option<Ref<Bev>>) -> Option<Ref<Buffer>> {
    bev.map(|bev| bev.output)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_base(bev: Option<Ref<Bev>>) -> Option<Ref<Base>> {
    bev?.base.get()
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_underlying(bev: Option<Ref<Bev>>) -> Option<Ref<Bev>> {
    bev?.below()
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_write(bev: Option<Ref<Bev>>, data: In<'_>, len: usize) -> c_int {
    let (Some(bev), Some(bytes)) = (bev, data.bytes(len)) else {
        return -1;
    };
    code(bev.output.add(bytes))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_write_buffer(
    bev: Option<Ref<Bev>>,
    buffer: Option<Ref<Buffer>>,
) -> c_int {
    let Some(bev) = bev else { return -1 };
    crate::buffer::evbuffer_add_buffer(Some(bev.output), buffer)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_read(bev: Option<Ref<Bev>>, data: Room<'_>, len: usize) -> usize {
    let Some(bev) = bev else { return 0 };
    let removed = crate::buffer::evbuffer_remove(Some(bev.input), data, len);
    usize::try_from(removed).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_read_buffer(bev: Option<Ref<Bev>>, buffer: Option<Ref<Buffer>>) -> c_int {
    let Some(bev) = bev else { return -1 };
    crate::buffer::evbuffer_add_buffer(buffer, Some(bev.input))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_enable(bev: Option<Ref<Bev>>, directions: c_short) -> c_int {
    let Some(bev) = bev else { return -1 };
    let _guard = bev.guard();
    bev.retain();
    let done = bev.enable(directions & (EV_READ | EV_WRITE));
    bev.let_go();
    code(done)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_disable(bev: Option<Ref<Bev>>, directions: c_short) -> c_int {
    let Some(bev) = bev else { return -1 };
    let _guard = bev.guard();
    code(bev.disable(directions & (EV_READ | EV_WRITE)))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_enabled(bev: Option<Ref<Bev>>) -> c_short {
    bev.map_or(0, |bev| {
        let _guard = bev.guard();
        bev.enabled.get()
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_set_timeouts(
    bev: Option<Ref<Bev>>,
    read: Value<TimeVal>,
    write: Value<TimeVal>,
) -> c_int {
    let Some(bev) = bev else { return -1 };
    let _guard = bev.guard();
    bev.read_timeout.set(read.get().unwrap_or(NO_TIME));
    bev.write_timeout.set(write.get().unwrap_or(NO_TIME));
    match &bev.kind {
        Kind::Socket => bev.retime_socket(),
        Kind::Tls(layer) => {
            bev.time_reading();
            layer.time_writing(bev);
        }
        Kind::Pair(_) | Kind::Filter(_) => {
            bev.time_reading();
            bev.time_writing();
        }
    }
    0
}

/// Timeouts in whole seconds; 0 for none.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_settimeout(bev: Option<Ref<Bev>>, read: c_int, write: c_int) {
    let whole = |seconds: c_int| TimeVal {
        tv_sec: i64::from(seconds.max(0)),
        tv_usec: 0,
    };
    let (read, write) = (whole(read), whole(write));
    bufferevent_set_timeouts(bev, Value::at(&raw const read), Value::at(&raw const write));
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_setwatermark(
    bev: Option<Ref<Bev>>,
    directions: c_short,
    low: usize,
    high: usize,
) {
    let Some(bev) = bev else { return };
    let _guard = bev.guard();
    if directions & EV_WRITE != 0 {
        bev.write_mark.low.set(low);
        bev.write_mark.high.set(high);
    }
    if directions & EV_READ != 0 {
        bev.read_mark.low.set(low);
        bev.read_mark.high.set(high);
        if high == 0 {
            bev.let_read(HELD_BY_MARK);
        } else {
            bev.input_changed();
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_getwatermark(
    bev: Option<Ref<Bev>>,
    directions: c_short,
    low: Out<usize>,
    high: Out<usize>,
) -> c_int {
    let Some(bev) = bev else { return -1 };
    let _guard = bev.guard();
    let mark = match directions {
        EV_READ => &bev.read_mark,
        EV_WRITE => &bev.write_mark,
        _ => return -1,
    };
    low.set(mark.low.get());
    high.set(mark.high.get());
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_flush(bev: Option<Ref<Bev>>, directions: c_short, mode: c_int) -> c_int {
    let Some(bev) = bev else { return -1 };
    let _guard = bev.guard();
    bev.retain();
    let result = bev.flush(directions, mode);
    bev.let_go();
    result
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_trigger(bev: Option<Ref<Bev>>, directions: c_short, options: c_int) {
    let Some(bev) = bev else { return };
    let _guard = bev.guard();
    bev.retain();
    bev.trigger(directions, options & (IGNORE_MARKS | DEFER_CALLBACKS));
    bev.let_go();
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_trigger_event(bev: Option<Ref<Bev>>, what: c_short, options: c_int) {
    let Some(bev) = bev else { return };
    let _guard = bev.guard();
    bev.retain();
    bev.tell_event(what, options & DEFER_CALLBACKS);
    bev.let_go();
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_setfd(bev: Option<Ref<Bev>>, fd: c_int) -> c_int {
    let Some(bev) = bev else { return -1 };
    let _guard = bev.guard();
    code(bev.set_descriptor(fd))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_replacefd(bev: Option<Ref<Bev>>, fd: c_int) -> c_int {
    let Some(bev) = bev.filter(|bev| !matches!(bev.kind, Kind::Pair(_))) else {
        return -1;
    };
    let _guard = bev.guard();
    let before = bev.descriptor();
    if before >= 0 && evutil_closesocket(before) < 0 {
        return -1;
    }
    code(bev.set_descriptor(fd))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_getfd(bev: Option<Ref<Bev>>) -> c_int {
    bev.map_or(-1, |bev| {
        let _guard = bev.guard();
        bev.descriptor()
    })
}

/// Moves an idle bufferevent to another base. Sockets only.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_base_set(base: Option<Ref<Base>>, bev: Option<Ref<Bev>>) -> c_int {
    let (Some(base), Some(bev)) = (base, bev) else {
        return -1;
    };
    let _guard = bev.guard();
    let idle = !bev.ev_read.has(KNOWN) && !bev.ev_write.has(KNOWN);
    if !matches!(bev.kind, Kind::Socket) || !idle {
        return -1;
    }
    bev.base.set(Some(base));
    bev.ev_read.base.set(Some(base));
    bev.ev_write.base.set(Some(base));
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_priority_set(bev: Option<Ref<Bev>>, priority: c_int) -> c_int {
    let Some(bev) = bev else { return -1 };
    let carrier = bev.carrier();
    if !matches!(carrier.kind, Kind::Socket) {
        return -1;
    }
    let _guard = bev.guard();
    let Some(base) = bev.base.get() else {
        return -1;
    };
    let Some(priority) = u8::try_from(priority)
        .ok()
        .filter(|priority| usize::from(*priority) < base.priorities())
    else {
        return -1;
    };
    let _base = base.guard();
    for one in [bev, carrier] {
        for callback in [&one.ev_read.callback, &one.ev_write.callback, &one.deferred] {
            base.set_priority(Ref::of(callback), priority);
        }
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_priority(bev: Option<Ref<Bev>>) -> c_int {
    bev.map_or(-1, |bev| {
        let _guard = bev.guard();
        c_int::from(bev.deferred.priority.get())
    })
}
