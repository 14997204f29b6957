/* vocab.c - see vocab.h. */
#include "text/vocab.h"

#include <string.h>

#include "base/mem.h"
#include "text/unicode.h"

/* FNV-1a, then a finish that spreads it over the low bits the table uses. */
static uint32_t hash_bytes(const char *bytes, size_t n)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001B3u;
    return (uint32_t)(h ^ h >> 32);
}

bw_status bw_vocab_init(bw_vocab *v, int32_t n_rows, size_t room, bw_error *err)
{
    memset(v, 0, sizeof *v);
    v->rows = bw_mem_zalloc((size_t)n_rows, sizeof *v->rows, BW_MEM_TEXT);
    v->bytes = bw_mem_alloc(room + 1, BW_MEM_TEXT);
    if (!v->rows || !v->bytes)
        return bw_fail_memory(err, "the vocabulary", (size_t)n_rows * sizeof *v->rows + room);
    v->n_rows = n_rows;
    v->room = room;
    return BW_OK;
}

void bw_vocab_fini(bw_vocab *v)
{
    bw_mem_free(v->rows);
    bw_mem_free(v->bytes);
    bw_mem_free(v->slots);
    bw_mem_free(v->nodes);
    memset(v, 0, sizeof *v);
}

void bw_vocab_put(bw_vocab *v, int32_t id, bw_token_kind kind, const char *text, size_t n)
{
    bw_vocab_row *row = &v->rows[id];
    char *bytes = v->bytes + v->n_bytes;
    size_t used = n;
    row->in_alphabet = kind == BW_TOKEN_BASE && bw_alphabet_decode((unsigned char *)bytes, &used, text, n);
    if (!row->in_alphabet) {
        memcpy(bytes, text, n);
        used = n;
    }
    row->kind = (uint8_t)kind;
    row->offset = (uint32_t)v->n_bytes;
    row->n = (uint32_t)used;
    v->n_bytes += used;
    v->n_tokens++;
    if (used > v->longest)
        v->longest = used;
}

/* ---- base tokens by bytes ---- */

static int32_t *find_slot(const bw_vocab *v, const char *bytes, size_t n)
{
    for (uint32_t i = hash_bytes(bytes, n);; i++) {
        int32_t *slot = &v->slots[i & v->slot_mask];
        if (*slot < 0)
            return slot;
        const bw_vocab_row *row = &v->rows[*slot];
        if (row->n == n && memcmp(v->bytes + row->offset, bytes, n) == 0)
            return slot;
    }
}

int32_t bw_vocab_find_base(const bw_vocab *v, const char *bytes, size_t n)
{
    return *find_slot(v, bytes, n);
}

static bw_status index_base(bw_vocab *v, bw_error *err)
{
    uint32_t size = 512;
    while (size < 2 * (uint32_t)v->n_rows)
        size *= 2;
    v->slots = bw_mem_alloc(size * sizeof *v->slots, BW_MEM_TEXT);
    if (!v->slots)
        return bw_fail_memory(err, "the vocabulary", size * sizeof *v->slots);
    memset(v->slots, 0xFF, size * sizeof *v->slots);
    v->slot_mask = size - 1;
    for (int32_t id = 0; id < v->n_rows; id++) {
        const bw_vocab_row *row = &v->rows[id];
        if (!row->in_alphabet)
            continue;
        int32_t *slot = find_slot(v, v->bytes + row->offset, row->n);
        if (*slot >= 0) {
            char text[100];
            return bw_fail(err, BW_E_FORMAT, "tokens %d and %d are both %s: expected every token once", *slot, id,
                           bw_text_quote(text, sizeof text, v->bytes + row->offset, row->n));
        }
        *slot = id;
    }
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        v->byte_ids[b] = bw_vocab_find_base(v, &byte, 1);
        if (v->byte_ids[b] < 0)
            return bw_fail(err, BW_E_FORMAT, "no token for the byte 0x%02x: expected a byte-level vocabulary, "
                           "in which each of the 256 bytes is a token", b);
    }
    return BW_OK;
}

/* ---- added tokens ---- */

static int32_t child_of(const bw_vocab *v, int32_t node, unsigned char byte)
{
    int32_t c = v->nodes[node].child;
    while (c >= 0 && v->nodes[c].byte < byte)
        c = v->nodes[c].next;
    return c >= 0 && v->nodes[c].byte == byte ? c : -1;
}

static int32_t add_child(bw_vocab *v, int32_t node, unsigned char byte)
{
    int32_t *link = &v->nodes[node].child;
    while (*link >= 0 && v->nodes[*link].byte < byte)
        link = &v->nodes[*link].next;
    int32_t fresh = v->n_nodes++;
    v->nodes[fresh] = (bw_added_node){ .child = -1, .next = *link, .id = -1, .byte = byte };
    *link = fresh;
    return fresh;
}

static bw_status index_added(bw_vocab *v, bw_error *err)
{
    size_t most = 1;
    for (int32_t id = 0; id < v->n_rows; id++)
        if (v->rows[id].kind >= BW_TOKEN_PLAIN)
            most += v->rows[id].n;
    v->nodes = most < INT32_MAX ? bw_mem_alloc(most * sizeof *v->nodes, BW_MEM_TEXT) : NULL;
    if (!v->nodes)
        return bw_fail_memory(err, "the added tokens", most * sizeof *v->nodes);
    v->nodes[0] = (bw_added_node){ .child = -1, .next = -1, .id = -1 };
    v->n_nodes = 1;
    for (int32_t id = 0; id < v->n_rows; id++) {
        const bw_vocab_row *row = &v->rows[id];
        if (row->kind < BW_TOKEN_PLAIN)
            continue;
        const char *text = v->bytes + row->offset;
        int32_t node = 0;
        for (uint32_t i = 0; i < row->n; i++) {
            int32_t next = child_of(v, node, (unsigned char)text[i]);
            node = next >= 0 ? next : add_child(v, node, (unsigned char)text[i]);
        }
        if (v->nodes[node].id >= 0) {
            char quoted[100];
            return bw_fail(err, BW_E_FORMAT, "added tokens %d and %d are both %s: expected every token once",
                           v->nodes[node].id, id, bw_text_quote(quoted, sizeof quoted, text, row->n));
        }
        v->nodes[node].id = id;
        v->begins[(unsigned char)text[0]] = true;
    }
    return BW_OK;
}

bw_status bw_vocab_index(bw_vocab *v, bw_error *err)
{
    bw_status st = index_base(v, err);
    return st ? st : index_added(v, err);
}

int32_t bw_vocab_match_added(const bw_vocab *v, const char *text, size_t n_special, size_t n_plain, size_t *length)
{
    size_t most = n_special > n_plain ? n_special : n_plain;
    int32_t found = -1, node = 0;
    for (size_t i = 0; i < most; i++) {
        node = child_of(v, node, (unsigned char)text[i]);
        if (node < 0)
            break;
        int32_t id = v->nodes[node].id;
        if (id < 0 || i >= (v->rows[id].kind == BW_TOKEN_SPECIAL ? n_special : n_plain))
            continue;
        found = id;
        *length = i + 1;
    }
    return found;
}
