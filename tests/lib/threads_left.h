/* threads_left.h - how many threads the test has, as the system lists them. */
#ifndef TESTS_LIB_THREADS_LEFT_H
#define TESTS_LIB_THREADS_LEFT_H

int threads_of_process(void); /* -1: not listed */
/* Waits until at most n are left, for the system may still list one that was joined; returns how many there are. */
int threads_left(int n);

#endif
