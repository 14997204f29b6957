/* generation_parts.h - what the files of generation share: one request on its way. Nobody else's.
 *
 * generation.c: admission, endings, the client that leaves. generation_posts.c: tokens to bytes.
 * Threads: the loop's thread, but for reading a body, which touches request, error and body alone. */
#ifndef BW_SERVER_GENERATION_PARTS_H
#define BW_SERVER_GENERATION_PARTS_H

#include "server/answer_json.h"
#include "server/generation.h"

struct event;

typedef struct bw_generation bw_generation;

/* One ticket. */
typedef struct bw_choice {
    bw_generation *generation;
    struct bw_choice *next_in_bucket;
    bw_ticket ticket; /* 0: not admitted, or over */
    int index;        /* prompt-major */
    bool first;       /* of its prompt */
    const bw_api_prompt *prompt;
    bw_answer_text *text;
    bool wants_scores; /* log-probabilities of the prompt, which come with the last post: */
    bw_post *held, **held_end; /* those before it, until then */
    bool echoed;
    int mark;         /* where the others of its prompt may begin: a state is saved there */
    int n_unsent;     /* tokens since the last chunk */
    bw_answer_finish finish;
    bw_usage usage;   /* as of the last post */
    uint64_t submitted_ns, first_ns, last_ns; /* 0: not yet */
} bw_choice;

struct bw_generation {
    bw_generation *next, **link; /* in the owner's list */
    bw_generation *next_dirty;
    bw_generations *owner;       /* NULL: let go while the body is read */
    bw_exchange *exchange;       /* NULL: answered, or the client has gone */
    bool reading;                /* a worker has request, error and body */
    bool dirty;                  /* has bytes to send or an end to tell */
    bool streaming, roles_sent, paused;

    const bw_api_context *api;
    bool (*read)(bw_api_request *, const bw_api_context *, const char *, size_t, bw_api_error *);
    char *body;
    size_t n_body;
    bool is_read;
    bw_api_request request;
    bw_api_error error;

    bw_choice *choices;
    int n_choices, n_live;
    bw_answer_format format;
    char id[48];
    bw_bytes out; /* events of this turn */
    struct event *timer;
    uint64_t arrived_ns;
};

enum { TICKET_BUCKETS = 1024, RATE_ENDS = 32 };

struct bw_generations {
    bw_server *server;
    bw_generation *first;
    bw_generation *dirty, *dead; /* dead: freed when nobody looks at them any more */
    bool busy;                   /* posts are being taken */
    int n_live;                  /* exchanges */
    bw_choice *buckets[TICKET_BUCKETS];
    uint64_t ends_ns[RATE_ENDS]; /* ring: when the last tickets ended */
    int n_ends, next_end;
};

/* ---- generation.c ---- */

/* The ticket is over: it is forgotten, its figures go to the metrics. cancel: the engine has to be told. */
void bw_choice_end(bw_choice *choice, bw_outcome outcome, bool cancel);
/* Ends all of it with an error: a status, or an event in a stream that has begun. */
void bw_generation_fail(bw_generation *generation, int status, const char *type, const char *code, const char *message);
/* Answered or left: everything is let go. It must not be used after it. */
void bw_generation_release(bw_generation *generation);
/* The tokens of all choices so far. */
bw_answer_figures bw_generation_figures(const bw_generation *generation);

#endif
