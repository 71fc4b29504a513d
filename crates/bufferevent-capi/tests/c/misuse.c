/* Misuse that stays contained: nulls everywhere, freeing twice, letting go too often, memory that cannot be had. */
#include <event2/buffer.h>
#include <event2/buffer_compat.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_compat.h>
#include <event2/bufferevent_tls.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/event_compat.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <event2/watch.h>
#include <malloc.h>
#include "check.h"

static int warnings, blocks, until_it_fails;

static void log_it(int severity, const char *message)
{
	CHECK(severity >= EVENT_LOG_DEBUG && message && *message);
	warnings++;
}

static void nothing(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

PART(nulls_of_buffers)
{
	struct evbuffer_ptr p = {0, {NULL, 0}};
	struct evbuffer *b = evbuffer_new();
	struct evbuffer_iovec v = {NULL, 0};
	size_t n = 0;
	evbuffer_free(NULL);
	evbuffer_lock(NULL);
	evbuffer_unlock(NULL);
	evbuffer_setcb(NULL, NULL, NULL);
	evbuffer_file_segment_free(NULL);
	evbuffer_file_segment_add_cleanup_cb(NULL, NULL, NULL);
	CHECK(evbuffer_enable_locking(NULL, NULL) == -1 && evbuffer_set_flags(NULL, 1) == -1 && evbuffer_clear_flags(NULL, 1) == -1);
	CHECK(evbuffer_set_max_read(NULL, 1) == -1 && evbuffer_get_max_read(NULL) == 0 && evbuffer_get_length(NULL) == 0);
	CHECK(evbuffer_get_contiguous_space(NULL) == 0 && evbuffer_expand(NULL, 1) == -1 && evbuffer_reserve_space(NULL, 1, &v, 1) == -1);
	CHECK(evbuffer_reserve_space(b, 1, NULL, 1) == -1 && evbuffer_commit_space(NULL, &v, 1) == -1 && evbuffer_commit_space(b, NULL, 1) == 0);
	CHECK(evbuffer_add(NULL, "x", 1) == -1 && evbuffer_add(b, NULL, 1) == -1 && evbuffer_prepend(NULL, "x", 1) == -1);
	CHECK(evbuffer_remove(NULL, &n, 1) <= 0 && evbuffer_copyout(NULL, &n, 1) <= 0 && evbuffer_copyout_from(NULL, &p, &n, 1) <= 0);
	CHECK(evbuffer_remove_buffer(NULL, b, 1) == -1 && evbuffer_remove_buffer(b, NULL, 1) == -1);
	CHECK(!evbuffer_readln(NULL, &n, EVBUFFER_EOL_LF) && !evbuffer_readline(NULL) && !evbuffer_find(NULL, (const unsigned char *)"x", 1));
	CHECK(evbuffer_add_buffer(NULL, b) == -1 && evbuffer_add_buffer(b, NULL) == -1 && evbuffer_prepend_buffer(b, NULL) == -1);
	CHECK(evbuffer_add_buffer_reference(b, NULL) == -1 && evbuffer_add_reference(NULL, "x", 1, NULL, NULL) == -1);
	CHECK(evbuffer_add_reference_with_offset(NULL, "x", 0, 1, NULL, NULL) == -1 && evbuffer_add_file(NULL, -1, 0, 1) == -1);
	CHECK(evbuffer_add_file_segment(NULL, NULL, 0, -1) == -1 && evbuffer_add_file_segment(b, NULL, 0, -1) == -1);
	CHECK(evbuffer_add_printf(NULL, "x") == -1 && evbuffer_drain(NULL, 1) == -1 && evbuffer_write(NULL, 1) == -1);
	CHECK(evbuffer_write_atmost(NULL, 1, 1) == -1 && evbuffer_read(NULL, 0, 1) == -1 && evbuffer_peek(NULL, 1, NULL, NULL, 0) <= 0);
	CHECK(evbuffer_search(NULL, "x", 1, NULL).pos == -1 && evbuffer_search_range(NULL, "x", 1, NULL, NULL).pos == -1);
	CHECK(evbuffer_search(b, NULL, 1, NULL).pos == -1 && evbuffer_search_eol(NULL, NULL, NULL, EVBUFFER_EOL_LF).pos == -1);
	CHECK(evbuffer_ptr_set(NULL, &p, 1, EVBUFFER_PTR_SET) == -1 && evbuffer_ptr_set(b, NULL, 1, EVBUFFER_PTR_SET) == -1);
	CHECK(!evbuffer_add_cb(NULL, NULL, NULL) && evbuffer_remove_cb(NULL, NULL, NULL) == -1 && evbuffer_remove_cb_entry(NULL, NULL) == -1);
	CHECK(evbuffer_cb_set_flags(NULL, NULL, 1) == -1 && evbuffer_cb_clear_flags(NULL, NULL, 1) == -1 && !evbuffer_pullup(NULL, -1));
	CHECK(evbuffer_freeze(NULL, 0) == -1 && evbuffer_unfreeze(NULL, 0) == -1 && evbuffer_defer_callbacks(NULL, NULL) == -1);
	CHECK(evbuffer_add_iovec(NULL, &v, 1) == 0 && evbuffer_add_iovec(b, NULL, 1) == 0 && evbuffer_get_length(b) == 0);
	evbuffer_free(b);
}

PART(nulls_of_bufferevents)
{
	struct bufferevent *pair[2];
	size_t low, high;
	ev_uint64_t a, b;
	CHECK(bufferevent_pair_new(NULL, 0, NULL) == -1);
	(void)pair;
	bufferevent_free(NULL);
	bufferevent_incref(NULL);
	bufferevent_lock(NULL);
	bufferevent_unlock(NULL);
	bufferevent_setcb(NULL, NULL, NULL, NULL, NULL);
	bufferevent_getcb(NULL, NULL, NULL, NULL, NULL);
	bufferevent_settimeout(NULL, 1, 1);
	bufferevent_setwatermark(NULL, EV_READ, 1, 2);
	bufferevent_trigger(NULL, EV_READ, 0);
	bufferevent_trigger_event(NULL, 1, 0);
	ev_token_bucket_cfg_free(NULL);
	bufferevent_rate_limit_group_free(NULL);
	bufferevent_rate_limit_group_get_totals(NULL, &a, &b);
	bufferevent_rate_limit_group_reset_totals(NULL);
	CHECK(bufferevent_socket_connect(NULL, NULL, 0) == -1 && bufferevent_socket_connect_hostname(NULL, NULL, AF_INET, "x", 1) == -1);
	CHECK(bufferevent_socket_connect_hostname_hints(NULL, NULL, NULL, "x", 1) == -1 && bufferevent_socket_get_dns_error(NULL) == 0);
	CHECK(bufferevent_base_set(NULL, NULL) == -1 && !bufferevent_get_base(NULL) && bufferevent_priority_set(NULL, 0) == -1);
	CHECK(bufferevent_get_priority(NULL) == -1 && bufferevent_setfd(NULL, 1) == -1 && bufferevent_replacefd(NULL, 1) == -1);
	CHECK(bufferevent_getfd(NULL) == -1 && !bufferevent_get_underlying(NULL) && bufferevent_write(NULL, "x", 1) == -1);
	CHECK(bufferevent_write_buffer(NULL, NULL) == -1 && bufferevent_read(NULL, &low, 1) == 0 && bufferevent_read_buffer(NULL, NULL) == -1);
	CHECK(!bufferevent_get_input(NULL) && !bufferevent_get_output(NULL) && bufferevent_enable(NULL, EV_READ) == -1);
	CHECK(bufferevent_disable(NULL, EV_READ) == -1 && bufferevent_get_enabled(NULL) == 0 && bufferevent_set_timeouts(NULL, NULL, NULL) == -1);
	CHECK(bufferevent_getwatermark(NULL, EV_READ, &low, &high) == -1 && bufferevent_decref(NULL) == 0 && bufferevent_flush(NULL, 0, BEV_NORMAL) == -1);
	CHECK(!bufferevent_filter_new(NULL, NULL, NULL, 0, NULL, NULL) && !bufferevent_pair_get_partner(NULL));
	CHECK(bufferevent_set_rate_limit(NULL, NULL) == -1 && !bufferevent_rate_limit_group_new(NULL, NULL));
	CHECK(bufferevent_rate_limit_group_set_cfg(NULL, NULL) == -1 && bufferevent_rate_limit_group_set_min_share(NULL, 1) == -1);
	CHECK(bufferevent_add_to_rate_limit_group(NULL, NULL) == -1 && bufferevent_remove_from_rate_limit_group(NULL) == -1);
	CHECK(bufferevent_set_max_single_read(NULL, 1) == -1 && bufferevent_set_max_single_write(NULL, 1) == -1);
	CHECK(bufferevent_get_max_single_read(NULL) == -1 && bufferevent_get_max_single_write(NULL) == -1 && bufferevent_get_read_limit(NULL) == -1);
	CHECK(bufferevent_get_write_limit(NULL) == -1 && bufferevent_get_max_to_read(NULL) == -1 && bufferevent_get_max_to_write(NULL) == -1);
	CHECK(!bufferevent_get_token_bucket_cfg(NULL) && bufferevent_decrement_read_limit(NULL, 1) == -1);
	CHECK(bufferevent_decrement_write_limit(NULL, 1) == -1 && bufferevent_rate_limit_group_decrement_read(NULL, 1) == -1);
	CHECK(bufferevent_rate_limit_group_decrement_write(NULL, 1) == -1);
	bufferevent_rate_limit_group_get_read_limit(NULL);
	bufferevent_rate_limit_group_get_write_limit(NULL);
}

PART(nulls_of_events)
{
	struct event_base *base = event_base_new();
	event_base_free_nofinalize(NULL);
	event_config_free(NULL);
	event_free(NULL);
	event_active(NULL, EV_READ, 1);
	event_debug_unassign(NULL);
	event_base_active_by_fd(NULL, 0, EV_READ);
	event_base_active_by_signal(NULL, 2);
	event_get_assignment(NULL, NULL, NULL, NULL, NULL, NULL);
	event_base_dump_events(NULL, NULL);
	evwatch_free(NULL);
	evconnlistener_free(NULL);
	evdns_base_free(NULL, 0);
	evdns_getaddrinfo_cancel(NULL);
	CHECK(!evdns_base_new(NULL, 0) && !evdns_getaddrinfo(NULL, "x", NULL, NULL, NULL, NULL));
	CHECK(event_reinit(NULL) == -1 && event_base_dispatch(NULL) == -1 && event_base_loop(NULL, 0) == -1 && !event_base_get_method(NULL));
	CHECK(event_base_loopexit(NULL, NULL) == -1 && event_base_loopbreak(NULL) == -1 && event_base_loopcontinue(NULL) == -1);
	CHECK(event_base_got_exit(NULL) == 0 && event_base_got_break(NULL) == 0 && event_base_set(NULL, NULL) == -1);
	event_base_free(event_base_new_with_config(NULL)); /* No wishes are a base as any other. */
	CHECK(event_assign(NULL, base, 0, EV_READ, nothing, NULL) == -1);
	CHECK(event_add(NULL, NULL) == -1 && event_del(NULL) == -1 && event_del_block(NULL) == -1 && event_del_noblock(NULL) == -1);
	CHECK(event_remove_timer(NULL) == -1 && event_pending(NULL, EV_READ, NULL) == 0 && event_initialized(NULL) == 0);
	CHECK(event_get_fd(NULL) == -1 && !event_get_base(NULL) && event_get_events(NULL) == 0 && !event_get_callback(NULL));
	CHECK(!event_get_callback_arg(NULL) && event_get_priority(NULL) == -1 && event_priority_set(NULL, 0) == -1);
	CHECK(event_finalize(0, NULL, NULL) == -1 && event_free_finalize(0, NULL, NULL) == -1 && event_base_once(NULL, -1, EV_TIMEOUT, nothing, NULL, NULL) == -1);
	CHECK(event_base_priority_init(NULL, 2) == -1 && event_base_get_npriorities(NULL) <= 0 && !event_base_init_common_timeout(NULL, NULL));
	CHECK(event_base_foreach_event(NULL, NULL, NULL) == -1 && event_base_update_cache_time(NULL) == -1 && !event_base_get_running_event(NULL));
	CHECK(event_config_avoid_method(NULL, "x") == -1 && event_config_require_features(NULL, 0) == -1 && event_config_set_flag(NULL, 0) == -1);
	CHECK(event_config_set_num_cpus_hint(NULL, 1) == -1 && event_config_set_max_dispatch_interval(NULL, NULL, 1, 0) == -1);
	CHECK(event_base_get_features(NULL) == 0 && event_base_get_num_events(NULL, 0) <= 0 && event_base_get_max_events(NULL, 0, 0) <= 0);
	CHECK(event_base_get_signal_method(NULL) == NULL && evthread_make_base_notifiable(NULL) == -1 && event_gettime_monotonic(NULL, NULL) == -1);
	CHECK(!evwatch_prepare_new(NULL, NULL, NULL) && !evwatch_check_new(NULL, NULL, NULL) && !evwatch_base(NULL));
	CHECK(evwatch_prepare_get_timeout(NULL, NULL) == 0);
	CHECK(!evconnlistener_new(NULL, NULL, NULL, 0, 0, -1) && !evconnlistener_new_bind(NULL, NULL, NULL, 0, 0, NULL, 0));
	CHECK(evconnlistener_enable(NULL) == -1 && evconnlistener_disable(NULL) == -1 && !evconnlistener_get_base(NULL) && evconnlistener_get_fd(NULL) == -1);
	evconnlistener_set_cb(NULL, NULL, NULL);
	evconnlistener_set_error_cb(NULL, NULL);
	CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, NULL) == -1 && evutil_gettimeofday(NULL, NULL) == -1);
	CHECK(!evutil_inet_ntop(AF_INET, NULL, NULL, 0) && evutil_inet_pton(AF_INET, NULL, &base) <= 0);
	CHECK(evutil_parse_sockaddr_port(NULL, NULL, NULL) == -1 && evutil_configure_monotonic_time(NULL, 0) == -1);
	CHECK(evutil_gettime_monotonic(NULL, NULL) == -1);
	evutil_monotonic_timer_free(NULL);
	evutil_freeaddrinfo(NULL);
	event_base_free(base);
}

/* Debug mode knows what has gone, also when the loop is done with it. */
PART(freed_twice)
{
	struct event_base *base = event_base_new();
	struct bufferevent *bev = bufferevent_socket_new(base, -1, 0);
	int before = warnings;
	bufferevent_free(bev);
	bufferevent_free(bev);
	CHECK(warnings == before + 1);
	event_base_loop(base, EVLOOP_NONBLOCK);
	bufferevent_free(bev);
	CHECK(warnings == before + 2);
	event_base_free(base);
}

PART(let_go_too_often)
{
	struct event_base *base = event_base_new();
	struct bufferevent *bev = bufferevent_socket_new(base, -1, 0);
	int before = warnings;
	CHECK(bufferevent_decref(bev) == 1 && bufferevent_decref(bev) == 0 && warnings == before + 1);
	event_base_free(base);
}

static void *own_malloc(size_t size)
{
	void *block;
	if (until_it_fails > 0 && --until_it_fails == 0)
		return NULL;
	block = malloc(size);
	blocks += block != NULL;
	return block;
}

static void *own_realloc(void *block, size_t size)
{
	return realloc(block, size);
}

static void own_free(void *block)
{
	blocks -= block != NULL;
	if (block)
		memset(block, 0xa5, malloc_usable_size(block)); /* Who still looks there does not get far. */
	free(block);
}

static void accept_it(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int n, void *arg)
{
	(void)l, (void)fd, (void)a, (void)n, (void)arg;
}

static void prepare(struct evwatch *w, const struct evwatch_prepare_cb_info *info, void *arg)
{
	(void)w, (void)info, (void)arg;
}

/* The Nth piece of memory cannot be had, for every N: NULL or -1 is the answer, and nothing is left behind. */
PART(memory_that_cannot_be_had)
{
	int n, whole = 0;
	for (n = 1; !whole; n++) {
		struct event_base *base;
		struct bufferevent *pair[2] = {NULL, NULL}, *bev = NULL, *filter = NULL;
		struct evbuffer *b = NULL;
		struct event *e = NULL;
		struct evwatch *w = NULL;
		struct evconnlistener *l = NULL;
		struct bufferevent_tls *tls = NULL;
		struct bufferevent_rate_limit_group *g = NULL;
		struct ev_token_bucket_cfg *cfg = NULL;
		int made_pair = 0;
		CHECK(n < 200);
		until_it_fails = n;
		base = event_base_new();
		if (base) {
			bev = bufferevent_socket_new(base, -1, 0);
			made_pair = bufferevent_pair_new(base, 0, pair) == 0;
			filter = bev ? bufferevent_filter_new(bev, NULL, NULL, BEV_OPT_CLOSE_ON_FREE, NULL, NULL) : NULL;
			b = evbuffer_new();
			e = event_new(base, -1, 0, nothing, NULL);
			w = evwatch_prepare_new(base, prepare, NULL);
			l = evconnlistener_new(base, accept_it, NULL, 0, 0, 0);
			tls = bufferevent_tls_client_new();
			cfg = ev_token_bucket_cfg_new(1, 1, 1, 1, NULL);
			g = cfg ? bufferevent_rate_limit_group_new(base, cfg) : NULL;
			whole = bev && made_pair && filter && b && e && w && l && tls && cfg && g;
		}
		until_it_fails = 0;
		if (b) {
			char *line;
			CHECK(evbuffer_add(b, "line\n", 5) == 0);
			until_it_fails = 1;
			CHECK(!evbuffer_readln(b, NULL, EVBUFFER_EOL_LF));
			until_it_fails = 0;
			line = evbuffer_readln(b, NULL, EVBUFFER_EOL_LF);
			CHECK(!line || !strcmp(line, "line"));
			own_free(line);
			evbuffer_free(b);
		}
		if (filter)
			bufferevent_free(filter);
		else
			bufferevent_free(bev);
		if (made_pair) {
			bufferevent_free(pair[0]);
			bufferevent_free(pair[1]);
		}
		event_free(e);
		evwatch_free(w);
		evconnlistener_free(l);
		bufferevent_tls_free(tls);
		bufferevent_rate_limit_group_free(g);
		ev_token_bucket_cfg_free(cfg);
		if (base) {
			event_base_loop(base, EVLOOP_NONBLOCK);
			event_base_loop(base, EVLOOP_NONBLOCK);
			event_base_free(base);
		}
		if (blocks != 0)
			fprintf(stderr, "at %d: %d blocks\n", n, blocks);
		CHECK(blocks == 0);
	}
	CHECK(n > 10); /* Each of them asks for memory. */
}

int main(void)
{
	event_set_log_callback(log_it);
	event_enable_debug_mode();
	event_set_mem_functions(own_malloc, own_realloc, own_free);
	nulls_of_buffers();
	CHECK(blocks == 0);
	nulls_of_bufferevents();
	CHECK(blocks == 0);
	nulls_of_events();
	CHECK(blocks == 0);
	freed_twice();
	CHECK(blocks == 0);
	let_go_too_often();
	CHECK(blocks == 0);
	CHECK(blocks == 0);
	memory_that_cannot_be_had();
	event_set_mem_functions(NULL, NULL, NULL);
	evbuffer_free(evbuffer_new());
	CHECK(blocks == 0);
	return 0;
}
