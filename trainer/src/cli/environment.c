// What must be in the environment before libtorch starts; set by starting this program once more.
// Must not change what a user has set.
//
// In C, because libgomp and the allocator read it when they load, which is before any Rust runs. In Rust, in main, it was
// too late as well: libtorch had then started for nothing, which takes a quarter of a second.

#ifdef __linux__

#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static char *const WANTED[] = {
    // Idle OpenMP threads sleep rather than spin: two processes that spin halve each other's speed.
    "OMP_WAIT_POLICY=PASSIVE",
    // Model threads take turns with the same large tensors; with an arena each, all of them keep their largest. What is
    // freed of logits over a vocabulary, 25 MB at a time, is not given back at once: it is wanted again at once.
    "MALLOC_CONF=narenas:1,oversize_threshold:0",
};

enum { COUNT = sizeof WANTED / sizeof *WANTED };

// Says that the environment is settled, so that a program never starts itself for ever.
static char SETTLED[] = "FEDTUNE_ENVIRONMENT_SETTLED=1";

// Whether a variable of the name in this "NAME=value" is set.
static int is_set(char *const environment[], const char *entry) {
    size_t name = (size_t)(strchr(entry, '=') - entry) + 1;
    for (; *environment != NULL; environment++) {
        if (strncmp(*environment, entry, name) == 0) return 1;
    }
    return 0;
}

// Called by the dynamic linker before it starts any library. Where it cannot be done, the program runs on as it is.
static void settle(int arguments, char *argv[], char *environment[]) {
    (void)arguments;
    if (is_set(environment, SETTLED)) return;
    size_t set = 0;
    while (environment[set] != NULL) set++;
    char *settled[set + COUNT + 2];
    memcpy(settled, environment, set * sizeof *settled);
    size_t all = set;
    for (size_t i = 0; i < COUNT; i++) {
        if (!is_set(environment, WANTED[i])) settled[all++] = WANTED[i];
    }
    if (all == set) return;
    settled[all++] = SETTLED;
    settled[all] = NULL;
    // Its path and not /proc/self/exe: what is started by that is called "exe" by ps.
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = '\0';
    execve(path, argv, settled);
}

__attribute__((section(".preinit_array"), used)) static void (*const BEFORE_LIBRARIES)(int, char *[], char *[]) = settle;

#endif
