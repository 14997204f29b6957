/* chat_loop.c - see chat_loop.h. */
#include "cli/chat_loop.h"

#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <histedit.h>
#include <json.h>

#include "cli/answer.h"
#include "cli/terminal.h"

typedef struct chat {
    const bw_chat_loop_settings *settings;
    bw_receipt *receipt;
    struct json_object *messages;
    char *system; /* NULL: none */
    bool clean;   /* a fresh line is being edited, not the continuation of a message */
    EditLine *edit;
    History *history;
} chat;

/* ---- messages -------------------------------------------------------------------------------- */

struct json_object *bw_chat_loop_message(const char *role, const char *text, size_t n_bytes)
{
    struct json_object *message = json_object_new_object();
    json_object_object_add(message, "role", json_object_new_string(role));
    json_object_object_add(message, "content", json_object_new_string_len(text ? text : "", (int)n_bytes));
    return message;
}

bw_status bw_chat_loop_prompt(const bw_model *model, struct json_object *messages, bool think, bool open_answer,
                              int32_t **ids, int *n_ids, bw_error *err)
{
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "messages", json_object_get(messages));
    json_object_object_add(request, "add_generation_prompt", json_object_new_boolean(open_answer));
    json_object_object_add(request, "enable_thinking", json_object_new_boolean(think));
    bw_status st = bw_chat_encode(model, json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN), ids, n_ids,
                                  err);
    json_object_put(request);
    return st;
}

static void start_again(chat *c)
{
    json_object_put(c->messages);
    c->messages = json_object_new_array();
    if (c->system)
        json_object_array_add(c->messages, bw_chat_loop_message("system", c->system, strlen(c->system)));
}

/* ---- one answer ------------------------------------------------------------------------------ */

/* Splits an answer into thinking and content, shows both and keeps both. */
typedef struct turn {
    bw_reply *reply;
    bw_buffer reasoning, content;
    bool failed; /* out of memory */
} turn;

static void take_part(void *arg, bw_reply_part part, const char *text, size_t n)
{
    turn *t = arg;
    const bool thinking = part == BW_REPLY_REASONING;
    if (!n)
        return;
    if (!thinking && t->reasoning.n && !t->content.n)
        bw_terminal_text("\n\n", 2, false);
    bw_terminal_text(text, n, thinking);
    t->failed = !bw_buffer_add(thinking ? &t->reasoning : &t->content, text, n) || t->failed;
}

static void take_text(void *arg, const char *text, size_t n)
{
    turn *t = arg;
    t->failed = bw_reply_push(t->reply, text, n, NULL) != BW_OK || t->failed;
}

static void take_token(void *arg, int32_t token)
{
    (void)arg, (void)token; /* a chat has a tokenizer */
}

static void keep_answer(chat *c, const turn *t)
{
    struct json_object *message = bw_chat_loop_message("assistant", t->content.data, t->content.n);
    if (t->reasoning.n)
        json_object_object_add(message, "reasoning_content",
                               json_object_new_string_len(t->reasoning.data, (int)t->reasoning.n));
    json_object_array_add(c->messages, message);
}

/* Where the next turn's prompt is sure to agree with this one: before the opening of the answer, which may come
 * back without its thinking. 0: not known, and then nothing is saved there. */
static int answer_start(const chat *c, int n_ids)
{
    int32_t *ids = NULL;
    int n = 0;
    bw_status st = bw_chat_loop_prompt(c->settings->model, c->messages, c->settings->think, false, &ids, &n, NULL);
    bw_free(ids);
    return !st && n < n_ids ? n : 0;
}

/* Generates with the messages as they are. A Ctrl-C keeps what was said until then. */
static bw_status generate(chat *c, turn *t, const int32_t *ids, int n_ids, bw_error *err)
{
    const bw_chat_loop_settings *s = c->settings;
    const bw_answer_sink sink = { take_text, take_token, t };
    bw_request request = *s->request;
    bw_answer answer;
    request.prompt = ids;
    request.n_prompt = n_ids;
    const int mark = answer_start(c, n_ids);
    request.marks = &mark;
    request.n_marks = mark > 0;
    bw_interrupt_watch();
    bw_status st = bw_answer_generate(&answer, s->engine, s->model, &request, s->stops, s->n_stops, &sink, err);
    bw_interrupt_unwatch();
    t->failed = bw_reply_finish(t->reply, NULL) != BW_OK || t->failed;
    bw_terminal_text_end();
    if (answer.n_tokens)
        bw_terminal_text("\n", 1, false);
    if (st == BW_OK) {
        bw_receipt_add(c->receipt, &answer.usage, answer.n_tokens);
        c->receipt->finish = answer.finish;
        if (answer.finish == BW_FINISH_NONE)
            fprintf(stderr, "(interrupted)\n");
        else if (answer.finish == BW_FINISH_LENGTH)
            fprintf(stderr, "(cut: %s)\n", request.max_tokens >= 0 && answer.n_tokens >= request.max_tokens
                                               ? "--max-tokens is reached" : "the context is full; /reset starts again");
    }
    bw_answer_free(&answer);
    return st;
}

/* Answers `text`. When that fails the message is taken back, and the chat goes on as it was. */
static void answer_message(chat *c, const char *text, size_t n)
{
    const bw_chat_loop_settings *s = c->settings;
    const size_t at = json_object_array_length(c->messages);
    turn t = { 0 };
    int32_t *ids = NULL;
    int n_ids;
    bw_error err = { 0 };
    json_object_array_add(c->messages, bw_chat_loop_message("user", text, n));
    bw_status st = bw_chat_loop_prompt(s->model, c->messages, s->think, true, &ids, &n_ids, &err);
    if (!st)
        st = bw_reply_create(&t.reply, s->think, take_part, &t, &err);
    if (!st)
        st = generate(c, &t, ids, n_ids, &err);
    if (st) {
        bw_terminal_fail("%s; the message is forgotten%s", err.message,
                         st == BW_E_LIMIT ? ", /reset starts again" : "");
        json_object_array_del_idx(c->messages, at, 1);
    } else {
        if (t.failed)
            bw_terminal_note("out of memory: the answer above is kept in part");
        keep_answer(c, &t);
    }
    bw_reply_destroy(t.reply);
    bw_buffer_free(&t.reasoning);
    bw_buffer_free(&t.content);
    bw_free(ids);
}

/* ---- commands -------------------------------------------------------------------------------- */

static const char help[] =
    "  /help           this\n"
    "  /reset          forget the conversation\n"
    "  /system TEXT    another system message, and start again; without TEXT: none\n"
    "  /quit           leave, like Ctrl-D\n"
    "A \\ at the end of a line continues the message on the next; pasted lines are one message.\n"
    "Ctrl-C ends an answer or empties the line.\n";

static void set_system(chat *c, const char *text)
{
    char *copy = *text ? strdup(text) : NULL;
    if (*text && !copy) {
        bw_terminal_fail("/system: out of memory");
        return;
    }
    free(c->system);
    c->system = copy;
    start_again(c);
}

/* Whether to go on after `line`, which begins with '/'. */
static bool obey(chat *c, const char *line)
{
    const size_t n = strcspn(line, " \t");
    const char *rest = line + n + strspn(line + n, " \t");
    if (n == 5 && memcmp(line, "/quit", n) == 0)
        return false;
    if (n == 5 && memcmp(line, "/exit", n) == 0)
        return false;
    if (n == 6 && memcmp(line, "/reset", n) == 0)
        start_again(c);
    else if (n == 7 && memcmp(line, "/system", n) == 0)
        set_system(c, rest);
    else {
        if (n != 5 || memcmp(line, "/help", n) != 0)
            fprintf(stderr, "%.*s is not a command\n", (int)n, line);
        fputs(help, stderr);
    }
    return true;
}

/* ---- the line -------------------------------------------------------------------------------- */

static char *prompt_text(EditLine *edit)
{
    static char fresh[] = "> ", more[] = ". ";
    chat *c;
    el_get(edit, EL_CLIENTDATA, &c);
    return c->clean ? fresh : more;
}

/* The terminal gives Ctrl-C and Ctrl-Z as characters while a line is edited (-isig). */
static unsigned char on_cancel(EditLine *edit, int key)
{
    (void)key;
    const LineInfo *line = el_line(edit);
    const int n = (int)(line->lastchar - line->buffer);
    fputs("^C\n", stderr);
    el_cursor(edit, (int)(line->lastchar - line->cursor));
    el_deletestr(edit, n);
    return CC_REDISPLAY;
}

static unsigned char on_suspend(EditLine *edit, int key)
{
    (void)key;
    el_set(edit, EL_PREP_TERM, 0);
    raise(SIGTSTP);
    el_set(edit, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
}

static bool open_line(chat *c)
{
    HistEvent event;
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8"); /* models write UTF-8, whatever a bare system is set to */
    c->edit = el_init("bellwether", stdin, stderr, stderr);
    c->history = history_init();
    if (!c->edit || !c->history)
        return false;
    history(c->history, &event, H_SETSIZE, 500);
    el_set(c->edit, EL_CLIENTDATA, c);
    el_set(c->edit, EL_PROMPT, prompt_text);
    el_set(c->edit, EL_EDITOR, "emacs");
    el_set(c->edit, EL_HIST, history, c->history);
    el_set(c->edit, EL_SETTY, "-d", "-isig", NULL);
    el_set(c->edit, EL_ADDFN, "bw-cancel", "empty the line", on_cancel);
    el_set(c->edit, EL_ADDFN, "bw-suspend", "stop the program", on_suspend);
    el_set(c->edit, EL_BIND, "^C", "bw-cancel", NULL);
    el_set(c->edit, EL_BIND, "^Z", "bw-suspend", NULL);
    el_set(c->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(c->edit, NULL); /* the user's ~/.editrc */
    return true;
}

static void close_line(chat *c)
{
    if (c->edit)
        el_end(c->edit);
    if (c->history)
        history_end(c->history);
}

/* More input is already there: the lines of a paste arrive together. */
static bool more_waits(void)
{
    struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
    return poll(&in, 1, 20) == 1 && in.revents & POLLIN;
}

/* One message, of several lines if they were pasted or end in \. False at the end of input. */
static bool read_message(chat *c, bw_buffer *message)
{
    HistEvent event;
    int n;
    bw_buffer_free(message);
    c->clean = true;
    for (;;) {
        const char *line = el_gets(c->edit, &n);
        if (!line || n <= 0)
            return message->n > 0;
        size_t length = (size_t)n;
        length -= line[length - 1] == '\n';
        const bool continued = length && line[length - 1] == '\\';
        if ((message->n && !bw_buffer_add(message, "\n", 1)) || !bw_buffer_add(message, line, length - continued)) {
            bw_terminal_fail("message: out of memory");
            return false;
        }
        if (length)
            history(c->history, &event, H_ENTER, line);
        /* A command is one line, whatever follows it. */
        if (!continued && (message->data[0] == '/' || !more_waits()))
            return true;
        c->clean = false;
    }
}

int bw_chat_loop_run(const bw_chat_loop_settings *settings, bw_receipt *receipt)
{
    chat c = { .settings = settings, .receipt = receipt };
    bw_buffer message = { 0 };
    int status = 0;
    if (settings->system && !(c.system = strdup(settings->system)))
        return bw_terminal_fail("--system: out of memory");
    if (!open_line(&c)) {
        status = bw_terminal_fail("cannot edit lines on this terminal");
        goto done;
    }
    start_again(&c);
    fprintf(stderr, "%s, %s. /help lists the commands, Ctrl-D leaves.\n", receipt->info->path,
            receipt->info->architecture);
    while (read_message(&c, &message)) {
        if (!message.data || !message.data[strspn(message.data, " \t\n")])
            continue;
        if (message.data[0] != '/')
            answer_message(&c, message.data, message.n);
        else if (!obey(&c, message.data))
            break;
    }
    fputc('\n', stderr);
    if (!bw_terminal_flush())
        status = 1;
done:
    close_line(&c);
    json_object_put(c.messages);
    free(c.system);
    bw_buffer_free(&message);
    return status;
}
