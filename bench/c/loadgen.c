/* A closed-loop load generator: every connection has one message under way, so the server is the bottleneck.
 *
 * usage: loadgen PORT CONNECTIONS SIZE AMOUNT SERVER_PID MODE
 *   echo   AMOUNT seconds of echoes; one JSON line of what was measured
 *   sink   AMOUNT seconds of writes that the server throws away; the same JSON line
 *   count  AMOUNT echoes in all, for counting what a server does per message; prints `done` and holds the
 *          connections until standard input ends (SERVER_PID is not used)
 *   idle   opens one connection, echoes a message over it, prints `warm`, waits for a line on standard
 *          input; opens the rest, echoes over the last (they are accepted in order, so all are), prints
 *          `held`, and holds them until standard input ends (AMOUNT and SERVER_PID are not used)
 *
 * Invariants:
 * - The first message of each connection is compared byte by byte when the server echoes: a fast wrong server is no result.
 * - What is measured begins after WARM_UP_S and is read from one clock: wall time here, CPU time of the whole server
 *   process from its own CPU clock, which counts every thread and the time in the kernel.
 * - Connections end with a reset, so that no run leaves thousands of sockets in TIME_WAIT for the next.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 1024, STALL_MS = 5000, LATENCIES = 1 << 20 };
static const double WARM_UP_S = 0.2;

struct connection {
	int fd;
	size_t received; /* Bytes of the message under way. */
};

static int connections, port;
static size_t size;
static struct connection *table;
static unsigned char *message, *reply;

static void fail(const char *operation)
{
	perror(operation);
	exit(1);
}

static void refuse(const char *reason)
{
	fprintf(stderr, "loadgen: %s\n", reason);
	exit(1);
}

static double seconds_of(clockid_t clock)
{
	struct timespec t;
	if (clock_gettime(clock, &t))
		fail("clock_gettime");
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static double now(void) { return seconds_of(CLOCK_MONOTONIC); }

/* ---- moving messages ---- */

static void wait_for(int fd, short what)
{
	struct pollfd one = { .fd = fd, .events = what };
	if (poll(&one, 1, STALL_MS) == 0)
		refuse("the server stalled");
}

static void send_message(int fd)
{
	for (size_t sent = 0; sent < size;) {
		ssize_t n = send(fd, message + sent, size - sent, MSG_NOSIGNAL);
		if (n >= 0)
			sent += n;
		else if (errno == EAGAIN)
			wait_for(fd, POLLOUT);
		else
			fail("send");
	}
}

/* Takes what is there of the reply under way; true when that completes it. */
static int receive_some(struct connection *c)
{
	ssize_t n = recv(c->fd, reply + c->received, size - c->received, 0);
	if (n == 0)
		refuse("the server closed a connection");
	if (n < 0) {
		if (errno == EAGAIN)
			return 0;
		fail("recv");
	}
	c->received += n;
	if (c->received < size)
		return 0;
	c->received = 0;
	return 1;
}

static void echo_checked(struct connection *c)
{
	send_message(c->fd);
	while (!receive_some(c))
		wait_for(c->fd, POLLIN);
	if (memcmp(message, reply, size))
		refuse("the echo differs from what was sent");
}

/* ---- connections ---- */

static void open_connection(struct connection *c)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		fail("socket");
	if (connect(c->fd, (struct sockaddr *)&address, sizeof address))
		fail("connect");
	int on = 1;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void open_all(void)
{
	for (int i = 0; i < connections; i++)
		open_connection(&table[i]);
}

static void make_nonblocking(void)
{
	for (int i = 0; i < connections; i++)
		fcntl(table[i].fd, F_SETFL, fcntl(table[i].fd, F_GETFL) | O_NONBLOCK);
}

static void reset_all(void)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };
	for (int i = 0; i < connections; i++) {
		setsockopt(table[i].fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
		close(table[i].fd);
	}
}

/* ---- measuring ---- */

struct snapshot {
	double wall_s, server_s, client_s;
	unsigned long long messages;
};

/* When the measured part begins and ends. `step` is called after every batch of messages. */
struct meter {
	clockid_t server;
	double started_s, measured_s;
	struct snapshot first, last;
	enum { WARMING, MEASURING, DONE } state;
};

static struct snapshot take(const struct meter *m, unsigned long long messages)
{
	return (struct snapshot){ now(), seconds_of(m->server), seconds_of(CLOCK_PROCESS_CPUTIME_ID), messages };
}

static void step(struct meter *m, unsigned long long messages)
{
	double t = now();
	if (m->state == WARMING && t - m->started_s >= WARM_UP_S) {
		m->first = take(m, messages);
		m->state = MEASURING;
	} else if (m->state == MEASURING && t - m->first.wall_s >= m->measured_s) {
		m->last = take(m, messages);
		m->state = DONE;
	}
}

static double latencies_s[LATENCIES];
static size_t latency_count;

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double percentile_us(double part)
{
	return latency_count ? latencies_s[(size_t)(part * (latency_count - 1))] * 1e6 : 0;
}

static void report(const struct meter *m)
{
	double wall_s = m->last.wall_s - m->first.wall_s;
	double messages = m->last.messages - m->first.messages;
	if (messages == 0)
		refuse("no message was completed");
	qsort(latencies_s, latency_count, sizeof *latencies_s, ascending);
	printf("{\"messages\":%.0f,\"seconds\":%.4f,\"messages_per_s\":%.1f,\"gib_per_s\":%.4f,"
	       "\"server_cpu_ns_per_message\":%.1f,\"server_busy\":%.3f,\"client_busy\":%.3f,"
	       "\"latency_p50_us\":%.2f,\"latency_p99_us\":%.2f}\n",
	       messages, wall_s, messages / wall_s, messages * size / wall_s / (1 << 30),
	       (m->last.server_s - m->first.server_s) * 1e9 / messages, (m->last.server_s - m->first.server_s) / wall_s,
	       (m->last.client_s - m->first.client_s) / wall_s, percentile_us(0.5), percentile_us(0.99));
}

/* ---- the modes ---- */

/* One connection, blocking calls: nothing of ours stands between reply and next request. */
static void ping_pong(struct meter *m)
{
	double sent_s = now();
	for (unsigned long long messages = 0; m->state != DONE;) {
		send_message(table[0].fd);
		while (!receive_some(&table[0]))
			;
		messages++;
		double t = now();
		if (m->state == MEASURING && latency_count < LATENCIES)
			latencies_s[latency_count++] = t - sent_s;
		sent_s = t;
		step(m, messages);
	}
}

/* Echoes over all connections until the meter is done, or until `limit` messages when there is none. Only the
 * first connection's latency is taken: a clock read for each message would make the generator the bottleneck. */
static void echo_many(struct meter *m, unsigned long long limit)
{
	int poll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (poll_fd < 0)
		fail("epoll_create1");
	make_nonblocking();
	for (int i = 0; i < connections; i++) {
		struct epoll_event in = { .events = EPOLLIN, .data.ptr = &table[i] };
		if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, table[i].fd, &in))
			fail("epoll_ctl");
		send_message(table[i].fd);
	}
	struct epoll_event ready[EVENTS];
	double sent_s = now();
	unsigned long long messages = 0;
	while (m ? m->state != DONE : messages < limit) {
		int count = epoll_wait(poll_fd, ready, EVENTS, STALL_MS);
		if (count == 0)
			refuse("the server stalled");
		for (int i = 0; i < count; i++) {
			struct connection *c = ready[i].data.ptr;
			if (!receive_some(c))
				continue;
			messages++;
			if (c == table) {
				double t = now();
				if (m && m->state == MEASURING && latency_count < LATENCIES)
					latencies_s[latency_count++] = t - sent_s;
				sent_s = t;
			}
			/* With a limit the last replies of all connections drain, so that the count is exact. */
			if (m || messages + connections <= limit)
				send_message(c->fd);
		}
		if (m)
			step(m, messages);
	}
	close(poll_fd);
}

static void sink(struct meter *m)
{
	for (unsigned long long messages = 0; m->state != DONE; step(m, messages))
		for (int i = 0; i < connections; i++, messages++)
			send_message(table[i].fd);
}

static void say(const char *line)
{
	puts(line);
	fflush(stdout);
}

/* Keeps the connections open until standard input ends. */
static void hold(const char *word)
{
	char line[16];
	say(word);
	while (fgets(line, sizeof line, stdin))
		;
}

static void idle(void)
{
	open_connection(&table[0]);
	echo_checked(&table[0]);
	say("warm");
	char line[16];
	if (!fgets(line, sizeof line, stdin))
		refuse("standard input ended before the go-ahead");
	for (int i = 1; i < connections; i++)
		open_connection(&table[i]);
	echo_checked(&table[connections - 1]);
	hold("held");
}

static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	if (argc != 7) {
		fprintf(stderr, "usage: %s PORT CONNECTIONS SIZE AMOUNT SERVER_PID echo|sink|count|idle\n", argv[0]);
		return 2;
	}
	port = atoi(argv[1]);
	connections = atoi(argv[2]);
	size = strtoull(argv[3], NULL, 10);
	if (connections < 1 || size < 1)
		refuse("CONNECTIONS and SIZE are at least 1");
	const char *mode = argv[6];
	table = calloc(connections, sizeof *table);
	message = malloc(size);
	reply = malloc(size);
	if (!table || !message || !reply)
		fail("malloc");
	for (size_t i = 0; i < size; i++)
		message[i] = i * 2654435761u >> 24;
	raise_descriptor_limit();

	if (!strcmp(mode, "idle")) {
		idle();
	} else if (!strcmp(mode, "count")) {
		open_all();
		echo_many(NULL, strtoull(argv[4], NULL, 10));
		hold("done");
	} else {
		struct meter meter = { .measured_s = atof(argv[4]) };
		if (clock_getcpuclockid(atoi(argv[5]), &meter.server))
			refuse("SERVER_PID names no process");
		open_all();
		if (!strcmp(mode, "echo"))
			for (int i = 0; i < connections; i++)
				echo_checked(&table[i]);
		meter.started_s = now();
		if (!strcmp(mode, "sink"))
			sink(&meter);
		else if (strcmp(mode, "echo"))
			refuse("the mode is echo, sink, count or idle");
		else if (connections == 1)
			ping_pong(&meter);
		else
			echo_many(&meter, 0);
		report(&meter);
	}
	reset_all();
	return 0;
}
