/* libevent in memory: what its evbuffer, its bufferevent_pair and its timers cost, one number for each operation.
 *
 * usage: micro_libevent buffer|pair|timers
 *
 * Prints one JSON object, operation -> nanoseconds per operation, or GiB/s for those that move or scan bulk
 * (the search, pull-up and pair operations). The Rust benches (`crates/evbuffer/benches/micro.rs` and its
 * sisters) print the same operations under the same names.
 *
 * Invariants:
 * - Time is the CPU time of this thread: what other processes take of a shared machine is not counted.
 * - A figure is the best of ROUNDS, here and on the Rust side: what a quiet machine takes, on one that is not.
 * - Data is made from a fixed seed and is the same in every run, here and on the Rust side.
 */
#define _GNU_SOURCE
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum { ROUNDS = 5 };

static char block[1024 * 1024];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* A result that is not what the operation promises makes its time worthless. */
static void require(int truth, const char *what)
{
	if (!truth) {
		fprintf(stderr, "micro_libevent: %s\n", what);
		exit(1);
	}
}

/* The least of several times, in seconds. */
struct best {
	double seconds;
	int rounds;
};

static void keep(struct best *best, double seconds)
{
	if (best->rounds++ == 0 || seconds < best->seconds)
		best->seconds = seconds;
}

/* ---- output ---- */

static const char *separator = "{";

static void result(const char *operation, double value)
{
	printf("%s\"%s\":%.4f", separator, operation, value);
	separator = ",";
}

static void ns_each(const char *operation, struct best best, size_t times)
{
	result(operation, best.seconds * 1e9 / times);
}

static void gib_per_s(const char *operation, struct best best, double bytes)
{
	result(operation, bytes / best.seconds / GIB);
}

/* ---- seeded data ---- */

static uint64_t random_state;

/* xorshift64 */
static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Words as English prose has them, separated by blanks and now and then a comma. */
static char *make_text(size_t bytes)
{
	static const char *const words[] = { "the", "event", "buffer", "of", "and", "connection", "reads", "when", "data", "arrives",
		"to", "a", "server", "writes", "then", "with", "error", "timeout", "filter", "chain", "that", "is", "in", "for", "on",
		"network", "socket", "loop", "callback", "line" };
	const size_t longest = 16;
	char *text = malloc(bytes + longest);
	require(text != NULL, "out of memory");
	random_state = 88172645463325252u;
	for (size_t at = 0; at < bytes;) {
		const char *word = words[random_next() % (sizeof words / sizeof *words)];
		size_t length = strlen(word);
		memcpy(text + at, word, length);
		at += length;
		text[at++] = random_next() % 12 ? ' ' : ',';
	}
	return text;
}

static void add_in_pieces(struct evbuffer *to, const char *data, size_t bytes, size_t piece)
{
	for (size_t at = 0; at < bytes; at += piece)
		evbuffer_add(to, data + at, bytes - at < piece ? bytes - at : piece);
}

/* ---- evbuffer ---- */

static void small_adds(void)
{
	const size_t times = 4000000, whole = 1000000;
	struct evbuffer *b = evbuffer_new();
	struct best steady = { 0 }, grow = { 0 }, drain = { 0 }, there_and_back = { 0 };
	char out[64];
	for (int round = 0; round < ROUNDS; round++) {
		double t = now();
		for (size_t i = 0; i < times; i++) {
			evbuffer_add(b, block, 64);
			if (i % 64 == 63)
				evbuffer_drain(b, 4096);
		}
		keep(&steady, now() - t);

		t = now();
		for (size_t i = 0; i < whole; i++)
			evbuffer_add(b, block, 64);
		evbuffer_drain(b, whole * 64);
		keep(&grow, now() - t);

		for (size_t i = 0; i < whole; i++)
			evbuffer_add(b, block, 64);
		t = now();
		while (evbuffer_get_length(b))
			evbuffer_drain(b, 64);
		keep(&drain, now() - t);

		t = now();
		for (size_t i = 0; i < times; i++) {
			evbuffer_add(b, block, 64);
			evbuffer_remove(b, out, 64);
		}
		keep(&there_and_back, now() - t);
	}
	ns_each("add64_steady", steady, times);
	ns_each("add64_grow64M", grow, whole);
	ns_each("drain64_of64M", drain, whole);
	ns_each("add64_remove64", there_and_back, times);
	evbuffer_free(b);
}

static void moves(void)
{
	const size_t times = 3000000;
	struct evbuffer *a = evbuffer_new(), *b = evbuffer_new();
	struct best move = { 0 }, echo = { 0 };
	for (int round = 0; round < ROUNDS; round++) {
		evbuffer_add(a, block, 4000);
		double t = now();
		for (size_t i = 0; i < times; i++) {
			evbuffer_add_buffer(b, a);
			evbuffer_add_buffer(a, b);
		}
		keep(&move, now() - t);
		evbuffer_drain(a, 4000);

		t = now();
		for (size_t i = 0; i < times; i++) {
			evbuffer_add(a, block, 64);
			evbuffer_add_buffer(b, a);
			evbuffer_drain(b, 64);
		}
		keep(&echo, now() - t);
	}
	ns_each("add_buffer_move4K", move, 2 * times);
	ns_each("echo_add64_move_drain", echo, times);
	evbuffer_free(a);
	evbuffer_free(b);
}

/* 64 MiB in lines of 80 bytes, in pieces of 16 KiB. */
static void lines(const char *operation, enum evbuffer_eol_style style)
{
	const size_t bytes = 64 * MIB, count = bytes / 80;
	char *text = make_text(bytes);
	for (size_t end = 79; end < bytes; end += 80) {
		text[end] = '\n';
		if (style == EVBUFFER_EOL_CRLF)
			text[end - 1] = '\r';
	}
	struct best best = { 0 };
	for (int round = 0; round < ROUNDS; round++) {
		struct evbuffer *b = evbuffer_new();
		add_in_pieces(b, text, bytes, 16 * KIB);
		size_t found = 0, length;
		char *line;
		double t = now();
		while ((line = evbuffer_readln(b, &length, style))) {
			found++;
			free(line);
		}
		keep(&best, now() - t);
		require(found == count, "read_line found another number of lines");
		evbuffer_free(b);
	}
	ns_each(operation, best, count);
	free(text);
}

static void search_one(struct evbuffer *in, const char *operation, const char *needle, size_t at)
{
	struct best best = { 0 };
	for (int round = 0; round < ROUNDS; round++) {
		double t = now();
		struct evbuffer_ptr found = evbuffer_search(in, needle, strlen(needle), NULL);
		keep(&best, now() - t);
		require(found.pos == (ev_ssize_t)at, "search found another place");
	}
	gib_per_s(operation, best, at);
}

static void searches(void)
{
	const size_t bytes = 64 * MIB;
	const char *common = "event zq-needle!", *rare = "QZneedle-needle!";
	char *text = make_text(bytes);
	memcpy(text + bytes - 64, common, strlen(common));
	memcpy(text + bytes - 32, rare, strlen(rare));
	struct evbuffer *b = evbuffer_new();
	add_in_pieces(b, text, bytes, 16 * KIB);
	search_one(b, "search_commonfirst", common, bytes - 64);
	search_one(b, "search_rarefirst", rare, bytes - 32);
	evbuffer_free(b);
	free(text);
}

/* 256 pieces of 4,048 bytes made one; only the pull-up is timed. */
static void pull_up(void)
{
	const int times = 200, pieces = 256, piece = 4048;
	struct best best = { 0 };
	for (int round = 0; round < ROUNDS; round++) {
		double took = 0;
		for (int at = 0; at < times; at++) {
			struct evbuffer *b = evbuffer_new();
			for (int i = 0; i < pieces; i++) {
				struct evbuffer *one = evbuffer_new();
				evbuffer_add(one, block, piece);
				evbuffer_add_buffer(b, one);
				evbuffer_free(one);
			}
			double t = now();
			require(evbuffer_pullup(b, -1) != NULL, "pull-up failed");
			took += now() - t;
			evbuffer_free(b);
		}
		keep(&best, took);
	}
	gib_per_s("pullup_1M_from_4K", best, (double)times * pieces * piece);
}

static void count_release(const void *data, size_t length, void *count)
{
	(void)data, (void)length;
	++*(size_t *)count;
}

static void references(void)
{
	const size_t times = 3000000;
	size_t released = 0;
	struct evbuffer *b = evbuffer_new();
	struct best best = { 0 };
	for (int round = 0; round < ROUNDS; round++) {
		double t = now();
		for (size_t i = 0; i < times; i++) {
			evbuffer_add_reference(b, block, 64 * KIB, count_release, &released);
			evbuffer_drain(b, 64 * KIB);
		}
		keep(&best, now() - t);
	}
	ns_each("add_reference_drain", best, times);
	require(released == ROUNDS * times, "a reference was not released");
	evbuffer_free(b);
}

/* 4 KiB written to one end of a socket pair by hand and read from the other by the buffer. */
static void descriptor_reads(void)
{
	const size_t times = 100000;
	int ends[2];
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "socketpair failed");
	struct evbuffer *b = evbuffer_new();
	struct best best = { 0 };
	for (int round = 0; round < ROUNDS; round++) {
		double t = now();
		for (size_t i = 0; i < times; i++) {
			require(write(ends[0], block, 4096) == 4096, "short write");
			require(evbuffer_read(b, ends[1], 4096) == 4096, "short read");
			evbuffer_drain(b, 4096);
		}
		keep(&best, now() - t);
	}
	ns_each("unix_write_evbuffer_read4K", best, times);
	evbuffer_free(b);
	close(ends[0]);
	close(ends[1]);
}

/* ---- bufferevent_pair ---- */

static size_t arrived;

static void drain_input(struct bufferevent *bev, void *unused)
{
	(void)unused;
	struct evbuffer *input = bufferevent_get_input(bev);
	arrived += evbuffer_get_length(input);
	evbuffer_drain(input, evbuffer_get_length(input));
}

/* Writes of `write_bytes`, the loop run after every `batch` of them, until `total` has arrived. */
static void pair_moves(const char *operation, size_t write_bytes, size_t batch, size_t total)
{
	struct event_base *base = event_base_new();
	struct bufferevent *ends[2];
	require(bufferevent_pair_new(base, 0, ends) == 0, "no pair");
	bufferevent_setcb(ends[1], drain_input, NULL, NULL, NULL);
	bufferevent_enable(ends[1], EV_READ);
	bufferevent_enable(ends[0], EV_WRITE);
	struct best best = { 0 };
	for (int round = 0; round < ROUNDS; round++) {
		arrived = 0;
		double t = now();
		for (size_t sent = 0; sent < total; sent += batch * write_bytes) {
			for (size_t i = 0; i < batch; i++)
				bufferevent_write(ends[0], block, write_bytes);
			event_base_loop(base, EVLOOP_NONBLOCK);
		}
		while (arrived < total)
			event_base_loop(base, EVLOOP_NONBLOCK);
		keep(&best, now() - t);
	}
	gib_per_s(operation, best, total);
	bufferevent_free(ends[0]);
	bufferevent_free(ends[1]);
	event_base_free(base);
}

/* ---- timers ---- */

enum { TIMERS = 100000, READD_ROUNDS = 5 };

static void on_timer(evutil_socket_t fd, short what, void *unused) { (void)fd, (void)what, (void)unused; }

struct timers {
	struct event events[TIMERS];
	struct timeval after[TIMERS];
	struct best add, readd, del;
};

static void run_timers(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what;
	struct timers *all = data;
	for (int round = 0; round < ROUNDS; round++) {
		double t = now();
		for (int i = 0; i < TIMERS; i++)
			event_add(&all->events[i], &all->after[i]);
		keep(&all->add, now() - t);

		t = now();
		for (int again = 0; again < READD_ROUNDS; again++)
			for (int i = 0; i < TIMERS; i++) {
				int at = random_next() % TIMERS;
				event_add(&all->events[at], &all->after[(at + again) % TIMERS]);
			}
		keep(&all->readd, now() - t);

		t = now();
		for (int i = 0; i < TIMERS; i++)
			event_del(&all->events[i]);
		keep(&all->del, now() - t);
	}
}

static void timer_row(int common, const char *operation, int outside, struct best best, size_t times)
{
	char row[64];
	snprintf(row, sizeof row, "timer_%s_%s%s", common ? "common" : "heap", operation, outside ? "_outside" : "");
	ns_each(row, best, times);
}

/* 100,000 timers of 1 to 61 s in the heap, or all of 30 s in a common-timeout queue; added from inside the
 * loop, as a server does, where the loop's cached time spares a clock read, or outside of it. */
static void timers(int common, int outside)
{
	struct event_base *base = event_base_new();
	struct timers *all = calloc(1, sizeof *all);
	require(base && all, "out of memory");
	struct timeval fixed = { .tv_sec = 30 }, at_once = { 0 };
	const struct timeval *queue = event_base_init_common_timeout(base, &fixed);
	random_state = 1234567;
	for (int i = 0; i < TIMERS; i++) {
		struct timeval spread = { .tv_sec = 1 + random_next() % 60 };
		spread.tv_usec = random_next() % 1000000;
		all->after[i] = common ? *queue : spread;
		event_assign(&all->events[i], base, -1, 0, on_timer, NULL);
	}
	if (outside) {
		run_timers(-1, 0, all);
	} else {
		event_base_once(base, -1, EV_TIMEOUT, run_timers, all, &at_once);
		event_base_loop(base, EVLOOP_ONCE);
	}
	timer_row(common, "add", outside, all->add, TIMERS);
	timer_row(common, "readd", outside, all->readd, (size_t)READD_ROUNDS * TIMERS);
	timer_row(common, "del", outside, all->del, TIMERS);
	event_base_free(base);
	free(all);
}

int main(int argc, char **argv)
{
	const char *group = argc == 2 ? argv[1] : "";
	memset(block, 'x', sizeof block);
	if (!strcmp(group, "buffer")) {
		small_adds();
		moves();
		lines("readln_lf", EVBUFFER_EOL_LF);
		lines("readln_crlf", EVBUFFER_EOL_CRLF);
		searches();
		pull_up();
		references();
		descriptor_reads();
	} else if (!strcmp(group, "pair")) {
		pair_moves("pair_4K", 4 * KIB, 16, GIB / 4);
		pair_moves("pair_64K", 64 * KIB, 1, GIB);
		pair_moves("pair_4K_loop_each", 4 * KIB, 1, GIB / 8);
	} else if (!strcmp(group, "timers")) {
		for (int common = 0; common < 2; common++)
			for (int outside = 0; outside < 2; outside++)
				timers(common, outside);
	} else {
		fprintf(stderr, "usage: %s buffer|pair|timers\n", argv[0]);
		return 2;
	}
	puts("}");
	return 0;
}
