/* libevent's side of the benchmark of the filters: TLS over OpenSSL, and zlib as a bufferevent_filter.
 *
 * usage: filters_libevent tls|zlib|full|resumed SECONDS FOLDER
 *   tls      a stream one way over loopback TCP, TLS 1.3 with AES-128-GCM
 *   zlib     a stream of text one way over a bufferevent_pair, level 6, a sync flush for each call
 *   full     TLS handshakes over Unix-domain socket pairs, one after the other
 *   resumed  the same with the session of the one before
 *
 * The invariants are those of bench/rust/filters/src/main.rs: both ends on one thread, its CPU time is what counts, WINDOW
 * bytes on their way, and what comes first is compared; the clock of CPU time, a system call, is read seldom. It prints the same
 * JSON line.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <zlib.h>

#include "peer.h"

#include <time.h>
#include <unistd.h>

enum { WINDOW = 256 * 1024, WRITE = 64 * 1024, WARM_UP = 1 << 20, WARM_UP_HANDSHAKES = 10, LEVEL = 6, ROOM = 64 * 1024, READINGS = 16 };

static struct event_base *base;
static double seconds;
static double began_cpu, began_wall, not_before;

static double clock_s(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

static double cpu_s(void) { return clock_s(CLOCK_THREAD_CPUTIME_ID); }
static double wall_s(void) { return clock_s(CLOCK_MONOTONIC); }

/* Whether `seconds` of CPU time are over; looks at it READINGS times in that time, and not before it can be. */
static int is_over(void)
{
	double now = wall_s();
	if (now < not_before)
		return 0;
	not_before = now + seconds / READINGS;
	return cpu_s() - began_cpu >= seconds;
}

static void begin(void)
{
	began_cpu = cpu_s();
	began_wall = wall_s();
	not_before = began_wall + seconds;
}

static void require(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "filters_libevent: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void print(double amount)
{
	printf("{\"amount\": %.0f, \"cpu_s\": %.9f, \"wall_s\": %.9f}\n", amount, cpu_s() - began_cpu, wall_s() - began_wall);
}

/* ---- a stream one way ---- */

static unsigned char *text;
static size_t turn; /* Bytes of the text that are sent before it begins again: whole writes. */
static size_t sent, arrived, began_at;
static int measuring, done;

static void read_text(const char *folder)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/text", folder);
	FILE *file = fopen(path, "rb");
	require(file != NULL && fseek(file, 0, SEEK_END) == 0, "no text");
	size_t length = ftell(file);
	rewind(file);
	text = malloc(length);
	require(text && fread(text, 1, length, file) == length, "the text cannot be read");
	fclose(file);
	turn = length / WRITE * WRITE;
}

static void send_more(struct bufferevent *near)
{
	while (!done && sent - arrived < WINDOW) {
		bufferevent_write(near, text + sent % turn, WRITE);
		sent += WRITE;
	}
}

static void compare(struct evbuffer *input, size_t length)
{
	unsigned char *bytes = evbuffer_pullup(input, length);
	for (size_t i = 0; i < length; i++)
		require(bytes[i] == text[(arrived + i) % turn], "what arrives is not what was sent");
}

static void on_arrival(struct bufferevent *far, void *near)
{
	struct evbuffer *input = bufferevent_get_input(far);
	size_t length = evbuffer_get_length(input);
	if (!measuring)
		compare(input, length);
	evbuffer_drain(input, length);
	arrived += length;
	if (!measuring && arrived >= WARM_UP) {
		measuring = 1;
		began_at = arrived;
		begin();
	} else if (measuring && !done && is_over()) {
		print(arrived - began_at);
		done = 1;
	}
	send_more(near);
}

static void must_not_end(struct bufferevent *bev, short what, void *unused)
{
	(void)bev, (void)unused;
	require(!(what & (BEV_EVENT_ERROR | BEV_EVENT_EOF | BEV_EVENT_TIMEOUT)), "the stream ended");
}

static void stream(struct bufferevent *near, struct bufferevent *far)
{
	bufferevent_setcb(near, NULL, NULL, must_not_end, NULL);
	bufferevent_setcb(far, on_arrival, NULL, must_not_end, near);
	bufferevent_enable(near, EV_READ | EV_WRITE);
	bufferevent_enable(far, EV_READ | EV_WRITE);
	send_more(near);
	while (!done)
		event_base_loop(base, EVLOOP_ONCE);
}

/* ---- TLS ---- */

static SSL_CTX *contexts[2]; /* The client's, the server's. */
static SSL_SESSION *session;

static int remember(SSL *ssl, SSL_SESSION *fresh)
{
	(void)ssl;
	SSL_SESSION_free(session);
	session = fresh;
	return 1;
}

static void setup_tls(const char *folder, int resuming)
{
	char path[4096];
	for (int end = 0; end < 2; end++) {
		SSL_CTX *context = contexts[end] = SSL_CTX_new(end ? TLS_server_method() : TLS_client_method());
		require(context && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), "no TLS 1.3");
		require(SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256"), "no AES-128-GCM");
		require(SSL_CTX_set1_groups_list(context, "X25519"), "no X25519");
		SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	}
	snprintf(path, sizeof path, "%s/authority.pem", folder);
	require(SSL_CTX_load_verify_locations(contexts[0], path, NULL), "no authority");
	SSL_CTX_set_verify(contexts[0], SSL_VERIFY_PEER, NULL);
	snprintf(path, sizeof path, "%s/chain.pem", folder);
	require(SSL_CTX_use_certificate_chain_file(contexts[1], path), "no certificate");
	snprintf(path, sizeof path, "%s/key.pem", folder);
	require(SSL_CTX_use_PrivateKey_file(contexts[1], path, SSL_FILETYPE_PEM), "no key");
	SSL_CTX_set_num_tickets(contexts[1], resuming);
	if (resuming) {
		SSL_CTX_set_session_cache_mode(contexts[0], SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(contexts[0], remember);
	}
}

static struct bufferevent *with_tls(int fd, int end)
{
	SSL *ssl = SSL_new(contexts[end]);
	require(ssl != NULL, "no SSL");
	if (end == 0) {
		require(SSL_set1_host(ssl, "server.example") && SSL_set_tlsext_host_name(ssl, "server.example"), "no name");
		if (session)
			SSL_set_session(ssl, session);
	}
	struct bufferevent *bev = bufferevent_openssl_socket_new(base, fd, ssl,
	    end ? BUFFEREVENT_SSL_ACCEPTING : BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE);
	require(bev != NULL, "no bufferevent");
	bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	return bev;
}

static void tls(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	require(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0, "listen");
	require(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
	int near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	require(connect(near, (struct sockaddr *)&address, length) == 0, "connect");
	int far = accept(listener, NULL, NULL);
	require(far >= 0, "accept");
	setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(far, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	evutil_make_socket_nonblocking(near);
	evutil_make_socket_nonblocking(far);
	close(listener);
	stream(with_tls(near, 0), with_tls(far, 1));
}

static int heard;

static void on_server(struct bufferevent *server, short what, void *unused)
{
	(void)unused;
	require(what & BEV_EVENT_CONNECTED, "the server's handshake failed");
	bufferevent_write(server, "x", 1);
}

static void on_byte(struct bufferevent *client, void *unused)
{
	(void)client, (void)unused;
	heard = 1;
}

static int handshake(void)
{
	int ends[2];
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
	struct bufferevent *client = with_tls(ends[0], 0), *server = with_tls(ends[1], 1);
	bufferevent_setcb(client, on_byte, NULL, must_not_end, NULL);
	bufferevent_setcb(server, NULL, NULL, on_server, NULL);
	bufferevent_enable(client, EV_READ | EV_WRITE);
	bufferevent_enable(server, EV_READ | EV_WRITE);
	heard = 0;
	while (!heard)
		event_base_loop(base, EVLOOP_ONCE);
	SSL *ssl = bufferevent_openssl_get_ssl(client);
	int resumed = SSL_session_reused(ssl);
	/* A connection that ends without a shutdown takes its session with it. */
	SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	bufferevent_free(client);
	bufferevent_free(server);
	/* What was freed goes away in the loop. */
	event_base_loop(base, EVLOOP_NONBLOCK);
	return resumed;
}

static void handshakes(int resuming)
{
	for (int i = 0; i < WARM_UP_HANDSHAKES; i++)
		handshake();
	size_t count = 0;
	for (begin(); !is_over(); count++)
		require(handshake() == resuming, "a session was resumed that should not be, or the other way");
	print(count);
}

/* ---- zlib ---- */

static void codec_failed(void) { require(0, "zlib failed"); }

/* Runs `step`, which is deflate or inflate, over all of `source`; the output goes where it is to stay. */
static enum bufferevent_filter_result transform(struct evbuffer *source, struct evbuffer *destination, z_stream *stream,
    int (*step)(z_stream *, int))
{
	struct evbuffer_iovec piece, room;
	while (evbuffer_peek(source, -1, NULL, &piece, 1) > 0 && piece.iov_len > 0) {
		stream->next_in = piece.iov_base;
		stream->avail_in = piece.iov_len;
		int flush = piece.iov_len == evbuffer_get_length(source) ? Z_SYNC_FLUSH : Z_NO_FLUSH;
		do {
			require(evbuffer_reserve_space(destination, ROOM, &room, 1) == 1, "no room");
			size_t offered = room.iov_len;
			stream->next_out = room.iov_base;
			stream->avail_out = offered;
			int result = step(stream, flush);
			if (result != Z_OK && result != Z_BUF_ERROR)
				codec_failed();
			room.iov_len = offered - stream->avail_out;
			evbuffer_commit_space(destination, &room, 1);
		} while (stream->avail_in > 0 || stream->avail_out == 0);
		evbuffer_drain(source, piece.iov_len);
	}
	return BEV_OK;
}

static enum bufferevent_filter_result compress_out(struct evbuffer *source, struct evbuffer *destination, ev_ssize_t limit,
    enum bufferevent_flush_mode mode, void *stream)
{
	(void)limit, (void)mode;
	if (evbuffer_get_length(source) == 0)
		return BEV_NEED_MORE;
	return transform(source, destination, stream, deflate);
}

static enum bufferevent_filter_result decompress_in(struct evbuffer *source, struct evbuffer *destination, ev_ssize_t limit,
    enum bufferevent_flush_mode mode, void *stream)
{
	(void)limit, (void)mode;
	if (evbuffer_get_length(source) == 0)
		return BEV_NEED_MORE;
	return transform(source, destination, stream, inflate);
}

static enum bufferevent_filter_result pass(struct evbuffer *source, struct evbuffer *destination, ev_ssize_t limit,
    enum bufferevent_flush_mode mode, void *unused)
{
	(void)limit, (void)mode, (void)unused;
	evbuffer_add_buffer(destination, source);
	return BEV_OK;
}

static void zlib(void)
{
	struct bufferevent *ends[2];
	require(bufferevent_pair_new(base, 0, ends) == 0, "no pair");
	z_stream out = { 0 }, in = { 0 };
	require(deflateInit(&out, LEVEL) == Z_OK && inflateInit(&in) == Z_OK, "no zlib");
	struct bufferevent *near = bufferevent_filter_new(ends[0], pass, compress_out, BEV_OPT_CLOSE_ON_FREE, NULL, &out);
	struct bufferevent *far = bufferevent_filter_new(ends[1], decompress_in, pass, BEV_OPT_CLOSE_ON_FREE, NULL, &in);
	require(near && far, "no filter");
	stream(near, far);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s tls|zlib|full|resumed SECONDS FOLDER\n", argv[0]);
		return 2;
	}
	const char *operation = argv[1];
	seconds = atof(argv[2]);
	base = event_base_new();
	require(base != NULL, "no event base");
	signal(SIGPIPE, SIG_IGN);
	read_text(argv[3]);
	if (!strcmp(operation, "tls")) {
		setup_tls(argv[3], 0);
		tls();
	} else if (!strcmp(operation, "zlib")) {
		zlib();
	} else if (!strcmp(operation, "full") || !strcmp(operation, "resumed")) {
		setup_tls(argv[3], operation[0] == 'r');
		handshakes(operation[0] == 'r');
	} else {
		require(0, "no such operation");
	}
	return 0;
}
