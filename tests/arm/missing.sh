#!/bin/sh
# Stands for the tests of the ARM level where they cannot be built or run.
echo 'skip the_operations_at_the_neon_level: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static'
