/* What systems have under names of their own. Paths are UTF-8 everywhere; a function that fails sets errno. */
#ifndef RNNX_PLATFORM_H
#define RNNX_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum rx_kind { RX_FILE, RX_FOLDER, RX_OTHER } rx_kind;

/* What lies at a path, links followed. */
bool rx_path_look(const char *path, rx_kind *kind, uint64_t *size);
/* The path without links and dots, with '/' between folders; the caller frees it. */
char *rx_path_real(const char *path);
/* How much of a path names its folder, the last separator included; 0 for none. */
size_t rx_path_folder(const char *path);
FILE *rx_path_read(const char *path);
/* The path as ONNX Runtime takes it here; the caller frees it. */
void *rx_path_native(const char *path);

/* A shared library, never let go of. NULL, and why in `problem`, if there is none. */
void *rx_library_open(const char *path, char *problem, size_t size);
void *rx_library_symbol(void *library, const char *name);

void rx_environment_default(const char *name, const char *value); /* unless it is set already */
void *rx_aligned_take(size_t alignment, size_t size);             /* `size` is a multiple of `alignment` */
void rx_aligned_free(void *taken);
double rx_to_double(const char *text); /* with a point for a point, whatever the program's locale says */

#endif
