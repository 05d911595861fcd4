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

enum { OMP, MALLOC, COUNT };

// Idle OpenMP threads sleep rather than spin: two processes that spin halve each other's speed.
static char *const PASSIVE = "OMP_WAIT_POLICY=PASSIVE";
// Model threads take turns with the same large tensors; with an arena each, all of them keep their largest. What is freed of
// logits over a vocabulary, 25 MB at a time, is not given back at once: it is wanted again at once. A piece of that may become
// a tensor of a 256th of its size; by default of a 64th, and what was freed of a vocabulary's weights, 113 MB, then lay idle
// beside a step's tensors of 1 MB.
#define ONE_ARENA "MALLOC_CONF=narenas:1,oversize_threshold:0,lg_extent_max_active_fit:8"
// A server or a client waits most of the time, and gives back what it does not use.
static char *const GIVEN_BACK = ONE_ARENA;
// Who trains all the time keeps it for the next step: a page that comes back has to be cleared first, which took a tenth of a
// step.
static char *const KEPT = ONE_ARENA ",dirty_decay_ms:-1";

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

// Whether the command is one of those that wait for others.
static int waits(int arguments, char *const argv[]) {
    for (int i = 1; i < arguments; i++) {
        if (strcmp(argv[i], "server") == 0 || strcmp(argv[i], "client") == 0) return 1;
    }
    return 0;
}

// Called by the dynamic linker before it starts any library. Where it cannot be done, the program runs on as it is.
static void settle(int arguments, char *argv[], char *environment[]) {
    if (is_set(environment, SETTLED)) return;
    char *const wanted[COUNT] = {[OMP] = PASSIVE, [MALLOC] = waits(arguments, argv) ? GIVEN_BACK : KEPT};
    size_t set = 0;
    while (environment[set] != NULL) set++;
    char *settled[set + COUNT + 2];
    memcpy(settled, environment, set * sizeof *settled);
    size_t all = set;
    for (size_t i = 0; i < COUNT; i++) {
        if (!is_set(environment, wanted[i])) settled[all++] = wanted[i];
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
