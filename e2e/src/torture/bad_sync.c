/* Preloaded into a node: makes every sync of a file slow, or fail, while the control page says so, and counts those. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* The test sets the first two, this counts the others. */
static volatile struct { uint64_t delay_ms, fails, delayed, failed; } *page;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BAD_SYNC_CONTROL");
    int fd = path ? open(path, O_RDWR) : -1;
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) page = mapped;
}

static int synced(const char *name, int fd) {
    uint64_t delay = page ? page->delay_ms : 0;
    if (delay) {
        struct timespec pause = {delay / 1000, delay % 1000 * 1000000};
        nanosleep(&pause, NULL);
        __atomic_fetch_add(&page->delayed, 1, __ATOMIC_RELAXED);
    }
    if (page && page->fails) {
        __atomic_fetch_add(&page->failed, 1, __ATOMIC_RELAXED);
        errno = EIO;
        return -1;
    }
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return sync(fd);
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }
