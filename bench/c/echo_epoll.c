/* The limit of readiness I/O: an echo or sink server written by hand on edge-triggered epoll.
 *
 * usage: echo_epoll [--discard]
 *
 * One static read buffer serves every connection; what a full socket does not take waits on the heap.
 *
 * Invariants:
 * - A connection is registered once, for both directions, and never modified: no epoll_ctl in the steady state.
 * - While a connection has bytes waiting it is not read: its memory is bounded by one read.
 * - A short read means drained, unless the edge said that the peer has closed: then reading goes on to the end.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { READ_BYTES = 64 * 1024, EVENTS = 1024 };

struct connection {
	int fd;
	unsigned char *waiting; /* What the socket has not taken yet, or NULL. */
	size_t waiting_bytes;
	size_t sent_bytes; /* Of `waiting`. */
};

/* What became of a connection. */
enum life { ALIVE, ENDED };

static unsigned char block[READ_BYTES];

/* Sends what waits. Leaves `waiting` NULL when all of it is out. */
static enum life send_waiting(struct connection *c)
{
	while (c->waiting) {
		ssize_t sent = send(c->fd, c->waiting + c->sent_bytes, c->waiting_bytes - c->sent_bytes, 0);
		if (sent < 0)
			return errno == EAGAIN ? ALIVE : ENDED;
		c->sent_bytes += sent;
		if (c->sent_bytes == c->waiting_bytes) {
			free(c->waiting);
			c->waiting = NULL;
		}
	}
	return ALIVE;
}

/* Sends the first `length` bytes of the block; what does not fit waits. */
static enum life send_block(struct connection *c, size_t length)
{
	ssize_t sent = send(c->fd, block, length, 0);
	if (sent < 0 && errno != EAGAIN)
		return ENDED;
	size_t taken = sent < 0 ? 0 : sent;
	if (taken < length) {
		c->waiting = malloc(length - taken);
		if (!c->waiting)
			return ENDED;
		memcpy(c->waiting, block + taken, length - taken);
		c->waiting_bytes = length - taken;
		c->sent_bytes = 0;
	}
	return ALIVE;
}

/* Everything that one edge allows. */
static enum life serve(struct connection *c, unsigned events, int discard)
{
	if (c->waiting && send_waiting(c) == ENDED)
		return ENDED;
	while (!c->waiting) {
		ssize_t got = recv(c->fd, block, sizeof block, 0);
		if (got < 0 && errno == EAGAIN)
			return ALIVE;
		if (got <= 0)
			return ENDED;
		if (!discard && send_block(c, got) == ENDED)
			return ENDED;
		int closing = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
		if (got < (ssize_t)sizeof block && !closing && !c->waiting)
			return ALIVE;
	}
	return ALIVE;
}

static void accept_all(int poll, int listener)
{
	int fd;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct connection *c = calloc(1, sizeof *c);
		if (!c)
			fail("calloc");
		c->fd = fd;
		struct epoll_event both = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c };
		if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &both))
			fail("epoll_ctl");
	}
}

int main(int argc, char **argv)
{
	int discard = wants_discard(argc, argv);
	int listener = listen_and_print();
	int poll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event incoming = { .events = EPOLLIN, .data.ptr = NULL };
	if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &incoming))
		fail("epoll");
	struct epoll_event ready[EVENTS];
	for (;;) {
		int count = epoll_wait(poll, ready, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			struct connection *c = ready[i].data.ptr;
			if (!c) {
				accept_all(poll, listener);
			} else if (serve(c, ready[i].events, discard) == ENDED) {
				close(c->fd);
				free(c->waiting);
				free(c);
			}
		}
	}
}
