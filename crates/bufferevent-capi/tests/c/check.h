/* What the test programs share: a check that says where it failed, and how to go on from there. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1); \
		} \
	} while (0)

/* Says which part of a program runs, for whoever looks at a failure. */
#define PART(name) \
	static void name(void)

#endif
