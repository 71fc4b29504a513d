/* Every connection of the program and its libraries goes to the port that CHAPTER_PORT names: examples have theirs written into them. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	struct sockaddr_storage to;
	const char *port = getenv("CHAPTER_PORT");
	memset(&to, 0, sizeof to);
	memcpy(&to, address, length);
	if (port && to.ss_family == AF_INET)
		((struct sockaddr_in *)&to)->sin_port = htons(atoi(port));
	if (port && to.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&to)->sin6_port = htons(atoi(port));
	return (int)syscall(SYS_connect, fd, &to, length);
}
