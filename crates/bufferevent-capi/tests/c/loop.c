/* Events and the loop: event.h, event_struct.h, event_compat.h, watch.h. */
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/event_compat.h>
#include <event2/watch.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

static struct event_base *base;
static char order[64];
static const struct timeval ms1 = {0, 1000}, ms5 = {0, 5000}, half = {0, 500000}, s10 = {10, 0};

static void note(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	CHECK(strlen(order) < sizeof(order) - 1);
	strcat(order, arg);
}

static int ordered(const char *expected)
{
	int same = !strcmp(order, expected);
	if (!same)
		fprintf(stderr, "order %s, not %s\n", order, expected);
	order[0] = 0;
	return same;
}

static short last_what;
static int times;

static void count(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	last_what = what;
	times++;
	if (arg && times >= *(int *)arg)
		event_base_loopbreak(base);
}

PART(layout)
{
	struct event zeros;
	CHECK(sizeof(struct event) == 128 && event_get_struct_event_size() == 128);
	CHECK(evutil_offsetof(struct event, ev_fd) == 56 && evutil_offsetof(struct event, ev_base) == 64);
	CHECK(evutil_offsetof(struct event, ev_events) == 104 && evutil_offsetof(struct event, ev_res) == 106);
	CHECK(evutil_offsetof(struct event, ev_timeout) == 112 && sizeof(struct event_callback) == 40);
	CHECK(evutil_offsetof(struct event_callback, evcb_flags) == 16);
	memset(&zeros, 0, sizeof(zeros));
	CHECK(!event_initialized(&zeros) && !event_initialized(NULL));
	CHECK(!strcmp(event_get_version(), LIBEVENT_VERSION) && event_get_version_number() == LIBEVENT_VERSION_NUMBER);
}

PART(timers_in_order)
{
	struct event a, b, c;
	evtimer_assign(&a, base, note, "a");
	evtimer_assign(&b, base, note, "b");
	evtimer_assign(&c, base, note, "c");
	CHECK(event_initialized(&a) && !evtimer_pending(&a, NULL));
	CHECK(event_add(&c, &half) == 0 && event_add(&a, &ms1) == 0 && event_add(&b, &ms5) == 0);
	struct timeval due, now;
	CHECK(evtimer_pending(&a, &due) == EV_TIMEOUT);
	evutil_gettimeofday(&now, NULL);
	CHECK(due.tv_sec - now.tv_sec <= 1);
	CHECK(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED) == 3);
	CHECK(event_base_dispatch(base) == 1 && ordered("abc"));
	CHECK(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED) == 0);
	CHECK(event_base_get_max_events(base, EVENT_BASE_COUNT_ADDED, 1) >= 3);
	/* A second add moves a timer, an add without a timeout keeps it. */
	CHECK(event_add(&a, &s10) == 0 && event_add(&a, &ms1) == 0 && event_add(&a, NULL) == 0);
	CHECK(event_add(&b, &ms5) == 0 && event_del(&b) == 0);
	CHECK(event_base_dispatch(base) == 1 && ordered("a"));
	/* One event without its timer. */
	CHECK(event_add(&a, &ms1) == 0 && event_remove_timer(&a) == 0 && !evtimer_pending(&a, NULL));
	CHECK(event_base_dispatch(base) == 1 && ordered(""));
}

PART(persistent_timers)
{
	int most = 3;
	struct event *e = event_new(base, -1, EV_PERSIST, count, &most);
	const struct timeval *common = event_base_init_common_timeout(base, &ms1);
	times = 0;
	CHECK(common && common == event_base_init_common_timeout(base, &ms1));
	CHECK(event_add(e, common) == 0 && event_base_dispatch(base) == 0);
	CHECK(times == 3 && last_what == EV_TIMEOUT && event_base_got_break(base) && evtimer_pending(e, NULL));
	event_free(e);
}

PART(descriptors)
{
	int fds[2], most = 2;
	char byte;
	CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	struct event *r = event_new(base, fds[0], EV_READ | EV_PERSIST, count, &most);
	struct event *w = event_new(base, fds[1], EV_WRITE, note, "w");
	CHECK(event_add(r, NULL) == 0 && event_add(w, NULL) == 0);
	CHECK(event_pending(r, EV_READ | EV_WRITE, NULL) == EV_READ);
	CHECK(event_base_loop(base, EVLOOP_ONCE) == 0 && ordered("w"));
	/* Level-triggered: told again as long as it is not read. */
	times = 0;
	CHECK(write(fds[1], "x", 1) == 1 && event_base_dispatch(base) == 0 && times == 2 && last_what == EV_READ);
	CHECK(read(fds[0], &byte, 1) == 1);
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) == 0 && times == 2);
	/* A timeout on a persistent event. */
	most = 3;
	CHECK(event_add(r, &ms1) == 0 && event_base_dispatch(base) == 0 && times == 3 && last_what == EV_TIMEOUT);
	event_del(r);
	/* Edge-triggered: once. */
	struct event *et = event_new(base, fds[0], EV_READ | EV_PERSIST | EV_ET, count, NULL);
	CHECK(event_base_get_features(base) & EV_FEATURE_ET);
	times = 0;
	CHECK(event_add(et, NULL) == 0 && write(fds[1], "y", 1) == 1);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_loop(base, EVLOOP_NONBLOCK);
	CHECK(times == 1 && last_what == (EV_READ | EV_ET));
	CHECK(event_add(r, NULL) == -1); /* Not both on one descriptor. */
	event_del(et);
	CHECK(read(fds[0], &byte, 1) == 1);
	/* The peer has gone. */
	struct event *closed = event_new(base, fds[0], EV_CLOSED, count, NULL);
	CHECK(event_add(closed, NULL) == 0);
	close(fds[1]);
	CHECK(event_base_dispatch(base) == 1 && last_what == EV_CLOSED);
	CHECK(event_get_fd(r) == fds[0] && event_get_events(r) == (EV_READ | EV_PERSIST) && event_get_base(r) == base);
	CHECK(event_get_callback(r) == count && event_get_callback_arg(r) == &most);
	event_free(r);
	event_free(w);
	event_free(et);
	event_free(closed);
	close(fds[0]);
	r = event_new(base, fds[0], EV_READ, count, NULL);
	CHECK(event_add(r, NULL) == -1); /* Closed. */
	event_free(r);
	CHECK(event_new(base, 1, EV_SIGNAL | EV_READ, count, NULL) == NULL);
}

PART(priorities)
{
	struct event a, b, c;
	CHECK(event_base_priority_init(base, 3) == 0 && event_base_get_npriorities(base) == 3);
	evtimer_assign(&a, base, note, "a");
	evtimer_assign(&b, base, note, "b");
	evtimer_assign(&c, base, note, "c");
	CHECK(event_get_priority(&a) == 1 && event_priority_set(&a, 2) == 0 && event_priority_set(&c, 0) == 0);
	CHECK(event_priority_set(&b, 3) == -1 && event_priority_set(&b, -1) == -1);
	event_active(&a, EV_TIMEOUT, 1);
	event_active(&b, EV_TIMEOUT, 1);
	event_active(&c, EV_TIMEOUT, 1);
	CHECK(event_pending(&a, EV_TIMEOUT, NULL) == EV_TIMEOUT);
	CHECK(event_base_priority_init(base, 2) == -1); /* Not while something is active. */
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) == 1 && ordered("cba"));
	CHECK(event_base_priority_init(base, 1) == 0);
}

static void again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) == -1); /* One loop at a time. */
	CHECK(event_base_get_running_event(base) == arg);
	strcat(order, "r");
}

static void ignore(int severity, const char *message)
{
	(void)severity;
	CHECK(message && *message);
	times++;
}

PART(the_loop_and_its_ends)
{
	struct event e;
	times = 0;
	event_set_log_callback(ignore);
	CHECK(event_assign(&e, base, -1, 0, again, event_self_cbarg()) == 0);
	event_active(&e, EV_TIMEOUT, 1);
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) == 1 && ordered("r") && times == 1);
	event_set_log_callback(NULL);
	CHECK(event_base_loopexit(base, &ms1) == 0 && event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY) == 0);
	CHECK(event_base_got_exit(base) && !event_base_got_break(base));
	CHECK(event_base_dispatch(base) == 1);
	CHECK(event_base_once(base, -1, EV_TIMEOUT, note, "1", NULL) == 0);
	CHECK(event_base_once(base, -1, EV_TIMEOUT, note, "2", &ms1) == 0);
	CHECK(event_base_once(base, -1, EV_SIGNAL, note, "!", &ms1) == -1);
	CHECK(event_base_dispatch(base) == 1 && ordered("12"));
	CHECK(event_base_update_cache_time(base) == 0);
	struct timeval tv;
	CHECK(event_base_gettimeofday_cached(base, &tv) == 0 && tv.tv_sec > 0);
	CHECK(event_gettime_monotonic(base, &tv) == 0);
}

static int finalized;

static void finalizer(struct event *e, void *arg)
{
	CHECK(e && arg == &finalized);
	finalized++;
}

PART(finalizers)
{
	struct event here;
	struct event *e = event_new(base, -1, EV_PERSIST | EV_FINALIZE, count, &finalized);
	evtimer_assign(&here, base, count, &finalized);
	CHECK(event_add(e, &s10) == 0 && event_free_finalize(0, e, finalizer) == 0);
	CHECK(event_finalize(0, &here, finalizer) == 0 && event_add(&here, &ms1) == -1);
	CHECK(finalized == 0);
	event_base_loop(base, EVLOOP_NONBLOCK);
	CHECK(finalized == 2);
}

PART(signals)
{
	int most = 1;
	struct sigaction before, after;
	sigaction(SIGUSR1, NULL, &before);
	struct event *a = evsignal_new(base, SIGUSR1, count, &most), *b = evsignal_new(base, SIGUSR1, note, "s");
	CHECK(event_add(a, NULL) == 0 && event_add(b, NULL) == 0 && evsignal_pending(a, NULL) == EV_SIGNAL);
	CHECK(event_get_signal(a) == SIGUSR1);
	times = 0;
	raise(SIGUSR1);
	CHECK(event_base_dispatch(base) == 0 && times == 1 && last_what == EV_SIGNAL);
	order[0] = 0;
	event_base_active_by_signal(base, SIGUSR1);
	CHECK(event_base_dispatch(base) == 0 && times == 2);
	event_free(a);
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) == 0);
	event_free(b);
	order[0] = 0;
	sigaction(SIGUSR1, NULL, &after);
	CHECK(after.sa_handler == before.sa_handler); /* What was there is there again. */
	CHECK(event_base_dispatch(base) == 1);
	a = evsignal_new(base, 1000, count, NULL);
	CHECK(event_add(a, NULL) == -1);
	event_free(a);
}

static void prepare(struct evwatch *w, const struct evwatch_prepare_cb_info *info, void *arg)
{
	struct timeval tv;
	CHECK(evwatch_base(w) == base && arg == &times);
	CHECK(evwatch_prepare_get_timeout(info, &tv) == 1);
	strcat(order, "p");
}

static void checked(struct evwatch *w, const struct evwatch_check_cb_info *info, void *arg)
{
	(void)info;
	(void)arg;
	strcat(order, "c");
	evwatch_free(w);
}

PART(watchers)
{
	struct evwatch *p = evwatch_prepare_new(base, prepare, &times);
	CHECK(p && evwatch_check_new(base, checked, NULL));
	CHECK(event_base_once(base, -1, EV_TIMEOUT, note, "e", NULL) == 0);
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) == 1 && ordered("pce"));
	evwatch_free(p);
	evwatch_free(NULL);
}

static int each(const struct event_base *b, const struct event *e, void *arg)
{
	CHECK(b == base && e);
	++*(int *)arg;
	return *(int *)arg == 2 ? 7 : 0;
}

PART(looking_inside)
{
	struct event a, b;
	int seen = 0, fds[2];
	CHECK(pipe(fds) == 0);
	evtimer_assign(&a, base, count, NULL);
	event_assign(&b, base, fds[0], EV_READ, count, NULL);
	event_add(&a, &s10);
	event_add(&b, &s10);
	CHECK(event_base_foreach_event(base, each, &seen) == 7 && seen == 2);
	FILE *sink = fopen("/dev/null", "w");
	event_base_dump_events(base, sink);
	fclose(sink);
	times = 0;
	event_base_active_by_fd(base, fds[0], EV_READ);
	event_base_loop(base, EVLOOP_NONBLOCK);
	CHECK(times == 1 && last_what == EV_READ && !event_pending(&b, EV_READ | EV_TIMEOUT, NULL));
	struct event_base *where;
	evutil_socket_t fd;
	short events;
	event_callback_fn function;
	void *arg;
	event_get_assignment(&b, &where, &fd, &events, &function, &arg);
	CHECK(where == base && fd == fds[0] && events == EV_READ && function == count && arg == NULL);
	event_del(&a);
	close(fds[0]);
	close(fds[1]);
}

PART(a_child_goes_on)
{
	int fds[2], status, most = 1;
	CHECK(pipe(fds) == 0);
	struct event *r = event_new(base, fds[0], EV_READ, count, NULL);
	struct event *s = evsignal_new(base, SIGUSR2, count, &most);
	CHECK(event_add(r, NULL) == 0 && event_add(s, NULL) == 0);
	pid_t child = fork();
	if (child == 0) {
		CHECK(event_reinit(base) == 0);
		times = 0;
		raise(SIGUSR2);
		CHECK(event_base_dispatch(base) == 0 && times == 1 && last_what == EV_SIGNAL);
		CHECK(write(fds[1], "x", 1) == 1);
		CHECK(event_base_loop(base, EVLOOP_ONCE) == 0 && times == 2 && last_what == EV_READ);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	/* The child's changes did not reach the parent's table. */
	times = 0;
	CHECK(event_base_loop(base, EVLOOP_ONCE) == 0 && times == 1 && last_what == EV_READ);
	event_free(r);
	event_free(s);
	close(fds[0]);
	close(fds[1]);
}

static void go_on(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	times++;
	CHECK(event_base_loopcontinue(arg) == 0);
}

/* What is more urgent and came meanwhile goes first. */
PART(going_on)
{
	struct event_base *own = event_base_new();
	struct event *first = event_new(own, -1, 0, go_on, own);
	CHECK(event_base_loopcontinue(own) == 0);
	times = 0;
	event_active(first, EV_TIMEOUT, 1);
	CHECK(event_base_loop(own, 0) == 1 && times == 1 && !event_base_got_break(own) && !event_base_got_exit(own));
	event_free(first);
	event_base_free(own);
}

static void turn(struct evwatch *w, const struct evwatch_prepare_cb_info *info, void *arg)
{
	(void)w;
	(void)info;
	(void)arg;
	times++;
}

PART(configurations)
{
	struct event_config *c = event_config_new();
	const char **methods = event_get_supported_methods();
	CHECK(!strcmp(methods[0], "epoll") && !strcmp(methods[1], "poll") && !methods[2]);
	CHECK(event_config_avoid_method(c, "epoll") == 0 && event_config_set_flag(c, EVENT_BASE_FLAG_NOLOCK) == 0);
	CHECK(event_config_set_num_cpus_hint(c, 2) == 0);
	CHECK(event_config_set_max_dispatch_interval(c, NULL, 1, 0) == 0);
	struct event_base *other = event_base_new_with_config(c);
	CHECK(other && !strcmp(event_base_get_method(other), "poll") && event_base_get_signal_method(other));
	/* poll knows files. */
	int fd = open("/dev/null", O_RDWR);
	struct event *a = event_new(other, fd, EV_READ, note, "a"), *b = event_new(other, fd, EV_WRITE, note, "b");
	CHECK(event_add(a, NULL) == 0 && event_add(b, NULL) == 0);
	/* One callback a turn: the loop waits in between. */
	struct evwatch *p = evwatch_prepare_new(other, turn, NULL);
	times = 0;
	CHECK(event_base_dispatch(other) == 1 && ordered("ab") && times == 2);
	evwatch_free(p);
	order[0] = 0;
	event_free(a);
	event_free(b);
	close(fd);
	event_base_free(other);
	CHECK(event_config_require_features(c, EV_FEATURE_FDS | EV_FEATURE_ET) == 0);
	CHECK(event_base_new_with_config(c) == NULL);
	event_config_free(c);
	fd = open("/dev/null", O_RDWR);
	a = event_new(base, fd, EV_READ, note, "a");
	CHECK(event_add(a, NULL) == -1 && errno == EPERM); /* epoll does not. */
	event_free(a);
	close(fd);
}

PART(the_old_functions)
{
	struct event e;
	struct event_base *own = event_init();
	CHECK(own && event_priority_init(1) == 0 && event_get_method());
	event_set(&e, -1, 0, note, "o");
	CHECK(event_add(&e, &ms1) == 0 && event_dispatch() == 1 && ordered("o"));
	CHECK(event_once(-1, EV_TIMEOUT, note, "n", NULL) == 0 && event_loop(EVLOOP_ONCE) == 0 && ordered("n"));
	CHECK(event_loopexit(NULL) == 0 && event_loopbreak() == 0);
	timeout_set(&e, note, "t");
	CHECK(event_base_set(base, &e) == 0 && timeout_add(&e, &ms1) == 0 && event_base_set(own, &e) == -1);
	CHECK(event_base_dispatch(base) == 1 && ordered("t"));
	event_base_free(own);
	CHECK(event_dispatch() == -1);
}

int main(void)
{
	base = event_base_new();
	CHECK(base);
	layout();
	timers_in_order();
	persistent_timers();
	descriptors();
	priorities();
	the_loop_and_its_ends();
	finalizers();
	signals();
	watchers();
	looking_inside();
	a_child_goes_on();
	going_on();
	configurations();
	the_old_functions();
	CHECK(event_base_dispatch(NULL) == -1 && event_add(NULL, NULL) == -1 && event_del(NULL) == -1);
	event_free(NULL);
	CHECK(event_base_once(base, -1, EV_TIMEOUT, note, "never", &s10) == 0); /* Freed with the base. */
	event_base_free_nofinalize(base);
	libevent_global_shutdown();
	return 0;
}
