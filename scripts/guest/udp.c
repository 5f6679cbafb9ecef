// SPDX-License-Identifier: GPL-2.0
/* udp send SRC|- DST PORT COUNT TEXT: datagrams, in clear or not.
 * udp recv PORT OUT: "ready", and then a line for each datagram.
 */
#include <err.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>

static struct addrinfo *address(const char *host, const char *port)
{
	struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
		.ai_socktype = SOCK_DGRAM,
	}, *res;
	int error = getaddrinfo(host, port, &hints, &res);

	if (error)
		errx(1, "%s %s: %s", host, port, gai_strerror(error));
	return res;
}

static int cmd_send(char **argv)
{
	struct addrinfo *dst = address(argv[1], argv[2]);
	int fd = socket(dst->ai_family, SOCK_DGRAM, 0), count;
	const char *text = argv[4];

	if (fd < 0)
		err(1, "socket");
	if (strcmp(argv[0], "-")) {
		struct addrinfo *src = address(argv[0], "0");

		if (bind(fd, src->ai_addr, src->ai_addrlen))
			err(1, "bind %s", argv[0]);
	}
	for (count = atoi(argv[3]); count > 0; count--)
		sendto(fd, text, strlen(text), 0, dst->ai_addr, dst->ai_addrlen);
	return 0;
}

static int cmd_recv(char **argv)
{
	struct sockaddr_in6 addr = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(atoi(argv[0])),
	};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	char buf[2048];
	ssize_t len;
	int out;

	out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
	if (out < 0)
		err(1, "%s", argv[1]);
	if (fd < 0 || bind(fd, (void *)&addr, sizeof(addr)))
		err(1, "bind port %s", argv[0]);
	dprintf(out, "ready\n");
	while ((len = recv(fd, buf, sizeof(buf), 0)) >= 0)
		dprintf(out, "%.*s\n", (int)len, buf);
	err(1, "recv");
}

int main(int argc, char **argv)
{
	if (argc == 7 && !strcmp(argv[1], "send"))
		return cmd_send(argv + 2);
	if (argc == 4 && !strcmp(argv[1], "recv"))
		return cmd_recv(argv + 2);
	errx(2, "usage: send SRC|- DST PORT COUNT TEXT, or recv PORT OUT");
}
