/* evbuffer: every function of buffer.h and buffer_compat.h, and what happens when they are misused. */
#include <event2/buffer.h>
#include <event2/buffer_compat.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "check.h"

static int same(struct evbuffer *b, const char *text)
{
	size_t n = strlen(text);
	if (evbuffer_get_length(b) != n)
		return 0;
	return n == 0 || memcmp(evbuffer_pullup(b, -1), text, n) == 0;
}

static struct evbuffer *with(const char *text)
{
	struct evbuffer *b = evbuffer_new();
	CHECK(b && evbuffer_add(b, text, strlen(text)) == 0);
	return b;
}

PART(in_and_out)
{
	struct evbuffer *b = evbuffer_new(), *c = evbuffer_new();
	char out[16] = {0};
	struct evbuffer_ptr p;
	struct evbuffer_iovec v[2] = {{"ab", 2}, {"cd", 2}};
	CHECK(evbuffer_add(b, "hello world", 11) == 0);
	CHECK(evbuffer_add(b, NULL, 0) == 0);
	CHECK(evbuffer_copyout(b, out, 5) == 5 && !memcmp(out, "hello", 5));
	CHECK(evbuffer_ptr_set(b, &p, 6, EVBUFFER_PTR_SET) == 0 && p.pos == 6);
	CHECK(evbuffer_copyout_from(b, &p, out, sizeof(out)) == 5 && !memcmp(out, "world", 5));
	CHECK(evbuffer_remove(b, out, 6) == 6 && same(b, "world"));
	CHECK(evbuffer_prepend(b, "my ", 3) == 0 && same(b, "my world"));
	CHECK(evbuffer_drain(b, 3) == 0 && same(b, "world"));
	CHECK(evbuffer_add_printf(b, " %d%c", 42, '!') == 4 && same(b, "world 42!"));
	CHECK(evbuffer_remove_buffer(b, c, 5) == 5 && same(c, "world") && same(b, " 42!"));
	CHECK(evbuffer_add_buffer(c, b) == 0 && same(c, "world 42!") && same(b, ""));
	CHECK(evbuffer_add(b, "x", 1) == 0);
	CHECK(evbuffer_prepend_buffer(c, b) == 0 && same(c, "xworld 42!"));
	CHECK(evbuffer_add_iovec(b, v, 2) == 4 && same(b, "abcd"));
	CHECK(evbuffer_get_contiguous_space(b) >= 1);
	CHECK(evbuffer_expand(b, 10000) == 0 && same(b, "abcd"));
	CHECK(evbuffer_set_max_read(b, 100) == 0 && evbuffer_get_max_read(b) == 100);
	CHECK(evbuffer_set_max_read(b, (size_t)INT_MAX + 1) == -1);
	CHECK(evbuffer_pullup(b, 0) == NULL && evbuffer_pullup(b, 5) == NULL);
	evbuffer_free(b);
	evbuffer_free(c);
}

PART(long_text_is_formatted)
{
	struct evbuffer *b = evbuffer_new();
	char *wide = malloc(100001);
	memset(wide, 'w', 100000);
	wide[100000] = 0;
	CHECK(evbuffer_add_printf(b, "%s|%s", wide, "end") == 100004);
	CHECK(evbuffer_get_length(b) == 100004);
	CHECK(evbuffer_add_printf(b, "%c", 0) == 1);
	CHECK(evbuffer_get_length(b) == 100005);
	free(wide);
	evbuffer_free(b);
}

PART(lines)
{
	struct evbuffer *b = with("one\r\ntwo\nthree\r\n\r\nfour");
	size_t n = 99, eol = 0;
	char *line = evbuffer_readln(b, &n, EVBUFFER_EOL_CRLF);
	struct evbuffer_ptr p;
	CHECK(line && n == 3 && !strcmp(line, "one"));
	free(line);
	line = evbuffer_readln(b, &n, EVBUFFER_EOL_LF);
	CHECK(line && n == 3 && !strcmp(line, "two"));
	free(line);
	p = evbuffer_search_eol(b, NULL, &eol, EVBUFFER_EOL_CRLF_STRICT);
	CHECK(p.pos == 5 && eol == 2);
	line = evbuffer_readline(b);
	CHECK(line && !strcmp(line, "three") && same(b, "four"));
	free(line);
	CHECK(evbuffer_readln(b, &n, EVBUFFER_EOL_ANY) == NULL && n == 0);
	evbuffer_add(b, "\0rest", 5);
	line = evbuffer_readln(b, &n, EVBUFFER_EOL_NUL);
	CHECK(line && n == 4 && !strcmp(line, "four") && same(b, "rest"));
	free(line);
	evbuffer_free(b);
	/* A line may contain zeros. */
	b = evbuffer_new();
	evbuffer_add(b, "a\0b\n", 4);
	line = evbuffer_readln(b, &n, EVBUFFER_EOL_LF);
	CHECK(line && n == 3 && !memcmp(line, "a\0b", 4));
	free(line);
	evbuffer_free(b);
}

PART(a_very_long_line_without_an_end)
{
	struct evbuffer *b = evbuffer_new();
	size_t n, i;
	char *block = malloc(1 << 20);
	memset(block, 'x', 1 << 20);
	for (i = 0; i < 64; i++)
		CHECK(evbuffer_add(b, block, 1 << 20) == 0);
	CHECK(evbuffer_readln(b, &n, EVBUFFER_EOL_CRLF) == NULL && n == 0);
	CHECK(evbuffer_get_length(b) == (size_t)64 << 20);
	free(block);
	evbuffer_free(b);
}

PART(searches)
{
	struct evbuffer *b = evbuffer_new();
	struct evbuffer_ptr p, end;
	struct evbuffer_iovec v[4];
	int i;
	for (i = 0; i < 10; i++)
		evbuffer_add_reference(b, "abc", 3, NULL, NULL);
	p = evbuffer_search(b, "cab", 3, NULL);
	CHECK(p.pos == 2);
	CHECK(evbuffer_ptr_set(b, &p, 1, EVBUFFER_PTR_ADD) == 0 && p.pos == 3);
	p = evbuffer_search(b, "cab", 3, &p);
	CHECK(p.pos == 5);
	CHECK(evbuffer_ptr_set(b, &end, 7, EVBUFFER_PTR_SET) == 0);
	CHECK(evbuffer_search_range(b, "cab", 3, NULL, &end).pos == 2);
	CHECK(evbuffer_search_range(b, "cab", 3, &p, &end).pos == -1);
	CHECK(evbuffer_search(b, "zz", 2, NULL).pos == -1);
	CHECK(evbuffer_search(b, "", 0, NULL).pos == 0);
	CHECK(evbuffer_ptr_set(b, &p, 30, EVBUFFER_PTR_SET) == 0);
	CHECK(evbuffer_ptr_set(b, &p, 31, EVBUFFER_PTR_SET) == -1 && p.pos == -1);
	CHECK(evbuffer_ptr_set(b, &p, 1, EVBUFFER_PTR_ADD) == -1);
	/* One that outlived a drain finds nothing, and hurts nobody. */
	CHECK(evbuffer_ptr_set(b, &p, 29, EVBUFFER_PTR_SET) == 0);
	evbuffer_drain(b, 20);
	CHECK(evbuffer_search(b, "a", 1, &p).pos == -1);
	CHECK(evbuffer_copyout_from(b, &p, v, sizeof(v)) == -1);
	CHECK(evbuffer_peek(b, 1, &p, v, 4) == -1);
	CHECK(evbuffer_peek(b, -1, NULL, NULL, 0) >= 1);
	CHECK(evbuffer_peek(b, 1, NULL, v, 4) == 1 && v[0].iov_len >= 1);
	CHECK(evbuffer_find(b, (const unsigned char *)"ca", 2) != NULL);
	CHECK(evbuffer_find(b, (const unsigned char *)"zz", 2) == NULL);
	evbuffer_free(b);
}

PART(room_is_reserved_and_committed)
{
	struct evbuffer *b = with("start ");
	struct evbuffer_iovec v[2], other = {"foreign", 7};
	int n = evbuffer_reserve_space(b, 10000, v, 2);
	CHECK(n >= 1 && v[0].iov_len >= 10000);
	memset(v[0].iov_base, 'r', 10000);
	/* Another operation in between. */
	CHECK(evbuffer_drain(b, 6) == 0 && evbuffer_add(b, "mid ", 4) == 0);
	v[0].iov_len = 10000;
	CHECK(evbuffer_commit_space(b, v, 1) == 0);
	CHECK(evbuffer_get_length(b) == 10004 && !memcmp(evbuffer_pullup(b, 6), "mid rr", 6));
	CHECK(evbuffer_commit_space(b, v, 1) == -1); /* Twice. */
	CHECK(evbuffer_commit_space(b, &other, 1) == -1);
	CHECK(evbuffer_commit_space(b, NULL, 0) == 0);
	CHECK(evbuffer_reserve_space(b, 8, v, 1) == 1);
	v[0].iov_len += 1;
	CHECK(evbuffer_commit_space(b, v, 1) == -1); /* More than there was. */
	v[0].iov_len = 0;
	CHECK(evbuffer_commit_space(b, v, 1) == 0);
	CHECK(evbuffer_reserve_space(b, -1, v, 1) == -1 && evbuffer_reserve_space(b, 1, v, 0) == -1);
	CHECK(evbuffer_get_length(b) == 10004);
	evbuffer_free(b);
}

PART(lengths_that_no_memory_has)
{
	struct evbuffer *b = with("12");
	struct evbuffer_iovec v;
	char out;
	CHECK(evbuffer_add(b, "x", SIZE_MAX) == -1 && evbuffer_add(b, "x", (size_t)SSIZE_MAX) == -1);
	CHECK(evbuffer_prepend(b, "x", SIZE_MAX) == -1);
	CHECK(evbuffer_expand(b, SIZE_MAX) == -1 && evbuffer_expand(b, SIZE_MAX - 1) == -1);
	CHECK(evbuffer_reserve_space(b, SSIZE_MAX, &v, 1) == -1);
	CHECK(evbuffer_add_reference(b, "x", SIZE_MAX, NULL, NULL) == -1);
	CHECK(evbuffer_add_reference_with_offset(b, "x", SIZE_MAX, 2, NULL, NULL) == -1);
	CHECK(same(b, "12"));
	CHECK(evbuffer_drain(b, 0) == 0 && evbuffer_drain(b, SIZE_MAX) == 0 && same(b, ""));
	CHECK(evbuffer_drain(b, 1) == 0 && evbuffer_remove(b, &out, 1) == 0);
	/* Nothing in front, then something. */
	CHECK(evbuffer_prepend(b, "", 0) == 0 && evbuffer_add(b, "ab", 2) == 0 && evbuffer_remove(b, &out, 1) == 1);
	CHECK(evbuffer_add(b, "c", 1) == 0 && same(b, "bc"));
	evbuffer_free(b);
}

PART(many_pieces_become_one)
{
	struct evbuffer *b = evbuffer_new();
	int i;
	unsigned char *whole;
	for (i = 0; i < 10000; i++)
		CHECK(evbuffer_add_reference(b, i % 2 ? "odd." : "even", 4, NULL, NULL) == 0);
	CHECK(evbuffer_pullup(b, 40001) == NULL);
	whole = evbuffer_pullup(b, -1);
	CHECK(whole && !memcmp(whole + 39992, "evenodd.", 8));
	evbuffer_free(b);
}

PART(onto_itself)
{
	struct evbuffer *b = with("self");
	CHECK(evbuffer_add_buffer(b, b) == 0 && evbuffer_prepend_buffer(b, b) == 0);
	CHECK(evbuffer_remove_buffer(b, b, 2) == 0 && evbuffer_add_buffer_reference(b, b) == -1);
	CHECK(same(b, "self"));
	evbuffer_free(b);
}

static int cleaned;
static struct evbuffer *reentered;

static void cleanup(const void *data, size_t len, void *arg)
{
	(void)data;
	CHECK(len == 4 && arg == &cleaned);
	cleaned++;
	if (reentered) {
		CHECK(evbuffer_add(reentered, "again", 5) == 0);
		CHECK(evbuffer_get_length(reentered) >= 5);
	}
}

PART(references)
{
	struct evbuffer *b = evbuffer_new(), *c = evbuffer_new(), *d = evbuffer_new();
	CHECK(evbuffer_add_reference(b, "mine", 4, cleanup, &cleaned) == 0);
	CHECK(evbuffer_add_buffer_reference(c, b) == 0 && same(c, "mine") && same(b, "mine"));
	evbuffer_free(b);
	CHECK(cleaned == 0 && same(c, "mine"));
	evbuffer_drain(c, 4);
	CHECK(cleaned == 1);
	/* A cleanup that comes back to the buffer it is drained from. */
	reentered = c;
	CHECK(evbuffer_add_reference(c, "mine", 4, cleanup, &cleaned) == 0);
	evbuffer_drain(c, 4);
	CHECK(cleaned == 2 && same(c, "again"));
	CHECK(evbuffer_add_reference(c, "mine", 4, cleanup, &cleaned) == 0);
	CHECK(evbuffer_pullup(c, -1) != NULL);
	CHECK(cleaned == 3 && same(c, "againmineagain"));
	reentered = NULL;
	evbuffer_drain(c, 100);
	CHECK(evbuffer_add_reference_with_offset(c, "mi+n", 3, 1, cleanup, &cleaned) == 0 && same(c, "n"));
	evbuffer_drain(c, 1);
	CHECK(cleaned == 4);
	/* Nothing by reference, then ownership moves. */
	CHECK(evbuffer_add_reference(d, "", 0, NULL, NULL) == 0);
	CHECK(evbuffer_add_buffer_reference(c, d) == 0 && evbuffer_add_buffer(c, d) == 0 && same(c, ""));
	CHECK(evbuffer_add(d, "now", 3) == 0 && evbuffer_add_buffer(c, d) == 0 && same(c, "now"));
	evbuffer_free(c);
	evbuffer_free(d);
}

PART(frozen_ends)
{
	struct evbuffer *b = with("ice"), *c = with("more");
	struct evbuffer_iovec v;
	char out;
	CHECK(evbuffer_freeze(b, 0) == 0);
	CHECK(evbuffer_add(b, "x", 1) == -1 && evbuffer_add_buffer(b, c) == -1 && evbuffer_add_printf(b, "x") == -1);
	CHECK(evbuffer_reserve_space(b, 1, &v, 1) == -1 && evbuffer_add_reference(b, "x", 1, cleanup, NULL) == -1);
	CHECK(evbuffer_prepend(b, "n", 1) == 0 && evbuffer_drain(b, 1) == 0);
	CHECK(evbuffer_unfreeze(b, 0) == 0 && evbuffer_freeze(b, 1) == 0);
	CHECK(evbuffer_drain(b, 1) == -1 && evbuffer_remove(b, &out, 1) == -1 && evbuffer_prepend(b, "x", 1) == -1);
	CHECK(evbuffer_readln(b, NULL, EVBUFFER_EOL_ANY) == NULL && evbuffer_remove_buffer(b, c, 1) == -1);
	CHECK(evbuffer_add(b, "d", 1) == 0 && evbuffer_unfreeze(b, 1) == 0 && same(b, "iced") && same(c, "more"));
	evbuffer_free(b);
	evbuffer_free(c);
}

static size_t added, deleted, calls, depth, deepest;
static struct evbuffer_cb_entry *entry;

static void watch(struct evbuffer *b, const struct evbuffer_cb_info *info, void *arg)
{
	(void)arg;
	CHECK(evbuffer_get_length(b) == info->orig_size + info->n_added - info->n_deleted);
	added += info->n_added;
	deleted += info->n_deleted;
	calls++;
}

static void once(struct evbuffer *b, const struct evbuffer_cb_info *info, void *arg)
{
	(void)info;
	(void)arg;
	calls += 100;
	CHECK(evbuffer_remove_cb_entry(b, entry) == 0);
}

static void grow(struct evbuffer *b, const struct evbuffer_cb_info *info, void *arg)
{
	(void)info;
	(void)arg;
	depth++;
	if (depth > deepest)
		deepest = depth;
	evbuffer_add(b, "+", 1);
	depth--;
}

static void old_style(struct evbuffer *b, size_t before, size_t after, void *arg)
{
	(void)arg;
	CHECK(evbuffer_get_length(b) == after);
	added += after - before;
}

PART(callbacks)
{
	struct evbuffer *b = evbuffer_new(), *c = with("moved");
	struct evbuffer_cb_entry *e = evbuffer_add_cb(b, watch, NULL);
	CHECK(e);
	evbuffer_add(b, "12345", 5);
	evbuffer_drain(b, 2);
	CHECK(calls == 2 && added == 5 && deleted == 2);
	evbuffer_add(b, NULL, 0);
	CHECK(calls == 2);
	CHECK(evbuffer_cb_clear_flags(b, e, EVBUFFER_CB_ENABLED) == 0);
	evbuffer_add_buffer(b, c);
	CHECK(calls == 2);
	CHECK(evbuffer_cb_set_flags(b, e, EVBUFFER_CB_ENABLED) == 0);
	entry = evbuffer_add_cb(b, once, NULL);
	evbuffer_drain(b, 1);
	CHECK(calls == 103);
	evbuffer_drain(b, 1);
	CHECK(calls == 104);
	CHECK(evbuffer_remove_cb(b, watch, &calls) == -1 && evbuffer_remove_cb(b, watch, NULL) == 0);
	/* One that always adds uses no stack for it, and ends. */
	evbuffer_add_cb(b, grow, NULL);
	evbuffer_add(b, "x", 1);
	CHECK(deepest == 1 && evbuffer_get_length(b) < 100);
	added = 0;
	CHECK(evbuffer_setcb(b, old_style, NULL) == 0);
	evbuffer_add(b, "xyz", 3);
	CHECK(added == 3);
	evbuffer_free(b);
	evbuffer_free(c);
}

PART(deferred_callbacks)
{
	struct event_base *base = event_base_new();
	struct evbuffer *b = evbuffer_new();
	CHECK(evbuffer_defer_callbacks(b, base) == 0);
	added = deleted = calls = 0;
	evbuffer_add_cb(b, watch, NULL);
	evbuffer_add(b, "12345", 5);
	evbuffer_drain(b, 2);
	CHECK(calls == 0);
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
	CHECK(calls == 1 && added == 5 && deleted == 2);
	/* Freed before it was told: the loop tells it still, and then it is gone. */
	evbuffer_add(b, "67", 2);
	evbuffer_free(b);
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
	CHECK(calls == 2 && added == 7);
	event_base_free(base);
}

PART(descriptors)
{
	struct evbuffer *b = with("through a pipe"), *c = evbuffer_new();
	int fds[2];
	CHECK(pipe(fds) == 0);
	CHECK(evbuffer_write_atmost(b, fds[1], 8) == 8 && evbuffer_write(b, fds[1]) == 6);
	CHECK(evbuffer_write(b, fds[1]) == -1); /* Empty. */
	CHECK(evbuffer_read(c, fds[0], 7) == 7 && evbuffer_read(c, fds[0], -1) == 7 && same(c, "through a pipe"));
	close(fds[1]);
	CHECK(evbuffer_read(c, fds[0], -1) == 0);
	close(fds[0]);
	errno = 0;
	CHECK(evbuffer_read(c, fds[0], -1) == -1 && errno == EBADF);
	CHECK(evbuffer_read(c, -1, -1) == -1);
	evbuffer_free(b);
	evbuffer_free(c);
}

static int segment_cleaned;

static void segment_cleanup(struct evbuffer_file_segment const *segment, int flags, void *arg)
{
	CHECK(segment && arg == &segment_cleaned && flags == EVBUF_FS_CLOSE_ON_FREE);
	segment_cleaned++;
}

static int file_of(const char *text)
{
	char name[] = "/tmp/capi-XXXXXX";
	int fd = mkstemp(name);
	CHECK(fd >= 0 && unlink(name) == 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return fd;
}

PART(files)
{
	struct evbuffer *b = evbuffer_new(), *c = evbuffer_new();
	struct evbuffer_file_segment *segment;
	int fd = file_of("0123456789"), fds[2];
	CHECK(evbuffer_add_file(b, fd, 2, 5) == 0 && same(b, "23456"));
	evbuffer_drain(b, 5);
	fd = file_of("0123456789");
	segment = evbuffer_file_segment_new(fd, 0, -1, EVBUF_FS_CLOSE_ON_FREE);
	CHECK(segment);
	evbuffer_file_segment_add_cleanup_cb(segment, segment_cleanup, &segment_cleaned);
	CHECK(evbuffer_add_file_segment(b, segment, 8, -1) == 0 && evbuffer_add_file_segment(c, segment, 0, 3) == 0);
	CHECK(evbuffer_add_file_segment(b, segment, 8, 3) == -1 && evbuffer_add_file_segment(b, segment, 11, 0) == -1);
	CHECK(evbuffer_add_file_segment(b, segment, INT64_MAX, INT64_MAX) == -1);
	evbuffer_file_segment_free(segment);
	CHECK(same(b, "89") && same(c, "012") && segment_cleaned == 0);
	evbuffer_free(b);
	CHECK(segment_cleaned == 0);
	evbuffer_drain(c, 3);
	CHECK(segment_cleaned == 1 && fcntl(fd, F_GETFD) == -1);
	/* Sent without being read, and cut behind our back. */
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	fd = file_of("sent by the system");
	CHECK(evbuffer_set_flags(c, EVBUFFER_FLAG_DRAINS_TO_FD) == 0 && evbuffer_add_file(c, fd, 0, -1) == 0);
	CHECK(evbuffer_write(c, fds[0]) == 18 && evbuffer_get_length(c) == 0);
	CHECK(evbuffer_read(c, fds[1], -1) == 18 && same(c, "sent by the system"));
	evbuffer_drain(c, 100);
	fd = file_of("to be cut");
	CHECK(evbuffer_add_file(c, fd, 0, -1) == 0 && ftruncate(fd, 0) == 0);
	CHECK(evbuffer_write(c, fds[0]) == -1 && evbuffer_get_length(c) == 9);
	CHECK(evbuffer_clear_flags(c, EVBUFFER_FLAG_DRAINS_TO_FD) == 0);
	evbuffer_drain(c, 9);
	fd = file_of("short");
	CHECK(evbuffer_add_file(c, fd, 0, 100) == -1); /* Shorter than was said. */
	CHECK(evbuffer_add_file(c, -1, 0, 1) == -1 && evbuffer_add_file(NULL, fd, 0, 1) == -1);
	CHECK(evbuffer_file_segment_new(fds[0], -1, 1, 0) == NULL);
	CHECK(evbuffer_file_segment_new(fds[0], INT64_MAX, INT64_MAX, 0) == NULL);
	close(fds[0]);
	close(fds[1]);
	evbuffer_free(c);
}

PART(nothing_at_all)
{
	evbuffer_free(NULL);
	CHECK(evbuffer_get_length(NULL) == 0 && evbuffer_add(NULL, "x", 1) == -1 && evbuffer_drain(NULL, 1) == -1);
	CHECK(evbuffer_pullup(NULL, 1) == NULL && evbuffer_add_buffer(NULL, NULL) == -1);
	CHECK(evbuffer_readln(NULL, NULL, EVBUFFER_EOL_LF) == NULL && evbuffer_search(NULL, "x", 1, NULL).pos == -1);
	CHECK(evbuffer_add_cb(NULL, watch, NULL) == NULL && evbuffer_file_segment_new(-1, 0, 0, 0) == NULL);
	evbuffer_lock(NULL);
	evbuffer_unlock(NULL);
}

static int add_it(struct evbuffer *b, const char *format, ...)
{
	va_list list;
	int count;
	va_start(list, format);
	count = evbuffer_add_vprintf(b, format, list);
	va_end(list);
	return count;
}

PART(formatted_by_a_list)
{
	struct evbuffer *b = evbuffer_new();
	CHECK(add_it(b, "%d and %s", 7, "seven") == 11);
	CHECK(evbuffer_get_length(b) == 11 && !memcmp(evbuffer_pullup(b, -1), "7 and seven", 11));
	evbuffer_free(b);
}

int main(void)
{
	formatted_by_a_list();
	in_and_out();
	long_text_is_formatted();
	lines();
	a_very_long_line_without_an_end();
	searches();
	room_is_reserved_and_committed();
	lengths_that_no_memory_has();
	many_pieces_become_one();
	onto_itself();
	references();
	frozen_ends();
	callbacks();
	deferred_callbacks();
	descriptors();
	files();
	nothing_at_all();
	return 0;
}
