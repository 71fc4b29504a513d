/* Fetches a page over TLS and prints it:
 *
 *     cc tls_get.c $(pkg-config --cflags --libs libevent)
 *     ./a.out example.org 443 / [roots.pem]
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_tls.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static int result = 1;

static void print(struct bufferevent *bev, void *unused)
{
	struct evbuffer *input = bufferevent_get_input(bev);
	(void)unused;
	while (evbuffer_get_length(input) > 0)
		if (evbuffer_write(input, 1) < 0)
			event_base_loopbreak(bufferevent_get_base(bev));
}

static void happens(struct bufferevent *bev, short what, void *unused)
{
	(void)unused;
	if (what & BEV_EVENT_CONNECTED) {
		/* The server is who it should be, and what was written goes out now. */
		fprintf(stderr, "TLS %s, %s\n", bufferevent_tls_get_version(bev) == BUFFEREVENT_TLS_1_3 ? "1.3" : "1.2",
			bufferevent_tls_get_cipher(bev));
		return;
	}
	if (what & BEV_EVENT_EOF)
		result = 0; /* With a close_notify: nothing is missing. */
	else if (what & BEV_EVENT_TIMEOUT)
		fprintf(stderr, "nothing came for too long\n");
	else if (bufferevent_socket_get_dns_error(bev))
		fprintf(stderr, "%s\n", evutil_gai_strerror(bufferevent_socket_get_dns_error(bev)));
	else if (bufferevent_tls_get_error(bev))
		fprintf(stderr, "%s\n", bufferevent_tls_get_error(bev));
	else
		fprintf(stderr, "%s\n", evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
	event_base_loopbreak(bufferevent_get_base(bev));
}

int main(int argc, char **argv)
{
	const struct timeval patience = {10, 0};
	struct event_base *base = event_base_new();
	struct evdns_base *dns = evdns_base_new(base, 0);
	struct bufferevent_tls *tls = bufferevent_tls_client_new();
	struct bufferevent *bev;

	if (argc < 4) {
		fprintf(stderr, "usage: %s HOST PORT PATH [ROOTS]\n", argv[0]);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (argc > 4)
		bufferevent_tls_trust(tls, argv[4]);
	bev = bufferevent_tls_socket_new(base, -1, tls, argv[1], BEV_OPT_CLOSE_ON_FREE);
	if (!bev) {
		fprintf(stderr, "%s\n", bufferevent_tls_setup_error(tls));
		return 2;
	}
	bufferevent_setcb(bev, print, NULL, happens, NULL);
	bufferevent_set_timeouts(bev, &patience, &patience);
	bufferevent_enable(bev, EV_READ);
	evbuffer_add_printf(bufferevent_get_output(bev), "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", argv[3], argv[1]);
	bufferevent_socket_connect_hostname(bev, dns, AF_UNSPEC, argv[1], atoi(argv[2]));
	event_base_dispatch(base);

	bufferevent_free(bev);
	bufferevent_tls_free(tls);
	evdns_base_free(dns, 0);
	event_base_free(base);
	return result;
}
