/* Stands in for NVIDIA's libnvidia-ml.so.1: a real shared object with NVML's functions, and a host of a test's own.
 *
 * The host is read anew at every nvmlInit from the file CARDS (given when this is compiled), a line for each GPU:
 *     uuid total free bus signs name          signs: "-", or letters: l lost, f row remapping failed, e ECC error, m MIG
 * and below a GPU in MIG mode a line for each instance, beginning with its number and a colon:
 *     2: uuid total free name
 * Who computes on a GPU is in the folder CARDS.d/uuid: a file for each process, named by its pid, that holds the bytes.
 * A process that has ended is on no GPU any more. While there is a file CARDS.hangs no look comes back.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
enum { MOST_CARDS = 16, MOST_PROCESSES = 64 };

typedef struct {
    char uuid[96], bus[32], signs[16], name[96];
    unsigned long long total, free;
    int number; /* of an instance: its number; -1: a GPU */
} Card;

static Card cards[MOST_CARDS];
static int count;

static Card *gpu(unsigned index) {
    for (int at = 0; at < count; at++)
        if (cards[at].number < 0 && index-- == 0) return &cards[at];
    return NULL;
}

static int has(const Card *card, char sign) { return strchr(card->signs, sign) != NULL; }

int nvmlInitWithFlags(unsigned flags) {
    char line[512];
    FILE *file;
    while (access(CARDS ".hangs", F_OK) == 0) usleep(20000);
    file = fopen(CARDS, "r");
    (void)flags;
    count = 0;
    while (file && count < MOST_CARDS && fgets(line, sizeof line, file)) {
        Card *one = &cards[count];
        memset(one, 0, sizeof *one);
        one->number = -1;
        if (sscanf(line, "%d: %95s %llu %llu %95[^\n]", &one->number, one->uuid, &one->total, &one->free, one->name) == 5)
            count++;
        else if (sscanf(line, "%95s %llu %llu %31s %15s %95[^\n]", one->uuid, &one->total, &one->free, one->bus,
                        one->signs, one->name) == 6) {
            one->number = -1;
            count++;
        }
    }
    if (file) fclose(file);
    return OK;
}

int nvmlInit(void) { return nvmlInitWithFlags(0); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "an error"; }

int nvmlDeviceGetCount_v2(unsigned *found) {
    for (*found = 0; gpu(*found); ++*found);
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Card **handle) {
    *handle = gpu(index);
    if (!*handle) return INVALID;
    return has(*handle, 'l') ? LOST : OK;
}

static int text(char *into, unsigned length, const char *value) {
    if (strlen(value) >= length) return TOO_SMALL;
    strcpy(into, value);
    return OK;
}

int nvmlDeviceGetUUID(Card *card, char *into, unsigned length) { return text(into, length, card->uuid); }
int nvmlDeviceGetName(Card *card, char *into, unsigned length) { return text(into, length, card->name); }

/* --- who computes there --- */

typedef struct {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
} Process;

static int lives(int pid) {
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 'Z';
    fclose(file);
    return state != 'Z' && state != 'X';
}

static unsigned processes(const Card *card, Process *found, unsigned room) {
    char path[4096];
    unsigned seen = 0;
    snprintf(path, sizeof path, "%s.d/%s", CARDS, card->uuid);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder)) && seen < room;) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || !lives(pid)) continue;
        snprintf(path, sizeof path, "%s.d/%s/%d", CARDS, card->uuid, pid);
        FILE *file = fopen(path, "r");
        Process one = {(unsigned)pid, 0, 0, 0};
        if (file && fscanf(file, "%llu", &one.memory) == 1) found[seen++] = one;
        if (file) fclose(file);
    }
    if (folder) closedir(folder);
    return seen;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Card *card, unsigned *room, Process *into) {
    Process found[MOST_PROCESSES];
    unsigned seen = processes(card, found, MOST_PROCESSES), had = *room;
    *room = seen;
    if (seen > had) return TOO_SMALL;
    if (into) memcpy(into, found, seen * sizeof *found);
    return OK;
}

int nvmlDeviceGetMemoryInfo(Card *card, unsigned long long *total_free_used) {
    Process found[MOST_PROCESSES];
    unsigned long long taken = 0;
    for (unsigned left = processes(card, found, MOST_PROCESSES); left > 0;) taken += found[--left].memory;
    total_free_used[0] = card->total;
    total_free_used[1] = taken < card->free ? card->free - taken : 0;
    total_free_used[2] = total_free_used[0] - total_free_used[1];
    return OK;
}

/* --- where it is, and how it is --- */

typedef struct {
    char old_bus[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_text[32];
} Place;

int nvmlDeviceGetPciInfo_v3(Card *card, Place *place) {
    memset(place, 0, sizeof *place);
    return text(place->bus_text, sizeof place->bus_text, card->bus);
}

int nvmlDeviceGetMigMode(Card *card, unsigned *now, unsigned *next) {
    if (card->number >= 0) return NOT_SUPPORTED;
    *now = *next = has(card, 'm');
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(Card *card, unsigned *most) {
    (void)card;
    *most = 7;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Card *card, unsigned number, Card **handle) {
    for (Card *part = card + 1; part < cards + count && part->number >= 0; part++)
        if ((unsigned)part->number == number) {
            *handle = part;
            return OK;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetTotalEccErrors(Card *card, int kind, int counter, unsigned long long *errors) {
    *errors = has(card, 'e') && kind == 1 && counter == 0;
    return OK;
}

int nvmlDeviceGetRemappedRows(Card *card, unsigned *right, unsigned *wrong, unsigned *pending, unsigned *failed) {
    *right = *wrong = *pending = 0;
    *failed = has(card, 'f');
    return OK;
}

int nvmlDeviceGetRetiredPagesPendingStatus(Card *card, unsigned *pending) {
    (void)card, (void)pending;
    return NOT_SUPPORTED;
}
