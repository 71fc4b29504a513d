/* Pairs, filters, rates, and locks of whole stacks. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <unistd.h>
#include "check.h"

static struct event_base *base;
static int reads, writes, events, freed;
static short what_came;

static void on_read(struct bufferevent *bev, void *arg)
{
	(void)bev;
	(void)arg;
	reads++;
}

static void on_write(struct bufferevent *bev, void *arg)
{
	(void)bev;
	(void)arg;
	writes++;
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	(void)arg;
	events++;
	what_came |= what;
}

static void turn(void)
{
	int i;
	for (i = 0; i < 4; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static size_t in(struct bufferevent *bev)
{
	return evbuffer_get_length(bufferevent_get_input(bev));
}

static size_t out(struct bufferevent *bev)
{
	return evbuffer_get_length(bufferevent_get_output(bev));
}

static void make(struct bufferevent *p[2], int options)
{
	int i;
	CHECK(bufferevent_pair_new(base, options, p) == 0);
	for (i = 0; i < 2; i++)
		bufferevent_setcb(p[i], on_read, on_write, on_event, NULL);
	reads = writes = events = what_came = 0;
}

PART(pairs)
{
	struct bufferevent *p[2];
	const struct timeval ms1 = {0, 1000};
	make(p, 0);
	CHECK(bufferevent_pair_get_partner(p[0]) == p[1] && bufferevent_getfd(p[0]) == -1 && bufferevent_setfd(p[0], 0) == -1);
	bufferevent_write(p[0], "waits", 5);
	CHECK(out(p[0]) == 5 && in(p[1]) == 0);
	CHECK(bufferevent_enable(p[1], EV_READ) == 0 && in(p[1]) == 5 && out(p[0]) == 0 && reads == 0);
	turn();
	CHECK(reads == 1 && writes == 1);
	/* No more than the mark allows, and the rest when there is room. */
	bufferevent_setwatermark(p[1], EV_READ, 0, 8);
	bufferevent_write(p[0], "0123456789", 10);
	CHECK(in(p[1]) == 8 && out(p[0]) == 7);
	evbuffer_drain(bufferevent_get_input(p[1]), 5);
	CHECK(in(p[1]) == 8 && out(p[0]) == 2);
	CHECK(bufferevent_flush(p[0], EV_WRITE, BEV_NORMAL) == 0 && out(p[0]) == 2);
	CHECK(bufferevent_flush(p[0], EV_WRITE, BEV_FINISHED) == 0 && out(p[0]) == 0 && in(p[1]) == 10);
	turn();
	CHECK(what_came == (BEV_EVENT_READING | BEV_EVENT_EOF));
	/* Timeouts without a descriptor. */
	what_came = 0;
	bufferevent_setwatermark(p[1], EV_READ, 0, 0);
	bufferevent_set_timeouts(p[1], &ms1, NULL);
	while (!what_came)
		event_base_loop(base, EVLOOP_ONCE);
	CHECK(what_came == (BEV_EVENT_TIMEOUT | BEV_EVENT_READING) && !(bufferevent_get_enabled(p[1]) & EV_READ));
	/* One goes: the other is alone. */
	bufferevent_free(p[0]);
	CHECK(bufferevent_pair_get_partner(p[1]) == NULL && bufferevent_write(p[1], "x", 1) == 0);
	CHECK(bufferevent_flush(p[1], EV_WRITE, BEV_FLUSH) == -1);
	turn();
	bufferevent_free(p[1]);
	turn();
	CHECK(bufferevent_pair_new(base, BEV_OPT_UNLOCK_CALLBACKS, p) == 0);
	bufferevent_free(p[0]);
	bufferevent_free(p[1]);
	turn();
}

static enum bufferevent_filter_result twice(struct evbuffer *src, struct evbuffer *dst, ev_ssize_t limit,
	enum bufferevent_flush_mode mode, void *ctx)
{
	char byte;
	int moved = 0;
	(void)mode;
	CHECK(ctx == &freed);
	while ((limit < 0 || limit >= 2) && evbuffer_remove(src, &byte, 1) == 1) {
		evbuffer_add(dst, &byte, 1);
		evbuffer_add(dst, &byte, 1);
		limit -= limit < 0 ? 0 : 2;
		moved = 1;
	}
	return moved ? BEV_OK : BEV_NEED_MORE;
}

static void free_context(void *ctx)
{
	CHECK(ctx == &freed);
	freed++;
}

PART(filters)
{
	struct bufferevent *p[2], *f, *g;
	make(p, 0);
	f = bufferevent_filter_new(p[0], NULL, twice, BEV_OPT_CLOSE_ON_FREE, free_context, &freed);
	g = bufferevent_filter_new(p[1], twice, NULL, BEV_OPT_CLOSE_ON_FREE, free_context, &freed);
	CHECK(f && g && bufferevent_get_underlying(f) == p[0] && bufferevent_getfd(f) == -1);
	bufferevent_setcb(f, on_read, on_write, on_event, NULL);
	bufferevent_setcb(g, on_read, on_write, on_event, NULL);
	/* The output side runs at once. */
	CHECK(bufferevent_write(f, "ab", 2) == 0 && out(f) == 0 && writes == 1);
	turn();
	CHECK(in(g) == 0);
	CHECK(bufferevent_enable(g, EV_READ) == 0);
	turn();
	CHECK(in(g) == 8 && reads == 1 && !memcmp(evbuffer_pullup(bufferevent_get_input(g), -1), "aaaabbbb", 8));
	evbuffer_drain(bufferevent_get_input(g), 8);
	/* The mark holds, and what waits below comes when there is room. */
	bufferevent_setwatermark(g, EV_READ, 0, 4);
	bufferevent_write(f, "cd", 2);
	turn();
	CHECK(in(g) == 4);
	evbuffer_drain(bufferevent_get_input(g), 4);
	CHECK(in(g) == 4);
	evbuffer_drain(bufferevent_get_input(g), 4);
	/* The mark of the one below holds too. */
	bufferevent_setwatermark(p[0], EV_WRITE, 0, 4);
	bufferevent_disable(p[0], EV_WRITE);
	bufferevent_write(f, "efgh", 4);
	CHECK(out(p[0]) == 4 && out(f) == 2);
	CHECK(bufferevent_flush(f, EV_WRITE, BEV_FLUSH) == 1 && out(f) == 0);
	/* Events of the one below are told as they are. */
	what_came = 0;
	bufferevent_trigger_event(p[0], BEV_EVENT_EOF | BEV_EVENT_READING, 0);
	turn();
	CHECK(what_came == (BEV_EVENT_EOF | BEV_EVENT_READING));
	bufferevent_free(f);
	bufferevent_free(g);
	turn();
	CHECK(freed == 2);
	/* Without CLOSE_ON_FREE the one below lives on, free of it. */
	make(p, 0);
	f = bufferevent_filter_new(p[0], NULL, NULL, 0, NULL, NULL);
	bufferevent_free(f);
	turn();
	bufferevent_setcb(p[0], on_read, on_write, on_event, NULL);
	bufferevent_enable(p[0], EV_READ);
	bufferevent_write(p[1], "alive", 5);
	turn();
	CHECK(in(p[0]) == 5 && reads >= 1);
	bufferevent_free(p[0]);
	bufferevent_free(p[1]);
	turn();
	CHECK(bufferevent_filter_new(NULL, NULL, NULL, 0, NULL, NULL) == NULL);
}

PART(rates)
{
	const struct timeval tick = {0, 10000};
	struct ev_token_bucket_cfg *cfg = ev_token_bucket_cfg_new(1000, 2000, 1000, 2000, &tick);
	struct ev_token_bucket_cfg *low = ev_token_bucket_cfg_new(100, 100, 100, 100, &tick);
	struct bufferevent_rate_limit_group *g;
	struct bufferevent *b[2];
	ev_uint64_t read, written;
	int fds[2], i, turns;
	char data[5000] = {0};
	CHECK(cfg && low && !ev_token_bucket_cfg_new(2, 1, 1, 1, NULL) && !ev_token_bucket_cfg_new(0, 1, 1, 1, NULL));
	CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	for (i = 0; i < 2; i++) {
		evutil_make_socket_nonblocking(fds[i]);
		b[i] = bufferevent_socket_new(base, fds[i], BEV_OPT_CLOSE_ON_FREE);
	}
	CHECK(bufferevent_get_max_single_read(b[0]) == 16384 && bufferevent_set_max_single_read(b[0], 100) == 0);
	CHECK(bufferevent_get_max_to_read(b[0]) == 100 && bufferevent_set_max_single_read(b[0], 0) == 0);
	CHECK(bufferevent_set_max_single_write(b[0], 77) == 0 && bufferevent_get_max_single_write(b[0]) == 77);
	CHECK(bufferevent_get_max_to_write(b[0]) == 77 && bufferevent_set_max_single_write(b[0], 0) == 0);
	CHECK(bufferevent_get_read_limit(b[0]) == EV_SSIZE_MAX && bufferevent_get_token_bucket_cfg(b[0]) == NULL);
	CHECK(bufferevent_decrement_read_limit(b[0], 1) == -1);
	CHECK(bufferevent_set_rate_limit(b[0], cfg) == 0 && bufferevent_get_token_bucket_cfg(b[0]) == cfg);
	CHECK(bufferevent_get_write_limit(b[0]) >= 1000 && bufferevent_get_max_to_write(b[0]) <= 2000);
	bufferevent_enable(b[1], EV_READ);
	bufferevent_write(b[0], data, sizeof(data));
	for (turns = 0; in(b[1]) < sizeof(data); turns++)
		CHECK(event_base_loop(base, EVLOOP_ONCE) == 0);
	CHECK(turns >= 3); /* Not in one go. */
	/* A debt that takes minutes to repay, however slowly this runs. */
	CHECK(bufferevent_decrement_write_limit(b[0], 50000000) == 0 && bufferevent_get_write_limit(b[0]) < 0);
	CHECK(bufferevent_get_max_to_write(b[0]) == 0 && bufferevent_decrement_write_limit(b[0], -50000000) == 0);
	CHECK(bufferevent_decrement_read_limit(b[0], 10) == 0 && bufferevent_get_read_limit(b[0]) > 0);
	CHECK(bufferevent_set_rate_limit(b[0], NULL) == 0 && bufferevent_get_write_limit(b[0]) == EV_SSIZE_MAX);
	/* A group. */
	g = bufferevent_rate_limit_group_new(base, low);
	CHECK(g && bufferevent_add_to_rate_limit_group(b[0], g) == 0 && bufferevent_add_to_rate_limit_group(b[1], g) == 0);
	CHECK(bufferevent_rate_limit_group_set_min_share(g, 50) == 0 && bufferevent_get_max_to_read(b[0]) == 50);
	CHECK(bufferevent_rate_limit_group_get_read_limit(g) <= 100 && bufferevent_rate_limit_group_get_write_limit(g) <= 100);
	bufferevent_write(b[0], data, 500);
	while (in(b[1]) < sizeof(data) + 500)
		CHECK(event_base_loop(base, EVLOOP_ONCE) == 0);
	bufferevent_rate_limit_group_get_totals(g, &read, &written);
	CHECK(read == 500 && written == 500);
	bufferevent_rate_limit_group_reset_totals(g);
	bufferevent_rate_limit_group_get_totals(g, &read, &written);
	CHECK(read == 0 && written == 0);
	CHECK(bufferevent_rate_limit_group_decrement_read(g, 5000000) == 0 && bufferevent_get_max_to_read(b[0]) == 0);
	CHECK(bufferevent_rate_limit_group_decrement_read(g, -6000000) == 0 && bufferevent_get_max_to_read(b[0]) > 0);
	CHECK(bufferevent_rate_limit_group_decrement_write(g, 1) == 0 && bufferevent_rate_limit_group_set_cfg(g, cfg) == 0);
	/* A member may go at any time. */
	bufferevent_free(b[0]);
	turn();
	CHECK(bufferevent_remove_from_rate_limit_group(b[1]) == 0 && bufferevent_add_to_rate_limit_group(b[1], NULL) == 0);
	bufferevent_free(b[1]);
	turn();
	bufferevent_rate_limit_group_free(g);
	ev_token_bucket_cfg_free(cfg);
	ev_token_bucket_cfg_free(low);
}

static void *write_much(void *bev)
{
	int i;
	for (i = 0; i < 1000; i++) {
		bufferevent_lock(bev);
		bufferevent_write(bev, "ab", 2);
		bufferevent_write(bev, "cd", 2);
		bufferevent_unlock(bev);
	}
	return NULL;
}

static void all_there(struct bufferevent *bev, void *arg)
{
	if (in(bev) == *(size_t *)arg)
		event_base_loopexit(base, NULL);
}

PART(other_threads_write)
{
	struct bufferevent *p[2];
	pthread_t writers[2];
	size_t all = 8000, i;
	unsigned char *bytes;
	CHECK(bufferevent_socket_new(base, -1, BEV_OPT_THREADSAFE) == NULL); /* Without threads nothing is safe for them. */
	event_base_free(base);
	CHECK(evthread_use_pthreads() == 0);
	base = event_base_new();
	make(p, BEV_OPT_THREADSAFE);
	bufferevent_setcb(p[1], all_there, NULL, NULL, &all);
	bufferevent_enable(p[1], EV_READ);
	for (i = 0; i < 2; i++)
		CHECK(pthread_create(&writers[i], NULL, write_much, p[0]) == 0);
	CHECK(event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY) == 0);
	for (i = 0; i < 2; i++)
		pthread_join(writers[i], NULL);
	bytes = evbuffer_pullup(bufferevent_get_input(p[1]), -1);
	for (i = 0; i < all; i += 4)
		CHECK(!memcmp(bytes + i, "abcd", 4));
	bufferevent_free(p[0]);
	bufferevent_free(p[1]);
	turn();
}

static void *counts(void *g)
{
	int i;
	for (i = 0; i < 2000; i++) {
		ev_uint64_t read, written;
		bufferevent_rate_limit_group_decrement_read(g, 1);
		bufferevent_rate_limit_group_get_totals(g, &read, &written);
		bufferevent_rate_limit_group_decrement_read(g, -1);
	}
	return NULL;
}

/* A group whose members write, are asked, join and leave on other threads while the loop runs. */
PART(a_group_under_locks)
{
	const struct timeval tick = {0, 1000};
	struct ev_token_bucket_cfg *cfg = ev_token_bucket_cfg_new(4000, 4000, 4000, 4000, &tick);
	struct bufferevent_rate_limit_group *g = bufferevent_rate_limit_group_new(base, cfg);
	struct bufferevent *b[4];
	ev_uint64_t read, written;
	pthread_t writers[2], counter;
	size_t all = 4000;
	int i;
	for (i = 0; i < 4; i += 2) {
		int fds[2];
		CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
		b[i] = bufferevent_socket_new(base, fds[0], BEV_OPT_CLOSE_ON_FREE | BEV_OPT_THREADSAFE);
		b[i + 1] = bufferevent_socket_new(base, fds[1], BEV_OPT_CLOSE_ON_FREE | BEV_OPT_THREADSAFE);
		CHECK(bufferevent_add_to_rate_limit_group(b[i], g) == 0 && bufferevent_add_to_rate_limit_group(b[i + 1], g) == 0);
		bufferevent_enable(b[i + 1], EV_READ);
	}
	for (i = 0; i < 2; i++)
		CHECK(pthread_create(&writers[i], NULL, write_much, b[2 * i]) == 0);
	CHECK(pthread_create(&counter, NULL, counts, g) == 0);
	for (i = 0; in(b[1]) < all || in(b[3]) < all; i++) {
		CHECK(event_base_loop(base, EVLOOP_ONCE) == 0);
		if (i == 3) { /* One leaves, and comes back. */
			CHECK(bufferevent_remove_from_rate_limit_group(b[1]) == 0);
			CHECK(bufferevent_add_to_rate_limit_group(b[1], g) == 0);
		}
	}
	for (i = 0; i < 2; i++)
		pthread_join(writers[i], NULL);
	pthread_join(counter, NULL);
	bufferevent_rate_limit_group_get_totals(g, &read, &written);
	CHECK(written == 2 * all && read <= 2 * all && read > 0);
	for (i = 0; i < 4; i++)
		bufferevent_free(b[i]);
	turn();
	bufferevent_rate_limit_group_free(g);
	ev_token_bucket_cfg_free(cfg);
}

int main(void)
{
	base = event_base_new();
	pairs();
	filters();
	rates();
	other_threads_write();
	a_group_under_locks();
	event_base_free(base);
	return 0;
}
