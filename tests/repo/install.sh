#!/usr/bin/env bash
# What `make install` leaves is enough to build and run a program, shared and static.
set -u
cd "$(dirname "$0")/../.." || exit 2
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
root=$PWD

if ! env -u MAKEFLAGS -u MAKELEVEL make --no-print-directory install PREFIX=/opt/bellwether DESTDIR="$dir" >"$dir/log" 2>&1; then
    echo "not ok make_install_works: $(tail -n 1 "$dir/log")"
    exit 1
fi
prefix=$dir/opt/bellwether
missing=
for file in bin/bellwether include/bellwether.h lib/libbellwether.a lib/libbellwether.so lib/libbellwether.so.0 lib/pkgconfig/bellwether.pc; do
    [ -e "$prefix/$file" ] || missing="$missing $file"
done
[ -z "$missing" ] && echo "ok make_install_works" || echo "not ok make_install_works: missing$missing"

cat >"$dir/hello.c" <<'C'
#include <bellwether.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    bw_error err;
    bw_model *model;
    bw_engine *engine;
    bw_seq_id id;
    int32_t *ids;
    int n_ids, n_tokens = 0;
    if (argc < 2 || bw_model_open(&model, argv[1], NULL, &err) ||
        bw_encode(model, "Once upon a time", 16, false, &ids, &n_ids, &err) ||
        bw_engine_create(&engine, model, NULL, &err))
        return fprintf(stderr, "%s\n", err.message), 1;
    bw_request request = bw_request_defaults(model);
    request.prompt = ids;
    request.n_prompt = n_ids;
    request.max_tokens = 20;
    request.sampling.temperature = 0;
    if (bw_engine_submit(engine, &request, &id, &err))
        return fprintf(stderr, "%s\n", err.message), 1;
    while (!bw_engine_idle(engine)) {
        if (bw_engine_step(engine, &err))
            return fprintf(stderr, "%s\n", err.message), 1;
        for (bw_event event; bw_engine_event(engine, &event);) {
            for (int i = 0; i < event.n_tokens; i++)
                printf("%d ", (int)event.tokens[i]);
            n_tokens += event.n_tokens;
        }
    }
    bw_free(ids);
    bw_engine_destroy(engine);
    bw_model_close(model);
    printf("%s %d\n", bw_version(), n_tokens);
    return 0;
}
C

export PKG_CONFIG_PATH=$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=
flags() { pkg-config --define-variable=prefix="$prefix" --define-variable=libdir="$prefix/lib" \
    --define-variable=includedir="$prefix/include" "$@" bellwether; }

build_and_run() { # name, then compiler arguments
    local name=$1 out
    shift
    if ! gcc -std=c17 -Wall -Werror "$dir/hello.c" -o "$dir/$name" "$@" 2>"$dir/log"; then
        echo "not ok $name: $(head -n 3 "$dir/log" | tr '\n' ' ')"
    elif ! out=$(LD_LIBRARY_PATH=$prefix/lib "$dir/$name" "$root/models/lamb" 2>&1); then
        echo "not ok $name: $out"
    elif [[ $out != *" 0.1.0 20" ]]; then
        echo "not ok $name: it printed '$out', not 20 tokens"
    else
        echo "ok $name"
    fi
}
# shellcheck disable=SC2046
build_and_run a_program_links_the_shared_library $(flags --cflags --libs)
# shellcheck disable=SC2046
build_and_run a_program_links_the_static_library $(flags --cflags) "$prefix/lib/libbellwether.a" \
    $(flags --static --libs | sed 's/-lbellwether//')

# Every function of the header is exported, and nothing but those.
nm -D --defined-only "$prefix/lib/libbellwether.so" | awk '$2 == "T" { print $3 }' | sort >"$dir/exported"
sed -n 's/^[a-z].*[ *]\(bw_[a-z0-9_]*\)(.*$/\1/p' include/bellwether.h | sort -u >"$dir/declared"
difference=$(comm -3 "$dir/exported" "$dir/declared" | tr -s '\n\t' '  ')
if [ -n "$difference" ] || [ ! -s "$dir/declared" ]; then
    echo "not ok the_shared_library_exports_the_header: $difference"
else
    echo "ok the_shared_library_exports_the_header"
fi

# Who embeds the library gets no sockets: the server is the program's.
needed=$(readelf -d "$prefix/lib/libbellwether.so" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep event)
if [ -n "$needed" ] || nm "$prefix/lib/libbellwether.a" 2>/dev/null | grep -q bw_http; then
    echo "not ok the_library_is_without_the_server: ${needed:-bw_http is in the archive}"
else
    echo "ok the_library_is_without_the_server"
fi
