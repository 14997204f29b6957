/* sequence_list.h - sequences in an order: by age, or by priority and then age.
 *
 * The engine keeps three, so that no step looks at all entries to find a few. Memory is the engine's.
 * Engine thread only. */
#ifndef BW_ENGINE_SEQUENCE_LIST_H
#define BW_ENGINE_SEQUENCE_LIST_H

#include "engine/sequence.h"

typedef struct bw_sequence_list {
    bw_sequence **items; /* [n], room for all that may ever be in it */
    int n;
    bool by_priority; /* lower first, then the older; otherwise the older first */
} bw_sequence_list;

void bw_sequence_list_add(bw_sequence_list *list, bw_sequence *s); /* it is not in it */
void bw_sequence_list_remove(bw_sequence_list *list, const bw_sequence *s); /* it is in it */

#endif
