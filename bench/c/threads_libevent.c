/* What a user of libevent writes to feed a connection from another thread: evthread_use_pthreads, BEV_OPT_THREADSAFE, and
 * bufferevent_write of 100 bytes at a time, over loopback TCP; a third thread takes what arrives.
 *
 * usage: threads_libevent SECONDS        prints one line of JSON
 *
 * It does what bench/rust/threads/src/write.rs does, step by step.
 *
 * Invariants:
 * - What arrives is counted and compared with what was written.
 * - The writer looks at what waits every BETWEEN_LOOKS writes, and yields while it is more than MOST_WAITING.
 * - System calls are counted where libevent makes them: the program's own writev, epoll_wait and write stand before libc's.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <dlfcn.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE = 100, BETWEEN_LOOKS = 64, MOST_WAITING = 1 << 20, PIECE = 256 * 1024 };

static atomic_ulong sends, waits, wakes;

ssize_t writev(int fd, const struct iovec *slices, int count)
{
	static ssize_t (*real)(int, const struct iovec *, int);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "writev");
	atomic_fetch_add_explicit(&sends, 1, memory_order_relaxed);
	return real(fd, slices, count);
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout)
{
	static int (*real)(int, struct epoll_event *, int, int);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "epoll_wait");
	atomic_fetch_add_explicit(&waits, 1, memory_order_relaxed);
	return real(fd, events, most, timeout);
}

/* How libevent wakes its loop: eight bytes into an eventfd. */
ssize_t write(int fd, const void *bytes, size_t count)
{
	static ssize_t (*real)(int, const void *, size_t);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "write");
	if (count == 8)
		atomic_fetch_add_explicit(&wakes, 1, memory_order_relaxed);
	return real(fd, bytes, count);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *receive(void *argument)
{
	int fd = *(int *)argument;
	char *piece = malloc(PIECE);
	unsigned long *taken = calloc(1, sizeof *taken);
	if (!piece || !taken)
		fail("malloc");
	for (;;) {
		ssize_t count = read(fd, piece, PIECE);
		if (count < 0)
			fail("read");
		if (count == 0)
			break;
		*taken += count;
	}
	free(piece);
	return taken;
}

static void *dispatch(void *base)
{
	event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
	return NULL;
}

static void broken(struct bufferevent *bev, short what, void *unused)
{
	(void)bev, (void)unused;
	if (what & BEV_EVENT_ERROR)
		fail("the connection");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s SECONDS\n", argv[0]);
		return 2;
	}
	double span = atof(argv[1]);
	signal(SIGPIPE, SIG_IGN);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1))
		fail("listen");
	if (getsockname(listener, (struct sockaddr *)&address, &length))
		fail("getsockname");
	int near = socket(AF_INET, SOCK_STREAM, 0);
	if (near < 0 || connect(near, (struct sockaddr *)&address, length))
		fail("connect");
	int on = 1;
	if (setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
		fail("setsockopt");
	int far = accept(listener, NULL, NULL);
	if (far < 0 || evutil_make_socket_nonblocking(near))
		fail("accept");

	if (evthread_use_pthreads())
		fail("evthread_use_pthreads");
	struct event_base *base = event_base_new();
	struct bufferevent *bev = bufferevent_socket_new(base, near, BEV_OPT_THREADSAFE);
	if (!bev)
		fail("bufferevent_socket_new");
	bufferevent_setcb(bev, NULL, NULL, broken, NULL);
	struct evbuffer *output = bufferevent_get_output(bev);
	pthread_t receiver, looping;
	if (pthread_create(&receiver, NULL, receive, &far) || pthread_create(&looping, NULL, dispatch, base))
		fail("pthread_create");

	char message[MESSAGE];
	memset(message, 'x', sizeof message);
	double began = now();
	unsigned long writes = 0, yields = 0;
	while (now() - began < span) {
		for (int i = 0; i < BETWEEN_LOOKS; i++)
			if (bufferevent_write(bev, message, sizeof message))
				fail("bufferevent_write");
		writes += BETWEEN_LOOKS;
		while (evbuffer_get_length(output) > MOST_WAITING) {
			sched_yield();
			yields++;
		}
	}
	/* All the way; libevent has no half-close behind the output. */
	while (evbuffer_get_length(output) > 0) {
		sched_yield();
		yields++;
	}
	shutdown(near, SHUT_WR);
	unsigned long *taken;
	pthread_join(receiver, (void **)&taken);
	double wall = now() - began;
	event_base_loopbreak(base);
	pthread_join(looping, NULL);
	if (*taken != writes * MESSAGE) {
		fprintf(stderr, "%lu bytes of %lu writes arrived\n", *taken, writes);
		return 1;
	}
	printf("{\"writes\": %lu, \"wall_s\": %f, \"sends\": %lu, \"waits\": %lu, \"wakes\": %lu, \"yields\": %lu}\n",
	       writes, wall, (unsigned long)sends, (unsigned long)waits, (unsigned long)wakes, yields);
	return 0;
}
