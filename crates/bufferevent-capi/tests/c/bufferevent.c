/* Bufferevents over descriptors, listeners, connecting: bufferevent.h, bufferevent_struct.h, bufferevent_compat.h, listener.h, dns.h. */
#include <event.h>
#include <event2/dns.h>
#include <event2/listener.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

static struct event_base *base;
static const struct timeval ms1 = {0, 1000}, ms20 = {0, 20000};
static int reads, writes, events;
static short what_came;
static size_t seen;

static void reset(void)
{
	reads = writes = events = 0;
	what_came = 0;
	seen = 0;
}

static void on_read(struct bufferevent *bev, void *arg)
{
	reads++;
	seen = evbuffer_get_length(bufferevent_get_input(bev));
	if (arg)
		event_base_loopbreak(base);
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
	event_base_loopbreak(base);
}

static void sockets(struct bufferevent *pair[2], int options)
{
	int fds[2], i;
	CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	for (i = 0; i < 2; i++) {
		evutil_make_socket_nonblocking(fds[i]);
		pair[i] = bufferevent_socket_new(base, fds[i], BEV_OPT_CLOSE_ON_FREE | options);
		CHECK(pair[i]);
		bufferevent_setcb(pair[i], on_read, on_write, on_event, NULL);
	}
	reset();
}

/* Turns until nothing is active, without waiting. */
static void turn(void)
{
	int i;
	for (i = 0; i < 4; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

PART(layout)
{
	CHECK(evutil_offsetof(struct bufferevent, ev_read) == 16 && evutil_offsetof(struct bufferevent, ev_write) == 144);
	CHECK(evutil_offsetof(struct bufferevent, input) == 272 && evutil_offsetof(struct bufferevent, wm_read) == 288);
	CHECK(evutil_offsetof(struct bufferevent, readcb) == 320 && evutil_offsetof(struct bufferevent, enabled) == 384);
	CHECK(sizeof(struct bufferevent) == 392);
}

PART(bytes_and_callbacks)
{
	struct bufferevent *b[2];
	bufferevent_data_cb r, w;
	bufferevent_event_cb e;
	void *arg;
	char out[16];
	struct evbuffer *x = evbuffer_new();
	sockets(b, 0);
	CHECK(b[0]->input == bufferevent_get_input(b[0]) && b[0]->enabled == EV_WRITE && b[0]->ev_base == base);
	CHECK(bufferevent_get_base(b[0]) == base && bufferevent_getfd(b[0]) >= 0 && !bufferevent_get_underlying(b[0]));
	bufferevent_getcb(b[0], &r, &w, &e, &arg);
	CHECK(r == on_read && w == on_write && e == on_event && !arg && b[0]->errorcb == on_event);
	CHECK(bufferevent_enable(b[1], EV_READ) == 0 && bufferevent_get_enabled(b[1]) == (EV_READ | EV_WRITE));
	CHECK(event_pending(&b[1]->ev_read, EV_READ, NULL) == EV_READ);
	/* Nothing leaves but from the loop. */
	CHECK(bufferevent_write(b[0], "hello", 5) == 0 && evbuffer_get_length(bufferevent_get_output(b[0])) == 5);
	CHECK(event_pending(&b[0]->ev_write, EV_WRITE, NULL) == EV_WRITE);
	turn();
	CHECK(writes == 1 && reads == 1 && seen == 5 && evbuffer_get_length(bufferevent_get_output(b[0])) == 0);
	CHECK(!event_pending(&b[0]->ev_write, EV_WRITE, NULL));
	CHECK(bufferevent_read(b[1], out, sizeof(out)) == 5 && !memcmp(out, "hello", 5));
	evbuffer_add(x, "world", 5);
	CHECK(bufferevent_write_buffer(b[0], x) == 0 && evbuffer_get_length(x) == 0);
	turn();
	CHECK(bufferevent_read_buffer(b[1], x) == 0 && evbuffer_get_length(x) == 5);
	/* The program only takes from the input and only adds to the output. */
	CHECK(evbuffer_add(bufferevent_get_input(b[1]), "x", 1) == -1);
	CHECK(bufferevent_write(b[1], "kept", 4) == 0 && evbuffer_drain(bufferevent_get_output(b[1]), 1) == -1);
	/* Disabled, nothing moves; enabled again, it goes on. */
	CHECK(bufferevent_disable(b[1], EV_READ | EV_WRITE) == 0);
	turn();
	CHECK(evbuffer_get_length(bufferevent_get_output(b[1])) == 4);
	reset();
	CHECK(bufferevent_enable(b[1], EV_WRITE) == 0);
	turn();
	CHECK(writes == 1 && evbuffer_get_length(bufferevent_get_output(b[1])) == 0);
	/* An idle one that is enabled for writing is told once. */
	reset();
	CHECK(bufferevent_enable(b[0], EV_WRITE) == 0);
	turn();
	CHECK(writes == 1);
	/* The end, once; bytes before it are told first. */
	bufferevent_enable(b[0], EV_READ);
	turn();
	reset();
	bufferevent_enable(b[1], EV_READ);
	bufferevent_write(b[0], "last", 4);
	turn();
	bufferevent_free(b[0]);
	CHECK(event_base_dispatch(base) == 0 && reads == 1 && what_came == (BEV_EVENT_READING | BEV_EVENT_EOF));
	CHECK(bufferevent_get_enabled(b[1]) == EV_WRITE && evbuffer_get_length(bufferevent_get_input(b[1])) == 4);
	bufferevent_free(b[1]);
	evbuffer_free(x);
	turn();
}

PART(watermarks)
{
	struct bufferevent *b[2];
	size_t low, high;
	sockets(b, 0);
	bufferevent_setwatermark(b[1], EV_READ, 4, 10);
	CHECK(bufferevent_getwatermark(b[1], EV_READ, &low, &high) == 0 && low == 4 && high == 10 && b[1]->wm_read.high == 10);
	CHECK(bufferevent_getwatermark(b[1], EV_READ | EV_WRITE, &low, &high) == -1);
	bufferevent_enable(b[1], EV_READ);
	bufferevent_write(b[0], "123", 3);
	turn();
	CHECK(reads == 0);
	bufferevent_write(b[0], "456789abcdef", 12);
	turn();
	CHECK(reads == 1 && seen == 10);
	evbuffer_drain(bufferevent_get_input(b[1]), 8);
	turn();
	CHECK(reads == 2 && seen == 7);
	bufferevent_setwatermark(b[1], EV_READ, 0, 0);
	/* The write callback waits for the low mark. */
	reset();
	bufferevent_setwatermark(b[0], EV_WRITE, 5, 0);
	bufferevent_trigger(b[0], EV_WRITE, 0);
	CHECK(writes == 1);
	bufferevent_trigger(b[1], EV_READ, BEV_TRIG_IGNORE_WATERMARKS);
	CHECK(reads == 1);
	bufferevent_trigger_event(b[1], BEV_EVENT_CONNECTED | BEV_EVENT_EOF, BEV_TRIG_DEFER_CALLBACKS);
	CHECK(events == 0);
	turn();
	turn();
	CHECK(events == 2 && what_came == (BEV_EVENT_CONNECTED | BEV_EVENT_EOF));
	bufferevent_free(b[0]);
	bufferevent_free(b[1]);
	turn();
}

PART(timeouts)
{
	struct bufferevent *b[2];
	char *much = calloc(1, 1 << 20);
	sockets(b, 0);
	bufferevent_set_timeouts(b[0], &ms1, &ms20);
	bufferevent_enable(b[0], EV_READ);
	CHECK(event_base_dispatch(base) == 0 && what_came == (BEV_EVENT_TIMEOUT | BEV_EVENT_READING));
	CHECK(bufferevent_get_enabled(b[0]) == EV_WRITE);
	/* Only what waits to be written is timed. */
	reset();
	bufferevent_write(b[0], much, 1 << 20);
	CHECK(event_base_dispatch(base) == 0 && what_came == (BEV_EVENT_TIMEOUT | BEV_EVENT_WRITING));
	bufferevent_set_timeouts(b[0], NULL, NULL);
	bufferevent_settimeout(b[1], 3, 4);
	CHECK(b[1]->timeout_read.tv_sec == 3 && b[1]->timeout_write.tv_sec == 4 && b[0]->timeout_read.tv_sec == 0);
	bufferevent_free(b[0]);
	bufferevent_free(b[1]);
	free(much);
	turn();
}

static void free_in_read(struct bufferevent *bev, void *arg)
{
	(void)arg;
	reads++;
	bufferevent_free(bev);
}

static void drain_half(struct bufferevent *bev, void *arg)
{
	(void)arg;
	reads++;
	evbuffer_drain(bufferevent_get_input(bev), 4);
}

PART(deferred_and_freed)
{
	struct bufferevent *b[2];
	int fd;
	CHECK(bufferevent_socket_new(base, -1, BEV_OPT_UNLOCK_CALLBACKS) == NULL);
	sockets(b, BEV_OPT_DEFER_CALLBACKS | BEV_OPT_UNLOCK_CALLBACKS);
	bufferevent_setcb(b[1], free_in_read, NULL, on_event, NULL);
	bufferevent_enable(b[1], EV_READ);
	fd = bufferevent_getfd(b[1]);
	bufferevent_write(b[0], "x", 1);
	turn();
	CHECK(reads == 1 && writes == 1 && fcntl(fd, F_GETFD) == -1);
	/* What waits for a loop is told to nobody once it is freed. */
	reset();
	bufferevent_trigger(b[0], EV_WRITE, 0);
	bufferevent_free(b[0]);
	turn();
	CHECK(writes == 0);
	/* At the high mark and taking part of it, it is asked again; taking nothing, it is not. */
	sockets(b, 0);
	bufferevent_setcb(b[1], drain_half, NULL, NULL, NULL);
	bufferevent_setwatermark(b[1], EV_READ, 0, 4);
	bufferevent_enable(b[1], EV_READ);
	bufferevent_write(b[0], "123456789abc", 12);
	turn();
	CHECK(reads == 3);
	bufferevent_setcb(b[1], on_read, NULL, NULL, NULL);
	bufferevent_write(b[0], "123456789abc", 12);
	reset();
	turn();
	CHECK(reads == 1 && seen == 4);
	/* One more counts on it: it lives on. */
	bufferevent_incref(b[1]);
	bufferevent_free(b[1]);
	turn();
	CHECK(bufferevent_getfd(b[1]) >= 0 && bufferevent_decref(b[1]) == 1);
	bufferevent_free(b[0]);
	turn();
}

PART(errors_and_descriptors)
{
	struct bufferevent *b[2], *p;
	int fds[2], other;
	sockets(b, 0);
	bufferevent_enable(b[0], EV_READ | EV_WRITE);
	turn();
	reset();
	other = bufferevent_getfd(b[1]);
	bufferevent_free(b[1]);
	turn();
	CHECK(fcntl(other, F_GETFD) == -1);
	/* Nobody reads any more: an error, not the end of the program. */
	signal(SIGPIPE, SIG_DFL);
	bufferevent_disable(b[0], EV_READ);
	bufferevent_write(b[0], "nobody", 6);
	turn();
	CHECK(what_came & BEV_EVENT_ERROR && what_came & BEV_EVENT_WRITING && !(bufferevent_get_enabled(b[0]) & EV_WRITE));
	/* Several pieces go another way, with the same end. */
	bufferevent_enable(b[0], EV_WRITE);
	reset();
	CHECK(evbuffer_add_reference(bufferevent_get_output(b[0]), "no", 2, NULL, NULL) == 0);
	CHECK(evbuffer_add_reference(bufferevent_get_output(b[0]), "body", 4, NULL, NULL) == 0);
	turn();
	CHECK(what_came & BEV_EVENT_ERROR && what_came & BEV_EVENT_WRITING);
	signal(SIGPIPE, SIG_IGN);
	/* Another descriptor, without and with closing the old one. */
	CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	other = bufferevent_getfd(b[0]);
	CHECK(bufferevent_setfd(b[0], fds[0]) == 0 && bufferevent_getfd(b[0]) == fds[0] && fcntl(other, F_GETFD) >= 0);
	CHECK(bufferevent_replacefd(b[0], other) == 0 && fcntl(fds[0], F_GETFD) == -1);
	CHECK(bufferevent_setfd(b[0], -1) == 0 && bufferevent_getfd(b[0]) == -1);
	close(other);
	close(fds[1]);
	CHECK(bufferevent_priority_set(b[0], 5) == -1 && bufferevent_priority_set(b[0], 0) == 0);
	CHECK(bufferevent_get_priority(b[0]) == 0);
	struct event_base *elsewhere = event_base_new();
	CHECK(bufferevent_base_set(elsewhere, b[0]) == 0 && bufferevent_base_set(base, b[0]) == 0);
	event_base_free(elsewhere);
	CHECK(bufferevent_flush(b[0], EV_WRITE, BEV_FINISHED) == 0);
	bufferevent_free(b[0]);
	/* Pipes do as well. */
	CHECK(pipe(fds) == 0);
	p = bufferevent_socket_new(base, fds[0], BEV_OPT_CLOSE_ON_FREE);
	reset();
	bufferevent_setcb(p, on_read, NULL, on_event, NULL);
	bufferevent_enable(p, EV_READ);
	CHECK(write(fds[1], "piped", 5) == 5);
	turn();
	CHECK(reads == 1 && seen == 5);
	/* Written to as well, in one piece and in several. */
	struct bufferevent *w = bufferevent_socket_new(base, fds[1], BEV_OPT_CLOSE_ON_FREE);
	bufferevent_write(w, "one", 3);
	turn();
	CHECK(reads == 2 && seen == 8);
	CHECK(evbuffer_add_reference(bufferevent_get_output(w), "t", 1, NULL, NULL) == 0);
	CHECK(evbuffer_add_reference(bufferevent_get_output(w), "wo", 2, NULL, NULL) == 0);
	turn();
	CHECK(reads == 3 && seen == 11);
	bufferevent_free(w);
	turn();
	CHECK(what_came == (BEV_EVENT_READING | BEV_EVENT_EOF));
	/* What was a pipe may become a socket. */
	CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0 && bufferevent_replacefd(p, fds[0]) == 0);
	bufferevent_enable(p, EV_READ);
	CHECK(write(fds[1], "again", 5) == 5);
	turn();
	CHECK(reads == 4 && seen == 16);
	bufferevent_free(p);
	close(fds[1]);
	turn();
}

static struct bufferevent *accepted;
static int accepts, refused;

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
	CHECK(evconnlistener_get_base(l) == base && arg == &accepts && len > 0 && sa);
	accepts++;
	accepted = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(accepted, on_read, NULL, on_event, NULL);
	bufferevent_enable(accepted, EV_READ);
}

static void on_refused(struct evconnlistener *l, void *arg)
{
	(void)l;
	(void)arg;
	refused++;
	event_base_loopbreak(base);
}

static struct evconnlistener *listen_on(struct sockaddr_in *sin)
{
	socklen_t len = sizeof(*sin);
	struct evconnlistener *l;
	memset(sin, 0, sizeof(*sin));
	sin->sin_family = AF_INET;
	sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	l = evconnlistener_new_bind(base, on_accept, &accepts, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
		-1, (struct sockaddr *)sin, sizeof(*sin));
	CHECK(l && getsockname(evconnlistener_get_fd(l), (struct sockaddr *)sin, &len) == 0);
	accepts = 0;
	return l;
}

/* No descriptor is left: it is told, and accepting rests. */
static void without_descriptors(struct evconnlistener *l, struct sockaddr_in *sin)
{
	struct rlimit most, few;
	int filler[64], n = 0, spare = dup(0);
	struct bufferevent *c = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	evconnlistener_set_error_cb(l, on_refused);
	turn();
	CHECK(bufferevent_socket_connect(c, (struct sockaddr *)sin, sizeof(*sin)) == 0);
	getrlimit(RLIMIT_NOFILE, &most);
	few = most;
	few.rlim_cur = (rlim_t)spare + 8;
	setrlimit(RLIMIT_NOFILE, &few);
	while (n < 64 && (filler[n] = dup(0)) >= 0)
		n++;
	CHECK(event_base_dispatch(base) == 0 && refused == 1);
	turn();
	CHECK(refused == 1);
	while (n)
		close(filler[--n]);
	setrlimit(RLIMIT_NOFILE, &most);
	close(spare);
	accepts = 0;
	while (!accepts)
		event_base_loop(base, EVLOOP_ONCE);
	bufferevent_free(accepted);
	bufferevent_free(c);
}

PART(connecting)
{
	struct sockaddr_in sin;
	struct evconnlistener *l = listen_on(&sin);
	struct bufferevent *c = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	reset();
	bufferevent_setcb(c, on_read, on_write, on_event, NULL);
	/* Written before it is connected, sent after. */
	CHECK(bufferevent_write(c, "early", 5) == 0 && bufferevent_enable(c, EV_READ) == 0);
	CHECK(bufferevent_socket_connect(c, (struct sockaddr *)&sin, sizeof(sin)) == 0 && events == 0);
	CHECK(event_base_dispatch(base) == 0 && what_came == BEV_EVENT_CONNECTED && events == 1);
	turn();
	CHECK(accepts == 1 && seen == 5);
	bufferevent_free(accepted);
	bufferevent_free(c);
	/* Disabled, nobody is accepted; enabled, they are. */
	CHECK(evconnlistener_disable(l) == 0);
	c = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	reset();
	bufferevent_setcb(c, on_read, on_write, on_event, NULL);
	CHECK(bufferevent_socket_connect(c, (struct sockaddr *)&sin, sizeof(sin)) == 0);
	turn();
	CHECK(accepts == 1 && what_came == BEV_EVENT_CONNECTED && evconnlistener_enable(l) == 0);
	turn();
	CHECK(accepts == 2);
	bufferevent_free(accepted);
	bufferevent_free(c);
	if (!getenv("CAPI_RUNNER")) /* valgrind has limits of its own. */
		without_descriptors(l, &sin);
	evconnlistener_free(l);
	turn();
	/* Nobody listens any more: an error, and nothing else. */
	c = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	reset();
	bufferevent_setcb(c, on_read, on_write, on_event, NULL);
	CHECK(bufferevent_socket_connect(c, (struct sockaddr *)&sin, sizeof(sin)) == 0 && events == 0);
	CHECK(event_base_dispatch(base) == 0 && what_came == BEV_EVENT_ERROR && events == 1 && writes == 0);
	bufferevent_free(c);
	turn();
	CHECK(evconnlistener_new_bind(base, on_accept, NULL, 0, 0, (struct sockaddr *)&sin, sizeof(sin)) == NULL);
	char path[64];
	snprintf(path, sizeof(path), "/tmp/capi-%d.sock", (int)getpid());
	struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "/nowhere/at/all"};
	CHECK(evconnlistener_new_bind(base, on_accept, NULL, 0, -1, (struct sockaddr *)&sun, sizeof(sun)) == NULL);
	evconnlistener_free(NULL);
	/* On a path, as programs ask for it; and one that gets its callback later. */
	unlink(path);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	l = evconnlistener_new_bind(base, on_accept, NULL, LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE, -1, (struct sockaddr *)&sun, sizeof(sun));
	CHECK(l != NULL);
	evconnlistener_free(l);
	unlink(path);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	socklen_t room = sizeof(sin);
	sin.sin_port = 0;
	CHECK(bind(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0 && getsockname(fd, (struct sockaddr *)&sin, &room) == 0);
	l = evconnlistener_new(base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE, 5, fd);
	CHECK(l != NULL);
	c = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	reset();
	CHECK(bufferevent_socket_connect(c, (struct sockaddr *)&sin, sizeof(sin)) == 0);
	accepts = 0;
	turn();
	CHECK(accepts == 0);
	evconnlistener_set_cb(l, on_accept, &accepts);
	while (!accepts)
		event_base_loop(base, EVLOOP_ONCE);
	/* What waits to be written changes its priority with the rest. */
	CHECK(bufferevent_write(c, "x", 1) == 0 && bufferevent_priority_set(c, 0) == 0 && bufferevent_get_priority(c) == 0);
	CHECK(bufferevent_priority_set(c, 1) == -1);
	turn();
	CHECK(evbuffer_get_length(bufferevent_get_output(c)) == 0);
	bufferevent_free(accepted);
	bufferevent_free(c);
	evconnlistener_free(l);
	turn();
}

static int answers, last_error;

static void answered(int error, struct evutil_addrinfo *list, void *arg)
{
	CHECK(arg == &answers);
	answers++;
	last_error = error;
	if (list)
		evutil_freeaddrinfo(list);
	event_base_loopbreak(base);
}

PART(names)
{
	struct sockaddr_in sin;
	struct evconnlistener *l = listen_on(&sin);
	struct evdns_base *dns = evdns_base_new(base, 0);
	struct bufferevent *c = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	CHECK(dns);
	reset();
	bufferevent_setcb(c, on_read, on_write, on_event, NULL);
	CHECK(bufferevent_socket_connect_hostname(c, dns, AF_UNIX, "localhost", 1) == -1);
	CHECK(bufferevent_socket_connect_hostname(c, dns, AF_INET, "localhost", 65536) == -1);
	CHECK(bufferevent_socket_connect_hostname(c, dns, AF_INET, NULL, 1) == -1);
	CHECK(bufferevent_socket_connect_hostname(c, dns, AF_INET, "localhost", ntohs(sin.sin_port)) == 0 && events == 0);
	CHECK(event_base_dispatch(base) == 0 && what_came == BEV_EVENT_CONNECTED);
	while (!accepts)
		event_base_loop(base, EVLOOP_ONCE);
	bufferevent_free(accepted);
	bufferevent_free(c);
	/* Without a resolver it is looked up on the spot. */
	c = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	reset();
	bufferevent_setcb(c, on_read, on_write, on_event, NULL);
	CHECK(bufferevent_socket_connect_hostname(c, NULL, AF_INET, "127.0.0.1", ntohs(sin.sin_port)) == 0);
	CHECK(event_base_dispatch(base) == 0 && what_came == BEV_EVENT_CONNECTED && bufferevent_socket_get_dns_error(c) == 0);
	while (accepts < 2)
		event_base_loop(base, EVLOOP_ONCE);
	bufferevent_free(accepted);
	bufferevent_free(c);
	evconnlistener_free(l);
	/* What is no name is an error with its reason. */
	c = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	reset();
	bufferevent_setcb(c, on_read, on_write, on_event, NULL);
	struct evutil_addrinfo hints = {.ai_flags = EVUTIL_AI_NUMERICHOST, .ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
	CHECK(bufferevent_socket_connect_hostname_hints(c, NULL, &hints, "no number", 80) == 0);
	CHECK(what_came == BEV_EVENT_ERROR && bufferevent_socket_get_dns_error(c) == EVUTIL_EAI_NONAME);
	/* Freed while it is looked up. */
	CHECK(bufferevent_socket_connect_hostname(c, dns, AF_INET, "localhost", 80) == 0);
	bufferevent_free(c);
	/* An address needs nobody; a request can be given up; the end of the resolver gives all up. */
	CHECK(evdns_getaddrinfo(dns, "127.0.0.1", "80", NULL, answered, &answers) == NULL && answers == 1 && last_error == 0);
	struct evdns_getaddrinfo_request *r = evdns_getaddrinfo(dns, "localhost", "80", NULL, answered, &answers);
	CHECK(r);
	evdns_getaddrinfo_cancel(r);
	CHECK(answers == 2 && last_error == EVUTIL_EAI_CANCEL);
	CHECK(evdns_getaddrinfo(dns, "localhost", "80", NULL, answered, &answers));
	evdns_base_free(dns, 1);
	CHECK(answers == 3 && last_error == EVUTIL_EAI_CANCEL);
	turn();
}

static void ask_and_wait(struct evdns_base *dns, int count)
{
	int asked;
	answers = 0;
	for (asked = 0; asked < count; asked++)
		CHECK(evdns_getaddrinfo(dns, "localhost", "80", NULL, answered, &answers));
	while (answers < count)
		event_base_loop(base, EVLOOP_ONCE);
	CHECK(last_error == 0);
}

/* A child looks names up by threads of its own. (While its parent's are in the C library, that one's locks may stay taken in the child.) */
PART(names_in_a_child)
{
	struct evdns_base *dns = evdns_base_new(base, 0);
	int i;
	for (i = 0; i < 5; i++) {
		int status;
		pid_t child;
		ask_and_wait(dns, 12);
		child = fork();
		if (child == 0) {
			struct evdns_base *own;
			alarm(20);
			CHECK(event_reinit(base) == 0);
			own = evdns_base_new(base, 0);
			ask_and_wait(own, 12);
			evdns_base_free(own, 1);
			/* Not by exit: what its parent's threads had is nobody's here, and would count as lost. */
			execlp("true", "true", (char *)NULL);
			_exit(4);
		}
		CHECK(waitpid(child, &status, 0) == child && status == 0);
	}
	evdns_base_free(dns, 1);
}

PART(the_old_functions)
{
	int fds[2];
	struct event_base *own = event_init();
	CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	struct bufferevent *b = bufferevent_new(fds[0], on_read, on_write, on_event, NULL);
	CHECK(b && bufferevent_get_base(b) == own && EVBUFFER_OUTPUT(b) == b->output);
	reset();
	bufferevent_enable(b, EV_READ);
	CHECK(write(fds[1], "old", 3) == 3 && event_loop(EVLOOP_NONBLOCK) == 0);
	CHECK(reads == 1 && EVBUFFER_LENGTH(EVBUFFER_INPUT(b)) == 3 && !memcmp(EVBUFFER_DATA(b->input), "old", 3));
	bufferevent_free(b);
	close(fds[0]);
	close(fds[1]);
	event_base_free(own);
}

PART(much_both_ways)
{
	struct bufferevent *b[2];
	size_t n = 8 << 20;
	char *much = malloc(n);
	memset(much, 'm', n);
	sockets(b, 0);
	bufferevent_enable(b[0], EV_READ);
	bufferevent_enable(b[1], EV_READ);
	bufferevent_write(b[0], much, n);
	bufferevent_write(b[1], much, n);
	while (evbuffer_get_length(b[0]->input) < n || evbuffer_get_length(b[1]->input) < n)
		CHECK(event_base_loop(base, EVLOOP_ONCE) == 0);
	CHECK(!memcmp(evbuffer_pullup(b[1]->input, -1), much, n));
	bufferevent_free(b[0]);
	bufferevent_free(b[1]);
	free(much);
	turn();
}

int main(void)
{
	base = event_base_new();
	layout();
	bytes_and_callbacks();
	watermarks();
	timeouts();
	deferred_and_freed();
	errors_and_descriptors();
	connecting();
	names();
	names_in_a_child();
	the_old_functions();
	much_both_ways();
	bufferevent_free(NULL);
	CHECK(bufferevent_write(NULL, "x", 1) == -1 && bufferevent_enable(NULL, EV_READ) == -1 && bufferevent_getfd(NULL) == -1);
	event_base_free(base);
	return 0;
}
