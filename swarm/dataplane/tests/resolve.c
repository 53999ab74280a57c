/* Prints the addresses of a name as the C library finds them: linked with another one than the
 * system's by the tests. Exits with 1 if it finds none. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found, *it;
	char host[INET6_ADDRSTRLEN];
	int code = argc == 2 ? getaddrinfo(argv[1], NULL, &hints, &found) : EAI_NONAME;

	if (code) {
		fprintf(stderr, "%s\n", gai_strerror(code));
		return 1;
	}
	for (it = found; it; it = it->ai_next)
		if (!getnameinfo(it->ai_addr, it->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST))
			puts(host);
	return 0;
}
