/* Locks and memory of the program's own: evthread_set_*_callbacks, event_set_mem_functions. */
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/thread.h>
#include "check.h"

static int locks, held, blocks;

static void *make(unsigned type)
{
	CHECK(type == EVTHREAD_LOCKTYPE_RECURSIVE);
	locks++;
	return malloc(1);
}

static void unmake(void *lock, unsigned type)
{
	CHECK(type == EVTHREAD_LOCKTYPE_RECURSIVE);
	locks--;
	free(lock);
}

static int take(unsigned mode, void *lock)
{
	(void)mode;
	CHECK(lock);
	held++;
	return 0;
}

static int give(unsigned mode, void *lock)
{
	(void)mode;
	CHECK(lock);
	held--;
	return 0;
}

static unsigned long identity(void)
{
	return 1;
}

static void *own_malloc(size_t size)
{
	blocks++;
	return malloc(size);
}

static void own_free(void *block)
{
	blocks--;
	free(block);
}

static void *condition(unsigned type)
{
	(void)type;
	return NULL;
}

static void no_condition(void *c)
{
	(void)c;
}

static int signal_it(void *c, int all)
{
	(void)c;
	(void)all;
	return 0;
}

static int wait_for_it(void *c, void *lock, const struct timeval *tv)
{
	(void)c;
	(void)lock;
	(void)tv;
	return 0;
}

static void tell(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	CHECK(held == 0);
	++*(int *)arg;
}

int main(void)
{
	struct evthread_lock_callbacks callbacks = {
		EVTHREAD_LOCK_API_VERSION, EVTHREAD_LOCKTYPE_RECURSIVE, make, unmake, take, give};
	struct evthread_condition_callbacks conditions = {
		EVTHREAD_CONDITION_API_VERSION, condition, no_condition, signal_it, wait_for_it};
	struct evthread_lock_callbacks wrong = callbacks;
	struct event_base *base;
	struct event *e;
	struct evbuffer *b;
	char *line;
	int calls = 0, own;
	wrong.lock_api_version = 0;
	event_set_mem_functions(own_malloc, realloc, own_free);
	CHECK(evthread_set_lock_callbacks(&wrong) == -1);
	CHECK(evthread_set_lock_callbacks(&callbacks) == 0 && evthread_set_lock_callbacks(&callbacks) == 0);
	CHECK(evthread_use_pthreads() == -1);
	CHECK(evthread_set_condition_callbacks(&conditions) == 0 && evthread_set_condition_callbacks(NULL) == 0);
	evthread_set_id_callback(identity);
	base = event_base_new();
	CHECK(base && locks == 1 && blocks > 0);
	e = event_new(base, -1, 0, tell, &calls);
	event_active(e, EV_TIMEOUT, 1);
	CHECK(event_base_dispatch(base) == 1 && calls == 1 && held == 0);
	event_free(e);
	event_base_free(base);
	b = evbuffer_new();
	CHECK(evbuffer_enable_locking(b, &own) == 0);
	evbuffer_lock(b);
	CHECK(held == 1);
	evbuffer_add(b, "line\n", 5);
	line = evbuffer_readln(b, NULL, EVBUFFER_EOL_LF);
	CHECK(line && held == 1);
	own_free(line);
	evbuffer_unlock(b);
	evbuffer_free(b);
	CHECK(locks == 0 && held == 0 && blocks == 0);
	return 0;
}
