/* notify.h - tells a service manager how the process is doing: datagrams to $NOTIFY_SOCKET, as
 * systemd's Type=notify wants them (sd_notify(3) describes the protocol).
 *
 * Without that variable nothing happens; what cannot be sent is dropped, for a service must not fail
 * because nobody listens. Any thread. */
#ifndef BW_SERVER_NOTIFY_H
#define BW_SERVER_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* Lines "READY=1\nSTATUS=..."; false: not sent. */
bool bw_notify(const char *state);
/* How often WATCHDOG=1 is due, in seconds: half of what $WATCHDOG_USEC allows; 0: nobody waits for it. */
double bw_notify_watchdog_s(void);

#endif
