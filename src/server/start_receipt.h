/* start_receipt.h - what a server is once it is ready, in a block of lines for whoever started it. */
#ifndef BW_SERVER_START_RECEIPT_H
#define BW_SERVER_START_RECEIPT_H

#include "server/server.h"

/* address: "http://127.0.0.1:8080/" */
void bw_start_receipt(const bw_server *server, const char *address, void (*print)(void *arg, const char *line), void *arg);

#endif
