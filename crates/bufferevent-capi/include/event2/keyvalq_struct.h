/* Queues as sys/queue.h declares them, and pairs of strings in one. */
#ifndef EVENT2_KEYVALQ_STRUCT_H_INCLUDED_
#define EVENT2_KEYVALQ_STRUCT_H_INCLUDED_

#include <sys/queue.h>

struct evkeyval {
	TAILQ_ENTRY(evkeyval) next;
	char *key;
	char *value;
};

TAILQ_HEAD(evkeyvalq, evkeyval);

#endif
