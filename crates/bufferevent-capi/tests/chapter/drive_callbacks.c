/* Runs the examples of callbacks on accepted connections: "uppercase", "fibonacci", or "proxy" to a port. Says its own port first. */
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "callbacks.c"

static struct event_base *base;
static const char *what;
static int port;

static void over(struct bufferevent *bev, short events, void *ctx)
{
	(void)ctx;
	if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
		bufferevent_free(bev);
		event_base_loopexit(base, NULL);
	}
}

static void accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer, int length, void *arg)
{
	static struct count count = {{0, 1}};
	static struct proxy_info there, back;
	struct bufferevent *bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	(void)listener, (void)peer, (void)length, (void)arg;
	if (!strcmp(what, "uppercase"))
		bufferevent_setcb(bev, read_callback_uppercase, NULL, over, NULL);
	else if (!strcmp(what, "fibonacci"))
		bufferevent_setcb(bev, NULL, write_callback_fibonacci, over, &count);
	else {
		struct bufferevent *other = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
		struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons(port)};
		there.other_bev = other;
		back.other_bev = bev;
		bufferevent_setcb(bev, read_callback_proxy, NULL, over, &there);
		bufferevent_setcb(other, read_callback_proxy, NULL, NULL, &back);
		bufferevent_socket_connect(other, (struct sockaddr *)&sin, sizeof sin);
		bufferevent_enable(other, EV_READ | EV_WRITE);
	}
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

int main(int argc, char **argv)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof sin;
	struct evconnlistener *listener;
	signal(SIGPIPE, SIG_IGN);
	base = event_base_new();
	what = argv[1];
	port = argc > 2 ? atoi(argv[2]) : 0;
	listener = evconnlistener_new_bind(base, accepted, NULL, LEV_OPT_CLOSE_ON_FREE, 4, (struct sockaddr *)&sin, sizeof sin);
	if (!listener || getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&sin, &len) < 0)
		return 3;
	printf("%d\n", ntohs(sin.sin_port));
	fflush(stdout);
	event_base_dispatch(base);
	evconnlistener_free(listener);
	return 0;
}
