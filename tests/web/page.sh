#!/usr/bin/env bash
# The web page in a real browser: first against a mock of the server, then against the server itself.
# Screenshots: BW_WEB_SHOTS=DIR keeps them there.
set -u
cd "$(dirname "$0")/../.." || exit 2

skip_all() {
    echo "skip the_web_page_in_chromium: $1"
    exit 0
}
for tool in node npm chromium; do
    command -v $tool >/dev/null || skip_all "there is no $tool here"
done

# The driver is kept between runs.
driver=build/web-test
mkdir -p $driver
if [ ! -d $driver/node_modules/playwright-core ]; then
    npm install --prefix $driver --no-audit --no-fund --ignore-scripts playwright-core@1.65.1 >$driver/npm.log 2>&1 ||
        skip_all "playwright-core cannot be had from npm: $(grep -m 1 'npm error' $driver/npm.log)"
fi
export BW_WEB_DRIVER=$PWD/$driver/
BW_WEB_CHROMIUM=$(command -v chromium)
export BW_WEB_CHROMIUM

node tests/web/page_test.mjs || failed=1

# The server itself, with the small model of this repository and a key.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if ! ./bellwether serve --help >/dev/null 2>&1; then
    echo "skip the_page_of_the_server: this bellwether cannot serve"
    exit ${failed:-0}
fi
export BW_WEB_KEY=sesame
./bellwether serve models/lamb --port 0 --threads 1 --api-key $BW_WEB_KEY >"$dir/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$dir"' EXIT
for _ in $(seq 100); do
    url=$(grep -om 1 'http://[0-9.:]*/' "$dir/log") && break
    kill -0 $server 2>/dev/null || break
    sleep 0.1
done
if [ -z "$url" ]; then
    echo "not ok the_page_of_the_server: $(tail -n 1 "$dir/log")"
    exit 1
fi
node tests/web/page_test.mjs "$url" || failed=1
exit ${failed:-0}
