/* Runs the example that drains, over the connection that it leaves to be made: argv[1] is the port of a peer. */
#include <netinet/in.h>
#include "drain.c"

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();
	struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons(atoi(argv[argc - 1]))};
	struct info *info = malloc(sizeof(struct info));
	/* As it stands it sets up no bufferevent at all, and that is no crash. */
	struct bufferevent *none = setup_bufferevent();
	if (none)
		return 3;
	info->name = "buffer 1";
	info->total_drained = 0;
	bufferevent_setwatermark(bev, EV_READ, 128, 0);
	bufferevent_setcb(bev, read_callback, NULL, event_callback, info);
	bufferevent_enable(bev, EV_READ);
	if (bufferevent_socket_connect(bev, (struct sockaddr *)&sin, sizeof sin) < 0)
		return 4;
	event_base_dispatch(base);
	event_base_free(base);
	return 0;
}
