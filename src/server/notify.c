/* notify.c - see notify.h. */
#define _GNU_SOURCE /* SOCK_CLOEXEC: a child must not inherit the socket */
#include "server/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A path, or "@name" for the abstract namespace, whose names begin with a NUL byte. */
static bool address_of(const char *name, struct sockaddr_un *address, socklen_t *n_address)
{
    const size_t n = strlen(name);
    *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (n < 2 || n >= sizeof address->sun_path || (name[0] != '/' && name[0] != '@'))
        return false;
    memcpy(address->sun_path, name, n);
    if (name[0] == '@')
        address->sun_path[0] = '\0';
    *n_address = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    return true;
}

bool bw_notify(const char *state)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address;
    socklen_t n_address;
    if (!name || !address_of(name, &address, &n_address))
        return false;
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    const bool sent = sendto(fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&address,
                             n_address) >= 0;
    close(fd);
    return sent;
}

double bw_notify_watchdog_s(void)
{
    const char *text = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!text || !getenv("NOTIFY_SOCKET") || (pid && strtol(pid, NULL, 10) != (long)getpid()))
        return 0;
    const double seconds = strtod(text, NULL) / 2e6;
    return seconds > 0 && seconds < 1e6 ? seconds : 0;
}
