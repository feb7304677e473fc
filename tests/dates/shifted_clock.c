/* Shifts what the clock says by SHIFT_S seconds, in this process and in all it starts; run.sh builds it.
 *
 * libfaketime will not do: it also moves the deadlines of sleeps and waits, and with Python 3.11 and a current glibc
 * `time.sleep` fails under it, or `Event.wait(timeout)` never returns.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t shift;
static char preload[4096], seconds[64], python[4096], proxy[4096]; /* a test may clear the environment */

__attribute__((constructor)) static void begin(void) {
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", getenv("LD_PRELOAD"));
    snprintf(seconds, sizeof seconds, "SHIFT_S=%s", getenv("SHIFT_S"));
    snprintf(python, sizeof python, "SHIFT_PYTHON=%s", getenv("SHIFT_PYTHON"));
    snprintf(proxy, sizeof proxy, "SHIFT_PROXY=%s", getenv("SHIFT_PROXY"));
    shift = (time_t)atoll(strchr(seconds, '=') + 1);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    if (!failed) *now = (struct timeval){exact.tv_sec, exact.tv_nsec / 1000};
    return failed;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}

/* Its deadline is one of the clock; what waits by the steady clock needs no help. */
int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    int (*real)(sem_t *, const struct timespec *) = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec moved = {until->tv_sec - shift, until->tv_nsec};
    return real(semaphore, &moved);
}

/* Hand the shift on, whatever environment is given. rclone, in Go, cannot be shifted: rclone.py stands before it. */
int execve(const char *path, char *const arguments[], char *const environment[]) {
    int (*real)(const char *, char *const[], char *const[]) = dlsym(RTLD_NEXT, "execve");
    char *kept[1024], *called[256]; /* copies: after vfork() the memory is the parent's */
    int n = 0, m = 0;
    kept[n++] = preload, kept[n++] = seconds, kept[n++] = python, kept[n++] = proxy;
    for (char *const *one = environment; one && *one && n < 1023; one++)
        if (strncmp(*one, "LD_PRELOAD=", 11) && strncmp(*one, "SHIFT_", 6)) kept[n++] = *one;
    kept[n] = NULL;
    const char *name = strrchr(path, '/');
    if (!name || strcmp(name, "/rclone")) return real(path, arguments, kept);
    called[m++] = strchr(python, '=') + 1, called[m++] = strchr(proxy, '=') + 1, called[m++] = (char *)path;
    for (char *const *one = arguments + 1; *one && m < 255; one++) called[m++] = *one;
    called[m] = NULL;
    return real(called[0], called, kept);
}

/* What Python calls when it is given no environment. */
int execv(const char *path, char *const arguments[]) { return execve(path, arguments, environ); }
