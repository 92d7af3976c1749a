/* console_page.c - the pages, built into the executable as they stand in the tree.
 *
 * The assembler reads the files; CMake makes this object depend on them.
 */
#include "bonsai/console.h"

#define EMBED(name, file)                                                                          \
    __asm__(".section .rodata\n"                                                                   \
            ".global " #name "_begin\n"                                                            \
            ".global " #name "_end\n" #name "_begin:\n"                                            \
            ".incbin \"" BONSAI_PAGES "/" file "\"\n" #name "_end:\n"                              \
            ".previous\n");                                                                        \
    extern const uint8_t name##_begin[], name##_end[]

EMBED(bonsai_console_html, "console.html");
EMBED(bonsai_trace_view_html, "trace_view.html");

struct bns_slice bonsai_console_page(void)
{
    return bns_slice(bonsai_console_html_begin,
                     (size_t)(bonsai_console_html_end - bonsai_console_html_begin));
}

struct bns_slice bonsai_trace_view_page(void)
{
    return bns_slice(bonsai_trace_view_html_begin,
                     (size_t)(bonsai_trace_view_html_end - bonsai_trace_view_html_begin));
}
