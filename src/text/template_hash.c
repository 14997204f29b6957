/* template_hash.c - which chat format a checkpoint's template writes, by its SHA-256.
 *
 * Only templates that were compared with chat.c on many conversations are in the table. */
#include <string.h>

#include <openssl/evp.h>

#include "text/chat.h"

/* Of the text without line ends at its end: some files end with one, GGUF metadata may not. */
static const struct known_template {
    const char *sha256;
    bw_chat_variant variant;
} known_templates[] = {
    { "a4aee8afcf2e0711942cf848899be66016f8d14a889ff9ede07bca099c28f715", BW_CHAT_35 }, /* Qwen3.5 */
    { "e84f32a23fdda27689f868aa4a1a5621f41133e51a48d7f3efcbea2839574259", BW_CHAT_36 }, /* Qwen3.6 */
    { "c3cf9e34abf4f9e36c2d72165aa9c132d3e2a725b6c2586aaa3a8af9d7a81041", BW_CHAT_38 }, /* Qwen3.8-27B */
    { "0bca4d19d03f6a9ed5f7674ab564dd873e4244e508296ed2aa8355b51a8999dc", BW_CHAT_36 }, /* models/lamb */
};

const char *bw_chat_variant_name(bw_chat_variant variant)
{
    return variant == BW_CHAT_35 ? "3.5" : variant == BW_CHAT_38 ? "3.8" : "3.6";
}

bw_chat_format bw_chat_recognise(const char *text, size_t n_bytes)
{
    const bw_chat_format unknown = { .variant = BW_CHAT_36, .known = false };
    unsigned char digest[EVP_MAX_MD_SIZE];
    char hex[2 * sizeof digest + 1];
    unsigned n = 0;
    if (!text)
        return unknown;
    while (n_bytes && (text[n_bytes - 1] == '\n' || text[n_bytes - 1] == '\r'))
        n_bytes--;
    if (EVP_Digest(text, n_bytes, digest, &n, EVP_sha256(), NULL) != 1)
        return unknown;
    for (unsigned i = 0; i < n; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[2 * n] = '\0';
    for (size_t i = 0; i < BW_COUNT(known_templates); i++)
        if (strcmp(hex, known_templates[i].sha256) == 0)
            return (bw_chat_format){ .variant = known_templates[i].variant, .known = true };
    return unknown;
}
