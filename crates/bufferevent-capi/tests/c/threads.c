/* Threads: thread.h, and what one thread does to the loop of another. */
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>
#include "check.h"

static struct event_base *base;
static sem_t entered, leave;
static volatile int ran;

static void *run(void *arg)
{
	(void)arg;
	event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
	return NULL;
}

static void tell(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	ran++;
	sem_post(&entered);
}

static void stay(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	sem_post(&entered);
	sem_wait(&leave);
	ran = 100;
}

static void *release(void *arg)
{
	(void)arg;
	sem_post(&leave);
	return NULL;
}

static void *fill(void *arg)
{
	int i;
	for (i = 0; i < 10000; i++)
		CHECK(evbuffer_add(arg, "0123456789", 10) == 0);
	return NULL;
}

int main(void)
{
	pthread_t loop, other[2];
	const struct timeval ms1 = {0, 1000};
	struct event *e, *fd_event;
	struct evbuffer *b;
	int fds[2], i;
	CHECK(evthread_use_pthreads() == 0 && evthread_use_pthreads_with_flags(EVTHREAD_PTHREAD_PRIO_INHERIT) == 0);
	evthread_enable_lock_debugging();
	evthread_enable_lock_debuging();
	sem_init(&entered, 0, 0);
	sem_init(&leave, 0, 0);
	base = event_base_new();
	CHECK(base && evthread_make_base_notifiable(base) == 0);
	CHECK(pthread_create(&loop, NULL, run, NULL) == 0);
	/* What is added here is called there, also while that thread waits. */
	e = event_new(base, -1, 0, tell, NULL);
	CHECK(pipe(fds) == 0);
	fd_event = event_new(base, fds[0], EV_READ, tell, NULL);
	for (i = 0; i < 100; i++) {
		if (i % 2)
			CHECK(event_add(e, &ms1) == 0);
		else
			event_active(e, EV_TIMEOUT, 1);
		sem_wait(&entered);
	}
	CHECK(event_add(fd_event, NULL) == 0 && write(fds[1], "x", 1) == 1);
	sem_wait(&entered);
	CHECK(ran == 101);
	event_free(fd_event);
	event_free(e);
	/* event_del waits for the callback that is running. */
	ran = 0;
	e = event_new(base, -1, 0, stay, NULL);
	event_active(e, EV_TIMEOUT, 1);
	sem_wait(&entered);
	CHECK(event_del_noblock(e) == 0 && ran == 0);
	CHECK(pthread_create(&other[0], NULL, release, NULL) == 0);
	CHECK(event_del_block(e) == 0 && ran == 100);
	pthread_join(other[0], NULL);
	event_free(e);
	CHECK(event_base_loopbreak(base) == 0);
	pthread_join(loop, NULL);
	event_base_free(base);
	/* A buffer with a lock. */
	b = evbuffer_new();
	CHECK(evbuffer_enable_locking(b, NULL) == 0 && evbuffer_enable_locking(b, NULL) == -1);
	evbuffer_lock(b);
	evbuffer_lock(b);
	CHECK(evbuffer_add(b, "x", 1) == 0);
	evbuffer_unlock(b);
	evbuffer_unlock(b);
	for (i = 0; i < 2; i++)
		CHECK(pthread_create(&other[i], NULL, fill, b) == 0);
	for (i = 0; i < 2; i++)
		pthread_join(other[i], NULL);
	CHECK(evbuffer_get_length(b) == 200001);
	evbuffer_free(b);
	return 0;
}
