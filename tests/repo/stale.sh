#!/usr/bin/env bash
# The Makefile builds again what other flags or other files have made stale, and only that: tried
# on a library of two small files.
set -u
cd "$(dirname "$0")/../.." || exit 2
root=$PWD
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
unset MAKEFLAGS MAKELEVEL MAKEOVERRIDES BUILD CFLAGS OPT V
failed=0
mkdir -p "$dir/src/base" && cp Makefile "$dir" && cd "$dir" || exit 2
echo 'int one(void); int one(void) { return 1; }' >src/base/one.c
echo 'int two(void); int two(void) { return 2; }' >src/base/two.c
mkdir -p tools include src/format bench/shapes # what shapes are embedded with
cp "$root/tools/embed" tools && cp "$root/include/bellwether.h" include && cp "$root/src/format/shapes.h" src/format
cp "$root/src/base/status.h" src/base && echo '{"one": 1}' >bench/shapes/one.json
library=build/libbellwether.a
goal=lib

# builds NAME WANT ARGS: `make $goal ARGS` says that it makes WANT, the words of its lines sorted.
builds() {
    local got
    got=$(make --no-print-directory -j2 "$goal" "${@:3}" 2>&1 | grep -o '[^ /]*\.[aco]$' | sort | tr '\n' ' ')
    if [ "$got" = "$2" ]; then echo "ok $1"; else echo "not ok $1: built \"$got\", expected \"$2\""; failed=1; fi
}
builds a_new_tree_is_built 'libbellwether.a one.c shape_files.c shape_files.c two.c '
builds nothing_changed_builds_nothing ''
builds other_cflags_build_everything 'libbellwether.a one.c shape_files.c two.c ' CFLAGS="-DIT='\"s\"'"
builds the_same_cflags_build_nothing '' CFLAGS="-DIT='\"s\"'"
builds other_optimisation_builds_everything 'libbellwether.a one.c shape_files.c two.c ' OPT=-O1
sed -i 's/^VERSION := .*/VERSION := 9.9.9/' Makefile
builds another_version_builds_everything 'libbellwether.a one.c shape_files.c two.c ' OPT=-O1
echo 'int three(void); int three(void) { return 3; }' >src/base/three.c
builds a_new_file_builds_no_other 'libbellwether.a three.c ' OPT=-O1
rm src/base/two.c
builds a_removed_file_builds_the_archive 'libbellwether.a ' OPT=-O1
if [ "$(ar t $library | sort | tr '\n' ' ')" = 'one.o shape_files.o three.o ' ]; then
    echo 'ok a_removed_file_leaves_the_archive'
else
    echo "not ok a_removed_file_leaves_the_archive: it holds $(ar t $library | tr '\n' ' ')"
    failed=1
fi

echo '{"two": 2}' >bench/shapes/two.json
builds a_new_shape_is_built 'libbellwether.a shape_files.c shape_files.c ' OPT=-O1

# The web page is a source like any other, of the server.
goal=build/libserver.a
mkdir -p src/server/web
cp "$root"/src/server/{web,http}.h src/server
echo '<p>one' >src/server/web/index.html
builds a_page_is_built 'libserver.a web_files.c web_files.c ' OPT=-O1
builds the_same_page_builds_nothing '' OPT=-O1
sleep 0.01 && echo '<p>two' >src/server/web/index.html
builds a_changed_page_is_built_again 'libserver.a web_files.c web_files.c ' OPT=-O1
echo 'p {}' >src/server/web/style.css
builds a_new_file_of_the_page_is_built 'libserver.a web_files.c web_files.c ' OPT=-O1
if grep -qa '<p>two' build/web_files.o && ! grep -qa '<p>one' build/web_files.o; then
    echo 'ok the_page_in_the_server_is_the_last_one'
else
    echo 'not ok the_page_in_the_server_is_the_last_one'
    failed=1
fi
exit $failed
