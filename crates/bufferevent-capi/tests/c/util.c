/* util.h: every function. */
#include <event2/util.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <unistd.h>
#include "check.h"

PART(sockets)
{
	int fds[2], value, s;
	socklen_t len = sizeof(value);
	CHECK(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	CHECK(evutil_make_socket_nonblocking(fds[0]) == 0 && fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	CHECK(evutil_make_socket_closeonexec(fds[0]) == 0 && fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	CHECK(evutil_closesocket(fds[0]) == 0 && evutil_closesocket(fds[0]) == -1 && errno == EBADF);
	CHECK(evutil_make_socket_nonblocking(fds[0]) == -1 && evutil_make_socket_closeonexec(-1) == -1);
	EVUTIL_CLOSESOCKET(fds[1]);
	CHECK(evutil_socketpair(AF_UNIX, 99, 0, fds) == -1);
	s = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(evutil_make_listen_socket_reuseable(s) == 0 && evutil_make_listen_socket_reuseable_port(s) == 0);
	CHECK(getsockopt(s, SOL_SOCKET, SO_REUSEPORT, &value, &len) == 0 && value);
	CHECK(evutil_make_tcp_listen_socket_deferred(s) == 0);
	CHECK(evutil_set_tcp_keepalive(s, 1, 30) == 0);
	CHECK(getsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &value, &len) == 0 && value == 30);
	CHECK(evutil_set_tcp_keepalive(s, 0, 0) == 0);
	CHECK(getsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &value, &len) == 0 && !value);
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	if (s >= 0) {
		CHECK(evutil_make_listen_socket_ipv6only(s) == 0 && evutil_make_listen_socket_not_ipv6only(s) == 0);
		close(s);
	}
	EVUTIL_SET_SOCKET_ERROR(EAGAIN);
	CHECK(EVUTIL_SOCKET_ERROR() == EAGAIN && evutil_socket_geterror(0) == EAGAIN);
	CHECK(evutil_socket_error_to_string(EAGAIN));
}

PART(times)
{
	struct timeval a = {1, 900000}, b = {0, 200000}, c;
	struct tm tm = {0};
	char date[64];
	struct evutil_monotonic_timer *t = evutil_monotonic_timer_new();
	evutil_timeradd(&a, &b, &c);
	CHECK(c.tv_sec == 2 && c.tv_usec == 100000 && evutil_timercmp(&a, &c, <) && evutil_timerisset(&c));
	evutil_timersub(&c, &b, &c);
	CHECK(evutil_timercmp(&a, &c, ==));
	evutil_timerclear(&c);
	CHECK(evutil_gettimeofday(&c, NULL) == 0 && c.tv_sec > 1500000000 && evutil_gettimeofday(NULL, NULL) == -1);
	CHECK(evutil_configure_monotonic_time(t, EV_MONOT_PRECISE) == 0);
	CHECK(evutil_gettime_monotonic(t, &a) == 0 && evutil_gettime_monotonic(t, &b) == 0 && evutil_timercmp(&a, &b, <=));
	evutil_monotonic_timer_free(t);
	tm.tm_year = 94;
	tm.tm_mon = 10;
	tm.tm_mday = 6;
	tm.tm_hour = 8;
	tm.tm_min = 49;
	tm.tm_sec = 37;
	CHECK(evutil_date_rfc1123(date, sizeof(date), &tm) == 29 && !strcmp(date, "Sun, 06 Nov 1994 08:49:37 GMT"));
	CHECK(evutil_date_rfc1123(date, 5, &tm) == 29 && !strcmp(date, "Sun,"));
	CHECK(evutil_date_rfc1123(date, sizeof(date), NULL) == 29);
}

PART(text)
{
	char buf[8], *end;
	CHECK(evutil_snprintf(buf, sizeof(buf), "%s", "0123456789") == 10 && !strcmp(buf, "0123456"));
	CHECK(evutil_snprintf(buf, 0, "x") == 0);
	CHECK(evutil_ascii_strcasecmp("HeLLo", "hEllO") == 0 && evutil_ascii_strcasecmp("a", "B") < 0);
	CHECK(evutil_ascii_strcasecmp("ab", "a") > 0 && evutil_ascii_strncasecmp("abX", "ABy", 2) == 0);
	CHECK(evutil_ascii_strncasecmp("a", "b", 5) < 0 && evutil_ascii_strncasecmp("b", "a", 5) > 0);
	CHECK(evutil_strtoll("-9000000000rest", &end, 10) == -9000000000LL && !strcmp(end, "rest"));
}

PART(addresses)
{
	char buf[64];
	struct in_addr v4;
	struct in6_addr v6;
	struct sockaddr_storage ss, other;
	int len = sizeof(ss), other_len = sizeof(other);
	unsigned scope = 9;
	CHECK(evutil_inet_pton(AF_INET, "127.0.0.1", &v4) == 1 && v4.s_addr == htonl(INADDR_LOOPBACK));
	CHECK(evutil_inet_pton(AF_INET, "127.0.0", &v4) == 0 && evutil_inet_pton(AF_UNIX, "x", &v4) == -1);
	CHECK(evutil_inet_pton(AF_INET6, "fe80::1", &v6) == 1 && evutil_inet_pton(AF_INET6, "::g", &v6) == 0);
	CHECK(evutil_inet_pton_scope(AF_INET6, "fe80::1%3", &v6, &scope) == 1 && scope == 3);
	CHECK(evutil_inet_ntop(AF_INET6, &v6, buf, sizeof(buf)) == buf && !strcmp(buf, "fe80::1"));
	CHECK(evutil_inet_ntop(AF_INET6, &v6, buf, 3) == NULL);
	CHECK(evutil_inet_ntop(AF_INET, &(struct in_addr){htonl(0x01020304)}, buf, sizeof(buf)) && !strcmp(buf, "1.2.3.4"));
	CHECK(evutil_parse_sockaddr_port("1.2.3.4:80", (struct sockaddr *)&ss, &len) == 0 && len == sizeof(struct sockaddr_in));
	CHECK(((struct sockaddr_in *)&ss)->sin_port == htons(80));
	CHECK(evutil_parse_sockaddr_port("1.2.3.4:81", (struct sockaddr *)&other, &other_len) == 0);
	CHECK(evutil_sockaddr_cmp((struct sockaddr *)&ss, (struct sockaddr *)&other, 0) == 0);
	CHECK(evutil_sockaddr_cmp((struct sockaddr *)&ss, (struct sockaddr *)&other, 1) < 0);
	other_len = sizeof(other);
	CHECK(evutil_parse_sockaddr_port("[::1]:443", (struct sockaddr *)&other, &other_len) == 0);
	CHECK(other_len == sizeof(struct sockaddr_in6) && evutil_sockaddr_cmp((struct sockaddr *)&ss, (struct sockaddr *)&other, 1));
	other_len = sizeof(other);
	CHECK(evutil_parse_sockaddr_port("::1", (struct sockaddr *)&other, &other_len) == 0);
	CHECK(evutil_parse_sockaddr_port("1.2.3.4:0", (struct sockaddr *)&ss, &len) == -1);
	CHECK(evutil_parse_sockaddr_port("1.2.3.4:65536", (struct sockaddr *)&ss, &len) == -1);
	CHECK(evutil_parse_sockaddr_port("[::1", (struct sockaddr *)&ss, &len) == -1);
	len = 4;
	CHECK(evutil_parse_sockaddr_port("1.2.3.4", (struct sockaddr *)&ss, &len) == -1);
}

PART(names)
{
	struct evutil_addrinfo hints = {0}, *list = NULL;
	hints.ai_family = AF_INET;
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = EVUTIL_AI_NUMERICHOST | EVUTIL_AI_NUMERICSERV;
	CHECK(evutil_getaddrinfo("127.0.0.1", "80", &hints, &list) == 0 && list);
	CHECK(((struct sockaddr_in *)list->ai_addr)->sin_port == htons(80));
	evutil_freeaddrinfo(list);
	CHECK(evutil_getaddrinfo("not.a.number", "80", &hints, &list) == EVUTIL_EAI_NONAME);
	CHECK(strcmp(evutil_gai_strerror(EVUTIL_EAI_NODATA), evutil_gai_strerror(EVUTIL_EAI_ADDRFAMILY)) != 0);
	CHECK(evutil_gai_strerror(EVUTIL_EAI_NONAME) && evutil_gai_strerror(EVUTIL_EAI_CANCEL) && evutil_gai_strerror(0));
}

PART(random_bytes)
{
	char a[64] = {0}, b[64] = {0};
	CHECK(evutil_secure_rng_init() == 0);
	evutil_secure_rng_add_bytes("seed", 4);
	CHECK(evutil_secure_rng_set_urandom_device_file("/dev/urandom") == 0);
	evutil_secure_rng_get_bytes(a, sizeof(a));
	evutil_secure_rng_get_bytes(b, sizeof(b));
	CHECK(memcmp(a, b, sizeof(a)));
}

static int format_it(char *to, size_t room, const char *format, ...)
{
	va_list list;
	int count;
	va_start(list, format);
	count = evutil_vsnprintf(to, room, format, list);
	va_end(list);
	return count;
}

PART(formatted_by_a_list)
{
	char text[4];
	CHECK(format_it(text, sizeof(text), "%d", 123456) == 6 && !strcmp(text, "123"));
}

int main(void)
{
	formatted_by_a_list();
	sockets();
	times();
	text();
	addresses();
	names();
	random_bytes();
	return 0;
}
