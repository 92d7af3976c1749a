/* table.c - output as tables: cells to the right, heads in the middle. */
#include "cli.h"

#define COLUMNS_MAX 16u

static void rule(const size_t *width, size_t columns)
{
    for (size_t i = 0; i < columns; i++) {
        (void)putchar('+');
        for (size_t k = 0; k < width[i] + 2; k++)
            (void)putchar('-');
    }
    (void)puts("+");
}

/* Columns on a terminal: code points, not bytes. */
static size_t width_of(const char *s)
{
    size_t n = 0;

    for (; *s != '\0'; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

void ctl_table(const char *const *cells, size_t columns, size_t rows)
{
    size_t width[COLUMNS_MAX] = {0};

    BNS_ASSERT(columns <= COLUMNS_MAX);
    for (size_t i = 0; i < columns * rows; i++) {
        size_t w = width_of(cells[i]);

        if (w > width[i % columns])
            width[i % columns] = w;
    }
    rule(width, columns);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < columns; i++) {
            const char *cell = cells[r * columns + i];
            size_t gap = width[i] - width_of(cell), left = r == 0 ? gap / 2 : gap;

            (void)printf("| %*s%s%*s ", (int)left, "", cell, (int)(gap - left), "");
        }
        (void)puts("|");
        if (r == 0)
            rule(width, columns);
    }
    rule(width, columns);
}
