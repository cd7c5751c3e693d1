/* slots.h step by step, with known results. */
#include "fuzz.h"
#include "slots.h"

enum { CELLS = 8, LAST = CELLS - 1 };

static hg_table table;
static hg_node records[CELLS];

#define STRIDE sizeof(hg_node)

/* Enters a slot under a hash whose home is this cell; the hashes of slots differ. */
static void enter_at(uint32_t home, uint32_t slot)
{
    records[slot].hash = (int64_t)slot << 32;
    while (hg_table_home(&table, records[slot].hash) != home)
        records[slot].hash++;
    hg_table_enter(&table, records[slot].hash, slot);
}

static void check_cells(uint32_t first, uint32_t second, uint32_t third, uint32_t last)
{
    CHECK(table.cells[0] == first && table.cells[1] == second && table.cells[2] == third);
    CHECK(table.cells[LAST] == last);
}

static void test_sizes(void)
{
    CHECK(hg_table_size(0) == 4 && hg_table_size(4) == 4 && hg_table_size(5) == 8);
    CHECK(hg_table_size(UINT64_C(1) << 31) == UINT64_C(1) << 31);
    CHECK(hg_table_size((UINT64_C(1) << 31) + 1) == UINT64_C(1) << 32);
    CHECK(hg_table_size(UINT64_MAX) == UINT64_C(1) << 32);
    CHECK(hg_table_allocate(UINT64_MAX) == NULL);
}

static void test_new_cells_have_another_secret(void)
{
    hg_secret old = table.secret;
    uint64_t version = table.version;
    hg_table_adopt(&table, hg_table_allocate(CELLS), CELLS);
    CHECK(table.mask == CELLS - 1 && table.version > version && hg_table_filled(&table) == 0);
    CHECK(table.secret.a != old.a && table.secret.b != old.b);
}

/* A run that continues from the last cell in the first; a slot in its home stays there. */
static void test_removal_shifts_back_across_the_end(void)
{
    hg_table_clear(&table);
    enter_at(LAST, 1);
    enter_at(LAST, 2);
    enter_at(1, 3);
    enter_at(LAST, 4);
    check_cells(2, 3, 4, 1);
    CHECK(hg_table_probes(&table, records, STRIDE) == 1 + 2 + 1 + 4);
    hg_table_leave(&table, records, STRIDE, 1);
    check_cells(4, 3, 0, 2);
    CHECK(!hg_table_has(&table, records[1].hash, 1) && hg_table_has(&table, records[4].hash, 4));
    hg_table_leave(&table, records, STRIDE, 2);
    check_cells(0, 3, 0, 4);
    CHECK(hg_table_filled(&table) == 2);
}

static void test_probe_passes_other_hashes(void)
{
    uint32_t at;
    hg_table_clear(&table);
    enter_at(LAST, 1);
    enter_at(LAST, 2);
    at = hg_table_probe(&table, records, STRIDE, records[2].hash, LAST);
    CHECK(at == 0 && table.cells[at] == 2);
    at = hg_table_probe(&table, records, STRIDE, records[2].hash, hg_table_next(&table, at));
    CHECK(at == 1 && table.cells[at] == 0);
}

/* A probe that has called `__eq__` relies on it. */
static void test_every_edit_has_its_version(void)
{
    uint64_t version = table.version;
    hg_table_clear(&table);
    CHECK(table.version > version);
    version = table.version;
    enter_at(0, 1);
    CHECK(table.version > version);
    version = table.version;
    hg_table_set(&table, 3, 1);
    CHECK(table.version > version);
    version = table.version;
    hg_table_leave(&table, records, STRIDE, 1);
    CHECK(table.version > version);
    version = table.version;
    hg_table_shrink(&table);
    CHECK(table.version > version && table.mask == 0 && table.cells[0] == 0);
}

static void test_list(void)
{
    records[0].prev = records[0].next = 0;
    hg_list_append(records, STRIDE, 0, 1);
    hg_list_append(records, STRIDE, 0, 2);
    hg_list_insert(records, STRIDE, 1, 3, 2);
    CHECK(records[0].next == 1 && records[1].next == 3 && records[3].next == 2 && records[2].next == 0);
    CHECK(records[0].prev == 2 && records[2].prev == 3 && records[3].prev == 1 && records[1].prev == 0);
    hg_list_remove(records, STRIDE, 1);
    hg_list_remove(records, STRIDE, 2);
    CHECK(records[0].next == 3 && records[0].prev == 3 && records[3].next == 0 && records[3].prev == 0);
    hg_list_remove(records, STRIDE, 3);
    CHECK(records[0].next == 0 && records[0].prev == 0);
}

static void test_chain(void)
{
    uint32_t first = 0;
    hg_chain_push(records, STRIDE, &first, 1);
    hg_chain_push(records, STRIDE, &first, 2);
    CHECK(hg_chain_pop(records, STRIDE, &first) == 2 && hg_chain_pop(records, STRIDE, &first) == 1);
    CHECK(hg_chain_pop(records, STRIDE, &first) == 0 && hg_chain_pop(records, STRIDE, &first) == 0);
}

int main(void)
{
    hg_seed_secrets("sixteen bytes...");
    test_sizes();
    test_new_cells_have_another_secret();
    test_removal_shifts_back_across_the_end();
    test_probe_passes_other_hashes();
    test_every_edit_has_its_version();
    test_list();
    test_chain();
    free(table.cells);
    return 0;
}
