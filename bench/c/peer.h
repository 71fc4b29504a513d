/* What the C peers share: the command line, the listening socket and the line that says where it listens.
 *
 * Every server of the benchmark (these, the Rust peers, and `bev echo`) is started the same way:
 * it binds a free port of 127.0.0.1, prints `127.0.0.1:PORT` as its first line, and echoes, or with
 * `--discard` throws away, whatever arrives, until it is killed.
 *
 * Invariant: a peer sets TCP_NODELAY on the listener, so that accepted sockets inherit it (Linux),
 * and asks for a backlog of BACKLOG: a thousand clients connect at once.
 */
#ifndef PEER_H
#define PEER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BACKLOG = 4096 };

/* Ends the program with what the system said about `operation`. */
static inline void fail(const char *operation)
{
	perror(operation);
	exit(1);
}

/* Whether the only argument there may be, `--discard`, was given. */
static inline int wants_discard(int argc, char **argv)
{
	if (argc == 1)
		return 0;
	if (argc == 2 && strcmp(argv[1], "--discard") == 0)
		return 1;
	fprintf(stderr, "usage: %s [--discard]\n", argv[0]);
	exit(2);
}

/* Listens on a free loopback port and prints it. A write to a closed peer is an error, not a signal, from here on. */
static inline int listen_and_print(void)
{
	signal(SIGPIPE, SIG_IGN);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener < 0)
		fail("socket");
	int on = 1;
	if (setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
		fail("setsockopt");
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	if (bind(listener, (struct sockaddr *)&address, length))
		fail("bind");
	if (listen(listener, BACKLOG))
		fail("listen");
	if (getsockname(listener, (struct sockaddr *)&address, &length))
		fail("getsockname");
	printf("127.0.0.1:%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return listener;
}

#endif
