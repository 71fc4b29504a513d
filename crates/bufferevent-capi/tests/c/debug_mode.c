/* Debug mode: the argument names the misuse; the library ends the process by our own means, with status 7. */
#include <event2/event.h>
#include <event2/event_struct.h>
#include "check.h"

static void nothing(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

static void fatal(int code)
{
	(void)code;
	exit(7);
}

int main(int argc, char **argv)
{
	const struct timeval s10 = {10, 0};
	struct event e;
	struct event_base *base;
	const char *misuse = argc > 1 ? argv[1] : "";
	memset(&e, 0, sizeof(e));
	event_set_fatal_callback(fatal);
	if (!strcmp(misuse, "late"))
		event_base_free(event_base_new());
	event_enable_debug_logging(EVENT_DBG_NONE);
	event_enable_debug_mode();
	base = event_base_new();
	if (!strcmp(misuse, "unassigned"))
		event_add(&e, &s10);
	evtimer_assign(&e, base, nothing, NULL);
	event_add(&e, &s10);
	if (!strcmp(misuse, "twice"))
		evtimer_assign(&e, base, nothing, NULL);
	event_del(&e);
	event_debug_unassign(&e);
	if (!strcmp(misuse, "given up"))
		event_add(&e, &s10);
	event_base_free(base);
	return 0;
}
