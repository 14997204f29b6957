/* The house of docs/architecture.md, kept by a test: arrows run downward only, never sideways; file
 * names are unique; nobody includes a .c file; run and eval are made of bellwether.h alone, serve of
 * that and server/serve.h, bench of that and bench/bench.h. The
 * checker itself is tested on made-up files. */
#include "lib/check.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A folder of src/ may include headers of a lower rank and its own. */
static const struct floor {
    const char *folder;
    int rank;
} house[] = {
    { "base", 1 },   { "format", 2 }, { "text", 2 },   { "vision", 2 }, { "ops", 2 },   { "model", 3 },
    { "cache", 4 },  { "engine", 5 }, { "server", 6 }, { "bench", 6 },  { "story", 6 }, { "cli", 7 },
};

static int rank_of(const char *folder)
{
    for (size_t i = 0; i < BW_COUNT(house); i++)
        if (strcmp(house[i].folder, folder) == 0)
            return house[i].rank;
    return 0;
}

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The first part of a path: "ops/cpu/dot.h" gives "ops"; "" when there is no slash. */
static void first_part(const char *path, char out[64])
{
    size_t n = strcspn(path, "/");
    snprintf(out, 64, "%.*s", path[n] == '/' ? (int)n : 0, path);
}

/* The files of src/cli that show what is inside a model; all others are made of bellwether.h. */
static bool looks_inside(const char *path)
{
    static const char *const files[] = { "src/cli/cmd_inspect.c", "src/cli/cmd_tokenize.c", "src/cli/findings.c",
                                         "src/cli/findings.h" };
    for (size_t i = 0; i < BW_COUNT(files); i++)
        if (strcmp(path, files[i]) == 0)
            return true;
    return false;
}

/* A <header> in brackets is the system's unless it begins with a folder of src/ or climbs. */
static bool is_ours(const char *header)
{
    char folder[64];
    first_part(header, folder);
    return rank_of(folder) != 0 || strcmp(header, "bellwether.h") == 0 || starts(header, "..");
}

/* Why `path` (from the root) may not include "header"; NULL: it may. */
static const char *objection(const char *path, const char *header)
{
    if (ends(header, ".c") || ends(header, ".cu"))
        return "includes a source file";
    if (strstr(header, ".."))
        return "climbs out of its folder";
    if (starts(path, "include/"))
        return "the installed header includes nothing of the project";
    if (!starts(path, "src/") || strcmp(header, "bellwether.h") == 0)
        return NULL;
    char own[64], other[64];
    first_part(path + 4, own);
    first_part(header, other);
    if (rank_of(own) == 0)
        return "stands in a folder the house does not know";
    if (strcmp(path, "src/cli/cmd_serve.c") == 0 && strcmp(header, "server/serve.h") == 0)
        return NULL; /* the one door of the server */
    if (strcmp(path, "src/cli/cmd_bench.c") == 0 && strcmp(header, "bench/bench.h") == 0)
        return NULL; /* and that of the benchmark */
    if (strcmp(own, "cli") == 0 && other[0] && strcmp(other, "cli") != 0 && !looks_inside(path))
        return "uses more than include/bellwether.h";
    if (other[0] == '\0') /* "x.h": beside the file itself */
        return NULL;
    if (rank_of(other) == 0)
        return "includes from outside src/";
    if (strcmp(header, "engine/simulate.h") == 0 && strcmp(own, "bench") != 0 && strcmp(path, "src/engine/simulate.c") != 0)
        return "simulates, which is for measurements alone";
    if (rank_of(other) > rank_of(own))
        return "includes a header above its own folder";
    if (rank_of(other) == rank_of(own) && strcmp(own, other) != 0)
        return "includes a header beside its own folder";
    static const char *const rooms[] = { "ops/cpu/", "ops/cuda/", "ops/coll/" };
    for (size_t i = 0; i < BW_COUNT(rooms); i++)
        for (size_t j = 0; j < BW_COUNT(rooms); j++)
            if (i != j && starts(path + 4, rooms[i]) && starts(header, rooms[j]))
                return "includes from another backend";
    return NULL;
}

/* Counts objectionable includes of one file's text; the last one found is described in `why`. */
static int bad_includes(const char *path, const char *text, char why[512])
{
    int n_bad = 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += strspn(line, "\n \t");
        if (*line != '#')
            continue;
        const char *p = line + 1 + strspn(line + 1, " \t");
        if (!starts(p, "include"))
            continue;
        p += 7 + strspn(p + 7, " \t");
        if (*p != '"' && *p != '<')
            continue;
        char header[256];
        const bool angled = *p == '<';
        snprintf(header, sizeof header, "%.*s", (int)strcspn(p + 1, angled ? ">\n" : "\"\n"), p + 1);
        const char *reason = angled && !is_ours(header) ? NULL : objection(path, header);
        if (reason) {
            snprintf(why, 512, "%s: #include %s: %s", path, header, reason);
            n_bad++;
        }
    }
    return n_bad;
}

typedef struct tree {
    char **paths;
    int n;
} tree;

static bool is_source(const char *name)
{
    return ends(name, ".c") || ends(name, ".h") || ends(name, ".cu") || ends(name, ".cuh");
}

static void collect(tree *t, const char *folder)
{
    DIR *dir = opendir(repo_path(folder));
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        struct stat st;
        if (stat(repo_path(path), &st) == 0 && S_ISDIR(st.st_mode)) {
            collect(t, path);
        } else if (is_source(e->d_name)) {
            t->paths = realloc(t->paths, (size_t)(t->n + 1) * sizeof *t->paths);
            char *copy = malloc(strlen(path) + 1);
            check(t->paths && copy);
            t->paths[t->n++] = strcpy(copy, path);
        }
    }
    if (dir)
        closedir(dir);
}

static tree whole_tree(void)
{
    tree t = { 0 };
    static const char *const folders[] = { "include", "src", "tests", "tools", "bench" };
    for (size_t i = 0; i < BW_COUNT(folders); i++)
        collect(&t, folders[i]);
    check_that(t.n > 20, "only %d source files found: not the repository's root?", t.n);
    return t;
}

static void free_tree(tree *t)
{
    for (int i = 0; i < t->n; i++)
        free(t->paths[i]);
    free(t->paths);
}

/* Two paths with one file name, or NULL, NULL. */
static void find_twins(const tree *t, const char **a, const char **b)
{
    *a = *b = NULL;
    for (int i = 0; i < t->n; i++)
        for (int j = i + 1; j < t->n; j++)
            if (strcmp(base_name(t->paths[i]), base_name(t->paths[j])) == 0) {
                *a = t->paths[i];
                *b = t->paths[j];
            }
}

TEST(made_up_wrong_includes_are_found)
{
    static const char *const wrong[][2] = {
        { "src/base/mem.c", "#include \"model/config.h\"\n" },                   /* upward */
        { "src/model/forward.c", "int x;\n #  include \"cache/pages.h\"\n" },     /* upward by one */
        { "src/ops/ops.c", "#include \"engine/step.h\"" },                        /* no newline at the end */
        { "src/text/bpe.c", "#include \"base/mem.h\"\n#include \"format/json.h\"\n" }, /* sideways */
        { "src/server/http.c", "#include \"story/plot.h\"\n" },                  /* sideways, high up */
        { "src/ops/cpu/dot_avx2.c", "#include \"ops/cuda/tile.cuh\"\n" },        /* another backend */
        { "src/cli/cmd_run.c", "#include \"engine/step.h\"\n" },                 /* more than the library */
        { "src/cli/cmd_eval.c", "#include \"base/mem.h\"\n" },
        { "src/cli/receipt.c", "#include \"base/mem.h\"\n" },                  /* a part of run and eval */
        { "src/cli/chat_loop.c", "#include <text/chat.h>\n" },
        { "src/cli/cmd_run.c", "#include \"server/serve.h\"\n" },                /* the door is cmd_serve's alone */
        { "src/cli/cmd_serve.c", "#include \"server/server.h\"\n" },             /* and there is no other */
        { "src/cli/cmd_bench.c", "#include \"bench/crew.h\"\n" },
        { "src/cli/cmd_serve.c", "#include \"bench/bench.h\"\n" },
        { "src/bench/bench.c", "#include \"server/serve.h\"\n" },
        { "src/cli/main.c", "#include \"../engine/step.h\"\n" },
        { "src/base/mem.c", "#include <engine/engine.h>\n" },                   /* the same in brackets */
        { "src/base/mem.c", "# include\t<../engine/engine.h>\n" },
        { "src/model/forward.c", "#include \"lib/check.h\"\n" },                 /* tests are not a library */
        { "src/server/generation.c", "#include \"engine/simulate.h\"\n" },      /* nothing simulated is served */
        { "src/engine/step.c", "#include \"engine/simulate.h\"\n" },
        { "src/attic/old.c", "#include \"base/mem.h\"\n" },
        { "include/bellwether.h", "#include \"base/status.h\"\n" },
        { "tests/unit/test_base.c", "#include \"base/mem.c\"\n" },
        { "tests/ops/test_ops.c", "#include \"ops/cuda/matmul_cuda.cu\"\n" },
    };
    char why[512];
    for (size_t i = 0; i < BW_COUNT(wrong); i++)
        check_that(bad_includes(wrong[i][0], wrong[i][1], why) == 1, "not found: %s in %s", wrong[i][1], wrong[i][0]);
    check_int(bad_includes("src/base/a.c", "#include \"text/b.h\"\nint x;\n#include \"cli/c.h\"\n", why), 2);
    check_str(why, "src/base/a.c: #include cli/c.h: includes a header above its own folder");
}

TEST(made_up_right_includes_pass)
{
    static const char *const right[][2] = {
        { "src/base/mem.c", "#include \"base/status.h\"\n#include <stdio.h>\n#include \"bellwether.h\"\n" },
        { "src/model/forward.c", "#include \"ops/ops.h\"\n#include \"format/checkpoint.h\"\n#include \"config.h\"\n" },
        { "src/ops/cpu/dot_avx2.c", "#include \"ops/cpu/dot.h\"\n#include \"ops/ops.h\"\n#include \"base/half.h\"\n" },
        { "src/ops/ops.c", "#include \"ops/cpu/cpu_table.h\"\n" },
        { "src/bench/workload.c", "#include \"engine/simulate.h\"\n" },
        { "src/cli/cmd_inspect.c", "#include \"model/weights.h\"\n#include \"text/chat.h\"\n" },
        { "src/cli/cmd_tokenize.c", "#include \"text/bytes.h\"\n#include <sys/stat.h>\n" },
        { "src/cli/findings.h", "#include \"model/config.h\"\n#include <bellwether.h>\n" },
        { "src/cli/cmd_serve.c", "#include \"bellwether.h\"\n#include \"server/serve.h\"\n" },
        { "src/cli/cmd_bench.c", "#include \"bellwether.h\"\n#include \"bench/bench.h\"\n" },
        { "src/bench/crew.c", "#include \"engine/engine.h\"\n#include \"ops/cpu/cpu.h\"\n" },
        { "src/cli/cmd_run.c", "#include \"bellwether.h\"\n#include \"cli/options.h\"\n#include \"receipt.h\"\n" },
        { "src/engine/step.c", "/* see \"cli/main.h\" */\n#define include \"cli/main.h\"\n" },
        { "tests/unit/test_base.c", "#include \"lib/check.h\"\n#include \"engine/step.h\"\n" },
    };
    char why[512] = "";
    for (size_t i = 0; i < BW_COUNT(right); i++)
        check_that(bad_includes(right[i][0], right[i][1], why) == 0, "%s", why);
}

TEST(no_file_includes_a_header_above_or_beside_its_folder)
{
    tree t = whole_tree();
    int n_bad = 0;
    char why[512];
    for (int i = 0; i < t.n; i++) {
        size_t n;
        char *text = read_file(repo_path(t.paths[i]), &n);
        int bad = bad_includes(t.paths[i], text, why);
        if (bad)
            printf("%s\n", why);
        n_bad += bad;
        free(text);
    }
    free_tree(&t);
    check_int(n_bad, 0);
}

TEST(file_names_are_unique_in_the_tree)
{
    char *made_up[] = { "src/base/log.c", "src/base/log.h", "src/model/config.h", "src/text/config.h" };
    const char *a, *b;
    find_twins(&(tree){ made_up, 4 }, &a, &b);
    check_str(a, "src/model/config.h");
    check_str(b, "src/text/config.h");
    find_twins(&(tree){ made_up, 3 }, &a, &b);
    check(a == NULL && b == NULL);

    tree t = whole_tree();
    find_twins(&t, &a, &b);
    check_that(a == NULL, "%s and %s have one name: a backtrace would point at both", a, b);
    free_tree(&t);
}

TESTS_MAIN(ENTRY(made_up_wrong_includes_are_found), ENTRY(made_up_right_includes_pass),
           ENTRY(no_file_includes_a_header_above_or_beside_its_folder), ENTRY(file_names_are_unique_in_the_tree))
