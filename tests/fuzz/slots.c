/* slots.h against arrays with linear search. */
#include "fuzz.h"
#include "slots.h"

enum { ENDS = 3, MOST = 64 };

typedef struct {
    int64_t hash;
    uint32_t prev, next, more;
} record;

typedef struct {
    uint32_t slots[MOST + ENDS];
    uint32_t count;
} row;

static hg_table table;
static record *records;
static uint32_t capacity, used, free_slot;
static row lists[ENDS], freed;

#define STRIDE sizeof(record)

static void insert(row *into, uint32_t at, uint32_t slot)
{
    memmove(into->slots + at + 1, into->slots + at, (into->count - at) * sizeof(uint32_t));
    into->slots[at] = slot;
    into->count++;
}

static void removed(row *from, uint32_t at)
{
    from->count--;
    memmove(from->slots + at, from->slots + at + 1, (from->count - at) * sizeof(uint32_t));
}

static uint32_t live(void)
{
    return lists[0].count + lists[1].count + lists[2].count;
}

/* Returns the list of the live slot with this number, and sets the number to the index in that list. */
static row *list_of(uint32_t *number)
{
    row *list = lists;
    for (*number %= live(); *number >= list->count; list++)
        *number -= list->count;
    return list;
}

static uint32_t index_of(const row *list)
{
    return (uint32_t)(list - lists);
}

static int64_t some_hash(fuzz_input *input)
{
    uint64_t kind = fuzz_take(input, 1);
    return kind < 192 ? (int64_t)(kind % 24) : (int64_t)fuzz_take(input, 8);
}

static void rebuild(uint32_t slots, uint64_t least)
{
    uint64_t size = hg_table_size(least > slots ? least : slots + 1), version = table.version;
    records = realloc(records, (slots + ENDS) * STRIDE);
    CHECK(records != NULL);
    CHECK(size >= least && size > slots && (size & (size - 1)) == 0);
    hg_table_adopt(&table, hg_table_allocate(size), size);
    capacity = slots;
    for (int end = 0; end < ENDS; end++)
        for (uint32_t i = 0; i < lists[end].count; i++)
            hg_table_enter(&table, records[lists[end].slots[i]].hash, lists[end].slots[i]);
    CHECK(table.version > version);
}

static void check_hash(int64_t hash)
{
    uint8_t found[MOST + ENDS] = {0};
    uint32_t at = hg_table_probe(&table, records, STRIDE, hash, hg_table_home(&table, hash));
    for (; table.cells[at] != 0; at = hg_table_probe(&table, records, STRIDE, hash, hg_table_next(&table, at)))
        CHECK(found[table.cells[at]]++ == 0);
    for (uint32_t end = 0; end < ENDS; end++)
        for (uint32_t i = 0; i < lists[end].count; i++)
            CHECK(found[lists[end].slots[i]] == (records[lists[end].slots[i]].hash == hash));
}

static void check(void)
{
    uint64_t probes = 0;
    uint32_t slot = free_slot;
    for (uint32_t end = 0; end < ENDS; end++) {
        uint32_t prev = end;
        for (uint32_t i = 0; i < lists[end].count; i++) {
            slot = lists[end].slots[i];
            CHECK(records[prev].next == slot && records[slot].prev == prev);
            CHECK(hg_table_has(&table, records[slot].hash, slot));
            probes += 1 + ((hg_table_cell(&table, records[slot].hash, slot)
                            - hg_table_home(&table, records[slot].hash)) & table.mask);
            check_hash(records[slot].hash);
            prev = slot;
        }
        CHECK(records[prev].next == end && records[end].prev == prev);
    }
    CHECK(hg_table_filled(&table) == live());
    CHECK(hg_table_probes(&table, records, STRIDE) == probes);
    slot = free_slot;
    for (uint32_t i = freed.count; i > 0; i--) {
        CHECK(slot == freed.slots[i - 1] && !hg_table_has(&table, records[slot].hash, slot));
        slot = records[slot].next;
    }
    CHECK(slot == 0);
}

static void begin(void)
{
    static const char seed[16] = "headgate's fuzz";
    hg_seed_secrets(seed);
    hg_secrets.drawn = 0;
    memset(lists, 0, sizeof lists);
    freed.count = 0;
    used = ENDS - 1;
    free_slot = 0;
    if (table.cells == NULL)
        table.cells = hg_table_allocate(1);
    CHECK(table.cells != NULL);
    hg_table_shrink(&table);
    rebuild(0, 0);
    for (uint32_t end = 0; end < ENDS; end++)
        records[end].prev = records[end].next = end;
}

static void add(fuzz_input *input)
{
    row *list = lists + fuzz_take(input, 1) % ENDS;
    uint32_t slot;
    if (free_slot == 0 && used == capacity + ENDS - 1) {
        if (capacity == MOST)
            return;
        rebuild(capacity == 0 ? 8 : 2 * capacity, fuzz_take(input, 1));
    }
    slot = hg_chain_pop(records, STRIDE, &free_slot);
    CHECK(slot == (freed.count > 0 ? freed.slots[freed.count - 1] : 0));
    if (slot == 0)
        slot = ++used;
    else
        freed.count--;
    records[slot].hash = some_hash(input);
    hg_table_enter(&table, records[slot].hash, slot);
    hg_list_append(records, STRIDE, index_of(list), slot);
    insert(list, list->count, slot);
}

/* A new key takes the slot of a victim, as in a cache: it is entered before the victim is removed. */
static void replace(row *list, uint32_t at, int64_t hash)
{
    uint32_t slot = list->slots[at], hole = hg_table_cell(&table, records[slot].hash, slot);
    uint32_t vacant = hg_table_home(&table, hash);
    uint64_t version = table.version;
    while (table.cells[vacant] != 0)
        vacant = hg_table_probe(&table, records, STRIDE, hash, hg_table_next(&table, vacant));
    records[slot].hash = hash;
    hg_table_set(&table, vacant, slot);
    hg_table_empty(&table, records, STRIDE, hole);
    CHECK(table.version > version);
}

static void drop(row *list, uint32_t at)
{
    uint32_t slot = list->slots[at];
    uint64_t version = table.version;
    hg_table_leave(&table, records, STRIDE, slot);
    hg_list_remove(records, STRIDE, slot);
    hg_chain_push(records, STRIDE, &free_slot, slot);
    removed(list, at);
    insert(&freed, freed.count, slot);
    CHECK(table.version > version);
}

/* Moves a live slot to the end of a list, or behind another slot. */
static void move(row *from, uint32_t at, row *into, uint32_t place)
{
    uint32_t slot = from->slots[at];
    hg_list_remove(records, STRIDE, slot);
    removed(from, at);
    if (place < into->count) {
        uint32_t prev = into->slots[place];
        hg_list_insert(records, STRIDE, prev, slot, records[prev].next);
        insert(into, place + 1, slot);
    } else {
        hg_list_append(records, STRIDE, index_of(into), slot);
        insert(into, into->count, slot);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    begin();
    while (input.size > 0) {
        unsigned step = (unsigned)fuzz_take(&input, 1) % 16;
        uint32_t number = (uint32_t)fuzz_take(&input, 1);
        row *list;
        if (step < 6 || live() == 0) {
            add(&input);
        } else if (step == 15 && number < 8) {
            begin();
        } else if (step == 15) {
            rebuild(capacity, number);
        } else {
            list = list_of(&number);
            if (step < 9)
                drop(list, number);
            else if (step < 12)
                replace(list, number, some_hash(&input));
            else
                move(list, number, lists + fuzz_take(&input, 1) % ENDS, (uint32_t)fuzz_take(&input, 1) % MOST);
        }
        check();
        check_hash(some_hash(&input));
    }
    return 0;
}
