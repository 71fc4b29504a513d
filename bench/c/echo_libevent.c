/* What a user of libevent writes: an echo or sink server on bufferevents, with default settings.
 *
 * usage: echo_libevent [--discard]
 *
 * Invariant: nothing is tuned. Reads are capped as the library caps them, and an echo moves the
 * input's chains to the output without a copy: the idiom of libevent's own documentation.
 */
#include "peer.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

static void echo(struct bufferevent *bev, void *unused)
{
	(void)unused;
	bufferevent_read_buffer(bev, bufferevent_get_output(bev));
}

static void discard(struct bufferevent *bev, void *unused)
{
	(void)unused;
	struct evbuffer *input = bufferevent_get_input(bev);
	evbuffer_drain(input, evbuffer_get_length(input));
}

static void ended(struct bufferevent *bev, short what, void *unused)
{
	(void)unused;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		bufferevent_free(bev);
}

static void accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer, int length, void *on_read)
{
	(void)peer, (void)length;
	struct bufferevent *bev = bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(bev, *(bufferevent_data_cb *)on_read, NULL, ended, NULL);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

int main(int argc, char **argv)
{
	bufferevent_data_cb on_read = wants_discard(argc, argv) ? discard : echo;
	int fd = listen_and_print();
	struct event_base *base = event_base_new();
	/* A backlog of 0 tells libevent that the socket listens already. */
	if (!base || !evconnlistener_new(base, accepted, &on_read, LEV_OPT_CLOSE_ON_FREE, 0, fd))
		fail("libevent");
	return event_base_dispatch(base);
}
