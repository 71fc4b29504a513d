/* TLS: over sockets, over pairs, over filters; who is trusted; how it ends. argv[1] is a folder with certificates.
 * "serve" and "ask" with a port speak with OpenSSL instead. */
#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_tls.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include "check.h"

static struct event_base *base;
static const char *folder;

static const char *file(const char *name)
{
	static char paths[8][512];
	static int at;
	at = (at + 1) % 8;
	snprintf(paths[at], sizeof paths[at], "%s/%s", folder, name);
	return paths[at];
}

/* What an end has seen, in order: C connected, r read, w written, E end, X error, T timeout. */
struct seen {
	char log[64];
	int count;
	short what;
};

static void note(struct seen *seen, char what)
{
	size_t len = strlen(seen->log);
	seen->count++;
	if (len == 0 || seen->log[len - 1] != what)
		if (len + 1 < sizeof seen->log)
			seen->log[len] = what;
}

static void on_read(struct bufferevent *bev, void *seen)
{
	(void)bev;
	note(seen, 'r');
}

static void on_write(struct bufferevent *bev, void *seen)
{
	CHECK(evbuffer_get_length(bufferevent_get_output(bufferevent_get_underlying(bev))) == 0);
	note(seen, 'w');
}

static void on_event(struct bufferevent *bev, short what, void *seen)
{
	(void)bev;
	((struct seen *)seen)->what |= what;
	note(seen, what & BEV_EVENT_CONNECTED ? 'C' : what & BEV_EVENT_EOF ? 'E' : what & BEV_EVENT_ERROR ? 'X' : 'T');
}

static void turns(int count)
{
	while (count-- > 0)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

#define UNTIL(what) \
	do { \
		int left_ = 20000; \
		while (!(what) && left_-- > 0) { \
			struct timeval ms1 = {0, 1000}; \
			event_base_loopexit(base, &ms1); \
			event_base_loop(base, EVLOOP_ONCE); \
		} \
		CHECK(what); \
	} while (0)

static struct bufferevent_tls *server_settings(void)
{
	static const char *protocols[] = {"upper", "echo"};
	struct bufferevent_tls *tls = bufferevent_tls_server_new();
	CHECK(bufferevent_tls_use_certificate(tls, file("chain.pem"), file("key.pem")) == 0);
	CHECK(bufferevent_tls_set_alpn(tls, protocols, 2) == 0);
	return tls;
}

static struct bufferevent_tls *client_settings(void)
{
	static const char *protocols[] = {"echo"};
	struct bufferevent_tls *tls = bufferevent_tls_client_new();
	CHECK(bufferevent_tls_trust(tls, file("ca.pem")) == 0);
	CHECK(bufferevent_tls_set_alpn(tls, protocols, 1) == 0);
	return tls;
}

/* A connection in one process; over sockets, or over a pair. */
struct both {
	struct bufferevent *c, *s;
	struct seen client, server;
};

static void join_over(struct both *both, struct bufferevent_tls *client, struct bufferevent_tls *server, const char *name, int sockets,
	int options)
{
	memset(both, 0, sizeof *both);
	options |= BEV_OPT_CLOSE_ON_FREE;
	if (sockets) {
		int fds[2];
		CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
		both->c = bufferevent_tls_socket_new(base, fds[0], client, name, options);
		both->s = bufferevent_tls_socket_new(base, fds[1], server, NULL, options);
	} else {
		struct bufferevent *pair[2];
		CHECK(bufferevent_pair_new(base, options, pair) == 0);
		both->c = bufferevent_tls_filter_new(pair[0], client, name, options);
		both->s = bufferevent_tls_filter_new(pair[1], server, NULL, options);
	}
	CHECK(both->c && both->s);
	bufferevent_setcb(both->c, on_read, on_write, on_event, &both->client);
	bufferevent_setcb(both->s, on_read, on_write, on_event, &both->server);
}

static void part(struct both *both)
{
	bufferevent_free(both->c);
	bufferevent_free(both->s);
	turns(4);
}

static size_t in(struct bufferevent *bev)
{
	return evbuffer_get_length(bufferevent_get_input(bev));
}

PART(talking)
{
	struct bufferevent_tls *client = client_settings(), *server = server_settings();
	int sockets, options[] = {0, BEV_OPT_DEFER_CALLBACKS, BEV_OPT_THREADSAFE}, i;
	CHECK(bufferevent_tls_check(client) == 0 && bufferevent_tls_check(server) == 0);
	for (sockets = 0; sockets < 2; sockets++)
		for (i = 0; i < 3; i++) {
			struct both both;
			const unsigned char *der = NULL;
			size_t len = 0;
			join_over(&both, client, server, "localhost", sockets, options[i]);
			CHECK((bufferevent_getfd(both.c) >= 0) == sockets);
			CHECK(bufferevent_tls_get_version(both.c) == 0 && bufferevent_tls_refresh_keys(both.c) == -1);
			/* Written before the handshake, which runs with reading disabled. */
			CHECK(bufferevent_write(both.c, "early", 5) == 0);
			UNTIL(both.client.what & BEV_EVENT_CONNECTED && both.server.what & BEV_EVENT_CONNECTED && both.client.count > 1);
			CHECK(!strcmp(both.client.log, "Cw") && !strcmp(both.server.log, "C") && in(both.s) == 0);
			bufferevent_enable(both.s, EV_READ);
			bufferevent_enable(both.c, EV_READ);
			UNTIL(in(both.s) == 5);
			CHECK(!strcmp(both.server.log, "Cr"));
			CHECK(bufferevent_tls_get_version(both.c) == BUFFEREVENT_TLS_1_3);
			CHECK(!strncmp(bufferevent_tls_get_cipher(both.s), "TLS13_", 6));
			CHECK(!strcmp(bufferevent_tls_get_alpn(both.c), "echo") && !strcmp(bufferevent_tls_get_alpn(both.s), "echo"));
			CHECK(!strcmp(bufferevent_tls_get_server_name(both.s), "localhost") && !bufferevent_tls_get_server_name(both.c));
			CHECK(bufferevent_tls_get_peer_certificate(both.c, 0, &der, &len) == 0 && len > 100 && der[0] == 0x30);
			CHECK(bufferevent_tls_get_peer_certificate(both.c, 9, NULL, NULL) == -1);
			CHECK(bufferevent_tls_get_peer_certificate(both.s, 0, &der, &len) == -1);
			CHECK(bufferevent_tls_get_reason(both.c) == BUFFEREVENT_TLS_OK && !bufferevent_tls_get_error(both.c));
			CHECK(bufferevent_tls_refresh_keys(both.c) == 0);
			/* Back, and an end that is one. */
			bufferevent_read_buffer(both.s, bufferevent_get_output(both.s));
			UNTIL(in(both.c) == 5);
			CHECK(bufferevent_flush(both.c, EV_WRITE, BEV_FINISHED) >= 0);
			UNTIL(both.server.what & BEV_EVENT_EOF);
			CHECK(!(both.server.what & BEV_EVENT_ERROR) && !(bufferevent_get_enabled(both.s) & EV_READ));
			/* Half is closed; the other still speaks, and its free ends it well. */
			bufferevent_write(both.s, "bye", 3);
			UNTIL(in(both.c) == 8);
			if (sockets) {
				bufferevent_free(both.s);
				UNTIL(both.client.what & BEV_EVENT_EOF);
				CHECK(!(both.client.what & BEV_EVENT_ERROR));
				bufferevent_free(both.c);
				turns(4);
			} else
				part(&both);
		}
	bufferevent_tls_free(client);
	bufferevent_tls_free(server);
}

/* Much, both ways, through a narrow mark. */
PART(bulk)
{
	struct bufferevent_tls *client = client_settings(), *server = server_settings();
	enum { MUCH = 3 * 1024 * 1024 };
	char *bytes = malloc(MUCH);
	size_t i;
	int sockets;
	for (i = 0; i < MUCH; i++)
		bytes[i] = (char)(i * 7 + i / 1021);
	for (sockets = 0; sockets < 2; sockets++) {
		struct both both;
		size_t came = 0;
		join_over(&both, client, server, "localhost", sockets, 0);
		bufferevent_setwatermark(both.s, EV_READ, 0, 5000);
		bufferevent_enable(both.s, EV_READ);
		bufferevent_write(both.c, bytes, MUCH);
		while (came < MUCH) {
			char piece[3000];
			size_t len;
			UNTIL(in(both.s) > 0);
			CHECK(in(both.s) <= 5000);
			len = bufferevent_read(both.s, piece, sizeof piece);
			CHECK(len <= MUCH - came && !memcmp(piece, bytes + came, len));
			came += len;
			if (sockets && came < MUCH / 2) /* A slow reader does not fill the memory of the writer's socket. */
				CHECK(evbuffer_get_length(bufferevent_get_output(bufferevent_get_underlying(both.c))) <= 300 * 1024);
		}
		UNTIL(strchr(both.client.log, 'w'));
		part(&both);
	}
	free(bytes);
	bufferevent_tls_free(client);
	bufferevent_tls_free(server);
}

static void refused_because(struct bufferevent_tls *client, struct bufferevent_tls *server, const char *name,
	enum bufferevent_tls_reason reason, int at_server)
{
	struct both both;
	struct bufferevent *who;
	join_over(&both, client, server, name, 1, 0);
	bufferevent_enable(both.c, EV_READ);
	bufferevent_enable(both.s, EV_READ);
	who = at_server ? both.s : both.c;
	UNTIL((at_server ? &both.server : &both.client)->what & BEV_EVENT_ERROR);
	if (bufferevent_tls_get_reason(who) != reason)
		fprintf(stderr, "%s: %d, not %d\n", bufferevent_tls_get_error(who), bufferevent_tls_get_reason(who), reason);
	CHECK(bufferevent_tls_get_reason(who) == reason && strlen(bufferevent_tls_get_error(who)) > 10);
	/* The other one is told by an alert, and each of them once. */
	UNTIL(both.client.what & BEV_EVENT_ERROR && both.server.what & BEV_EVENT_ERROR);
	turns(10);
	CHECK(!strcmp(at_server ? both.server.log : both.client.log, at_server ? "X" : strchr(both.client.log, 'C') ? "CX" : "X"));
	part(&both);
}

PART(trust)
{
	static const char *other[] = {"other"};
	struct bufferevent_tls *client = client_settings(), *server = server_settings(), *stranger = bufferevent_tls_client_new();
	struct both both;
	size_t len = 0;
	refused_because(client, server, "elsewhere.example", BUFFEREVENT_TLS_WRONG_NAME, 0);
	CHECK(bufferevent_tls_trust(stranger, file("other-ca.pem")) == 0);
	refused_because(stranger, server, "localhost", BUFFEREVENT_TLS_UNKNOWN_ISSUER, 0);
	CHECK(bufferevent_tls_set_verify(stranger, BUFFEREVENT_TLS_VERIFY_NONE) == 0);
	join_over(&both, stranger, server, "localhost", 1, 0);
	UNTIL(both.client.what & BEV_EVENT_CONNECTED);
	part(&both);
	CHECK(bufferevent_tls_set_alpn(stranger, other, 1) == 0);
	refused_because(stranger, server, "localhost", BUFFEREVENT_TLS_NO_COMMON_PROTOCOL, 1);
	CHECK(bufferevent_tls_set_alpn(stranger, NULL, 0) == 0);
	CHECK(bufferevent_tls_set_versions(stranger, BUFFEREVENT_TLS_1_2) == 0 && bufferevent_tls_set_versions(server, BUFFEREVENT_TLS_1_3) == 0);
	refused_because(stranger, server, "localhost", BUFFEREVENT_TLS_NO_COMMON_VERSION, 1);
	CHECK(bufferevent_tls_set_versions(server, 0) == 0);
	join_over(&both, stranger, server, "localhost", 1, 0);
	UNTIL(both.client.what & BEV_EVENT_CONNECTED);
	CHECK(bufferevent_tls_get_version(both.c) == BUFFEREVENT_TLS_1_2 && bufferevent_tls_refresh_keys(both.c) == -1);
	part(&both);
	/* Clients that have to show who they are. */
	CHECK(bufferevent_tls_set_verify(server, BUFFEREVENT_TLS_VERIFY_REQUIRED) == 0);
	CHECK(bufferevent_tls_check(server) == -1 && strstr(bufferevent_tls_setup_error(server), "nobody is trusted"));
	CHECK(bufferevent_tls_trust(server, file("ca.pem")) == 0 && bufferevent_tls_check(server) == 0);
	refused_because(client, server, "localhost", BUFFEREVENT_TLS_NO_CERTIFICATE, 1);
	CHECK(bufferevent_tls_use_certificate(client, file("client.pem"), file("client-key.pem")) == 0);
	join_over(&both, client, server, "localhost", 1, 0);
	UNTIL(both.server.what & BEV_EVENT_CONNECTED);
	CHECK(bufferevent_tls_get_peer_certificate(both.s, 0, NULL, &len) == 0 && len > 100);
	part(&both);
	/* A list that names the client. */
	CHECK(bufferevent_tls_refuse_revoked(server, file("revoked.pem")) == 0);
	refused_because(client, server, "localhost", BUFFEREVENT_TLS_REVOKED, 1);
	bufferevent_tls_free(client);
	bufferevent_tls_free(stranger);
	bufferevent_tls_free(server);
	/* Optional ones, and a certificate for a name. */
	server = bufferevent_tls_server_new();
	client = client_settings();
	CHECK(bufferevent_tls_use_certificate_for(server, "Localhost", file("chain.pem"), file("key.pem")) == 0);
	CHECK(bufferevent_tls_trust(server, file("ca.pem")) == 0);
	CHECK(bufferevent_tls_set_verify(server, BUFFEREVENT_TLS_VERIFY_IF_GIVEN) == 0);
	join_over(&both, client, server, "localhost", 1, 0);
	UNTIL(both.server.what & BEV_EVENT_CONNECTED);
	part(&both);
	CHECK(bufferevent_tls_set_flags(client, BUFFEREVENT_TLS_NO_SERVER_NAME) == 0);
	refused_because(client, server, "localhost", BUFFEREVENT_TLS_UNKNOWN_NAME, 1);
	bufferevent_tls_free(client);
	bufferevent_tls_free(server);
}

static void resumed_is(struct bufferevent_tls *client, struct bufferevent_tls *server, int expected)
{
	struct both both;
	join_over(&both, client, server, "localhost", 1, 0);
	bufferevent_enable(both.c, EV_READ); /* Tickets come behind the handshake. */
	bufferevent_write(both.s, "x", 1);
	UNTIL(in(both.c) == 1);
	CHECK(bufferevent_tls_is_resumed(both.c) == expected && bufferevent_tls_is_resumed(both.s) == expected);
	part(&both);
}

PART(resumption)
{
	struct bufferevent_tls *client = client_settings(), *server = server_settings();
	resumed_is(client, server, 0);
	resumed_is(client, server, 1);
	CHECK(bufferevent_tls_set_flags(client, BUFFEREVENT_TLS_NO_RESUMPTION) == 0);
	resumed_is(client, server, 0);
	resumed_is(client, server, 0);
	bufferevent_tls_free(client);
	bufferevent_tls_free(server);
}

/* An end without a close_notify. */
PART(cut)
{
	int dirty;
	for (dirty = 0; dirty < 2; dirty++) {
		struct bufferevent_tls *client = client_settings(), *server = server_settings();
		struct both both;
		CHECK(bufferevent_tls_set_flags(server, dirty ? BUFFEREVENT_TLS_DIRTY_SHUTDOWN : 0) == 0);
		join_over(&both, client, server, "localhost", 1, 0);
		bufferevent_enable(both.s, EV_READ);
		bufferevent_write(both.c, "last", 4);
		UNTIL(in(both.s) == 4);
		CHECK(shutdown(bufferevent_getfd(both.c), SHUT_WR) == 0);
		UNTIL(both.server.what & (BEV_EVENT_EOF | BEV_EVENT_ERROR));
		turns(10);
		CHECK(!strcmp(both.server.log, dirty ? "CrE" : "CrX"));
		CHECK(bufferevent_tls_get_reason(both.s) == (dirty ? BUFFEREVENT_TLS_OK : BUFFEREVENT_TLS_NO_CLOSE_NOTIFY));
		part(&both);
		bufferevent_tls_free(client);
		bufferevent_tls_free(server);
	}
}

/* Bytes that are no TLS; and bytes that came before it was put on. */
PART(put_on_later)
{
	struct bufferevent_tls *client = client_settings(), *server = server_settings();
	struct bufferevent *pair[2], *top;
	struct seen seen = {"", 0, 0};
	struct both both = {0};
	CHECK(bufferevent_pair_new(base, BEV_OPT_CLOSE_ON_FREE, pair) == 0);
	bufferevent_enable(pair[1], EV_READ);
	bufferevent_write(pair[0], "GET / HTTP/1.0\r\n\r\n", 18);
	turns(2);
	top = bufferevent_tls_filter_new(pair[1], server, NULL, 0);
	bufferevent_setcb(top, on_read, on_write, on_event, &seen);
	UNTIL(seen.what & BEV_EVENT_ERROR);
	CHECK(bufferevent_tls_get_reason(top) == BUFFEREVENT_TLS_NOT_TLS && strstr(bufferevent_tls_get_error(top), "HTTP"));
	/* The one below survives, and is its user's again. */
	bufferevent_free(top);
	turns(4);
	bufferevent_enable(pair[0], EV_READ);
	turns(2);
	CHECK(in(pair[0]) == 7); /* The alert. */
	bufferevent_write(pair[1], "plain", 5);
	turns(2);
	CHECK(in(pair[0]) == 12);
	bufferevent_free(pair[0]);
	bufferevent_free(pair[1]);
	/* A client's hello that came before the server's side was put on. */
	CHECK(bufferevent_pair_new(base, BEV_OPT_CLOSE_ON_FREE, pair) == 0);
	bufferevent_enable(pair[1], EV_READ);
	both.c = bufferevent_tls_filter_new(pair[0], client, "localhost", BEV_OPT_CLOSE_ON_FREE);
	UNTIL(in(pair[1]) > 100);
	both.s = bufferevent_tls_filter_new(pair[1], server, NULL, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(both.c, on_read, on_write, on_event, &both.client);
	bufferevent_setcb(both.s, on_read, on_write, on_event, &both.server);
	UNTIL(both.client.what & both.server.what & BEV_EVENT_CONNECTED);
	part(&both);
	bufferevent_tls_free(client);
	bufferevent_tls_free(server);
}

/* TLS in TLS. */
PART(twice)
{
	struct bufferevent_tls *client = client_settings(), *server = server_settings();
	struct both outer, inner = {0};
	join_over(&outer, client, server, "localhost", 1, 0);
	inner.c = bufferevent_tls_filter_new(outer.c, client, "localhost", BEV_OPT_CLOSE_ON_FREE);
	inner.s = bufferevent_tls_filter_new(outer.s, server, NULL, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(inner.c, on_read, on_write, on_event, &inner.client);
	bufferevent_setcb(inner.s, on_read, on_write, on_event, &inner.server);
	bufferevent_enable(inner.s, EV_READ);
	bufferevent_write(inner.c, "deep", 4);
	UNTIL(in(inner.s) == 4);
	CHECK(!strcmp(inner.server.log, "Cr") && bufferevent_getfd(inner.s) >= 0);
	part(&inner);
	bufferevent_tls_free(client);
	bufferevent_tls_free(server);
}

static void frees(struct bufferevent *bev, short what, void *count)
{
	(void)what;
	++*(int *)count;
	bufferevent_free(bev);
}

PART(freed_while_it_shakes_hands)
{
	struct bufferevent_tls *client = client_settings(), *server = server_settings();
	int after;
	for (after = 0; after < 12; after++) {
		struct both both;
		int count = 0;
		join_over(&both, client, server, "localhost", after & 1, 0);
		turns(after / 2);
		bufferevent_setcb(both.c, NULL, NULL, frees, &count);
		bufferevent_write(both.c, "never told", 10);
		if (after & 2 && !(both.client.what & BEV_EVENT_CONNECTED))
			UNTIL(count == 1);
		else
			bufferevent_free(both.c);
		turns(2);
		bufferevent_free(both.s);
		turns(4);
	}
	bufferevent_tls_free(client);
	bufferevent_tls_free(server);
}

PART(limits)
{
	const struct timeval ms1 = {0, 1000};
	struct bufferevent_tls *client = client_settings();
	struct ev_token_bucket_cfg *cfg = ev_token_bucket_cfg_new(100, 100, 100, 100, NULL);
	struct seen seen = {"", 0, 0};
	struct bufferevent *bev;
	int fds[2];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	bev = bufferevent_tls_socket_new(base, fds[0], client, "localhost", BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(bev, NULL, NULL, on_event, &seen);
	/* The rate is the socket's. */
	CHECK(bufferevent_set_rate_limit(bev, cfg) == 0 && bufferevent_get_token_bucket_cfg(bev) == cfg);
	CHECK(bufferevent_get_token_bucket_cfg(bufferevent_get_underlying(bev)) == cfg);
	CHECK(bufferevent_set_max_single_read(bev, 99) == 0);
	CHECK(bufferevent_get_max_single_read(bufferevent_get_underlying(bev)) == 99);
	CHECK(bufferevent_priority_set(bev, 0) == 0 && bufferevent_get_priority(bev) == 0);
	/* Nobody answers the hello. */
	bufferevent_set_timeouts(bev, &ms1, NULL);
	bufferevent_enable(bev, EV_READ);
	UNTIL(seen.what == (BEV_EVENT_TIMEOUT | BEV_EVENT_READING));
	bufferevent_free(bev);
	turns(4);
	close(fds[1]);
	ev_token_bucket_cfg_free(cfg);
	bufferevent_tls_free(client);
}

PART(what_is_refused)
{
	static const char *names[] = {"ok", NULL}, *empty[] = {""};
	struct bufferevent_tls *client = bufferevent_tls_client_new(), *server = bufferevent_tls_server_new();
	struct bufferevent *plain = bufferevent_socket_new(base, -1, 0), *bev;
	char pem[4096];
	size_t len;
	FILE *key;
	CHECK(bufferevent_tls_use_certificate(client, file("missing.pem"), file("key.pem")) == -1);
	CHECK(strstr(bufferevent_tls_setup_error(client), "missing.pem: No such file"));
	CHECK(bufferevent_tls_use_certificate_for(client, "name", file("chain.pem"), file("key.pem")) == -1);
	CHECK(bufferevent_tls_set_verify(client, BUFFEREVENT_TLS_VERIFY_IF_GIVEN) == -1);
	CHECK(bufferevent_tls_set_verify(client, (enum bufferevent_tls_verify)7) == -1);
	CHECK(bufferevent_tls_set_versions(client, 0x0302) == -1 && bufferevent_tls_set_flags(client, 64) == -1);
	CHECK(bufferevent_tls_set_alpn(client, names, 2) == -1);
	CHECK(bufferevent_tls_set_alpn(client, empty, 1) == 0 && bufferevent_tls_check(client) == -1);
	CHECK(bufferevent_tls_set_alpn(client, NULL, 0) == 0);
	CHECK(bufferevent_tls_trust_pem(client, "no certificate", 14) == 0 && bufferevent_tls_check(client) == -1);
	CHECK(strstr(bufferevent_tls_setup_error(client), "trusted certificates"));
	CHECK(bufferevent_tls_check(server) == -1 && !bufferevent_tls_socket_new(base, -1, server, NULL, 0));
	CHECK(bufferevent_tls_use_certificate(server, file("chain.pem"), file("client-key.pem")) == 0);
	CHECK(bufferevent_tls_check(server) == -1 && strstr(bufferevent_tls_setup_error(server), "not the key"));
	CHECK((key = fopen(file("key.pem"), "r")) != NULL);
	len = fread(pem, 1, sizeof pem, key);
	fclose(key);
	CHECK(bufferevent_tls_use_certificate_pem(server, pem, len, pem, len) == 0 && bufferevent_tls_check(server) == -1);
	bufferevent_tls_free(client);
	client = client_settings();
	CHECK(!bufferevent_tls_socket_new(base, -1, client, NULL, 0));
	CHECK(!bufferevent_tls_socket_new(base, -1, client, "two words", 0) && strlen(bufferevent_tls_setup_error(client)) > 0);
	/* Nulls, and a bufferevent that is not of TLS. */
	CHECK(bufferevent_tls_check(NULL) == -1 && bufferevent_tls_trust(NULL, "x") == -1 && bufferevent_tls_trust(client, NULL) == -1);
	CHECK(!bufferevent_tls_socket_new(NULL, -1, client, "localhost", 0) && !bufferevent_tls_filter_new(NULL, client, "localhost", 0));
	CHECK(!bufferevent_tls_filter_new(plain, NULL, "localhost", 0) && strlen(bufferevent_tls_setup_error(NULL)) > 0);
	CHECK(bufferevent_tls_get_version(plain) == 0 && !bufferevent_tls_get_alpn(plain) && !bufferevent_tls_get_error(NULL));
	CHECK(bufferevent_tls_refresh_keys(plain) == -1 && bufferevent_tls_get_reason(plain) == BUFFEREVENT_TLS_OK);
	bufferevent_tls_free(NULL);
	/* A connection that is refused. */
	bev = bufferevent_tls_socket_new(base, -1, client, "localhost", BEV_OPT_CLOSE_ON_FREE);
	{
		struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr = {htonl(INADDR_LOOPBACK)}};
		struct seen seen = {"", 0, 0};
		bufferevent_setcb(bev, on_read, on_write, on_event, &seen);
		CHECK(bufferevent_socket_connect(bev, (struct sockaddr *)&sin, sizeof sin) == 0);
		UNTIL(seen.what & BEV_EVENT_ERROR);
		turns(4);
		CHECK(!strcmp(seen.log, "X") && seen.count == 1);
	}
	bufferevent_free(bev);
	bufferevent_free(plain);
	turns(4);
	bufferevent_tls_free(client);
	bufferevent_tls_free(server);
}

/* With OpenSSL: a server that sends lines back in capitals, until one says "quit". */
static void shout(struct bufferevent *bev, void *unused)
{
	struct evbuffer *in = bufferevent_get_input(bev);
	char *line;
	(void)unused;
	while ((line = evbuffer_readln(in, NULL, EVBUFFER_EOL_LF)) != NULL) {
		char *at;
		int quit = !strcmp(line, "quit");
		for (at = line; *at; at++)
			*at -= *at >= 'a' && *at <= 'z' ? 32 : 0;
		evbuffer_add_printf(bufferevent_get_output(bev), "%s by %s\n", line, bufferevent_tls_get_alpn(bev));
		free(line);
		if (quit)
			bufferevent_flush(bev, EV_WRITE, BEV_FINISHED);
	}
}

static void shout_ends(struct bufferevent *bev, short what, void *unused)
{
	(void)unused;
	if (what & BEV_EVENT_CONNECTED)
		return;
	CHECK(what == (BEV_EVENT_READING | BEV_EVENT_EOF));
	event_base_loopexit(bufferevent_get_base(bev), NULL);
	bufferevent_free(bev);
}

static void accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer, int length, void *server)
{
	struct bufferevent *bev = bufferevent_tls_socket_new(base, fd, server, NULL, BEV_OPT_CLOSE_ON_FREE);
	(void)peer, (void)length;
	CHECK(bev != NULL);
	bufferevent_setcb(bev, shout, NULL, shout_ends, NULL);
	bufferevent_enable(bev, EV_READ);
	evconnlistener_disable(listener);
}

static void serve(void)
{
	struct bufferevent_tls *server = server_settings();
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof sin;
	struct evconnlistener *listener = evconnlistener_new_bind(base, accepted, server, LEV_OPT_CLOSE_ON_FREE, 4, (struct sockaddr *)&sin, sizeof sin);
	CHECK(listener && getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&sin, &len) == 0);
	printf("%d\n", ntohs(sin.sin_port));
	fflush(stdout);
	event_base_dispatch(base);
	evconnlistener_free(listener);
	turns(4);
	bufferevent_tls_free(server);
}

static void reversed(struct bufferevent *bev, void *line)
{
	char *answer = evbuffer_readln(bufferevent_get_input(bev), NULL, EVBUFFER_EOL_LF);
	if (!answer)
		return;
	CHECK(!strcmp(answer, line));
	free(answer);
	event_base_loopexit(bufferevent_get_base(bev), NULL);
}

static void asks(struct bufferevent *bev, short what, void *unused)
{
	(void)unused;
	if (what != BEV_EVENT_CONNECTED)
		fprintf(stderr, "%#x %s\n", what, bufferevent_tls_get_error(bev));
	CHECK(what == BEV_EVENT_CONNECTED);
}

/* A client of `openssl s_server -rev`, by name. */
static void ask(int port, int version)
{
	struct bufferevent_tls *client = bufferevent_tls_client_new();
	struct bufferevent *bev;
	CHECK(bufferevent_tls_trust(client, file("ca.pem")) == 0 && bufferevent_tls_set_versions(client, version) == 0);
	bev = bufferevent_tls_socket_new(base, -1, client, "localhost", BEV_OPT_CLOSE_ON_FREE);
	bufferevent_tls_free(client);
	bufferevent_setcb(bev, reversed, NULL, asks, "desrever");
	bufferevent_enable(bev, EV_READ);
	bufferevent_write(bev, "reversed\n", 9);
	CHECK(bufferevent_socket_connect_hostname(bev, NULL, AF_INET, "localhost", port) == 0);
	CHECK(event_base_dispatch(base) == 0 && bufferevent_tls_get_version(bev) == version);
	bufferevent_free(bev);
	turns(4);
}

int main(int argc, char **argv)
{
	CHECK(argc >= 2);
	folder = argv[1];
	signal(SIGPIPE, SIG_IGN);
	CHECK(evthread_use_pthreads() == 0 && (base = event_base_new()) != NULL);
	if (argc == 3)
		serve();
	else if (argc == 4) {
		ask(atoi(argv[3]), BUFFEREVENT_TLS_1_3);
		ask(atoi(argv[3]), BUFFEREVENT_TLS_1_2);
	} else {
		talking();
		bulk();
		trust();
		resumption();
		cut();
		put_on_later();
		twice();
		freed_while_it_shakes_hands();
		limits();
		what_is_refused();
	}
	event_base_free(base);
	return 0;
}
