/* pretokenize.c - see pretokenize.h. */
#include "text/pretokenize.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"
#include "text/unicode.h"

const char bw_pattern_qwen35[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

enum {
    MAX_PATTERN = 65536,
    STACK_START = 64 << 10, /* of generated code, only when 32 KiB of the machine stack were too few */
    STACK_MOST = 64 << 20
};

struct bw_pattern {
    pcre2_general_context *general;
    pcre2_code *code;
    bool compiled;
};

static void *pcre_alloc(size_t bytes, void *arg)
{
    (void)arg;
    return bw_mem_alloc(bytes, BW_MEM_TEXT);
}

static void pcre_free(void *block, void *arg)
{
    (void)arg;
    bw_mem_free(block);
}

/* ---- translation ---- */

/* Unicode White_Space, the 25 code points. PCRE2's own \s also takes U+180E (10.42). */
#define SPACE "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

typedef struct translation {
    char *out; /* room for every byte growing to sizeof SPACE + 4 */
    size_t used;
} translation;

static void emit(translation *t, const char *text, size_t n)
{
    memcpy(t->out + t->used, text, n);
    t->used += n;
}

static void emit_string(translation *t, const char *text)
{
    emit(t, text, strlen(text));
}

/* One escape; *i stands on the character after the backslash. Those whose meaning differs between
 * the two engines (word characters, boundaries, line ends, ...) are refused, not guessed. */
static bw_status translate_escape(translation *t, const char *regex, size_t i, bool in_class, bw_error *err)
{
    char c = regex[i];
    if (c == 's') {
        emit_string(t, in_class ? SPACE : "[" SPACE "]");
    } else if (c == 'S' && !in_class) {
        emit_string(t, "[^" SPACE "]");
    } else if (c && (strchr("pPrntfdDx", c) || strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ", c))) {
        emit(t, regex + i - 1, 2);
    } else {
        return bw_fail(err, BW_E_UNSUPPORTED, "the split pattern uses \\%c at byte %zu%s, which this library does not "
                       "translate (\\s \\S \\p \\P \\d \\D \\x, \\r \\n \\t \\f and escaped punctuation are)",
                       c > ' ' && c < 127 ? c : '?', i - 1, in_class ? " inside a class" : "");
    }
    return BW_OK;
}

/* What stands outside classes and means other things, or other things by default, to PCRE2. */
static bw_status check_plain(const char *regex, size_t n, size_t i, bw_error *err)
{
    static const char *const groups[] = { "(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>" };
    if (regex[i] == '^' || regex[i] == '$')
        return bw_fail(err, BW_E_UNSUPPORTED, "the split pattern uses %c at byte %zu, which the two pattern languages "
                       "read differently", regex[i], i);
    if (regex[i] != '(' || i + 1 == n || (regex[i + 1] != '?' && regex[i + 1] != '*'))
        return BW_OK;
    for (size_t k = 0; k < BW_COUNT(groups); k++)
        if (n - i >= strlen(groups[k]) && memcmp(regex + i, groups[k], strlen(groups[k])) == 0)
            return BW_OK;
    return bw_fail(err, BW_E_UNSUPPORTED, "the split pattern has a group at byte %zu that this library does not "
                   "translate ((?: (?i: (?= (?! (?<= (?<! (?> are)", i);
}

static bw_status translate(translation *t, const char *regex, size_t n, bw_error *err)
{
    bool in_class = false;
    for (size_t i = 0; i < n; i++) {
        char c = regex[i];
        if (c == '\\') {
            if (++i == n)
                return bw_fail(err, BW_E_FORMAT, "the split pattern ends in a backslash");
            bw_status bad = translate_escape(t, regex, i, in_class, err);
            if (bad)
                return bad;
            continue;
        }
        if (in_class && (c == '[' || (c == '&' && i + 1 < n && regex[i + 1] == '&')))
            return bw_fail(err, BW_E_UNSUPPORTED, "the split pattern has a class inside a class at byte %zu, which "
                           "PCRE2 does not know", i);
        bw_status st = in_class ? BW_OK : check_plain(regex, n, i, err);
        if (st)
            return st;
        if (!in_class && c == '[') {
            in_class = true;
            emit(t, &c, 1);
            if (i + 1 < n && regex[i + 1] == '^')
                emit(t, &regex[++i], 1);
            if (i + 1 < n && regex[i + 1] == ']')
                return bw_fail(err, BW_E_UNSUPPORTED, "the split pattern has a class that begins with ] at byte %zu, "
                               "which the two pattern languages read differently", i);
            continue;
        }
        if (in_class && c == ']')
            in_class = false;
        emit(t, &c, 1);
    }
    return BW_OK;
}

/* ---- compiling ---- */

static bw_status compile(bw_pattern *p, const char *regex, size_t n, bw_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(p->general);
    if (!context)
        return bw_fail_memory(err, "the split pattern", n);
    int code;
    PCRE2_SIZE where;
    p->code = pcre2_compile((PCRE2_SPTR)regex, n, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &where, context);
    pcre2_compile_context_free(context);
    if (!p->code) {
        if (code == 121) /* PCRE2_ERROR_HEAP_FAILED of the compiler: no memory */
            return bw_fail_memory(err, "the split pattern", n);
        PCRE2_UCHAR why[200] = "";
        pcre2_get_error_message(code, why, sizeof why);
        char quoted[120];
        return bw_fail(err, BW_E_FORMAT, "the split pattern %s does not compile: %s (byte %zu after translation)",
                       bw_text_quote(quoted, sizeof quoted, regex, n), (const char *)why, (size_t)where);
    }
    p->compiled = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    return BW_OK;
}

bw_status bw_pattern_create(bw_pattern **out, const char *regex, size_t n, bw_error *err)
{
    *out = NULL;
    if (n == 0 || n > MAX_PATTERN)
        return bw_fail(err, BW_E_FORMAT, "the split pattern has %zu bytes: expected 1 to %d", n, MAX_PATTERN);
    if (bw_utf8_valid_prefix(regex, n) != n)
        return bw_fail(err, BW_E_FORMAT, "the split pattern is not UTF-8");
    bw_status st;
    size_t room = n * (sizeof SPACE + 4);
    translation t = { .out = bw_mem_alloc(room, BW_MEM_TEXT) };
    bw_pattern *p = bw_mem_zalloc(1, sizeof *p, BW_MEM_TEXT);
    if (!p || !t.out || !(p->general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL))) {
        st = bw_fail_memory(err, "the split pattern", room);
        goto fail;
    }
    if ((st = translate(&t, regex, n, err)) || (st = compile(p, t.out, t.used, err)))
        goto fail;
    bw_mem_free(t.out);
    *out = p;
    return BW_OK;
fail:
    bw_mem_free(t.out);
    bw_pattern_destroy(p);
    return st;
}

void bw_pattern_destroy(bw_pattern *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    pcre2_general_context_free(p->general);
    bw_mem_free(p);
}

bool bw_pattern_is_compiled(const bw_pattern *p)
{
    return p->compiled;
}

/* ---- splitting ---- */

bw_status bw_splitter_init(bw_splitter *s, const bw_pattern *pattern, bw_error *err)
{
    memset(s, 0, sizeof *s);
    s->pattern = pattern;
    s->match = pcre2_match_data_create(1, pattern->general);
    s->context = pcre2_match_context_create(pattern->general);
    if (!s->match || !s->context) {
        bw_splitter_fini(s);
        return bw_fail_memory(err, "splitting text", 256);
    }
    return BW_OK;
}

void bw_splitter_fini(bw_splitter *s)
{
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    memset(s, 0, sizeof *s);
}

void bw_splitter_begin(bw_splitter *s, const char *text, size_t n)
{
    s->text = text;
    s->n = n;
    s->position = s->start = s->end = 0;
    /* a run of white space is walked back once, so honest patterns stay below a few steps per byte */
    pcre2_set_match_limit(s->context, n < 100000000 ? 10000000 + 8 * (uint32_t)n : UINT32_MAX);
}

static int match_once(bw_splitter *s, size_t from)
{
    if (s->pattern->compiled)
        return pcre2_jit_match(s->pattern->code, (PCRE2_SPTR)s->text, s->n, from, 0, s->match, s->context);
    return pcre2_match(s->pattern->code, (PCRE2_SPTR)s->text, s->n, from, PCRE2_NO_UTF_CHECK, s->match, s->context);
}

/* The first match that is not empty, into start and end; both s->n when there is none. */
static bw_status find_match(bw_splitter *s, bw_error *err)
{
    size_t from = s->position;
    s->start = s->end = s->n;
    while (from < s->n) {
        int rc = match_once(s, from);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !s->stack) {
            s->stack = pcre2_jit_stack_create(STACK_START, STACK_MOST, s->pattern->general);
            if (!s->stack)
                return bw_fail_memory(err, "splitting text", STACK_START);
            pcre2_jit_stack_assign(s->context, NULL, s->stack);
            continue;
        }
        if (rc == PCRE2_ERROR_NOMATCH)
            return BW_OK;
        if (rc == PCRE2_ERROR_NOMEMORY)
            return bw_fail_memory(err, "splitting text", s->n);
        if (rc < 0) {
            PCRE2_UCHAR why[200] = "";
            pcre2_get_error_message(rc, why, sizeof why);
            return bw_fail(err, BW_E_LIMIT, "the tokenizer's split pattern gave up at byte %zu of %zu: %s", from, s->n,
                           (const char *)why);
        }
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(s->match);
        if (found[0] >= from && found[1] > found[0]) {
            s->start = found[0];
            s->end = found[1];
            return BW_OK;
        }
        int step = bw_utf8_next((const unsigned char *)s->text + from, s->n - from);
        from += step > 0 ? (size_t)step : 1;
    }
    return BW_OK;
}

bw_status bw_splitter_next(bw_splitter *s, const char **piece, size_t *n, bw_error *err)
{
    *piece = s->text + s->position;
    *n = 0;
    if (s->position == s->n)
        return BW_OK;
    bw_status st = s->start == s->end ? find_match(s, err) : BW_OK;
    if (st)
        return st;
    if (s->position < s->start) { /* nothing matched here: the gap is a piece */
        *n = s->start - s->position;
        s->position = s->start;
        return BW_OK;
    }
    *n = s->end - s->position;
    s->position = s->end;
    s->start = s->end = 0;
    return BW_OK;
}
