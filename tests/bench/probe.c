// SPDX-License-Identifier: Apache-2.0
// The job of the benchmark. Argument: SOCKET:INDEX or SOCKET:INDEX:LINES:CHUNK.
// It reads the clock as the first thing it does, tells the harness through a Unix datagram and waits
// for its end; with LINES it first writes that many lines of 100 bytes to stdout, CHUNK bytes a write
// (0: one write per line), and tells the harness when the last one was accepted.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct report {
    uint64_t ns;
    int32_t index, pid, kind;  // kind 1: first instruction, 2: last line written
};

static struct sockaddr_un address = {.sun_family = AF_UNIX};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void tell(uint64_t ns, int index, int kind) {
    struct report report = {ns, index, getpid(), kind};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sendto(fd, &report, sizeof report, 0, (struct sockaddr *)&address, sizeof address);
    close(fd);
}

static void fill(long lines, long chunk) {
    static char text[4096 * 25];  // 1024 lines: a whole number of lines and of 4 kB blocks
    for (size_t i = 0; i < sizeof text; i++) text[i] = (i % 100 == 99) ? '\n' : (char)('a' + i % 26);
    size_t left = (size_t)lines * 100, at = 0, block = chunk > 0 ? (size_t)chunk : 100;
    while (left > 0) {
        size_t want = block < left ? block : left;
        if (want > sizeof text - at) want = sizeof text - at;
        ssize_t n = write(1, text + at, want);
        if (n <= 0) _exit(1);
        left -= (size_t)n;
        at = (at + (size_t)n) % sizeof text;
    }
}

int main(int argc, char **argv) {
    uint64_t start = now();
    if (argc < 2) return 2;
    char *path = strtok(argv[1], ":"), *word = strtok(NULL, ":");
    if (!path || !word || strlen(path) >= sizeof address.sun_path) return 2;
    int index = atoi(word);
    strcpy(address.sun_path, path);
    tell(start, index, 1);
    char *lines = strtok(NULL, ":"), *chunk = strtok(NULL, ":");
    if (lines && chunk) {
        fill(atol(lines), atol(chunk));
        tell(now(), index, 2);
    }
    for (;;) pause();
}
